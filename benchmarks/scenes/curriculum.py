"""What the tiny ladder learns before the benchmarks: many kinds of short questions about one picture.

`Curriculum.lesson(index, progress)` is pure data: a picture, the words that each cell of its grid shows (for
aligning image tokens with words), and questions as (topic, prompt, one-word answer). Prompts end in `?` or in
`Answer:`. The longer ones have the layout of the benchmarks, but change the words where the benchmarks change
the picture. The seeds are separate, so no lesson repeats a benchmark's picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from benchmarks.scenes import world
from benchmarks.scenes.claims import NAMES, falsified, named_claim, naming, random_fact
from benchmarks.scenes.facts import (
    Exactly,
    Exists,
    Fact,
    Has,
    Kindred,
    Relates,
    described,
    relations,
    said_of,
    true_exactly,
    true_exists,
    true_has,
    true_relates,
)
from benchmarks.scenes.world import COLOURS, COLUMNS, KINDS, NUMBERS, RELATIONS, ROWS, SIZES, Scene, Thing

LETTERS = "ABCD"
Question = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture, `cells` = (cell, its words), and (topic, prompt, answer) triples."""

    image: Callable[[], Image.Image]
    cells: tuple[tuple[int, tuple[str, ...]], ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Curriculum:
    """The questions in a seeded order: short checks first, later more and more in the benchmarks' layout."""

    seed: int = 0

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The word groups for a cell's token, which shows one word of each: colour, kind, size, row, column."""
        return COLOURS, KINDS, SIZES, ROWS, COLUMNS

    def words(self) -> tuple[str, ...]:
        """Every word of the scenes and benchmarks, lower case: each one is a single token."""
        plural = [Kindred(kind=k).words(plural=True) for k in range(len(KINDS))]
        names = [name.lower() for name in NAMES]
        return (*COLOURS, *KINDS, *plural, *SIZES, *ROWS, *COLUMNS, *NUMBERS, *names, *_OTHER_WORDS.split())

    def lesson(self, index: int, progress: float) -> Lesson:
        """The lesson number `index`; `progress` (0 to 1) is the progress of the pretraining."""
        rng = world.stream("lessons", self.seed, index)
        scene = world.make_scene(rng, fewest=3, most=10)
        cells = tuple(
            (cell, (COLOURS[t.colour], KINDS[t.kind], SIZES[t.size], ROWS[t.row], COLUMNS[t.column]))
            for cell, t in world.cells(scene)
        )
        if progress < 0.12:
            questions = [_ask(rng, scene, _FIRST) for _ in range(16)]
        else:
            long = 0 if progress < 0.3 else 2 if progress < 0.4 else 5
            short = _PLACES if progress < 0.3 else _SHORT
            questions = [_ask(rng, scene, short) for _ in range(16 - 2 * long)]
            questions += [_ask(rng, scene, _LONG) for _ in range(long)]
            rng.shuffle(questions)
        return Lesson(scene, cells, tuple(questions))


# ------------------------------------------------------------------------------------ short questions


def _topic(fact: Fact) -> str:
    return "place" if isinstance(fact, Has) and fact.attribute in ("row", "column") else type(fact).__name__.lower()


def _claim(rng: random.Random, scene: Scene) -> tuple[Fact, bool] | None:
    """A fact and whether it is true: half of them are."""
    fact = random_fact(rng, scene)
    if fact is None or rng.random() < 0.5:
        return None if fact is None else (fact, True)
    wrong = falsified(rng, scene, fact)
    return None if wrong is None else (wrong, False)


def _check(rng: random.Random, scene: Scene) -> Question | None:
    claim = _claim(rng, scene)
    if claim is None:
        return None
    text = claim[0].words()
    if isinstance(claim[0], Relates) and rng.random() < 0.3:
        # The first thing in its own sentence: an easier step on the way.
        text = text.replace(" is ", "? it is ")
    return f"check {_topic(claim[0])}", f"{text}?", "true" if claim[1] else "false"


def _simple_check(rng: random.Random, scene: Scene) -> Question | None:
    """Only what a single thing shows: its existence, colour, size, kind."""
    fact: Fact = true_exists(rng, scene, sized=0.2)
    if rng.random() < 0.5:
        return f"check {_topic(fact)}", f"{fact.words()}?", "true"
    wrong = falsified(rng, scene, fact)
    return None if wrong is None else (f"check {_topic(fact)}", f"{wrong.words()}?", "false")


def _property(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring row?` top; `the red thing kind?` ring."""
    fact = true_has(rng, scene)
    if fact is None:
        return None
    values = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "row": ROWS, "column": COLUMNS}[fact.attribute]
    return f"what {fact.attribute}", f"the {fact.what.words()} {fact.attribute}?", values[fact.value]


def _at(rng: random.Random, scene: Scene) -> Question:
    """`top row second column kind?` ring."""
    thing = rng.choice(scene.things)
    name, values = rng.choice((("kind", KINDS), ("colour", COLOURS), ("size", SIZES)))
    return "at", f"{ROWS[thing.row]} row {COLUMNS[thing.column]} column {name}?", values[getattr(thing, name)]


def _compare(rng: random.Random, scene: Scene) -> Question:
    """`second column is left of fourth column?` true: the meaning of the relations, without the picture."""
    (one, relation, other), truth = _side(rng, None)
    return "compare", f"{one} is {relation} {other}?", truth


def _beside(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring is above the lower row?` true: half of a relation between two things."""
    thing = rng.choice(scene.things)
    if (what := described(rng, scene, thing)) is None:
        return None
    (_, relation, other), truth = _side(rng, thing)
    return "beside", f"the {what.words()} is {relation} the {other}?", truth


def _side(rng: random.Random, thing: Thing | None) -> tuple[tuple[str, str, str], str]:
    """A row or column (the thing's, or any), a relation and another one; and whether it is true: half of them are."""
    names, noun, forward, backward = rng.choice(
        ((COLUMNS, "column", "left of", "right of"), (ROWS, "row", "above", "below"))
    )
    at = rng.randrange(world.GRID) if thing is None else getattr(thing, noun)
    other = rng.randrange(world.GRID)
    true = [relation for relation, holds in ((forward, at < other), (backward, at > other)) if holds]
    false = [relation for relation in (forward, backward) if relation not in true]
    relation = rng.choice(true if true and rng.random() < 0.6 else false)
    said = f"{names[at]} {noun}", relation, f"{names[other]} {noun}"
    return said, "true" if relation in true else "false"


def _relates(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring is left of the blue star?`, half of them in two sentences."""
    fact: Fact | None = true_relates(rng, scene)
    answer = "true"
    if fact is not None and rng.random() < 0.5:
        fact, answer = falsified(rng, scene, fact), "false"
    if fact is None:
        return None
    text = fact.words()
    return "check relates", f"{text.replace(' is ', '? it is ') if rng.random() < 0.5 else text}?", answer


def _count(rng: random.Random, scene: Scene) -> Question:
    """`how many red things?` two."""
    fact = true_exactly(rng, scene)
    return "count", f"how many {fact.what.words(plural=True)}?", NUMBERS[fact.count]


def _named_check(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug is small?` true."""
    named = named_claim(rng, scene)
    return None if named is None else (_named_topic(named), f"{named[0]} {named[1]}?", named[2].split()[-1].lower())


def _named_property(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug row?` top: what a name stands for, and where."""
    fact = true_has(rng, scene)
    if fact is None:
        return None
    values = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "row": ROWS, "column": COLUMNS}[fact.attribute]
    name, said = _with_name(rng, scene, fact.what)
    return "named what", f"{said} {name} {fact.attribute}?", values[fact.value]


def _named_beside(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug is above the lower row?` true: half of a relation of a named thing."""
    thing = rng.choice(scene.things)
    if (what := described(rng, scene, thing)) is None:
        return None
    (_, relation, other), truth = _side(rng, thing)
    name, said = _with_name(rng, scene, what)
    return "named beside", f"{said} {name} is {relation} the {other}?", truth


def _named_relates(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Dax is the blue star. Wug is above Dax?` false; sometimes only one of them has a name."""
    fact: Fact | None = true_relates(rng, scene)
    answer = "true"
    if fact is not None and rng.random() < 0.5:
        fact, answer = falsified(rng, scene, fact), "false"
    if not isinstance(fact, Relates):
        return None
    one, two = rng.sample(NAMES, 2)
    named = [(one, fact.what), (two, fact.other)]
    said = [one, two]
    if (alone := rng.random()) < 0.4:
        keep = 0 if alone < 0.2 else 1
        said[1 - keep] = f"the {named[1 - keep][1].words()}"
        named = [named[keep]]
    rng.shuffle(named)
    return "named relates", f"{naming(rng, named)} {said[0]} is {fact.relation} {said[1]}?", answer


def _with_name(rng: random.Random, scene: Scene, what: Kindred) -> tuple[str, str]:
    """A name for a thing, and the context that gives it; often another thing has a name, too."""
    name, other = rng.sample(NAMES, 2)
    named = [(name, what)]
    if rng.random() < 0.6 and (extra := described(rng, scene, rng.choice(scene.things))) not in (None, what):
        assert extra is not None
        named.append((other, extra))
    rng.shuffle(named)
    return name, naming(rng, named)


def _named_topic(named: tuple[str, str, str]) -> str:
    return "named relates" if any(relation in named[1] for relation in RELATIONS) else "named"


# ------------------------------------------------------------- questions in the layout of the benchmarks


def _letters(rng: random.Random, options: Sequence[str], gold: str) -> tuple[str, str]:
    """The lettered options, half the time in a random order, and the letter of the right one."""
    shuffled = rng.sample(options, len(options)) if rng.random() < 0.5 else list(options)
    lines = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, shuffled, strict=False))
    return f"{lines}\nAnswer:", LETTERS[shuffled.index(gold)]


def _claim_letter(rng: random.Random, scene: Scene) -> Question | None:
    claim = _claim(rng, scene)
    if claim is None:
        return None
    options, letter = _letters(rng, ("True", "False"), str(claim[1]))
    return f"letter {_topic(claim[0])}", f"Is it true?\nClaim: {claim[0].words()}.{options}", letter


def _claim_word(rng: random.Random, scene: Scene) -> Question | None:
    """The layout without options: `true` or `false` as a word."""
    claim = _claim(rng, scene)
    if claim is None:
        return None
    return f"word {_topic(claim[0])}", f"Is it true?\nClaim: {claim[0].words()}.\nAnswer:", str(claim[1]).lower()


def _which(rng: random.Random, scene: Scene) -> Question | None:
    """Which of two to four phrases is true, or false."""
    wanted = rng.random() < 0.5
    facts = [random_fact(rng, scene) for _ in range(rng.randint(2, 4))]
    odd = facts[0] if facts[0] is None or wanted else falsified(rng, scene, facts[0])
    rest = [f if f is None or not wanted else falsified(rng, scene, f) for f in facts[1:]]
    phrases = [None if f is None else f.words() for f in (odd, *rest)]
    known = [p for p in phrases if p is not None]
    if len(set(known)) < len(phrases):
        return None
    options, letter = _letters(rng, rng.sample(known, len(known)), known[0])
    return "letter which", f"Which is {'true' if wanted else 'false'}?{options}", letter


def _named_letter(rng: random.Random, scene: Scene) -> Question | None:
    named = named_claim(rng, scene)
    if named is None:
        return None
    options, letter = _letters(rng, ("True", "False", "Not Verifiable"), named[2])
    return f"letter {_named_topic(named)}", f"Is it true?\nContext: {named[0]}\nClaim: {named[1]}.{options}", letter


def _caption(rng: random.Random, scene: Scene) -> Question | None:
    """A caption of two to four phrases of which one may be wrong; two or three of them are options, besides none."""
    options = rng.choice((2, 3, 3))
    facts = [random_fact(rng, scene, simple=0.7) for _ in range(options + rng.randrange(2))]
    gold = rng.randrange(options + 1)
    phrases = []
    for k, fact in enumerate(facts, start=1):
        said = falsified(rng, scene, fact) if fact is not None and k == gold else fact
        if said is None:
            return None
        phrases.append(said.words())
    if len(set(phrases)) < len(phrases):
        return None
    order = rng.sample(range(options), options)
    lines = "".join(f"\n{letter}. {phrases[k]}" for letter, k in zip("BCD", order, strict=False))
    letter = "A" if gold == 0 else "BCD"[order.index(gold - 1)]
    said_all = " ".join(f"{'' if p.startswith('the') else 'There is '}{p}." for p in rng.sample(phrases, len(phrases)))
    return "letter caption", f"Which phrase is wrong?\nCaption: {said_all}\nA. No hallucination{lines}\nAnswer:", letter


def _both(rng: random.Random, scene: Scene) -> Question | None:
    """Two named things, two statements: both true, neither, one, or one thing isn't there."""
    one, two = rng.sample(scene.things, 2)
    first, second = described(rng, scene, one), described(rng, scene, two)
    if first is None or second is None:
        return None
    facts: list[Fact] = [_has(rng, one, first), _has(rng, two, second)]
    if (draw := rng.random()) < 0.4:
        facts[0] = Relates(first, rng.choice(relations(one, two)), second)
        if draw < 0.15:
            facts[1] = true_exactly(rng, scene)
    verdict = rng.choice(("True", "False", "Partially True", "Not Verifiable"))
    wrong = {"False": (0, 1), "Partially True": (rng.randrange(2),)}.get(verdict, ())
    for k in wrong:
        if (false := falsified(rng, scene, facts[k])) is None:
            return None
        facts[k] = false
    names = rng.sample(NAMES, 2)
    named = [(names[0], first), (names[1], second)]
    parts = [_said(fact, dict(zip((first, second), names, strict=True))) for fact in facts]
    if verdict == "Not Verifiable":
        thing = rng.choice(scene.things)
        absent = falsified(rng, scene, Exists(Kindred(thing.colour, thing.kind)))
        if absent is None:
            return None
        at = rng.randrange(2)
        named[at] = (named[at][0], absent.what)
    rng.shuffle(parts)
    rng.shuffle(named)
    options, letter = _letters(rng, ("True", "False", "Partially True", "Not Verifiable"), verdict)
    context, claim = naming(rng, named), rng.choice((" and ", " while ")).join(parts)
    return (
        "letter both",
        f"Is the claim true?\nContext: {context}\nClaim: {claim}.{options}",
        letter,
    )


def _has(rng: random.Random, thing: Thing, what: Kindred) -> Has:
    name = rng.choice(said_of(what))
    return Has(what, name, getattr(thing, name))


def _said(fact: Fact, names: Mapping[Kindred, str]) -> str:
    match fact:
        case Relates(what, relation, other):
            return f"{names[what]} is {relation} {names[other]}"
        case Has(what):
            return f"{names[what]} {fact.predicate()}"
        case _:
            assert isinstance(fact, Exactly)
            return f"there {'is' if fact.count == 1 else 'are'} {fact.words()}"


_Maker = Callable[[random.Random, Scene], Question | None]
_FIRST: tuple[tuple[_Maker, float], ...] = ((_simple_check, 0.3), (_property, 0.4), (_at, 0.15), (_compare, 0.15))
_PLACES: tuple[tuple[_Maker, float], ...] = (
    (_check, 0.15),
    (_property, 0.15),
    (_compare, 0.05),
    (_beside, 0.15),
    (_relates, 0.15),
    (_count, 0.05),
    (_named_property, 0.12),
    (_named_beside, 0.12),
    (_named_relates, 0.06),
)
_SHORT: tuple[tuple[_Maker, float], ...] = (
    (_check, 0.3),
    (_property, 0.08),
    (_at, 0.02),
    (_beside, 0.05),
    (_relates, 0.1),
    (_count, 0.1),
    (_named_property, 0.05),
    (_named_beside, 0.1),
    (_named_relates, 0.15),
    (_named_check, 0.05),
)
_LONG: tuple[tuple[_Maker, float], ...] = (
    (_claim_word, 0.05),
    (_claim_letter, 0.05),
    (_which, 0.1),
    (_named_letter, 0.1),
    (_caption, 0.4),
    (_both, 0.3),
)


def _ask(rng: random.Random, scene: Scene, makers: Sequence[tuple[_Maker, float]]) -> Question:
    """A question of a random kind that fits this scene; as a fallback, what is at a position."""
    for _ in range(8):
        (maker,) = rng.choices([m for m, _ in makers], [w for _, w in makers])
        if (question := maker(rng, scene)) is not None:
            return question
    return _at(rng, scene)


_OTHER_WORDS = """
a an the is are of there it true false partially not verifiable which what how many kind colour size row column
left right above below in thing things and called we call context claim caption answer no hallucination picture
shows image you can see here also with one next to lies besides contains has seen something wrong part does fit
holds at all this drawing stands while both find
"""
