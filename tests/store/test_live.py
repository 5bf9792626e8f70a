"""The progress of a run while it trains, what is left after it was killed, and the same run started twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.execution import run
from harness.execution.launch import launch
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.store import Problem, Store, live
from harness.store.maintenance import DAY, garbage
from helpers.common import ToyConfig


@pytest.fixture
def config(toy_config: ToyConfig) -> RunConfig:
    return toy_config(evaluate={"resamples": 100}, tags=["suite:here"])


def test_a_run_says_where_it_is_and_nothing_once_it_is_done(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)
    store = Store(tmp_path)
    seen: list[tuple[dict[str, Any], list[Any], int]] = []

    def watch(event: dict[str, Any]) -> None:
        found = live.running(store)
        seen.append((event, found, len(live.history(store, found[0])) if found else 0))  # type: ignore[arg-type]

    (record,) = launch([config], store, "here", watch)
    assert record.status == "done"
    said = [found[0] for _, found, _ in seen if found]
    assert all(isinstance(one, live.Now) and one.run_id == record.run_id for one in said)
    assert (said[0].stages, said[0].stage, said[0].steps, said[0].seed) == (("tune",), "tune", 12, 0)
    assert said[0].tags == ("suite:here",)
    steps = [one.step for one in said if one.stage == "tune"]
    assert steps == sorted(steps)
    assert said[-1].stage.startswith("score ")
    assert not said[-1].silent
    # An event finds what the one before it left; validations come with checkpoints, the last with the stage's end.
    counts = [count for event, _, count in seen if str(event.get("stage")).startswith("score ")]
    assert counts[-1] == len(store.history(record.run_id)) == 12 + 2
    assert live.running(store) == live.paused(store) == []
    assert not store.work(record.run_id).exists()


def test_history_of_a_running_run_is_the_checkpoints_and_what_came_after(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.work("r") / "checkpoint-000-00000004"
    folder.mkdir(parents=True)
    rows = '{"stage":"a","step":%d,"progress":0.5,"role":"student","term":"%s","value":%s}'
    saved = ",".join([rows % (2, "loss/ce", 1.0), rows % (4, "loss/ce", 0.9), rows % (4, "validation/accuracy", 0.5)])
    (folder / "state.json").write_text(f'{{"history": [{saved}]}}')
    now = live.Now.model_validate(
        {"run_id": "r", "method": "m", "benchmark": "b", "student": "S", "seed": 0, "stages": ["a"], "started": 1.0,
         "updated": 2.0, "stage": "a", "step": 6, "steps": 8,
         "points": [["a", 4, 0.5, "student", "loss/ce", 0.9], ["a", 6, 0.75, "student", "loss/ce", 0.8]]}
    )  # fmt: skip
    frame = live.history(store, now)
    assert frame[["step", "term", "value"]].values.tolist() == [
        [2, "loss/ce", 1.0],
        [4, "validation/accuracy", 0.5],
        [4, "loss/ce", 0.9],
        [6, "loss/ce", 0.8],
    ]
    assert now.silent
    (found,) = live.paused(store)
    assert (found.run_id, found.checkpoint) == ("r", "checkpoint-000-00000004")
    (folder / "state.json").write_text("{")
    assert len(live.history(store, now)) == 2  # the checkpoint is being replaced: what the run said stands


def test_a_damaged_or_strange_file_is_a_problem_and_the_rest_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert live.running(store) == live.paused(store) == []  # no store yet
    store.work("broken").mkdir(parents=True)
    (store.work("broken") / live.FILE).write_text("{}")
    (store.root / ".work" / ".ray-suite-1").mkdir()
    (problem,) = live.running(store)
    assert isinstance(problem, Problem)
    assert problem.run_id == "broken"


def test_a_folder_that_cant_be_written_harms_no_run(config: RunConfig, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def refuse(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(live.os, "replace", refuse)
    (record,) = launch([config], Store(tmp_path), "here", lambda _: None)
    assert record.status == "done"


HOLDER = """
import sys, time
from harness.store import Store
lock = Store(sys.argv[1]).lock(sys.argv[2], 5)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_that_another_process_executes_is_waited_for(
    finishes: bool, config: RunConfig, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finishes it, and its record is taken; or it is killed, and the run is trained here."""
    monkeypatch.setattr(run, "WAIT_SECONDS", 0.1)
    planned, store, theirs = plan.make(config), Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    finished = run.execute(planned, SingleProcess(), theirs)
    stages: list[str] = []
    command = [sys.executable, "-c", HOLDER, store.url, planned.run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        def report(event: dict[str, Any]) -> None:
            stages.append(event["stage"])
            if holder.poll() is None:
                if finishes:
                    store.copy(planned.run_id, theirs)
                holder.kill()
                holder.wait()

        record = run.execute(planned, SingleProcess(report), store)
    assert stages[0] == "wait for the process that runs it"
    assert ("tune" in stages) == (not finishes)
    assert (record == finished) == finishes
    assert record.status == "done"
    assert list((store.root / ".work" / ".locks").iterdir()) == []


def test_gc_leaves_the_lock_of_a_long_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = store.lock("run-1", 1)
    assert lock is not None
    assert lock.path is not None
    long_ago = time.time() - 30 * DAY
    for path in (lock.path, lock.path.parent):
        os.utime(path, (long_ago, long_ago))
    assert garbage(store) == []
    lock.release()
    assert not lock.path.exists()


@pytest.mark.slow
def test_what_a_killed_run_leaves_says_where_it_was(toy_run: list[str], tmp_path: Path, root: Path) -> None:
    args = [sys.executable, "-m", "harness", "run", *toy_run, "--store", str(tmp_path), "--set", "train.examples=80000"]
    child = subprocess.Popen(args, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    store = Store(tmp_path)
    try:
        end = time.monotonic() + 400
        while time.monotonic() < end and child.poll() is None:
            found = live.running(store)
            if found and isinstance(found[0], live.Now) and found[0].points:
                break
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    (now,) = live.running(store)
    assert isinstance(now, live.Now)
    assert 0 < now.step < now.steps == 10000
    assert len(live.history(store, now)) == len(now.points) > 0
