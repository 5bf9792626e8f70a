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


def test_m_hal_detect_in_its_published_layout(tmp_path: Path) -> None:
    """As published: the sign for the picture before the question, gaps between segments, the last without its stop.

    SOURCE of the layout: the published sample of image 292123, as a public loader of val_raw.json repeats it, with its
    keys and ends; the words are made up here.
    """
    said = ("A red kite is over the sand.", "Two dogs run after it.", "The sea is green.", "All of it looks peaceful")
    labels = ("ACCURATE", "INACCURATE", "UNSURE", "ANALYSIS")
    starts = (0, 29, 52, 70)
    sample = {
        "question": "<image>\nCompose a comprehensive description of the image...",
        "response": " ".join(said) + ".",
        "image": "COCO_val2014_000000292123.jpg",
        "annotations": [
            {"start": at, "end": at + len(text), "text": text, "label": label}
            for at, text, label in zip(starts, said, labels, strict=True)
        ],
    }
    for name in ("val_raw.json", "train_raw.json"):
        (tmp_path / name).write_text(json.dumps([sample]))
    examples = list(MHalDetect(tmp_path, form="ternary").load("test"))
    assert [(e.id, e.claim, e.gold) for e in examples] == [
        ("val-0-0", said[0], 0), ("val-0-1", said[1], 1), ("val-0-3", said[3], 2)
    ]  # fmt: skip
    assert examples[2].context == " ".join(said[:3])
    assert examples[0].image == tmp_path / "val2014" / "COCO_val2014_000000292123.jpg"
    assert examples[0].question.endswith("in answer to: Compose a comprehensive description of the image...")
    assert list(MHalDetect(tmp_path).load("train")) == []  # its only image is one of the test's


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
