"""The controls: what the model-free rows answer, runs without images, and what they say of a benchmark."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import provenance
from harness.api import Example
from harness.config import RunConfig
from harness.data import image_controls
from harness.errors import DataError, StoreError
from harness.evaluation import scoring
from harness.evaluation.controls import control_names, control_runs, flag, flags
from harness.execution.records import ensure_controls
from harness.leaderboard.leaderboard import table
from harness.planning import plan
from harness.record import Data, Interval, Provenance, Record
from harness.stats import inference
from harness.stats.inference import summarise
from harness.store import Store
from helpers.common import Cli

PROVENANCE = Provenance(package="0", code="c0de", started="2026-01-01T00:00:00Z", finished="2026-01-01T00:00:00Z")
DATA = Data(revision="1", fingerprint="0123456789abcdef", sizes={"train": 4, "test": 4}, options=["no", "yes"])


def examples(golds: list[int], options: int = 2) -> list[Example]:
    return [
        Example(f"e{k}", f"i{k}", b"", "Is it?", "It is.", tuple("abcd"[:options]), gold, "object", "toy")
        for k, gold in enumerate(golds)
    ]


def test_majority_of_train_not_of_test() -> None:
    splits = {"test": examples([0, 0, 0, 1])}
    (majority, answers), *_ = control_runs("toy", "factuality", [1, 1, 0], splits, DATA, PROVENANCE)
    assert answers["chosen"].tolist() == [1, 1, 1, 1]
    assert majority.metrics["test"]["accuracy"].value == 1 / 4
    # Label 0 is never chosen: F1 0. Label 1: 2 * 1 / (1 + 4).
    assert majority.metrics["test"]["macro_f1"].value == pytest.approx((0 + 2 / 5) / 2)
    # One added to each count: (1 + 1) and (2 + 1) of 5.
    assert np.exp(answers["scores"][0]).tolist() == pytest.approx([2 / 5, 3 / 5])


def test_the_first_of_equals_and_the_places_that_exist() -> None:
    """Train golds at places 0, 1, 3, 3: place 3; where there are two options only, the first of 0 and 1."""
    mixed = examples([0], options=4) + examples([1], options=2)
    data = DATA.model_copy(update={"options": None})
    (_, answers), *_ = control_runs("toy", "factuality", [0, 1, 3, 3], {"test": mixed}, data, PROVENANCE)
    assert answers["chosen"].tolist() == [3, 0]


def test_random_is_uniform_and_the_same_every_time() -> None:
    splits = {"test": examples([0] * 4000, options=4), "ood": examples([0] * 4000, options=4)}
    data = DATA.model_copy(update={"options": None})
    first, second = (control_runs("toy", "factuality", [0], splits, data, PROVENANCE)[1] for _ in range(2))
    assert first[0] == second[0]
    assert first[1]["chosen"].equals(second[1]["chosen"])
    counts = first[1].groupby("split")["chosen"].value_counts()
    assert counts.between(1000 - 110, 1000 + 110).all()  # 4 standard deviations of B(4000, 1/4)
    test, ood = (first[1].loc[first[1]["split"] == split, "chosen"].tolist() for split in splits)
    assert test != ood


def test_records_fit_the_store(tmp_path: Path) -> None:
    store, splits = Store(tmp_path), {"test": examples([0, 1])}
    for record, predictions in control_runs("toy", "factuality", [0], splits, DATA, PROVENANCE):
        store.write(record, predictions)
        assert store.read(record.run_id).model_copy(update={"seal": None}) == record
        assert (record.kind, record.status, record.parameters) == ("control", "done", 0)
    names = ("always_no", "always_yes", "majority", "random")
    assert store.ids() == [f"control-{name}-toy-0123456789ab" for name in names]


def test_constant_answers_to_two_options() -> None:
    splits = {"test": examples([0, 0, 0, 1])}
    runs = {r.method: (r, f) for r, f in control_runs("toy", "factuality", [0], splits, DATA, PROVENANCE)}
    assert list(runs) == ["majority", "random", "always_no", "always_yes"]
    assert runs["always_no"][1]["chosen"].tolist() == [0] * 4
    assert runs["always_yes"][1]["chosen"].tolist() == [1] * 4
    assert [runs[f"always_{word}"][0].metrics["test"]["accuracy"].value for word in ("no", "yes")] == [3 / 4, 1 / 4]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, ["always_first", "always_second"]),
        (["Yes", "No"], ["always_yes", "always_no"]),
        (["No hallucination", "Hallucination!"], ["always_no_hallucination", "always_hallucination"]),
        (["-", "+"], ["always_first", "always_second"]),
        (["yes", "Yes"], ["always_first", "always_second"]),
        (["a caption of more than twenty letters", "b"], ["always_first", "always_second"]),
    ],
)
def test_names_of_the_constant_answers(options: list[str] | None, expected: list[str]) -> None:
    data = DATA.model_copy(update={"options": options})
    assert control_names({"test": examples([0, 1])}, data, [0])[2:] == expected


def test_more_than_two_options_have_no_constant_rows() -> None:
    assert control_names({"test": examples([0], options=3)}, DATA, [0]) == ["majority", "random"]


def test_without_a_train_split_the_majority_is_that_of_the_scored_split() -> None:
    splits = {"test": examples([0, 1, 1]), "ood": examples([0, 0, 1])}
    (majority, answers), *_ = control_runs("toy", "factuality", None, splits, DATA, PROVENANCE)
    assert majority.method == "majority_of_split"
    assert answers["chosen"].tolist() == [1, 1, 1, 0, 0, 0]


# ------------------------------------------------------------------------------- without the image


def test_text_only_shows_grey_and_leaves_the_questions() -> None:
    given = examples([0, 1])
    shown = image_controls.without_image(given)
    assert [replace(e, image=b"") for e in shown] == given
    assert set(np.asarray(shown[0].load_image()).ravel()) == {128}
    assert pickle.loads(pickle.dumps(shown[0].image)) is image_controls.grey  # workers get it


def test_shuffled_images_are_those_of_another_group() -> None:
    """Three groups of two images each: every example gets an image of one other group, each image is used once."""
    given = [replace(e, group=f"g{k // 2}", image=bytes([k])) for k, e in enumerate(examples([0] * 6))]
    owner = {e.image: e.group for e in given}
    shown = image_controls.other_images(given, "0/test")
    assert shown == image_controls.other_images(given, "0/test")
    assert [replace(s, image=g.image) for s, g in zip(shown, given, strict=True)] == given
    assert sorted(s.image for s in shown) == sorted(owner)  # type: ignore[type-var]
    assert all(owner[s.image] != s.group for s in shown)
    for group in ("g0", "g1", "g2"):
        assert len({owner[s.image] for s in shown if s.group == group}) == 1
    assert any(shown != image_controls.other_images(given, f"{seed}/test") for seed in range(1, 9))
    with pytest.raises(DataError, match="one group"):
        image_controls.other_images(given[:2], "0/test")


def test_a_run_without_images_is_a_control_beside_its_run(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    plain = cli("run", *toy_run, "--store", tmp_path, "--json").json
    blinded = cli("run", *toy_run, "--store", tmp_path, "--set", "control=text_only", "--json").json
    assert (plain["kind"], blinded["kind"]) == ("run", "control")
    assert (plain["method"], blinded["method"]) == ("finetune", "finetune/text_only")
    assert blinded["run_id"].startswith("control-text_only-finetune-S-toy-s0-")
    assert blinded["data"] == plain["data"]
    assert blinded["cost"]["train_flops"] == plain["cost"]["train_flops"]
    # The toy's questions differ by image and by the order of three options: without images three remain.
    different = {
        run["run_id"]: len(
            {tuple(row.round(4)) for row in Store(tmp_path).predictions(run["run_id"], "test")["scores"]}
        )
        for run in (plain, blinded)
    }
    assert different == {plain["run_id"]: 9, blinded["run_id"]: 3}
    rows = cli("rank", "--store", tmp_path, "--json").json["rows"]
    ranks = {row["label"]: row["rank"] for row in rows}
    assert ranks == {"finetune": 1, "finetune/text_only": None, "majority": None, "random": None}
    assert all(row["chance"] == pytest.approx(1 / 3) for row in rows)
    assert "finetune/text_only" in cli("rank", "--store", tmp_path, "--metric", "brier").out


@pytest.mark.parametrize("control", ["text_only", "shuffled_image"])
def test_every_split_loses_its_images_and_the_data_stay_the_same(toy_run: list[str], control: str) -> None:
    config = RunConfig(method="finetune", benchmark="toy", plugins=(toy_run[7],), ladder=toy_run[5])
    plain = plan.make(config)
    blinded = plan.make(config.model_copy(update={"control": control}))
    assert blinded.dataset.fingerprint == plain.dataset.fingerprint
    assert blinded.run_id != plain.run_id
    for split, examples_ in plain.dataset.splits.items():
        shown = blinded.dataset.splits[split]
        assert [e.id for e in shown] == [e.id for e in examples_]
        assert sum(a.image == b.image for a, b in zip(shown, examples_, strict=True)) < len(examples_) / 2


def test_an_unknown_control_is_refused(cli: Cli, toy_run: list[str]) -> None:
    said = cli("plan", *toy_run, "--set", "control=no_image")
    assert said.code == 2
    assert "control = 'no_image'" in said.err


# ------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("control", "low", "constant", "said"),
    [
        ("majority", 0.5, None, ""),
        ("majority", 0.51, None, "above chance (50.0): the golds are not balanced"),
        ("random", 0.6, None, ""),
        ("finetune/text_only", 0.5, 0.5, ""),
        ("finetune/text_only", 0.55, 0.6, "above chance (50.0), but not above the best constant answer (60.0): "),
        (
            "finetune/text_only",
            0.65,
            0.6,
            "above chance (50.0) and the best constant answer (60.0) without the image: ",
        ),
        ("finetune/text_only", 0.65, None, "above chance (50.0) without the image: the benchmark leaks"),
    ],
)
def test_flag(control: str, low: float, constant: float | None, said: str) -> None:
    found = flag(control, Interval(value=0.7, low=low, high=0.9), 0.5, constant)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_flag_needs_an_interval() -> None:
    assert flag("finetune/text_only", Interval(value=1.0), 0.5, None) == ""


def test_flags_are_told_by_rank_and_by_describe(tmp_path: Path) -> None:
    """90 of 100 golds are "no": the majority lies above chance; a blind run with 99 right tells of a leak."""
    store, splits = Store(tmp_path), {"test": examples([0] * 90 + [1] * 10)}
    for record, frame in control_runs("toy", "factuality", [0], splits, DATA, PROVENANCE):
        store.write(told(record), frame)
    (record, frame), *_ = control_runs("toy", "factuality", [0], splits, DATA, PROVENANCE)
    frame["chosen"] = [*frame["gold"][:-1], 0]
    figures = {"test": summarise(frame, DATA.options)}
    blinded = {"run_id": "control-text_only-x", "method": "finetune/text_only", "student": "S", "metrics": figures}
    store.write(told(record.model_copy(update=blinded)), frame)
    notes = {row.method: row.note for row in table(store)}
    assert "not balanced" in notes["majority"]
    assert "not balanced" in notes["always_no"]
    assert "leaks through language" in notes["finetune/text_only"]
    assert notes["always_yes"] == notes["random"] == ""
    assert sorted(line.split(" (")[0] for line in flags(store, "toy")) == [
        "always_no",
        "finetune/text_only, S, seed 0",
        "majority",
    ]
    assert flags(store, "nlvr") == []


def told(record: Record) -> Record:
    """The record with the chance level, as runs have it."""
    metrics = {split: figures | {"chance": Interval(value=0.5)} for split, figures in record.metrics.items()}
    return record.model_copy(update={"metrics": metrics})


def test_no_data() -> None:
    with pytest.raises(DataError, match="'toy': the train split has no examples"):
        control_runs("toy", "factuality", [], {"test": examples([0])}, DATA, PROVENANCE)
    with pytest.raises(DataError, match="no predictions"):
        control_runs("toy", "factuality", [0], {"test": []}, DATA, PROVENANCE)


def test_controls_are_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One summary a control and split, that of the record."""
    sizes = {"train": 8, "validation": 4, "test": 8, "ood": 4}
    config = RunConfig(method="zero_shot", benchmark="scenes_factuality", benchmark_settings=sizes, student="S")
    made, scored = plan.make(config), 0
    real = inference.summarise

    def counted(*args: Any, **options: Any) -> dict[str, Interval]:
        nonlocal scored
        scored += 1
        return real(*args, **options)

    for module in (inference, scoring):
        monkeypatch.setattr(module, "summarise", counted)
    store = Store(tmp_path)
    ensure_controls(made, store)
    records = [store.read(run_id) for run_id in store.ids()]
    assert scored == sum(len(record.metrics) for record in records) == 2 * 3
    ensure_controls(made, store)
    assert scored == 6
    # Another run on these data wrote them between the look and the writing, a second earlier: its rows are taken.
    monkeypatch.setattr(provenance, "now", lambda: "2027-01-01T00:00:00+00:00")
    ids, looked = store.ids(), []
    finished = Store.finished

    def missed(self: Store, run_id: str) -> Record | None:
        looked.append(run_id)
        return None if looked.count(run_id) == 1 else finished(self, run_id)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "status", lambda self, run_id: None)
        patch.setattr(Store, "finished", missed)
        ensure_controls(made, store)
        assert sorted(looked) == sorted(2 * ids)
        patch.setattr(Store, "finished", lambda self, run_id: None)
        with pytest.raises(StoreError, match="is already done"):
            ensure_controls(made, store)
    assert [store.read(run_id) for run_id in store.ids()] == records
