"""POPE's other files, POPEv2, VALSE and M-HalDetect in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coco.mhal_detect import MHalDetect, segments
from benchmarks.coco.pope_v2 import POPEv2, pairs
from benchmarks.coco.valse import VALSE, pairwise
from benchmarks.pope import POPE
from harness.api import DataError
from helpers.standins import MHAL_DETECT, POPE_GQA, POPE_V2, VALSE_, answers


@pytest.mark.parametrize("images", ["gqa", "aokvqa"])
def test_popes_other_images(images: str, tmp_path: Path) -> None:
    """The questions are arrays; by default COCO's are read, and the others' aren't taken for them."""
    POPE_GQA.write(tmp_path)
    folder = tmp_path / "output" / "seem"
    if images == "aokvqa":
        (folder / "aokvqa").mkdir()
        (folder / "gqa" / "gqa_pope_seem_random.json").rename(folder / "aokvqa" / "aokvqa_pope_seem_random.json")
    examples = list(POPE(tmp_path, variant="random", images=images).load("test"))  # type: ignore[arg-type]
    assert [e.id for e in examples] == [f"random/{n}" for n in range(1, 6)]
    with pytest.raises(DataError, match=r"coco_pope_random\.json: does not exist"):
        list(POPE(tmp_path, variant="random").load("test"))


def test_pope_v2_asks_the_same_of_an_image_and_its_edit(tmp_path: Path) -> None:
    examples = list(POPEv2(POPE_V2.write(tmp_path)).load("test"))
    assert [(e.id, e.category, e.gold) for e in examples[:2]] == [
        ("7/edited", "edited", 1),
        ("7/original", "original", 0),
    ]
    figures = pairs(answers(examples, [True, True, True, False]))
    assert (figures["both_right"], figures["accuracy"]) == (0.5, 0.75)


def test_valse_uses_the_valid_pairs(tmp_path: Path) -> None:
    folder = VALSE_.write(tmp_path)
    examples = list(VALSE(folder, parts=("existence",)).load("test"))
    assert len(examples) == 4  # one annotator of three chose the fifth pair's caption
    for e in examples:
        assert e.options[e.known_gold] in {f"There are {n} people in the picture." for n in range(4)}
    assert pairwise(answers(examples, [True, False, True, True])) == {"existence": 0.75, "mean": 0.75}
    beside = folder / "images"
    for picture in list((beside / "visual7w").iterdir()):  # all images in one folder
        picture.rename(beside / picture.name)
    (beside / "visual7w").rmdir()
    assert all(e.load_image() for e in VALSE(folder, parts=("existence",)).load("test"))


def test_passages_of_a_description(tmp_path: Path) -> None:
    folder = MHAL_DETECT.write(tmp_path)
    examples = list(MHalDetect(folder).load("test"))
    assert [(e.claim, e.context, e.gold) for e in examples[:2]] == [
        ("There are 0 cats.", "", 0),
        ("They sleep on a red sofa.", "There are 0 cats.", 1),
    ]
    assert len(list(MHalDetect(folder, form="ternary").load("test"))) == 9
    groups = {split: {e.group for e in MHalDetect(folder).load(split)} for split in MHalDetect.splits}
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])
    assert len(groups["train"] | groups["validation"]) == 3  # another sample is about a test image
    assert segments(answers(examples, [True] * 5 + [False]))["accuracy"] == 5 / 6


def test_samples_that_contradict_themselves_or_have_no_image(tmp_path: Path) -> None:
    folder = MHAL_DETECT.write(tmp_path)
    path = folder / "val_raw.json"
    rows = json.loads(path.read_text())
    rows[0]["image"], rows[1]["image"] = "", 77
    path.write_text(json.dumps(rows))
    assert {e.group for e in MHalDetect(folder).load("test")} == {
        "COCO_val2014_000000000077.jpg",
        "COCO_val2014_000000000002.jpg",
    }
    rows[2]["annotations"][1]["text"] = "They sit on a red sofa."
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"item 3: segment 2: its text isn't the response from 17 to 43"):
        list(MHalDetect(folder).load("test"))
