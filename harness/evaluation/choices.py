"""Free texts as options: the option that an answer concludes with, or none if that isn't clear.

What a model thinks before it answers (`<think>...</think>` and the like) doesn't count, finished or not. In what is
left, the first of these rules that applies decides:

1. The text is an option, ignoring case and punctuation.
2. It has conclusions: `<answer>B</answer>`, `\\boxed{B}`, "the answer is B", "Answer: B", "so it is B", or a line with
   nothing but a letter. The last one counts, and what it says is read alone.
3. Its first or last line begins with a letter: "B) text", "(b) text", "B, because ...". Lines with different letters
   are a list.
4. Exactly one option occurs in it as complete words, without a negation before it. The longest options are looked for
   first: "No hallucination" doesn't contain the option "No". "Yes, there is no dog" is Yes: its "no" answers nothing.

Control tokens ("B<|im_end|>", "</s>") and characters that nobody sees (byte order marks, marks of direction) are left
out first. Conclusions are also read in some other languages: "La respuesta es B", "答案是B。".

Several letters ("A, B", "A or B", "A. B. C.", the list of all options) are no answer, and neither is a letter with the
words of another option ("A. No" where A is Yes). This module imports neither torch nor ray.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from harness.stats.metrics import NO_ANSWER

READING = 3
"""The version of these rules. Imported answers are read again, as a new run, when it changes."""
LONGEST_LINE = 1000
"""How much of a line is looked at for a letter."""
MOST_MARKS = 200
"""How many marks of a conclusion are looked at, from the end."""

_TAGS = r"think|thinking|thought|thoughts|reasoning|analysis|reflection|seed:think"
_OPENED = re.compile(rf"<\s*(?:{_TAGS})\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSED = re.compile(rf"<\s*/\s*(?:{_TAGS})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)

_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    r"|<\|(?!begin_of_box|end_of_box)[\w-]{1,40}\|>|</?(?:s|eos|bos|pad|end_of_turn|start_of_turn|end_of_utterance)>"
)
"""Characters without a shape, and control tokens of chat templates that an answer file may hold."""
_CJK = "\u3040-\u30ff\u3400-\u9fff"
_BESIDE_CJK = re.compile(rf"(?<=[{_CJK}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{_CJK}])")
"""Where a Latin letter touches Chinese or Japanese: 答案是B选项."""

_DECORATION = r"[\s*_`\"'“”‘’(\[{<$#>]*"
_CLOSING = r"[\s*_`\"'“”‘’)\]}>$]*"
_BEFORE_LETTER = rf"{_DECORATION}(?:(?:the\s+)?(?:option|choice|letter|answer)s?\b\s*:?{_DECORATION})?"
_LIST = re.compile(
    rf"(?i){_CLOSING}(?:[,;/&+|]|\b(?:and|or|nor|then|but|maybe|perhaps|possibly|also|both|even|plus|as\s+well\s+as)\b|\s)+"
    rf"{_BEFORE_LETTER}(?P<next>[A-Z])(?![^\W_]|['’])"
)
_LETTER = re.compile(rf"(?i){_BEFORE_LETTER}(?P<letter>[A-Z])(?![^\W_]|['’-]\w)(?P<after>.*)", re.DOTALL)
_LETTER_ALONE = re.compile(rf"(?i){_DECORATION}(?P<letter>[A-Z])[\s*_`\"'“”‘’)\]}}>$.:,;!。、]*")
_SIGN = re.compile(r"[*_`]|[\s\"'“”‘’]*(?:[.:,;!)\]}>\-–—。、]|$)")
"""What ends a letter."""
_LETTERS = re.compile(r"(?:[\s.):]+[A-Z])+[\s.):]*")
"""What follows the first letter of "A. B. C. D."."""
_REASON = re.compile(
    r"(?i)[\s*_]*(?:because|since|as|for|due|which|given|based|is|would|seems|appears|with|in|です|である|选项|選項|[-–—(]|$)(?![^\W_])"
)
"""What may follow a letter without a sign between them: "B because ...". "A cup" begins with an article."""

_IS = r"(?:is|are|was|es|est|ist|é|è|would\s+be|must\s+be|should\s+be|has\s+to\s+be)"
_SURELY = r"(?:\s+(?:clearly|definitely|probably|(?:most\s+)?likely|obviously|simply|therefore|thus|indeed)(?!\w))?"
_ENDS = rf"(?:\s+{_IS}(?!\w){_SURELY}[\s*_]*[:=]?|[\s*_\"']*(?:[:=]|->|→|⇒|=>))"
_CUES = re.compile(
    rf"(?i)(?<![^\W_])(?:(?:answer|option|choice|response|verdict|conclusion|solution|selection|prediction|respuesta|réponse|resposta|risposta|antwort|ответ|(?:correct|right|best)\s+one)\b(?:[\s*_]+"
    rf"(?:to|for|of|here|in)\b[^\n.:?!]{{0,60}}?)?{_ENDS}|(?:answer|conclusion)[\s*_:]*\n"
    rf"|\b(?:i|we|i'd|i’d|i'll|i’ll)\s+(?:would\s+|will\s+|therefore\s+|thus\s+|must\s+|should\s+)?"
    rf"(?:choose|pick|select|go\s+with|answer(?:\s+with)?|conclude(?:\s+that)?(?:\s+it\s+is)?)\b\s*:?"
    rf"|(?:正解|答え|回答)は|答案\s*(?:应该|应)?\s*[是为選选]?\s*:?)"
)
_WEAK_CUES = re.compile(
    r"(?i)(?<![^\W_])(?:therefore|thus|hence|so|consequently|overall|actually|finally|in\s+conclusion|no,?\s+wait|wait)\b[,:]?"
    r"(?:\s+(?:it(?:['’]s|\s+is|\s+must\s+be)|that(?:['’]s|\s+is)|this\s+is|i(?:['’]ll|\s+will)?\s+say))?"
    r"|(?<![^\W_])it(?:['’]s|\s+is|\s+must\s+be)\b"
)
"""Words that lead to a conclusion only if a letter follows: "so B", but not "so the cup is green"."""
_TAGGED = re.compile(
    r"(?i)<\s*(?:final_?)?answer\s*>(?P<tag>.*?)(?:<\s*/\s*(?:final_?)?answer\s*>|$)"
    r"|<\|begin_of_box\|>(?P<glm>.*?)(?:<\|end_of_box\|>|$)"
    r"|\\f?boxed\s*\{(?P<box>(?:[^{}]|\{[^{}]*\})*)\}",
    re.DOTALL,
)
_MACRO = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf|mbox)\b\s*|[{}$\\]")
_UNREAL = re.compile(r"(?i)\b(?:if|whether|unless|suppose|assuming|had)\b[^.!?\n]*$")
_NOT = (
    r"(?:not|no|never|nor|neither|without|cannot|isn['’]t|aren['’]t|wasn['’]t|weren['’]t|can['’]t|doesn['’]t|don['’]t)"
)
_AFFIRMED = re.compile(r"(?is)\W*yes\b\s*[,.:;!–—-](?!.*\b(?:yes|(?:or|and|but)\s+no)\b)(?!.*\bno\b(?!\s+\w))")
_FILLER = r"(?:a|an|the|really|actually|quite|just|be|at all|necessarily)"


def read_choice(text: str, options: Sequence[str]) -> int:
    """The option that a free text names, or -1 if that isn't clear: see the module's rules."""
    if text in options:
        return tuple(options).index(text)
    said = _BESIDE_CJK.sub(" ", _plain(without_thoughts(text))).strip()
    names = [_words(_BESIDE_CJK.sub(" ", _plain(option))) for option in options]
    whole = _words(said)
    for k in _usable(names):
        if whole == names[k]:
            return k
    concluded = _concluded(said, names)
    if concluded is not None:
        return concluded
    began = _first_and_last(said, names)
    return _by_words(said, names) if began is None else began


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", text))


def without_thoughts(text: str) -> str:
    """The text without what was thought before the answer; a thought that doesn't end leaves nothing behind it."""
    ends = [closed.end() for closed in _CLOSED.finditer(text)]  # the prompt may have opened the first thought
    rest = text[ends[-1] :] if ends else text
    opened = _OPENED.search(rest)
    return rest[: opened.start()] if opened else rest


# --------------------------------------------------------------------------------------- conclusions


def _concluded(said: str, names: Sequence[str]) -> int | None:
    """What the last conclusion of the text says; -1 if it can't be read; None if there is no conclusion."""
    marks = [(m.start(), "tag", m) for m in _TAGGED.finditer(said)]
    marks += [(m.start(), "cue", m) for m in _CUES.finditer(said)]
    marks += [(m.start(), "weak", m) for m in _WEAK_CUES.finditer(said)]
    alone = _letters_alone(said, names)
    for start, kind, match in sorted(marks, key=lambda mark: mark[0])[: -MOST_MARKS - 1 : -1]:
        if alone and alone[-1][0] > start:
            break
        found = _marked(said, kind, match, names)
        if found is not None:
            return found
    return alone[-1][1] if alone else None


def _marked(said: str, kind: str, match: re.Match[str], names: Sequence[str]) -> int | None:
    """What follows a mark; None if it isn't a conclusion."""
    if kind == "tag":
        return _short(_MACRO.sub(" ", next(part for part in match.groups() if part is not None)).strip(), names)
    content = _until_line_end(said, match.end())
    if kind == "weak":
        unreal = _UNREAL.search(said[max(0, match.start() - 200) : match.start()])
        return None if unreal else _letter(content, names, only_alone=True)
    if _TAGGED.match(content.lstrip(" *_$:")) or re.match(rf"(?i)[\s*_]*{_NOT}\b", content):
        return None
    if _UNREAL.search(said[max(0, match.start() - 200) : match.start()]):
        return None
    asked = _LETTER_ALONE.match(content)
    return None if asked and content[asked.end() :].startswith("?") else _short(content, names)


def _until_line_end(said: str, start: int) -> str:
    """The rest of the line; if it has no words, the next line that has some."""
    for line in re.finditer(r"[^\n]+", said[start : start + LONGEST_LINE]):
        if re.search(r"\w", line[0]):
            return line[0]
    return ""


def _letters_alone(said: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """The lines with nothing but a letter. Different letters in lines that follow one another are a list: -1."""
    found: list[tuple[int, int]] = []
    run: list[tuple[int, int]] = []
    at = 0
    for line in [*said.split("\n"), "end."]:
        alone = _LETTER_ALONE.fullmatch(line)
        letter = ord(alone["letter"].upper()) - ord("A") if alone else -1
        if line.strip() and not 0 <= letter < len(names):
            if run:
                found.append((run[-1][0], run[0][1] if len({k for _, k in run}) == 1 else NO_ANSWER))
            run = []
        elif line.strip():
            run.append((at, letter))
        at += len(line) + 1
    return found


def _short(content: str, names: Sequence[str]) -> int:
    """What a statement says that is an answer and nothing else: an option, its letter, or a sentence that names it."""
    whole = _words(content)
    for k in _usable(names):
        if whole == names[k]:
            return k
    letter = _letter(content, names)
    return _by_words(content, names) if letter is None else letter


def _letter(content: str, names: Sequence[str], only_alone: bool = False) -> int | None:
    """The letter that a statement begins with; -1 if it begins with several, or contradicts itself; None: with none.

    `only_alone`: nothing but a sign may follow the letter.
    """
    match = _LETTER.match(" ".join(content.split()))
    if match is None:
        return None
    k, after = ord(match["letter"].upper()) - ord("A"), match["after"]
    rest = _words(after)
    listed = _LIST.match(after)
    if listed and _is_letter(listed, after, names):
        return NO_ANSWER if listed["next"].upper() != match["letter"].upper() else k
    if _LETTERS.fullmatch(after) and set(re.findall("[A-Z]", after)) != {match["letter"].upper()}:
        return NO_ANSWER
    signed = _SIGN.match(after) is not None
    small = match["letter"].islower()
    if k >= len(names):
        return NO_ANSWER if signed and (not rest or not small) and not _by_words_found(content, names) else None
    if rest and rest in names and names.count(rest) == 1:
        if names.index(rest) == k:
            return k
        return NO_ANSWER if signed else None  # "A. No" where A is Yes; "A dog" is an article
    if only_alone:
        return k if signed and (not rest or not small) and not (after.strip() and after.lstrip()[0] == ",") else None
    if signed or _REASON.match(after):
        return k
    return None


def _is_letter(listed: re.Match[str], after: str, names: Sequence[str]) -> bool:
    """Whether what follows is a further letter, not the article of "B, a blue cup" or the pronoun of "B, I think"."""
    if ord(listed["next"].upper()) - ord("A") >= len(names):
        return False
    tail = after[listed.end() :]
    article = listed["next"] in ("a", "A", "i", "I") and re.match(r"\s+\w", tail) and not _LIST.match(tail)
    return not article and (listed["next"].isupper() or not re.match(r"\s+\w", tail))


# --------------------------------------------------------------------------------- lines and words


def _first_and_last(said: str, names: Sequence[str]) -> int | None:
    """The letter that the first or last line begins with; -1 for different letters; None if there is none."""
    lines = [line[:LONGEST_LINE] for line in said.split("\n") if line.strip()]
    begun = {letter for line in lines if (letter := _line_letter(line, names)) is not None}
    ends = [letter for line in (*lines[:1], *lines[-1:]) if (letter := _line_letter(line, names)) is not None]
    if not ends:
        return None
    return ends[0] if len(begun) == 1 else NO_ANSWER


def _line_letter(line: str, names: Sequence[str]) -> int | None:
    letter = _letter(line, names)
    found = _LETTER.match(" ".join(line.split()))
    if letter is None or found is None:
        return None
    # "a, b" in a sentence: a small letter is an answer's only where a bracket, a full stop or a colon follows.
    if found["letter"].islower() and not re.match(r"[\s*_]*(?:[.:)\]]|$)", found["after"]):
        return NO_ANSWER if letter == NO_ANSWER else None
    signed = _SIGN.match(found["after"]) or re.match(r"(?i)\W*(?:option|choice)", line)
    return letter if signed or letter == NO_ANSWER or _words(found["after"]) == names[letter] else None


def _usable(names: Sequence[str]) -> list[int]:
    """The options whose words are those of no other option."""
    return [k for k, name in enumerate(names) if name and names.count(name) == 1]


def _by_words(said: str, names: Sequence[str]) -> int:
    """The one option that occurs as complete words, and isn't denied."""
    if sorted(names) == ["no", "yes"] and _AFFIRMED.match(said):
        return names.index("yes")
    found = _by_words_found(said, names)
    return found[0] if len(found) == 1 else NO_ANSWER


def _by_words_found(said: str, names: Sequence[str]) -> list[int]:
    """The options that occur as complete words; -1 for one that is denied."""
    rest, found = f" {_words(said)} ", []
    for k in sorted(_usable(names), key=lambda k: -len(names[k])):
        if f" {names[k]} " in rest:
            denied = re.search(rf" {_NOT} (?:{_FILLER} )?{re.escape(names[k])} ", rest)
            found.append(NO_ANSWER if denied else k)
            rest = rest.replace(f" {names[k]} ", "  ")
    return found


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold()))
