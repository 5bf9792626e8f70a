"""Sixty-four processes write records at once, and are killed at random: no record is lost, broken or double."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.leaderboard.leaderboard import ranking
from harness.store import Store, local
from harness.store.catalog import View
from harness.store.compaction import compact
from helpers.common import ROOT
from helpers.runs import answers, record

PROCESSES, SHARED, EACH, TURNS = 64, 48, 3, 2
FRAMES = [answers(right) for right in range(9)]
RECORDS = [record("finetune", seed, FRAMES[seed % 9]) for seed in range(SHARED)]


def work(store: Store, number: int, turn: int, acknowledged: Path) -> None:
    """Writes some runs that other processes write too, each failed first, then done; says which are done."""
    rng = random.Random(100 * turn + number)
    with open(acknowledged, "ab", buffering=0) as said:
        for seed in rng.sample(range(SHARED), EACH):
            whole = RECORDS[seed]
            with suppress(StoreError):  # somebody has finished it
                store.write(whole.model_copy(update={"status": "failed", "metrics": {}}))
            store.write(whole, FRAMES[seed % 9])
            said.write(f"{whole.run_id}\n".encode())  # one small write: it is whole, or not there


def one_turn(store: Store, turn: int, acknowledged: Path) -> list[int]:
    """Forks all writers (two of them compact instead), kills half of them unless it is the last turn; exit codes."""
    rng = random.Random(turn)
    doomed = set(rng.sample(range(PROCESSES), PROCESSES // 2)) if turn < TURNS - 1 else set()
    children = []
    for number in range(PROCESSES):
        if (child := os.fork()) == 0:
            code = 1
            try:
                compact(store) if number % 32 == 31 else work(store, number, turn, acknowledged)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
        if number in doomed:  # while it writes: it takes longer than that
            time.sleep(rng.random() * 0.01)
            os.kill(child, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the writers are forked")
def test_killed_writers(tmp_path: Path) -> None:
    store, acknowledged = Store(tmp_path / "store"), tmp_path / "acknowledged"
    acknowledged.touch()
    killed, found = 0, {}
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    for turn in range(TURNS):
        # In a process of its own: this one may have threads, with which it must not be forked.
        command = [sys.executable, __file__, store.url, str(turn), str(acknowledged)]
        said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
        codes = json.loads(said.stdout)
        assert set(codes) <= {0, -signal.SIGKILL}, said.stderr[-2000:]
        killed += codes.count(-signal.SIGKILL)
        # Whatever was said to be done is there, whole; whatever is there is sound.
        assert store.problems() == []
        found = {r.run_id: r for r in store.records()}
        finished = {run_id: r for run_id, r in found.items() if r.status == "done"}
        assert set(acknowledged.read_text().split()) <= set(finished)
        for run_id, r in finished.items():
            assert r.seal is not None
            assert r.model_copy(update={"seal": None}) == RECORDS[r.seed]
            assert store.predictions(run_id)["chosen"].tolist() == FRAMES[r.seed % 9]["chosen"].tolist()
    assert killed > 2  # how many depends on the machine
    assert {path.name for path in store.root.iterdir() if not path.name.startswith(".")} == set(found)
    before = ranking(store)
    compact(store)
    assert View(store).fresh.num_rows == 0
    assert ranking(store) == before
    (row,) = before.rows
    assert set(row.seeds) == {r.seed for r in found.values() if r.status == "done"}


if __name__ == "__main__":
    local.LOCK_SECONDS = 250.0  # sixty writers take turns, on a disk that others may keep busy
    print(json.dumps(one_turn(Store(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
