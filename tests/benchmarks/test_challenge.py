"""The challenge's two parts: their items, where the files may lie, the multi-label form."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.challenge import hallucination
from benchmarks.challenge.factuality import ChallengeFactuality
from benchmarks.challenge.hallucination import ChallengeHallucination
from harness.api import DataError
from helpers.standins import (
    CHALLENGE_FACTUALITY,
    CHALLENGE_HALLUCINATION,
    answers,
    claim,
)


def test_challenge_items_are_multiple_choice(tmp_path: Path) -> None:
    benchmark = ChallengeHallucination(CHALLENGE_HALLUCINATION.write(tmp_path))
    examples = list(benchmark.load("train"))
    assert [e.gold for e in examples] == [0, 1, 2, 3, 0, 1, 2, 3]
    third = examples[2]
    assert (third.id, third.group, third.category) == ("train-3", "2.jpg", "hallucination")
    assert third.options == ("No hallucination", "blue wire shelf", "two lamps", "a rug")
    assert "Caption: A room with a blue wire shelf" in third.prompt()
    assert examples[0].category == "none"
    assert [len(list(benchmark.load(split))) for split in ("validation", "test")] == [2, 1]


def test_challenge_parts_one_by_one(tmp_path: Path) -> None:
    """Of eight captions two have no hallucination (all parts No), six have one wrong part of three."""
    folder = CHALLENGE_HALLUCINATION.write(tmp_path)
    benchmark = ChallengeHallucination(folder, form="per_option")
    examples = list(benchmark.load("train"))
    assert len(examples) == 8 * 3
    assert Counter(e.options[e.gold] for e in examples) == {"Yes": 6, "No": 18}
    assert examples[3].question == "Is this part of the caption hallucinated: blue wire shelf?"
    assert examples[3].gold == 0  # the second caption's right choice is B
    right = [True] * 24
    right[4] = right[5] = False  # both in the second caption
    scorer = benchmark.protocols()["per_caption"]
    assert scorer(answers(examples, right)) == {"exact_match": 7 / 8}
    assert ChallengeHallucination(folder).protocols() == {}
    with pytest.raises(DataError, match="no answers"):
        hallucination.per_caption([])


def test_several_hallucinated_parts_need_the_multi_label_form(tmp_path: Path) -> None:
    answer = {"correct_choice": ["B", "D"], "correct_answer": ["blue wire shelf", "a rug"]}
    row = {**CHALLENGE_HALLUCINATION.rows[1], **answer}
    folder = CHALLENGE_HALLUCINATION.write(tmp_path, json.dumps([row]).encode())
    with pytest.raises(DataError, match=r"train\.json: item 1: correct_choice names 2 options.*form=per_option"):
        list(ChallengeHallucination(folder).load("train"))
    assert [e.gold for e in ChallengeHallucination(folder, form="per_option").load("train")] == [0, 1, 0]


def test_challenge_verdicts(tmp_path: Path) -> None:
    """Bare texts or truth values as choices, in any order, and items in the site's wrapper."""
    turned = CHALLENGE_FACTUALITY.rows[1] | {
        "choices": ["Not Verifiable", True, False, "partially true"],
        "correct_choice": "B",
    }
    turned |= {"correct_answer": True}
    folder = CHALLENGE_FACTUALITY.write(tmp_path, json.dumps([{"metadata": turned}]).encode())
    example = next(iter(ChallengeFactuality(folder).load("test")))
    assert (example.options, example.gold) == (("True", "False", "Partially True", "Not Verifiable"), 0)
    assert (example.category, example.context) == ("True", "It was built in 1910.")


@pytest.mark.parametrize("depth", ["root", "task", "flat"])
def test_where_the_challenges_files_may_lie(depth: str, tmp_path: Path) -> None:
    """The folder of both tasks; a task's own, its words apart; or all files in one folder."""
    folder = CHALLENGE_HALLUCINATION.write(tmp_path) / "HallucinationDetection"
    if depth == "flat":
        for file in (folder / "json").iterdir():
            file.rename(folder / file.name)
        (folder / "json").rmdir()
        (folder / "val.json").rename(folder / "validation.json")
    elif depth == "root":
        folder = folder.rename(tmp_path / "Hallucination Detection").parent
    benchmark = ChallengeHallucination(folder)
    assert [len(list(benchmark.load(split))) for split in benchmark.splits] == [8, 2, 1]
    assert all(e.load_image().size == (8, 8) for e in benchmark.load("train"))


def test_without_a_validation_file_images_are_drawn_for_it(tmp_path: Path) -> None:
    train_only = {"Fact Checking/json/train.json": [claim(number, "B") for number in range(34)]}
    benchmark = ChallengeFactuality(replace(CHALLENGE_FACTUALITY, others=train_only).write(tmp_path))
    train, validation = ({e.group for e in benchmark.load(split)} for split in ("train", "validation"))
    assert len(train) + len(validation) == 34
    assert train.isdisjoint(validation)
    assert validation
    assert train > validation or len(train) > len(validation)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"correct_answer": "two lamps"}, "correct_answer 'two lamps' is not the text of choice B, 'blue wire shelf'"),
        ({"correct_choice": "E"}, "correct_choice is 'E', expected one of 'A', 'B', 'C', 'D'"),
        ({"correct_choice": None}, "correct_choice is None, expected a letter, or several in a list"),
        ({"choices": []}, "choices is .., expected a list of 2 to 26 items"),
        ({"choices": ["a", "a"]}, "choices contains a text twice"),
        ({"image_id": "../1.jpg"}, "image is '../1.jpg', expected the name of a file inside"),
        ({"image_id": 3}, "image_id is 3, expected a text"),
    ],
)
def test_challenge_items_that_contradict_themselves(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    row = CHALLENGE_HALLUCINATION.rows[1] | change
    folder = CHALLENGE_HALLUCINATION.write(tmp_path, json.dumps([row]).encode())
    with pytest.raises(DataError, match=rf"train\.json: item 1: {says}"):
        list(ChallengeHallucination(folder).load("train"))
