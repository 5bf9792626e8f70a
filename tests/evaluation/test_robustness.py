"""Robustness: what the variants change, what the figures count, and a whole run of the verb."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness.api import Example
from harness.data import corruptions
from harness.evaluation import robustness
from harness.evaluation.robustness import CLEAN, figures, variants
from harness.store import Store
from helpers.common import Cli


def picture() -> Image.Image:
    """A ramp with a black square."""
    pixels = np.tile(np.linspace(60, 220, 80).astype(np.uint8)[:, None, None], (1, 100, 3))
    pixels[20:40, 30:60] = 0
    return Image.fromarray(pixels)


def example(id_: str = "e0", options: int = 3, gold: int = 1, **fields: object) -> Example:
    letters = tuple("xyzw"[:options])
    made = Example(id_, id_, picture, "Is it so?", "It is.", letters, gold, "c", "toy")
    return replace(made, **fields)  # type: ignore[arg-type]


def apart(one: Image.Image, two: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(two, dtype=float)).mean())


# ---------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("damage", corruptions.STRENGTHS)
def test_damage_grows_with_its_level_and_is_the_same_every_time(damage: corruptions.Damage) -> None:
    made = [corruptions.damaged(example(), damage, level) for level in corruptions.LEVELS]
    images = [e.load_image() for e in made]
    assert [i.size for i in images] == [(100, 80)] * 3
    by_level = [apart(i, picture()) for i in images]
    assert 0 < by_level[0] < by_level[1] < by_level[2]
    again = pickle.loads(pickle.dumps(made[1])).load_image()
    assert (np.asarray(again) == np.asarray(images[1])).all()
    if damage in ("noise", "occlusion"):  # these are drawn: another example gets another draw
        other = corruptions.damaged(example("e1"), damage, 2).load_image()
        assert (np.asarray(other) != np.asarray(images[1])).any()


def test_occlusion_covers_the_stated_share() -> None:
    for level, share in zip(corruptions.LEVELS, (0.05, 0.15, 0.30), strict=True):
        white = example(image=lambda: Image.new("RGB", (100, 80), "white"))
        covered = np.asarray(corruptions.damaged(white, "occlusion", level).load_image()) == 128
        assert covered.all(-1).mean() == pytest.approx(share, abs=0.01)


def test_noise_has_the_stated_deviation() -> None:
    plain = example(image=lambda: Image.new("RGB", (100, 80), (128, 128, 128)))
    for level, deviation in zip(corruptions.LEVELS, (10, 25, 50), strict=True):
        noise = np.asarray(corruptions.damaged(plain, "noise", level).load_image(), dtype=float) - 128
        assert noise.std() == pytest.approx(deviation, rel=0.05)


def test_the_variants() -> None:
    """Three options have two other orders, two have one: the second is asked of the first example only."""
    given = [example("e0", 3, 1), example("e1", 2, 0, claim_label="Caption")]
    made = {v.name: v for v in variants(given, seed=0)}
    damage = [f"{name}_{level}" for name in ("noise", "blur", "jpeg", "occlusion") for level in (1, 2, 3)]
    words = [f"paraphrase_{k}" for k in (1, 2, 3)]
    assert list(made) == [CLEAN, "order_1", "order_2", *words, *damage, "no_image", "other_image"]
    first, second = made["order_1"].examples
    assert (first.options, first.gold, made["order_1"].orders) == (("y", "z", "x"), 0, [(1, 2, 0), (1, 0)])
    assert (second.options, second.gold) == (("y", "x"), 1)
    assert [e.id for e in made["order_2"].examples] == ["e0"]
    prompts = [made[f"paraphrase_{k}"].examples[1].prompt() for k in (1, 2, 3)]
    assert [p.splitlines()[0] for p in prompts] == [
        "Please look carefully, then answer: Is it so?",
        "Is it so? Pick one.",
        "Question: Is it so?",
    ]
    assert ["Caption: It is." in p for p in prompts] == [True, True, False]
    assert "Description: It is." in prompts[2]
    for variant in made.values():
        assert all(e.options[e.gold] == {"e0": "y", "e1": "x"}[e.id] for e in variant.examples)


def test_the_forms_are_not_those_that_methods_train_with() -> None:
    from harness.data.augmentation import PARAPHRASES

    assert not set(PARAPHRASES) & set(robustness.PARAPHRASES)


def test_answers_are_numbered_as_in_the_original() -> None:
    """Shown in the order z x y, letter A chosen: z, which is number 2."""
    row = {"gold": 1, "chosen": 0, "scores": [0.5, 0.3, 0.2]}
    assert robustness._as_original(row, (2, 0, 1)) == {"gold": 0, "chosen": 2, "scores": [0.3, 0.2, 0.5]}


# ----------------------------------------------------------------------------------------- figures


def answers(chosen: list[int], ids: str = "abcd", gold: int = 0) -> pd.DataFrame:
    scores = [[0.0 if k == c else -1.0 for k in range(2)] for c in chosen]
    ids_ = list(ids[: len(chosen)])
    return pd.DataFrame({"id": ids_, "group": ids_, "category": "c", "gold": gold, "chosen": chosen, "scores": scores})


def test_figures_by_hand() -> None:
    """Four questions, gold 0. Clean: a, b, c right. In the other order a, c right, d too, but d was wrong."""
    frames = {
        CLEAN: answers([0, 0, 0, 1]),
        "order_1": answers([0, 1, 0, 0]),
        "paraphrase_1": answers([0, 0, 0, 1]),
        "noise_1": answers([0, 1, 1, 1]),
        "blur_1": answers([0, 0, 0, 0]),
    }
    found = figures(frames, ["x", "y"], "test", resamples=100)
    assert list(found) == ["test", "test/order_1", "test/paraphrase_1", "test/noise_1", "test/blur_1"]
    value = {name: interval.value for name, interval in found["test"].items()}
    assert (value["accuracy"], value["order_consistency"], value["order_right"]) == (3 / 4, 2 / 4, 2 / 4)
    assert (value["paraphrase_consistency"], value["paraphrase_right"], value["paraphrase_alpha"]) == (1, 3 / 4, 1)
    assert value["damaged_accuracy"] == (1 / 4 + 1) / 2
    assert value["parse_failures"] == 0
    # Krippendorff: 2 of 4 pairs differ; of 8 answers 6 are 0: expected (64 - 36 - 4) / 7; observed 2 * 2.
    assert value["order_alpha"] == pytest.approx(1 - 4 / (24 / 7))
    noise = {name: interval.value for name, interval in found["test/noise_1"].items()}
    assert (noise["accuracy"], noise["change"], noise["same_answer"]) == (1 / 4, -2 / 4, 2 / 4)
    assert found["test/noise_1"]["change"].low is not None


def test_an_example_without_another_order_does_not_count() -> None:
    frames = {CLEAN: answers([0, 1, 0]), "order_1": answers([0, 1]), "order_2": answers([1])}
    value = figures(frames, ["x", "y"], "test", resamples=100)["test"]
    assert value["order_consistency"].value == 1 / 2  # of a and b; c has no other order
    assert value["order_right"].value == 0


def test_a_text_that_cannot_be_read_is_a_failure() -> None:
    value = figures({CLEAN: answers([0, -1]), "noise_1": answers([-1, -1])}, ["x", "y"], "test", 100)["test"]
    assert value["parse_failures"].value == 3 / 4


# ---------------------------------------------------------------------------------------- the verb


def test_robustness_of_a_run(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    run = cli("run", *toy_run, "--store", tmp_path, "--set", "save_student=true", "--json").json
    said = cli("robustness", run["run_id"][:-3], "--store", tmp_path, "--limit", "9", "--json")
    assert said.code == 0
    made = said.json
    assert (made["kind"], made["run_id"]) == ("robustness", f"robustness-test-9-{run['run_id']}")
    assert "score noise_1" in said.err
    # As they are, 2 other orders, 3 paraphrases, 12 kinds of damage, no image, another's image.
    assert made["cost"]["test_forwards"] == 9 * 20
    store = Store(tmp_path)
    own = store.predictions(run["run_id"], "test")
    asked = store.predictions(made["run_id"])
    again = asked[asked["split"] == "test"]
    assert (
        again["chosen"].tolist() == own["chosen"].tolist()[:9]
    )  # the student that was kept is the one that was scored
    frames = {name.removeprefix("test/"): part for name, part in asked.groupby("split")}
    frames[CLEAN] = frames.pop("test")
    recomputed = figures(frames, None, "test")
    for name, values in recomputed.items():
        for figure, interval in values.items():
            assert interval.value == pytest.approx(made["metrics"][name][figure]["value"]), (name, figure)
    grey = asked[asked["split"] == "test/no_image"]
    assert (
        len({tuple(s.round(4)) for s in grey["scores"]}) == 3
    )  # the toy's three orders of options are all that is left

    table = cli("robustness", run["run_id"], "--store", tmp_path, "--limit", "9")  # from the store this time
    assert table.code == 0
    assert "score" not in table.err
    assert "other_image" in table.out
    assert "order_consistency" in table.out
    methods = [row["method"] for row in cli("rank", "--store", tmp_path, "--json").json["rows"]]
    assert sorted(methods) == ["finetune", "majority", "random"]
    assert cli("show", made["run_id"], "--store", tmp_path).code == 0
    assert cli("robustness", made["run_id"], "--store", tmp_path).code == 2
    assert "has no split 'ood'" in cli("robustness", run["run_id"], "--store", tmp_path, "--split", "ood").err


def test_a_run_without_its_student(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    run = cli("run", *toy_run, "--store", tmp_path, "--json").json
    said = cli("robustness", run["run_id"], "--store", tmp_path)
    assert said.code == 2
    assert "has no saved student: run it again in another store with --set save_student=true" in said.err
    majority = next(id_ for id_ in Store(tmp_path).ids() if id_.startswith("control-majority"))
    assert "is a control, not a run" in cli("robustness", majority, "--store", tmp_path).err
