"""SugarCrepe from its published files, and its figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import sugar_crepe
from benchmarks.sugar_crepe import SugarCrepe
from harness.api import Answer
from helpers.standins import (
    SUGAR_CREPE,
    encoded,
)


def test_the_real_sugar_crepe(published: Callable[[str], Path]) -> None:
    folder = published("sugar_crepe")
    examples = list(SugarCrepe(folder).load("test"))
    assert len(examples) == SugarCrepe.published["test"] == 7511
    assert Counter(e.category for e in examples)["replace_rel"] == 1406
    # The right caption is at either place about as often: 3 standard deviations of a fair coin are 1.7 points.
    assert abs(sum(e.gold for e in examples) / 7511 - 0.5) < 0.017
    for part in sugar_crepe.PARTS:
        rows = json.loads((folder / f"{part}.json").read_text())
        of_part = [e for e in examples if e.category == part]
        assert [e.options[e.gold] for e in of_part] == [" ".join(r["caption"].split()) for r in rows.values()]
        assert [e.options[1 - e.gold] for e in of_part] == [
            " ".join(r["negative_caption"].split()) for r in rows.values()
        ]


def test_the_order_of_a_pair_is_its_ids_alone(tmp_path: Path) -> None:
    folder = SUGAR_CREPE.write(tmp_path)
    first = list(SUGAR_CREPE.make(folder).load("test"))
    assert first == list(SUGAR_CREPE.make(folder).load("test"))
    folder = SUGAR_CREPE.write(tmp_path, encoded("table", SUGAR_CREPE.rows[:3]))
    assert list(SUGAR_CREPE.make(folder).load("test")) == first[:3]


def test_sugar_crepe_figures() -> None:
    def answer(part: str, right: bool) -> Answer:
        return Answer("x", "g", part, ("a", "b"), 0, 0 if right else 1, "a" if right else "b")

    parts = [("swap_obj", True), ("swap_att", True), ("swap_att", False), ("add_obj", False)]
    assert sugar_crepe.official([answer(*part) for part in parts]) == {
        "swap_obj": 1.0,
        "swap_att": 0.5,
        "add_obj": 0.0,
        "swap_mean": 0.75,
        "add_mean": 0.0,
    }
