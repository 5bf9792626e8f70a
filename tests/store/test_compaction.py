"""What compaction writes: replicates as of the predictions, runs in one order, and no more files than changed."""

from __future__ import annotations

import errno
import os

import pytest

from harness.errors import StoreError
from harness.leaderboard.inference import intervals
from harness.leaderboard.leaderboard import table
from harness.store import Store, compaction, manifest
from harness.store.compaction import compact
from helpers.runs import add, results_of, spread_of


def files(store: Store) -> set[str]:
    return {path.name for path in (store.root / ".catalogue").glob("*.parquet")}


def test_replicates_are_those_of_the_predictions(filled: Store) -> None:
    compact(filled)
    for metric in ("accuracy", "macro_f1"):
        for row in table(filled, metric=metric):
            if not row.values:
                continue
            frames = {seed: filled.predictions(i, "test") for seed, i in zip(row.seeds, row.run_ids, strict=True)}
            known = spread_of(filled, fingerprint=row.fingerprint)
            expected = results_of(frames, labels=2, metrics=[metric], spread=known)
            assert row.values[metric] == intervals(expected, metric)[0]


def test_runs_in_another_order_are_brought_into_one(store: Store) -> None:
    add(store, "a", [0, 1, 2], 0)
    add(store, "a", [5, 6], 1, order=[3, 1, 0, 7, 6, 5, 4, 2])
    (row,) = table(store)
    (expected,) = results_of({seed: store.predictions(f"a-S-{seed}") for seed in (0, 1)}, labels=2)
    assert row.values["accuracy"] == intervals([expected], "accuracy")[0]
    compact(store)
    assert table(store) == [row]


def test_answers_that_cannot_be_paired_have_no_figures(store: Store) -> None:
    add(store, "a", seed=0)
    add(store, "a", seed=1, order=range(7))
    add(store, "twice", order=[0, 1, 1])
    first, second = table(store)
    notes = {row.method: row.note for row in (first, second)}
    assert notes["a"].startswith("no figures: runs on different examples (8 and 7) can't be paired")
    assert notes["twice"] == "seed 0 is left out: example 'e1' is predicted twice: expected one prediction per example"
    compact(store)
    assert table(store) == [first, second]


def test_tables_without_changes_keep_their_files(filled: Store) -> None:
    compact(filled)
    before = files(filled)
    again = compact(filled)
    assert again.files_written == 2  # the list of runs, and the manifest
    assert len(files(filled) - before) == 1
    add(filled, "hkd4vlm", 8)
    before = files(filled)
    compact(filled)
    new = files(filled) - before
    assert sorted(name.split("-")[0] for name in new) == ["answers", "runs"]  # of one data; its examples are known
    found = manifest.newest(filled.backend)
    assert found is not None
    assert [part.runs for of_data in found.tables for part in of_data.parts] == [7, 1]


@pytest.mark.parametrize("place", ["tempfile.TemporaryDirectory", "harness.store.local.os.replace"])
def test_a_store_that_cannot_be_written_is_told(filled: Store, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = table(filled)
    monkeypatch.setattr(place, refused)
    with pytest.raises(StoreError, match=r"catalogue of .* can't be written: Read-only file system; compact it as"):
        compact(filled)
    monkeypatch.undo()
    assert table(filled) == before


def test_large_files_are_left_alone(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SMALL", 3)
    compact(filled)
    before = table(filled)
    add(filled, "finetune", 8, seed=7)
    compact(filled)
    found = manifest.newest(filled.backend)
    assert found is not None
    assert [part.runs for part in found.tables[0].parts] == [6, 1]
    rows = table(filled)
    assert len(rows) == len(before)
    assert next(row for row in rows if row.method == "finetune").seeds == (0, 1, 2, 7)
