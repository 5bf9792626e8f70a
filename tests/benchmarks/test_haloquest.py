"""HaloQuest from its published file, contradicting rows, and its training file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.haloquest import HaloQuest
from harness.api import DataError
from helpers.standins import (
    HALOQUEST,
    encoded,
)


def test_the_real_haloquest(published: Callable[[str], Path]) -> None:
    """588 of 608 rows: labels and references of the others contradict each other."""
    folder = published("haloquest")
    examples = list(HaloQuest(folder).load("test"))
    assert Counter((e.category, e.options[e.gold]) for e in examples) == {
        ("false premises", "It can't be answered"): 302,
        ("insufficient context", "It can't be answered"): 121,
        ("visual challenge", "It can be answered"): 165,
    }
    rows = {row[""]: row for row in csv.DictReader((folder / "haloquest-eval.csv").open(newline=""))}
    assert len(rows) == 608
    left_out = [row for number, row in rows.items() if f"eval-{number}" not in {e.id for e in examples}]
    assert sum(row["hallucination type"] == "visual challenge" for row in left_out) == 18
    moon = next(row for row in left_out if "moon" in row["question"])
    assert moon["groundtruth responses"].startswith("There is no moon in this picture.")


def test_a_contradicting_row_is_left_out(tmp_path: Path) -> None:
    examples = list(HaloQuest(HALOQUEST.write(tmp_path)).load("test"))
    assert [e.gold for e in examples] == [1, 0, 1, 0]  # the fifth row is a visual challenge that nobody can answer
    assert "Question: What colour is the hat of person 0?" in examples[0].prompt()


def test_haloquests_training_file(tmp_path: Path) -> None:
    rows = [HALOQUEST.rows[1] | {"": str(n), "image_name": f"{n}.png", "split": "train"} for n in range(60)]
    folder = HALOQUEST.write(tmp_path)
    (folder / "haloquest-train.csv").write_bytes(encoded("csv", rows))
    benchmark = HaloQuest(folder, train=True)
    groups = {split: {e.group for e in benchmark.load(split)} for split in benchmark.splits}
    assert len(groups["train"] | groups["validation"]) == 55  # 0.png to 4.png are in the evaluation file
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])


@pytest.mark.parametrize("empty", ["", " "])
def test_a_row_without_an_image_name_is_named_by_its_url(empty: str, tmp_path: Path) -> None:
    """As 18 rows of the published training file: the same picture has its name in other rows."""
    urls = ["https://x.org/5114/ab-1.png", "https://x.org/a%20b+(1).png", "https://x.org/0.png"]
    rows = [HALOQUEST.rows[1] | {"": str(n), "image_name": empty, "url": url} for n, url in enumerate(urls)]
    folder = HALOQUEST.write(tmp_path)
    (folder / "haloquest-train.csv").write_bytes(encoded("csv", rows))
    benchmark = HaloQuest(folder, train=True)
    found = [e for split in ("train", "validation") for e in benchmark.load(split)]
    assert {(e.group, e.image) for e in found} == {  # 0.png is in the evaluation file
        (name, folder / "images" / name) for name in ("ab-1.png", "a b (1).png")
    }
    (folder / "haloquest-train.csv").write_bytes(encoded("csv", [rows[0] | {"url": "https://x.org/"}]))
    with pytest.raises(DataError, match=r"train\.csv: item 1: image is ''"):
        list(benchmark.load("train"))
