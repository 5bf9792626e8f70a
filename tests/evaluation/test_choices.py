"""Free texts as options: the last conclusion counts, thoughts don't, and several letters are no answer."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.evaluation.choices import read_choice, without_thoughts

OPTIONS = ("a red ball", "a blue cup", "a dog", "No hallucination")
ENDINGS = (
    "Answer: {}",
    "**Answer:** {}",
    "**Final Answer: {}**",
    "### Answer\n{}",
    "answer: ({})",
    "The answer is {}.",
    "The correct option is {}, as the picture shows.",
    "So the final answer is:\n\n{}",
    "<answer>{}</answer>",
    "<answer>\n{}\n</answer>",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    "<|begin_of_box|>{}<|end_of_box|>",
    '{{"answer": "{}"}}',
    "I would choose {}.",
    "答案：{}",
    "\n{}",
    "\n**{}**",
    "\n({}).",
)
"""How texts end that conclude with a letter."""
THOUGHTS = ("<think>", "</think>"), ("<Thinking>", "</Thinking>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")
before = st.text(st.characters(codec="utf-8", exclude_characters="<[◁"), max_size=200)
letters = st.sampled_from(range(4))
endings = st.sampled_from(ENDINGS)


@given(before, letters, endings)
def test_the_last_conclusion_counts(text: str, k: int, ending: str) -> None:
    """Whatever was written before: other letters, options, and conclusions."""
    assume(not text.rstrip().lower().endswith(("not", "n't")))
    assert read_choice(f"{text}.\n\nDone.\n{ending.format(ascii_uppercase[k])}", OPTIONS) == k


@given(letters, letters, endings, endings)
def test_a_later_conclusion_replaces_an_earlier_one(first: int, last: int, one: str, other: str) -> None:
    text = f"{one.format(ascii_uppercase[first])}\nBut let me look again at the picture.\n"
    assert read_choice(text + other.format(ascii_uppercase[last]), OPTIONS) == last


@given(st.text(max_size=100), st.sampled_from(THOUGHTS), letters, st.sampled_from((*ENDINGS, "{}", "{}) it is")))
def test_thoughts_do_not_count(thought: str, tags: tuple[str, str], k: int, ending: str) -> None:
    assume(without_thoughts(thought) == thought)
    opened, closed = tags
    for start in (opened, ""):  # the prompt may end with the opening tag
        text = f"{start}{thought} The answer is A. {OPTIONS[2]}{closed}\n\n{ending.format(ascii_uppercase[k])}"
        assert read_choice(text, OPTIONS) == k
    assert read_choice(f"{opened}{thought} Answer: B", OPTIONS) == -1  # cut off while thinking


@given(
    st.lists(letters, min_size=2, max_size=4, unique=True),
    st.sampled_from((", ", ",", " and ", " or ", "/", " & ", "; ", " ", ", or ", "), (", "**, **")),
    st.sampled_from(("{}", "({})", "**{}**", "[{}]", *ENDINGS)),
)
def test_several_letters_are_no_answer(some: list[int], between: str, form: str) -> None:
    assert read_choice(form.format(between.join(ascii_uppercase[k] for k in some)), OPTIONS) == -1


@given(
    st.lists(letters, min_size=2, max_size=4, unique=True), st.sampled_from(("{}. {}", "{}) {}", "({}) {}", "{}: {}"))
)
def test_a_list_of_options_is_no_answer(some: list[int], form: str) -> None:
    assert read_choice("\n".join(form.format(ascii_uppercase[k], OPTIONS[k]) for k in some), OPTIONS) == -1


@given(letters, st.sampled_from(("{}. {}", "{}) {}", "({}) {}", "{}: {}", "**{}** {}", "{} - {}", "Answer: {}. {}")))
def test_a_letter_with_its_words(k: int, form: str) -> None:
    assert read_choice(form.format(ascii_uppercase[k], OPTIONS[k]), OPTIONS) == k
    assert read_choice(form.format(ascii_uppercase[k].lower(), OPTIONS[k]), OPTIONS) == k
    assert read_choice(form.format(ascii_uppercase[k], OPTIONS[k - 1]), OPTIONS) == -1  # it contradicts itself


@given(letters, endings)
def test_the_words_of_an_option_are_as_good_as_its_letter(k: int, ending: str) -> None:
    assume("{}" not in ending.strip("\n")[:2] and "({})" not in ending and "**{}**" not in ending)
    assert read_choice(f"The ball isn't red. {ending.format(OPTIONS[k])}", OPTIONS) == k


@given(st.text(), st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=6, unique=True))
def test_any_text_is_read_or_not(text: str, options: list[str]) -> None:
    assert -1 <= read_choice(text, options) < len(options)
    for k, option in enumerate(options):
        assert read_choice(option, options) == k


@pytest.mark.parametrize("text", ["B" + " " * 100_000 + "x", "Answer: " * 20_000, "A" + "*" * 50_000, "B\n" * 50_000])
@pytest.mark.timeout(20)
def test_long_texts_take_no_long_time(text: str) -> None:
    assert read_choice(text, OPTIONS) in (-1, 0, 1)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("The picture shows a green cup.\nAnswer: B", 1),
        ("I looked at each part.\n\nB", 1),
        ("The answer is B because the cup is green.", 1),
        ("The correct answer is b.", 1),
        ("The answer is A... wait, the answer is B.", 1),
        ("Is the answer A? No. The answer is B.", 1),
        ("If the answer is A, it would be red. So B.", 1),
        ("The answer is not A, so the answer is B", 1),
        ("B\nThe cup is green, not blue.", 1),
        ("B, because A is wrong", 1),
        ("Ｂ", 1),
        ("A\nB\nC\nD\n\nAnswer: B", 1),
        ("A dog", 2),
        ("The answer is a dog.", 2),
        ("A dog is wrong", 2),
        ("The answer is unclear.", -1),
        ("A, but maybe B", -1),
        ("Answer: A and B are both wrong", -1),
        ("A cat stands there.", -1),
        ("There isn't a dog.", -1),
        ("The answer is clearly B.", 1),
        ("A. B. C. D.", -1),
        ("(A) (B)", -1),
        ("B. A cup is blue.", 1),
        ("The answer is B, not A", 1),
        ("<|im_start|>assistant\nB<|im_end|>", 1),
        ("Answer: B</s>", 1),
        ("La respuesta es B", 1),
        ("Die Antwort ist B.", 1),
        ("La réponse est (B).", 1),
        ("Ответ: B", 1),
        ("Ответ: В", -1),  # a letter of another script
        ("答案是B。", 1),
        ("答案是B选项", 1),
        ("正解はBです", 1),
        ("It is B.", 1),
        ("The correct one is B", 1),
        ("I wonder whether it is A. It's B.", 1),
        ("One is a red ball, and one is a dog.", -1),
        ("AB", -1),
        ("ABCD", -1),
        ("E", -1),
    ],
)
def test_conclusions_of_a_question_with_four_options(text: str, chosen: int) -> None:
    assert read_choice(text, OPTIONS) == chosen


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Yes", 0),
        ("yes.", 0),
        (" **No** ", 1),
        ("A", 0),
        ("(b)", 1),
        ("b", 1),
        ("(B).", 1),
        ("B. No", 1),
        ("Answer: B", 1),
        ("The correct answer is (A).", 0),
        ("A dog stands there.", -1),
        ("No, there is no dog.", 1),
        ("Yes, there is no dog.", 0),
        ("Yes. No dog is there.", 0),
        ("Yes. No.", -1),
        ("Yes, but no", -1),
        ("Yes, no, yes", -1),
        ("No, yes", -1),
        ("Yes and no", -1),
        ("It is not", -1),
        ("not yes", -1),
        ("yesterday", -1),
        ("C", -1),
        ("", -1),
    ],
)
def test_a_text_is_read_as_an_option_where_that_is_plain(text: str, chosen: int) -> None:
    assert read_choice(text, ("Yes", "No")) == chosen


@given(letters, endings, st.sampled_from("\ufeff\u200b\u200e\u202a\u2060\u2068\xad"), st.integers(0, 9))
def test_characters_without_a_shape_do_not_count(k: int, ending: str, unseen: str, at: int) -> None:
    text = ending.format(ascii_uppercase[k])
    assert read_choice(text[:at] + unseen + text[at:] + unseen, OPTIONS) == k
    assert read_choice(OPTIONS[k][:at] + unseen + OPTIONS[k][at:], OPTIONS) == k


def test_longer_options_come_first() -> None:
    options = ("True", "False", "Partially True", "Not Verifiable")
    said = [
        "partially true",
        "It is partially true",
        "Not true",
        "not verifiable",
        "true or false",
        "True",
        "D) it can't be told",
    ]
    assert [read_choice(text, options) for text in said] == [2, 2, -1, 3, -1, 0, 3]
    assert read_choice("a b", ("a-b", "a b")) == 1
    assert read_choice("+", ("+", "-")) == 0


def test_a_denied_option_is_not_said() -> None:
    denied = ("It isn't true", "That is not really true", "never true", "The claim can't be true")
    assert [read_choice(text, ("True", "False")) for text in denied] == [-1] * 4
