"""NaturalBench: four examples a sample, its figures, how it reads a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import naturalbench
from benchmarks.naturalbench import NaturalBench
from harness.api import Answer, DataError
from helpers.standins import (
    NATURALBENCH,
    answers,
    encoded,
)


def test_a_sample_makes_four_examples(tmp_path: Path) -> None:
    examples = list(NaturalBench(NATURALBENCH.write(tmp_path)).load("test"))
    assert [e.id for e in examples[:4]] == ["0-q0-i0", "0-q0-i1", "0-q1-i0", "0-q1-i1"]
    assert [e.options[e.gold] for e in examples[:4]] == ["Yes", "No", "No", "Yes"]
    assert [e.load_image().getpixel((0, 0)) for e in examples[:4]] == [
        (0, 100, 200),
        (1, 100, 200),
        (0, 100, 200),
        (1, 100, 200),
    ]
    assert (examples[8].question, examples[8].options) == ("What is it?", ("A dog.", "A cat."))
    assert [e.gold for e in examples[8:]] == [0, 1, 1, 0]


def test_the_older_name_of_naturalbenchs_type(tmp_path: Path) -> None:
    rows = [{"Question Type" if key == "Question_Type" else key: v for key, v in NATURALBENCH.rows[2].items()}]
    examples = NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test")
    assert [e.category for e in examples] == ["multiple_choice"] * 4


def test_options_that_cannot_be_told_apart_stay_in_the_question(tmp_path: Path) -> None:
    rows = [dict(NATURALBENCH.rows[2], Question_0="Which of both, A or B?")]
    example = next(iter(NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test")))
    assert (example.question, example.options) == ("Which of both, A or B?", ("A", "B"))


def test_naturalbench_figures(tmp_path: Path) -> None:
    """Three samples: all right; one of four wrong; both answers about the second image wrong.

    acc 9/12; questions 2 + 1 + 0 of 6; images 2 + 1 + 1 of 6; samples 1 of 3.
    """
    examples = list(NaturalBench(NATURALBENCH.write(tmp_path)).load("test"))
    right = [True, True, True, True, True, False, True, True, True, False, True, False]
    figures = naturalbench.official(answers(examples, right))
    assert figures == pytest.approx({"acc": 9 / 12, "q_acc": 3 / 6, "i_acc": 4 / 6, "g_acc": 1 / 3})
    part = naturalbench.official(answers(examples[:3], [True, False, True]))  # one image's second question is missing
    assert part == pytest.approx({"acc": 2 / 3, "q_acc": 0.0, "i_acc": 1.0})


@pytest.mark.parametrize(
    ("category", "text", "said"),
    [
        ("yes_no", "Yes.", 0),
        ("yes_no", "no, yes", 1),
        ("yes_no", "I know nothing", None),
        ("multiple_choice", "(B)", 1),
        ("multiple_choice", "It is a B", 0),  # the article counts as A, as in the original
        ("multiple_choice", "Cat", None),
    ],
)
def test_how_naturalbench_reads_a_text(category: str, text: str, said: int | None) -> None:
    assert naturalbench.read(Answer("x", "g", category, ("Yes", "No"), 0, -1, text)) == said


def test_a_question_with_one_answer_for_both_images(tmp_path: Path) -> None:
    rows = [dict(NATURALBENCH.rows[0], Image_1_Question_0="Yes")]
    with pytest.raises(DataError, match="item 1: Question_0 has one answer for both images"):
        list(NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test"))
