"""MHaluBench: claims and segments, its figures, and training claims on other images."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import mhalubench
from benchmarks.mhalubench import MHaluBench
from harness.api import ConfigError, DataError
from helpers.standins import (
    MHALUBENCH,
    answers,
)


def test_claims_and_segments(tmp_path: Path) -> None:
    folder = MHALUBENCH.write(tmp_path)
    claims = list(MHaluBench(folder).load("test"))
    assert (len(claims), Counter(e.gold for e in claims)) == (15, {0: 5, 1: 10})
    assert (claims[2].id, claims[2].claim) == ("val-1-1-1", "The cat weighs 0 kilograms.")
    assert claims[-1].image == folder / "data" / "text-to-image" / "4.jpg"
    assert (claims[-1].category, claims[-1].group) == ("text-to-image", "4.jpg")
    segments = list(MHaluBench(folder, level="segment").load("test"))
    assert [(e.claim, e.gold) for e in segments[:2]] == [
        ("A cat sleeps.", 1),
        ("It is red and weighs 0 kilograms.", 0),
    ]
    with pytest.raises(DataError, match=r"MHaluBench_val-v0\.2\.json: does not exist"):
        list(MHaluBench(folder, version="v0.2").load("test"))


def test_mhalubench_figures(tmp_path: Path) -> None:
    """Of nine claims on images three are wrong; all said to be right but one of the three: 7/9, F1 1/2 and 6/7."""
    examples = list(MHaluBench(MHALUBENCH.write(tmp_path)).load("test"))
    right = [e.gold != 0 for e in examples]
    right[2] = True
    figures = mhalubench.official(answers(examples, right))
    assert figures["image-to-text/accuracy"] == pytest.approx(7 / 9)
    assert figures["image-to-text/precision"] == pytest.approx((1 + 6 / 8) / 2)
    assert figures["image-to-text/recall"] == pytest.approx((1 / 3 + 1) / 2)
    assert figures["image-to-text/f1_score"] == pytest.approx((1 / 2 + 6 / 7) / 2)
    assert figures["text-to-image/f1_score"] == pytest.approx((0 + 4 / 5) / 2)


def test_training_claims_leave_the_benchmarks_images_out(tmp_path: Path) -> None:
    rows = [
        {
            "id": n,
            "image_path": f"/TextVQA/{n}.jpg",  # 0 to 4 are the benchmark's
            "claim_list": ["one", "two"],
            "ref_claim_label": ["hallucination", "non-hallucination"],
        }
        for n in range(60)
    ]
    folder = MHALUBENCH.write(tmp_path)
    (folder / "MHaluBench_train.json").write_text(json.dumps(rows))
    benchmark = MHaluBench(folder, train=True)
    groups = {split: {e.group for e in benchmark.load(split)} for split in benchmark.splits}
    assert list(groups) == ["train", "validation", "test"]
    assert len(groups["train"] | groups["validation"]) == 55
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])
    assert MHaluBench(folder).splits == ("test",)
    with pytest.raises(ConfigError, match="train = true goes with level = 'claim'"):
        MHaluBench(folder, level="segment", train=True)
    (folder / "MHaluBench_train.json").write_text(json.dumps([rows[7] | {"ref_claim_label": ["hallucination"]}]))
    with pytest.raises(DataError, match=r"MHaluBench_train\.json: item 1: ref_claim_label .* a list of 2 to 2 items"):
        list(benchmark.load("train"))
