"""The ranking: who is first, what a row averages, what is said about runs that give no figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.api import Example
from harness.errors import ConfigError
from harness.evaluation.controls import control_runs
from harness.leaderboard.leaderboard import table
from harness.record import Cost, Interval
from harness.report.text import to_text
from harness.store import Store
from helpers import runs
from helpers.runs import DATA, GOLD, provenance


def add(store: Store, method: str = "finetune", right: Sequence[int] | int = 8, seed: int = 0, **fields: Any) -> None:
    """A run that trained longer the higher its seed; its record has a setting that its configuration leaves open."""
    config = {"method": method, "settings": fields.pop("settings", {}), "train": fields.pop("train", {}), "seed": seed}
    own: dict[str, Any] = {
        "run_id": f"run-{len(store.ids())}",
        "config": config,
        "settings": {"temperature": 2.0} | config["settings"],
        "cost": Cost(train_flops=2e12 * (seed + 1), train_seconds=10, test_forwards=16),
    }
    runs.add(store, method, right, seed, **own | fields)


def test_a_row_is_the_mean_over_seeds(store: Store) -> None:
    add(store, right=8, seed=0)
    add(store, right=6, seed=1)
    (row,) = table(store)
    assert row.values["accuracy"].value == (8 / 8 + 6 / 8) / 2
    low, high = row.values["accuracy"].low, row.values["accuracy"].high
    assert low is not None
    assert high is not None
    assert low < 7 / 8 <= high == 1
    assert (row.rank, row.seeds, row.examples, row.groups, row.note) == (1, (0, 1), 8, 8, "")
    assert row.train_tflops == (2 + 4) / 2
    assert row.forwards_per_answer == 16 / 8
    assert (row.parameters, row.train_seconds, row.run_ids) == (230_000, 10, ("run-0", "run-1"))


def test_best_first_by_the_metric(store: Store) -> None:
    # Six golds right: accuracy 6/8. Always "no": accuracy 4/8, and macro-F1 (2/3 + 0) / 2.
    add(store, "half", right=[0, 2, 4, 6])
    add(store, "better", right=6)
    add(store, "same", right=6)
    for metric in ("accuracy", "macro_f1"):
        rows = table(store, metric=metric)
        assert [(row.method, row.rank) for row in rows] == [("better", 1), ("same", 1), ("half", 3)]
    assert rows[-1].values["macro_f1"].value == pytest.approx((2 / 3 + 0) / 2)


def test_settings_students_and_budgets_part_rows(store: Store) -> None:
    add(store, "offline_kd", 5)
    add(store, "offline_kd", 6, settings={"divergence": "jsd", "support": "vocab"})
    add(store, "finetune", 8, student="L")
    add(store, "finetune", 4, train={"examples": 100})
    add(store, "finetune", 3, train={"examples": 200})
    labels = [(row.label, row.student) for row in table(store)]
    assert labels == [
        ("finetune", "L"),
        ("offline_kd divergence=jsd support=vocab", "S"),
        ("offline_kd", "S"),
        ("finetune train.examples=100", "S"),
        ("finetune train.examples=200", "S"),
    ]


def test_where_a_run_took_place_does_not_part_rows(store: Store) -> None:
    for seed, workers in ((0, 1), (1, 2)):
        config = {"settings": {}, "seed": seed, "cluster": {"workers": workers}, "tags": [f"t{seed}"]}
        add(store, seed=seed, config=config)
    (row,) = table(store)
    assert row.seeds == (0, 1)


def test_runs_without_figures_are_counted(store: Store) -> None:
    add(store, right=8, seed=0)
    add(store, seed=1, status="failed")
    add(store, seed=2, status="failed", data=None)  # failed before it read the data
    add(store, seed=3, status="interrupted")
    add(store, seed=4, predict=False)
    add(store, "broken", status="failed")
    done, broken = table(store)
    assert (done.seeds, done.note) == (
        (0,),
        "2 failed, 1 interrupted, 1 without predictions, one seed: how much seeds differ is taken from all rows",
    )
    assert (broken.rank, broken.values, broken.note) == (None, {}, "1 failed")
    text = to_text([done, broken])
    assert "finetune (S): 2 failed, 1 interrupted, 1 without predictions" in text
    assert "broken (S): 1 failed" in text


def test_only_failures(store: Store) -> None:
    add(store, status="failed", data=None)
    (row,) = table(store)
    assert (row.figure, row.fingerprint, row.note) == (None, "", "1 failed")
    assert "finetune (S): 1 failed" in to_text([row])


def test_the_latest_run_of_a_seed_counts(store: Store) -> None:
    add(store, right=4, provenance=provenance("2026-01-01T00:00Z", training=1))
    add(store, right=8, provenance=provenance("2026-01-02T00:00Z", training=2))
    add(store, right=8, seed=1, provenance=provenance("2026-01-01T00:00Z", training=1))
    (row,) = table(store)
    assert row.values["accuracy"].value == 1
    assert row.note == "1 superseded by a later run of the same seed, seeds of versions 1 and 2 of training"


def test_seeds_of_an_edited_plugin_are_said(store: Store) -> None:
    for seed in (0, 1):
        add(store, "acme", right=8, seed=seed, identity={"plugins": {"method acme": str(seed)}})
        add(store, right=8, seed=seed, identity={"plugins": {}}, provenance=provenance(code=str(seed)))
    assert {row.method: row.note for row in table(store)} == {"acme": "seeds of 2 versions of the code", "finetune": ""}


def test_a_setting_that_was_removed_splits_no_row(store: Store) -> None:
    """hkd4vlm of 0.1 had swap_images: switched off, its seeds and those of later versions make one row."""
    add(store, "hkd4vlm", seed=0, settings={"msi": True, "swap_images": False, "swap_share": 0.1})
    add(store, "hkd4vlm", seed=1, settings={"msi": True})
    add(store, "hkd4vlm", seed=2, settings={"msi": True, "swap_images": True, "swap_share": 0.1})
    assert sorted(row.seeds for row in table(store)) == [(0, 1), (2,)]


def test_other_data_are_another_table(store: Store) -> None:
    add(store, right=8)
    add(store, right=4, data=DATA.model_copy(update={"fingerprint": "b" * 64}))
    first, second = table(store)
    assert [(row.rank, row.fingerprint[0]) for row in (first, second)] == [(1, "a"), (1, "b")]
    assert (
        to_text([first, second]).count("the store has runs on 2 versions of these data: each version has its own table")
        == 2
    )
    assert "versions of these data" not in to_text([first])


def test_controls_are_in_every_table(store: Store) -> None:
    options = ("no", "yes")
    examples = [Example(f"e{k}", f"i{k}", b"", "", "", options, gold, "object", "toy") for k, gold in enumerate(GOLD)]
    for run in control_runs("toy", "factuality", [0], {"test": examples}, DATA, provenance()):
        store.write(*run)
    add(store, right=8)
    rows = table(store)
    assert (rows[0].method, rows[0].rank) == ("finetune", 1)
    assert {(row.method, row.kind, row.rank) for row in rows[1:]} == {
        ("majority", "control", None),
        ("random", "control", None),
        ("always_no", "control", None),
        ("always_yes", "control", None),
    }


def test_the_smaller_error_is_the_better(store: Store) -> None:
    add(store, "worse", metrics={"test": {"brier": Interval(value=0.4)}})
    add(store, "better", metrics={"test": {"brier": Interval(value=0.1)}})
    assert [(row.method, row.rank) for row in table(store, metric="brier")] == [("better", 1), ("worse", 2)]


def test_a_protocols_figure(store: Store) -> None:
    figures = [Interval(value=0.5, low=0.25, high=0.75), Interval(value=1.0, low=0.5, high=1.0)]
    add(store, "one", metrics={"test": {"toy:consistency": figures[0]}})
    for seed in (0, 1):
        add(store, "two", seed=seed, metrics={"test": {"toy:consistency": figures[seed]}})
    two, one = table(store, metric="toy:consistency")
    assert two.values["toy:consistency"] == Interval(value=0.75)
    assert one.values["toy:consistency"] == figures[0]
    assert "toy:consistency" in to_text([two, one])


def test_unknown_names(store: Store) -> None:
    assert table(store) == []
    assert to_text([]) == "No runs.\n"
    add(store)
    with pytest.raises(ConfigError, match="no run of benchmark 'toi' in the store; did you mean 'toy'"):
        table(store, "toi")
    with pytest.raises(ConfigError, match="no run has metric 'macrof1'.*did you mean 'macro_f1'"):
        table(store, metric="macrof1")
    with pytest.raises(ConfigError, match="no run was scored on split 'ood'; known: test"):
        table(store, split="ood")
