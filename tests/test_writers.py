"""Sixty-four processes write records at once, and are killed at random: no record is lost, broken or double."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from runs import answers, record

from harness.catalogue import View, compact
from harness.errors import StoreError
from harness.rank import ranking
from harness.store import Store

PROCESSES, SHARED, ROUNDS = 64, 96, 3
FRAMES = [answers(right) for right in range(9)]
RECORDS = [record("finetune", seed, FRAMES[seed % 9]) for seed in range(SHARED)]


def work(store: Store, number: int, turn: int, acknowledged: Path) -> None:
    """Writes six runs that other processes write too, each failed first, then done; says which are done."""
    rng = random.Random(100 * turn + number)
    with open(acknowledged, "ab", buffering=0) as said:
        for seed in rng.sample(range(SHARED), 6):
            whole = RECORDS[seed]
            with suppress(StoreError):  # somebody has finished it
                store.write(whole.model_copy(update={"status": "failed", "metrics": {}}))
            store.write(whole, FRAMES[seed % 9])
            said.write(f"{whole.run_id}\n".encode())  # one small write: it is whole, or not there


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked")
@pytest.mark.skipif(sys.platform == "darwin", reason="forked processes must not use Accelerate there")
def test_killed_writers(tmp_path: Path) -> None:
    store, acknowledged = Store(tmp_path / "store"), tmp_path / "acknowledged"
    acknowledged.touch()
    rng = random.Random(0)
    killed = 0
    for turn in range(ROUNDS):
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
        doomed = children if turn < ROUNDS - 1 else []  # the last turn is left alone
        for child in rng.sample(doomed, len(doomed) // 2):
            time.sleep(rng.random() * 0.02)
            os.kill(child, signal.SIGKILL)  # one that has ended already is not yet collected: no harm
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        killed += codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, -signal.SIGKILL}
        # Whatever was said to be done is there, whole; whatever is there is sound.
        done = set(acknowledged.read_text().split())
        assert store.problems() == []
        found = {r.run_id: r for r in store.records()}
        assert done <= {run_id for run_id, r in found.items() if r.status == "done"}
        for run_id, r in found.items():
            if r.status == "done":
                assert r == RECORDS[r.seed]
                assert store.predictions(run_id)["chosen"].tolist() == FRAMES[r.seed % 9]["chosen"].tolist()
    assert killed > 10
    assert len(found) > SHARED * 0.9
    entries = [path.name for path in store.root.iterdir()]
    assert {name for name in entries if not name.startswith(".")} == set(found)
    before = ranking(store)
    compact(store)
    assert View(store).fresh.num_rows == 0
    assert ranking(store) == before
    (row,) = before.rows
    assert set(row.seeds) == {r.seed for r in found.values() if r.status == "done"}
