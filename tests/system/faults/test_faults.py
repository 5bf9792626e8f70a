"""Accidents cost time and nothing else. `benches/faults.py` is the longer campaign, on a cluster too."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from harness.errors import StoreError
from harness.execution import run as runner
from harness.models.distributed import SingleProcess
from harness.planning.plan import Plan
from harness.store import Store
from harness.train import checkpoint, loop
from helpers.common import ToyPlan

pytestmark = pytest.mark.slow


@pytest.fixture
def fault_watch(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root))
    return importlib.import_module("benches.fault_watch")


@pytest.fixture
def planned(toy_plan: ToyPlan) -> Plan:
    """hkd4vlm in two stages of six steps, a checkpoint after three, six and nine."""
    return toy_plan("hkd4vlm", save_student=True)


def test_killed_at_random_points(root: Path, tmp_path: Path) -> None:
    """In a process of its own, as it forks: a small campaign of the bench."""
    out = tmp_path / "faults.json"
    command = [sys.executable, "-m", "benches.faults", "--only", "driver", "--small", "--kills", "3"]
    command += ["--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["driver"]
    assert {name: figures[name] for name in ("lost", "repeated", "broken", "different", "left")} == {
        "lost": 0, "repeated": 0, "broken": 0, "different": 0, "left": 0
    }  # fmt: skip
    assert figures["killed_when"] == {"any time": 1, "a run is written": 1, "a run is done": 1}
    assert figures["starts"] == 3 + figures["campaigns"]
    assert figures["met"]


def test_the_campaign_would_notice(fault_watch: ModuleType, small_store: Path, tmp_path: Path) -> None:
    """What it counts: a lost record, a broken one, a run begun again, other answers."""
    shutil.copytree(small_store, tmp_path / "a")
    watch = fault_watch.Watch(Store(tmp_path / "a"))
    watch.look()
    (run,) = (r for r in watch.store.records() if r.kind == "run")
    assert watch.damage == fault_watch.Damage()
    assert fault_watch.same(watch.store, Store(small_store), run.run_id)
    watch.begun.append(run.run_id)
    watch.look()
    assert watch.damage.repeated == 1
    weights = tmp_path / "a" / run.run_id / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert not fault_watch.same(watch.store, Store(small_store), run.run_id)
    (tmp_path / "a" / run.run_id / "record.json").write_text("{")
    watch.look()
    assert (watch.damage.broken, watch.damage.lost) == (1, 1)


@pytest.mark.parametrize("fails_at", [2, 4], ids=["stage 1", "stage 2"])
def test_a_disk_that_fills_up_in_a_checkpoint(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """The run fails and says why, the checkpoint before stays whole; with room again it ends in the same bits."""
    torch.set_num_threads(1)
    store, whole = Store(tmp_path / "store"), Store(tmp_path / "whole")
    straight = runner.execute(planned, SingleProcess(), whole)
    assert straight.status == "done"
    real, calls = checkpoint.save_file, 0

    def save_file(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            path.write_bytes(b"half of it")
            if fails_at == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            text = 'code: 28, kind: StorageFull, message: "No space left on device"'  # what it says on a full disk
            raise SafetensorError(f"Error while serializing: I/O error: IoError(Os {{ {text} }})")
        real(dict(tensors), path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    failed = runner.execute(planned, SingleProcess(), store)
    assert failed.status == "failed"
    assert failed.error is not None
    work = store.work(planned.run_id)
    assert failed.error.message.startswith(f"a checkpoint can't be written to {work}: No space left on device (")
    assert "make room there" in failed.error.message
    (left,) = work.iterdir()  # one whole checkpoint: no older one, and no part of a newer one
    assert left.name == {2: "checkpoint-000-00000003", 4: "checkpoint-001-00000003"}[fails_at]
    assert checkpoint.latest(work) is not None

    record = runner.execute(planned, SingleProcess(), store)
    assert (record.status, record.provenance.resumed) == ("done", 1)
    for name in ("predictions", "history"):
        frames = [s.table(planned.run_id, name).to_pandas() for s in (store, whole)]
        assert (
            frames[0]
            .drop(columns="seconds", errors="ignore")
            .equals(frames[1].drop(columns="seconds", errors="ignore"))
        )
    students = [(s.root / planned.run_id / "student" / "model.safetensors").read_bytes() for s in (store, whole)]
    assert students[0] == students[1]
    assert not work.exists()


def test_a_store_that_disappears_is_one_error(planned: Plan, tmp_path: Path) -> None:
    """In the middle of a run: what can't be written is said, as for any store that isn't one."""
    store = Store(tmp_path / "store")

    def vanish(event: dict[str, Any]) -> None:
        if event["stage"] == "tcrd" and store.root.is_dir():
            shutil.rmtree(store.root)
            store.root.write_text("not a folder any more")

    with pytest.raises(
        StoreError, match=r"run hkd4vlm-.* can't be written to .*store': .*; fix that, or choose another"
    ):
        runner.execute(planned, SingleProcess(vanish), store)


def test_a_checkpoint_of_a_bucket_is_fetched_by_another_machine(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node with the run's working folder is lost; the run goes on elsewhere from the kept checkpoint."""
    torch.set_num_threads(1)
    url = f"memory://{tmp_path.name}"
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "one"))
    store = Store(url)

    class Lost(BaseException):
        pass

    def die(event: dict[str, Any]) -> None:
        if event["stage"] == "tcrd" and event["step"] == 5:
            raise Lost

    with pytest.raises(Lost):
        runner.execute(planned, SingleProcess(die), store)
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "two"))
    other = Store(url)
    assert other.ids() == []
    seen: list[str] = []
    record = runner.execute(planned, SingleProcess(lambda event: seen.append(event["stage"])), other)
    assert (record.status, record.provenance.resumed) == ("done", 1)
    assert "ppod" not in seen
    assert other.backend.files_with_age(f".work/{planned.run_id}") == {}  # dropped with the end
    plain = loop.train(planned, SingleProcess(), tmp_path / "plain")
    values = other.history(planned.run_id)["value"].tolist()
    assert values == [row["value"] for row in plain.history]


def test_of_a_bucket_the_kept_checkpoint_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's own newer one may be of a time when it had lost the bucket, or half a copy: all ranks take one."""
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    store = Store(f"memory://{tmp_path.name}-kept")
    work = store.work("run")

    def saved(step: int) -> Path:
        return checkpoint.save(work, 0, step, [("x", torch.tensor([float(step)]))], {"step": step})

    store.backend.download_checkpoint(".work/run", work)
    assert checkpoint.latest(work) is None
    store.backend.upload_checkpoint(saved(3), ".work/run")
    store.backend.upload_checkpoint(saved(6), ".work/run")
    assert {name.split("/")[2] for name in store.backend.files_with_age(".work/run")} == {"checkpoint-000-00000006"}
    saved(9)
    store.backend.download_checkpoint(".work/run", work)
    found = checkpoint.latest(work)
    assert found is not None
    assert found.state == {"step": 6}
    assert [path.name for path in work.iterdir()] == ["checkpoint-000-00000006"]
