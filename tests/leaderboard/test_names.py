"""What rows are called, which settings they have in common, and how rows of one name are distinguished."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.leaderboard import compare
from harness.leaderboard.leaderboard import ranking, table
from harness.leaderboard.schema import Filters
from harness.report.text import to_text
from harness.store import Store
from harness.store.compaction import compact
from helpers.runs import add, provenance
from helpers.runs import configured as run


def labels(store: Store, **filters: Any) -> list[str]:
    return [row.label for row in ranking(store, Filters(**filters)).rows]


def test_a_row_is_asked_for_by_its_label_or_its_settings(store: Store) -> None:
    run(store, "a", given={"alpha": 3.0}, label="KD on the pool")
    run(store, "b", "finetune", right=5)
    for name in ("KD on the pool", "KD on the pool@S", "offline_kd alpha=3.0", "offline_kd alpha=3.0@S"):
        found = ranking(store, Filters(baseline=name)).rows
        assert [row.baseline for row in found] == [True, False]
        side, _ = compare.sides(store, name if "=" not in name else "offline_kd@S alpha=3.0", "finetune")
        assert (side.name, dict(side.runs)) == ("KD on the pool@S", {0: "a"})
    with pytest.raises(ConfigError, match="no row 'KD on the pond' to be the baseline; did you mean 'KD on the pool'"):
        ranking(store, Filters(baseline="KD on the pond"))


def test_one_label_for_two_rows_is_told_apart(store: Store) -> None:
    for run_id, alpha in (("a", 1.0), ("b", 3.0)):
        run(store, run_id, given={"alpha": alpha}, label="KD")
    assert sorted(labels(store)) == ["KD settings.alpha=1.0", "KD settings.alpha=3.0"]


def test_the_newest_run_with_a_label_names_the_row(store: Store) -> None:
    for seed, label in ((0, "older"), (1, "newer"), (2, None)):
        finished = provenance(f"2026-01-0{seed + 1}T00:00Z")
        config = {"method": "finetune", "settings": {}, "seed": seed, "label": label}
        add(store, "finetune", 6, seed, provenance=finished, config=config)
    assert labels(store) == ["newer"]


def test_what_a_record_calls_itself_is_a_line_of_text_or_nothing(store: Store) -> None:
    run(store, "a", label="\x1b[31mred")
    run(store, "b", "finetune", label=["KD"])
    assert sorted(labels(store)) == ["finetune", "offline_kd"]


# ------------------------------------------------------------------------------------------- what rows share


def test_training_that_differs_stands_in_the_row(store: Store) -> None:
    run(store, "a", "finetune", train={"examples": 4096, "lr": 0.001})
    run(store, "b", "offline_kd", train={"examples": 4096, "lr": 0.002})
    assert sorted(labels(store)) == ["finetune train.lr=0.001", "offline_kd train.lr=0.002"]
    assert [row.baseline for row in ranking(store, Filters(baseline="finetune")).rows].count(True) == 1


def test_settings_that_all_rows_of_a_method_share_are_said_once(store: Store) -> None:
    for run_id, temperature in (("a", 1.0), ("b", 2.0), ("c", None)):
        given = {"alpha": 3.0} | ({} if temperature is None else {"temperature": temperature})
        run(store, run_id, given=given, resolved={"alpha": 3.0, "temperature": temperature or 4.0})
    run(store, "d", "hkd4vlm", given={"alpha": 3.0})
    assert sorted(labels(store)) == [
        "hkd4vlm alpha=3.0",
        "offline_kd",
        "offline_kd temperature=1.0",
        "offline_kd temperature=2.0",
    ]
    assert "\nall rows of offline_kd: alpha=3.0\n" in to_text(table(store))
    one, _ = compare.sides(store, "offline_kd alpha=3.0 temperature=2.0", "hkd4vlm")
    assert dict(one.runs) == {0: "b"}


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_that_differ_in_how_they_are_asked_stay_apart(store: Store, compacted: bool) -> None:
    """As many forwards or shifts: what a run answers; how it was batched and what was scored don't matter."""
    run(store, "a", evaluate={"batch_size": 64, "splits": ["test"]})
    run(store, "b", right=7, evaluate={"shifts": "cyclic"}, forwards=32)
    run(store, "c", right=5, seed=1, evaluate={"batch_size": 8, "splits": ["validation", "test"]})
    if compacted:
        compact(store)
    rows = {row.label: row.seeds for row in table(store)}
    assert rows == {"offline_kd": (0, 1), "offline_kd evaluate.shifts=cyclic": (0,)}
    shown = next(row for row in table(store) if row.seeds == (0,))
    assert json.loads(shown.model_dump_json())["spelled"] == "offline_kd evaluate.shifts=cyclic"


def test_labelled_rows_that_differ_in_how_they_are_asked_are_told_apart(store: Store) -> None:
    run(store, "a", label="KD")
    run(store, "b", label="KD", evaluate={"shifts": "cyclic"})
    assert sorted(labels(store)) == ["KD", "KD evaluate.shifts=cyclic"]
