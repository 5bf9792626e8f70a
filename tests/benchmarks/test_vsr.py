"""VSR: splits that share no image and no sentence, unless the published ones are asked for; checked as they are set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.coco.vsr import VSR, by_relation
from helpers.common import Cli
from helpers.standins import VSR_, answers


def relation(image: int, caption: str, label: int = 1) -> dict[str, Any]:
    return {"image": f"{image}.jpg", "caption": caption, "label": label, "relation": "behind"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Train has the image of a test example, the sentence of another, and the image of a dev example."""
    rows = {
        "train": [relation(0, "A cat."), relation(9, "A dog."), relation(5, "A cow."), relation(6, "A pig.", 0)],
        "dev": [relation(5, "A hen."), relation(4, "a  dog")],
        "test": [relation(0, "An ox."), relation(1, "a dog", 0)],
    }
    for part, some in rows.items():
        path = tmp_path / "splits" / "random" / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return tmp_path


def test_no_image_and_no_sentence_is_in_two_splits(small: Path) -> None:
    found = {split: [e.claim for e in VSR(small).load(split)] for split in VSR.splits}
    assert found == {"train": ["A pig."], "validation": ["A hen."], "test": ["An ox.", "a dog"]}
    kept = VSR(small, overlap="published")
    assert [len(list(kept.load(split))) for split in kept.splits] == [4, 2, 2]
    assert [e.gold for e in kept.load("test")] == [0, 1]


def test_leaks_are_told_without_images_and_with_settings(cli: Cli, small: Path) -> None:
    """What wasn't looked at is never called ok."""
    published = ["--set", "benchmark_settings.overlap=published", "--data-dir", small]
    said = cli("check-benchmark", "vsr", *published, "--json")
    leaks = [f for f in said.json if f["check"] == "leaks"]
    assert [f["level"] for f in leaks] == ["warn"] * 4
    assert "1 examples of test have a text of train (of 2)" in leaks[1]["text"]
    assert "6 of 6 images were not compared: they are missing" in leaks[-1]["text"]
    alone = [f for f in cli("check-benchmark", "vsr", "--data-dir", small, "--json").json if f["check"] == "leaks"]
    assert [(f["level"], f["text"]) for f in alone] == [("warn", "4 of 4 images were not compared: they are missing")]
    text = cli("leaks", "--benchmark", "vsr", "--texts", *published).out
    assert "vsr/test (2 examples) shares with vsr/train: 1 text" in text
    assert "not for: image, both, near_image" in text
    text = cli("leaks", "--benchmark", "vsr", "--texts", "--data-dir", small).out
    assert "3 of 3 pairs of splits share nothing" in text


def test_describe_counts_what_is_set(cli: Cli, small: Path) -> None:
    one = cli("describe", "vsr", "--data-dir", small, "--json").json
    other = cli("describe", "vsr", "--data-dir", small, "--set", "benchmark_settings.overlap=published", "--json").json
    assert one["sizes"] == {"train": 1, "validation": 1, "test": 2}
    assert other["sizes"] == {"train": 4, "validation": 2, "test": 2}
    assert cli("describe", "vsr", "--set", "benchmark_settings.overlap=published", "--json").json["sizes"] == {}
    for args, says in (
        (["vsr", "--set", "benchmark_settings.overlap=all"], "setting overlap = 'all'"),
        (["vsr", "--set", "train.lr=1"], "no model is run here"),
        (["finetune", "--data-dir", small], "'finetune' is no benchmark"),
    ):
        said = cli("describe", *args)
        assert said.code == 2
        assert says in said.err


def test_settings_of_several_benchmarks_are_named(cli: Cli, small: Path, pope: Path) -> None:
    both = ["leaks", "--benchmark", "vsr", "--benchmark", "pope", "--texts"]
    folders = ["--data-dir", f"vsr={small}", "--data-dir", f"pope={pope}"]
    said = cli(*both, *folders, "--set", "benchmark_settings.vsr.overlap=published")
    assert said.code == 0, said.err
    assert "shares with vsr/train: 1 text" in said.out
    said = cli(*both, *folders, "--set", "benchmark_settings.overlap=published")
    assert said.code == 2
    assert "expected --set benchmark_settings.NAME.KEY=VALUE with a NAME among vsr, pope" in said.err


def test_one_split_has_nothing_to_compare(cli: Cli, pope: Path) -> None:
    said = cli("check-benchmark", "pope", "--data-dir", pope, "--json").json
    assert [f["level"] for f in said if f["check"] == "leaks"] in ([], ["warn"])
    text = cli("leaks", "--benchmark", "pope", "--texts", "--data-dir", pope).out
    assert text == "one split: there is nothing to compare; name a second benchmark, or settings with more splits\n"


def test_accuracy_by_relation(tmp_path: Path) -> None:
    examples = list(VSR(VSR_.write(tmp_path)).load("test"))
    assert by_relation(answers(examples, [True, True, True, False])) == {"all": 0.75, "behind": 0.75}
