"""The store: whole runs or nothing, finished runs untouched, trouble named."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from harness.errors import StoreError
from harness.record import Interval, Provenance, Record
from harness.store import (
    HISTORY,
    PREDICTIONS,
    HistoryRow,
    PredictionRow,
    Problem,
    Store,
    history_frame,
    local,
    predictions_frame,
)
from harness.store import store as store_module
from harness.store.local import LOCK

PROVENANCE = Provenance(package="0", code="c0de", started="2026-01-01T00:00:00Z", finished="2026-01-01T00:01:00Z")


def record(run_id: str = "run-1", status: str = "done", **fields: Any) -> Record:
    base = {
        "run_id": run_id,
        "status": status,
        "benchmark": "toy",
        "task": "factuality",
        "method": "finetune",
        "seed": 0,
        "provenance": PROVENANCE,
    }
    return Record(**(base | fields))


def predictions(chosen: int = 1) -> pd.DataFrame:
    return predictions_frame(
        [
            PredictionRow("test", "e1", "image", "object", 1, chosen, [-0.5, -1.5], 0.25),
            PredictionRow("ood", "e2", "image", "count", 0, 0, np.array([-0.5, -1.5, -2]), 0.25),
        ]
    )


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != LOCK)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a" / "store")


def test_what_is_written_is_read(store: Store) -> None:
    history = history_frame([HistoryRow("tune", 1, 0.5, "student", "ce", 1.25)])
    written = record(metrics={"test": {"accuracy": Interval(value=1.0, low=0.5, high=1.0)}})
    folder = store.write(written, predictions(), history)
    assert names(folder) == ["history.parquet", "predictions.parquet", "record.json"]
    assert store.read("run-1").model_copy(update={"seal": None}) == written
    assert store.history("run-1").to_dict("records") == history.to_dict("records")
    found = store.predictions("run-1")
    assert found["scores"].map(list).tolist() == [[-0.5, -1.5], [-0.5, -1.5, -2.0]]
    assert store.predictions("run-1", "test")["id"].tolist() == ["e1"]
    assert pq.read_schema(folder / "predictions.parquet").remove_metadata() == PREDICTIONS
    assert pq.read_schema(folder / "history.parquet").remove_metadata() == HISTORY
    assert names(store.root) == ["run-1"]


def test_a_kept_student_is_copied(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    assert names(store.write(record(), student=tmp_path / "weights") / "student") == ["config.json"]


def test_a_done_run_never_changes(store: Store) -> None:
    store.write(record(), predictions())
    store.write(record(), predictions())  # the same again is no harm
    with pytest.raises(StoreError, match="run-1 is already done"):
        store.write(record(), predictions(chosen=0))
    with pytest.raises(StoreError, match="run-1 is already done"):
        store.write(record(status="failed"))
    assert store.predictions("run-1", "test")["chosen"].tolist() == [1]
    assert names(store.root) == ["run-1"]


def test_a_failed_run_is_replaced(store: Store) -> None:
    store.write(record(status="failed"))
    store.write(record(status="interrupted"))
    assert store.status("run-1") == "interrupted"
    store.write(record(), predictions())
    assert store.status("run-1") == "done"
    assert names(store.root) == ["run-1"]


def test_a_killed_write_leaves_no_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename is the last thing: before it nobody sees the run, and what is left is swept a day later."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "rename", killed)
        patched.setattr(store_module.shutil, "rmtree", lambda *_, **__: None)  # the dead don't clean up
        with pytest.raises(KeyboardInterrupt):
            store.write(record(), predictions())
    (leftover,) = store.root.glob(".tmp-*")
    assert leftover.name.startswith(".tmp-run-1-")
    assert (store.ids(), list(store.scan())) == ([], [])
    store.check_writable()
    assert leftover.exists()
    os.utime(leftover, (0, time.time() - 25 * 3600))
    store.check_writable()
    assert names(store.root) == []


def test_a_disk_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.pq, "write_table", full)
    with pytest.raises(StoreError, match=r"run-1 can't be written.*No space left on device"):
        store.write(record(), predictions())
    assert names(store.root) == []


def test_a_writer_waits_for_the_one_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has seen a failed run and is about to replace it: who comes now must not get in between."""
    store.write(record(status="failed"))
    rename, said = os.rename, []

    def second() -> None:
        with pytest.raises(StoreError, match="already done"):
            store.write(record(seed=2), predictions())
        said.append("refused")

    thread = threading.Thread(target=second)

    def slow(old: Path, new: Path) -> None:
        if Path(old).name == "run-1":  # it goes aside
            thread.start()
            thread.join(0.5)
            said.append("moved aside")
        rename(old, new)

    monkeypatch.setattr(store_module.os, "rename", slow)
    store.write(record(seed=1), predictions())
    thread.join()
    assert said == ["moved aside", "refused"]
    assert store.read("run-1").seed == 1
    assert names(store.root) == ["run-1"]


@pytest.mark.parametrize("slowly", [False, True])
def test_a_reader_between_the_two_moves_of_a_writer_looks_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, slowly: bool
) -> None:
    """It finds no folder; the new one is there when it looks for that, or a moment later."""
    store.write(record())
    folder, aside = store.root / record().run_id, store.root / ".tmp-aside"
    folder.rename(aside)
    real, looks = Store.load, []

    def load(self: Store, run_id: str) -> Any:
        looks.append(run_id)
        found = real(self, run_id)
        if len(looks) == 1 and not slowly:
            aside.rename(folder)
        return found

    monkeypatch.setattr(Store, "load", load)
    monkeypatch.setattr(store_module.time, "sleep", lambda _: aside.rename(folder))
    found = store.settled(record().run_id)
    assert isinstance(found, Record)
    assert len(looks) == 2


def test_a_lock_that_is_never_let_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(record())
    monkeypatch.setattr(local, "LOCK_SECONDS", 0.1)
    with FileLock(store.root / LOCK), pytest.raises(StoreError, match=r"another process has held its \.lock for 0 s"):
        store.write(record("run-2"))
    assert names(store.root) == ["run-1"]
    store.write(record("run-2"))


def test_many_writers_one_winner(store: Store) -> None:
    store.write(record(status="failed"))
    outcomes: list[str] = []

    def write(seed: int) -> None:
        try:
            store.write(record(seed=seed), predictions())
            outcomes.append(f"wrote {seed}")
        except StoreError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 5 + [f"wrote {store.read('run-1').seed}"]
    assert names(store.root) == ["run-1"]


def test_broken_records_are_named_and_the_others_read(store: Store) -> None:
    for run_id in ("good", "half", "other", "future"):
        store.write(record(run_id))
    text = (store.root / "good" / "record.json").read_text()
    (store.root / "half" / "record.json").write_text(text[:40])
    (store.root / "other" / "record.json").write_text(text)
    future = json.loads(text) | {"run_id": "future", "schema_version": 99, "new_field": 1}
    (store.root / "future" / "record.json").write_text(json.dumps(future))
    (store.root / "empty").mkdir()
    (store.root / "a file").write_text("not a run")
    assert [found.run_id for found in store.records()] == ["good"]
    problems = {problem.run_id: problem.message for problem in store.problems()}
    assert sorted(problems) == ["empty", "future", "half", "other"]
    assert problems["empty"] == "record.json is missing; delete the folder"
    assert problems["half"].startswith("record.json is damaged: Invalid JSON")
    assert problems["other"].startswith("record.json is of run 'good'")
    assert problems["future"].startswith("record.json has schema 99, this version reads 1")
    assert any(isinstance(found, Problem) for found in store.scan())
    with pytest.raises(StoreError, match=r"run half: record.json is damaged"):
        store.read("half")


def test_find_by_prefix(store: Store) -> None:
    for run_id in ("abc-1", "abc-2", "abc", "xyz"):
        store.write(record(run_id))
    assert store.find("x").run_id == "xyz"
    assert store.find("abc").run_id == "abc"
    with pytest.raises(StoreError, match="'abc-' could be any of 2: abc-1, abc-2; give more letters"):
        store.find("abc-")
    with pytest.raises(StoreError, match=r"no run 'xya'.*\(4 runs\); did you mean 'xyz'"):
        store.find("xya")
    with pytest.raises(StoreError, match="no run ''"):
        store.find("")


def test_an_absent_store_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert (store.ids(), store.status("run-1"), store.problems()) == ([], None, [])
    with pytest.raises(StoreError, match=r"no run 'run-1'.*\(0 runs\)"):
        store.read("run-1")
    assert not store.root.exists()


@pytest.mark.parametrize("run_id", ["", ".", "..", "../up", "a/b", "a\\b", ".work", "-x", "é", "a" * 129, "a\n"])
def test_an_id_is_no_path(store: Store, run_id: str) -> None:
    for use in (store.read, store.work, store.predictions, lambda name: store.write(record(name))):
        with pytest.raises(StoreError, match="run id"):
            use(run_id)


def test_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HKDBENCH_STORE", raising=False)
    assert Store().root == tmp_path / "runs"
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / "env"))
    assert Store().root == tmp_path / "env"
    store = Store("deep/er")
    store.check_writable()
    assert names(tmp_path / "deep" / "er") == []
    assert store.work("run-1") == tmp_path / "deep" / "er" / ".work" / "run-1"


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"can't be written: .*--store or HKDBENCH_STORE"):
            Store(root).check_writable()
        with pytest.raises(StoreError, match="run run-1 can't be written to"):
            Store(root).write(record())
        with pytest.raises(StoreError, match="can't be read"):
            Store(root).ids()


def test_tables_must_fit(store: Store) -> None:
    with pytest.raises(StoreError, match=r"run-1: predictions: columns split, id.*; expected split, id"):
        store.write(record(), predictions().drop(columns="gold"))
    with pytest.raises(StoreError, match=r"run-1: predictions: .*gold"):
        store.write(record(), predictions().assign(gold=0.5))
    with pytest.raises(StoreError, match=r"run-1: the record can't be stored: metrics.test.accuracy.value"):
        store.write(record(metrics={"test": {"accuracy": Interval(value=float("nan"))}}))
    assert store.ids() == []


def test_missing_and_damaged_tables(store: Store) -> None:
    folder = store.write(record(status="failed"), predictions())
    with pytest.raises(StoreError, match=r"run-1 has no history \(status: failed\)"):
        store.history("run-1")
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"predictions.parquet is damaged"):
        store.predictions("run-1")
    with pytest.raises(StoreError, match="no run 'nowhere'"):
        store.predictions("nowhere")
