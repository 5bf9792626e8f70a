"""What accidents cost: processes and nodes are killed at random points until every run of a suite is done.

    python -m benches.faults                             all parts, written to benches/results/faults.json
    python -m benches.faults --only driver --kills 5 --out try.json

driver  The process that trains (`--workers 0`) is killed again and again, the same suite is started again each time:
        at any time, and aimed at the short moments in which a run is written, or its working state dropped.
        It is a fork of this one, so that a start costs no imports: what is killed is a process all the same.
nodes   On a Ray cluster of a head without CPUs and two nodes of one CPU, a suite is run by two workers a run; workers
        and whole nodes are killed (another node joins), and once the head with the driver.
elastic The same with `cluster.min_workers = 1`: a node is lost for good, and what is left finishes the suite.

Counted after every accident, and at the end against the same suite undisturbed: finished runs that are lost or have
changed, finished runs that were begun again, records that can't be read, answers or losses that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benches.common import RESULTS, header, keep
from benches.fault_nodes import on_nodes
from benches.fault_watch import SUITE, Damage, Watch, configs, launch_in
from harness.config import RunConfig
from harness.store import Store

# ------------------------------------------------------------------------------------------------ the driver


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """A child that does `work` (with a pipe's end to write to) and ends; its id, and the pipe's other end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work(writer)
        code = 0
    finally:
        os._exit(code)


def drivers(folder: Path, runs: Sequence[RunConfig], kills: int, seed: int) -> dict[str, Any]:
    """Campaigns of kills: a suite is killed until it is done, then the next begins, until `kills` have hit."""
    draw = random.Random(f"faults/{seed}")
    whole = Store(folder / "whole")
    begun = time.monotonic()
    child, reader = fork(lambda _: launch_in(whole, runs))
    os.close(reader)
    _, status = os.waitpid(child, 0)
    assert status == 0, "the undisturbed suite failed"
    seconds = time.monotonic() - begun
    hit: Counter[str] = Counter()
    campaigns, starts, damage = 0, 0, Damage()
    while hit.total() < kills:
        watch = Watch(Store(folder / f"campaign-{campaigns}"))
        campaigns += 1
        while True:
            starts += 1
            child, reader = fork(
                lambda pipe, store=watch.store: launch_in(  # type: ignore[misc]
                    store, runs, lambda run_id: os.write(pipe, f"{run_id}\n".encode()) and None
                )
            )
            moment = MOMENTS[hit.total() % len(MOMENTS)] if hit.total() < kills else "never"
            # At any time: long enough to finish something now and then, too short to finish all.
            patience = draw.uniform(0, seconds * 0.7) if moment == "any time" else float("inf")
            ended = wait_for(child, patience, lambda root=watch.store.root, moment=moment: at(root, moment))  # type: ignore[misc]
            if not ended:
                hit[moment] += 1
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                print(f"kill {hit.total()}, campaign {campaigns}", file=sys.stderr, flush=True)
            watch.begun += os.fdopen(reader).read().split()
            watch.look()
            if ended:
                break
        watch.compare(whole)
        damage = Damage(**{k: v + getattr(watch.damage, k) for k, v in asdict(damage).items()})
    resumed = sum(r.provenance.resumed for c in range(campaigns) for r in Store(folder / f"campaign-{c}").records())
    return {
        "kills": hit.total(),
        "killed_when": dict(hit),
        "campaigns": campaigns,
        "starts": starts,
        "runs_finished": campaigns * len(runs),
        "resumed_in_the_middle": resumed,
        "seconds_undisturbed": round(seconds, 1),
        **asdict(damage),
    }


MOMENTS = ("any time", "a run is written", "a run is done")
"""When a driver is killed, in turn: the last is before its working state is dropped."""


def at(root: Path, moment: str) -> set[Path]:
    """What shows that it is that moment just now (or was, when a driver was killed)."""
    match moment:
        case "a run is written":
            return {path.parent for path in root.glob(".tmp-*/*")}
        case "a run is done":
            return {work for work in (root / ".work").glob("[!.]*") if (root / work.name / "record.json").exists()}
        case _:
            return set()


def wait_for(child: int, seconds: float, signs: Callable[[], set[Path]]) -> bool:
    """Whether the process ends by itself in that time and before a new sign. Raises where it fails."""
    deadline, before = time.monotonic() + seconds, signs()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise RuntimeError(f"the suite failed (status {status})")
            return True
        if time.monotonic() >= deadline or signs() - before:
            return False
        time.sleep(0.001)


# -------------------------------------------------------------------------------------------------- command line


def drive(file: Path, store: Path) -> None:
    """The driver of `on_nodes`, in a process of its own: runs that begin are said on standard output."""
    suite = json.loads(file.read_text())
    launch_in(Store(store), configs(suite), lambda run_id: print(run_id, flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="What accidents cost.")
    parser.add_argument("--only", choices=["driver", "nodes", "elastic"])
    parser.add_argument("--kills", type=int, default=50, help="of the driver")
    parser.add_argument("--small", action="store_true", help="two runs instead of six under the driver's kills")
    parser.add_argument("--accidents", default="worker,node,worker,head,node", help="on the cluster, in this order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if options.drive:
        drive(options.drive, options.store)
        return
    with tempfile.TemporaryDirectory(prefix="hkd-") as folder:
        if options.only in (None, "driver"):
            where = header()
            import harness.execution.run  # noqa: F401  imported once, before the forks that need it

            runs = configs(SUITE)
            figures = drivers(Path(folder), runs[:2] if options.small else runs, options.kills, options.seed)
            report(options.out, "driver", figures, where)
        for part, accidents in (("nodes", options.accidents.split(",")), ("elastic", ["lost"])):
            if options.only in (None, part):
                where = header()
                cluster = {"workers": 2, "max_failures": 20} | ({"min_workers": 1} if part == "elastic" else {})
                suite = SUITE | {"cluster": cluster, "seeds": [0]}
                suite["train"] = {"examples": 400, "batch_size": 8, "validations": 10}
                figures = on_nodes(Path(folder) / part, suite, accidents, options.seed)
                report(options.out, part, figures, where)


def report(out: Path, part: str, figures: dict[str, Any], where: dict[str, Any]) -> None:
    zero = ("lost", "repeated", "broken", "different", "left", "unfinished")
    met = not any(figures.get(name) for name in zero)
    keep(out, part, {"target": "0 lost, repeated, broken or different", "met": met, **figures, "where": where})
    print(json.dumps({part: figures}, indent=1), flush=True)


if __name__ == "__main__":
    main()
