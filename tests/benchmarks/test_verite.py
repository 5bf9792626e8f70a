"""VERITE from its published file, and its figures."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import verite
from benchmarks.verite import VERITE
from helpers.standins import (
    VERITE_,
    answers,
)


def test_the_real_verite(published: Callable[[str], Path]) -> None:
    folder = published("verite")
    examples = list(VERITE(folder).load("test"))
    assert Counter(e.category for e in examples) == {"true": 338, "miscaptioned": 338, "out-of-context": 325}
    assert len({e.image for e in examples}) == 663
    assert len({e.group for e in examples}) == 338
    rows = list(csv.DictReader((folder / "VERITE.csv").open(newline="")))
    assert [e.image for e in examples] == [folder / row["image_path"] for row in rows]
    assert all(e.options[e.gold].lower().replace(" ", "-") == e.category for e in examples)


def test_verite_figures(tmp_path: Path) -> None:
    """Nine pairs, a wrong answer on one true and one miscaptioned pair: 7/9; of true and OOC 5/6, and MC 4/6."""
    for form in ("three_way", "binary"):
        examples = list(VERITE(VERITE_.write(tmp_path), form=form).load("test"))  # type: ignore[arg-type]
        right = [True] * 9
        right[0] = right[4] = False
        assert verite.official(answers(examples, right)) == {
            "accuracy": 7 / 9,
            "true_vs_miscaptioned": 4 / 6,
            "true_vs_out_of_context": 5 / 6,
        }
    assert [e.options[e.gold] for e in examples[:3]] == ["Yes", "No", "No"]
