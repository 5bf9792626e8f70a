"""What a sweep's trial costs beside its own runs, once the cluster is up.

    python -m benches.trial_overhead                     both parts, kept in benches/results/trial_overhead.json
    python -m benches.trial_overhead --only reused --trials 6 --out try.json

reused  Trials of one worker, which one Tune actor takes in turn. Target: a median of 2 s.
nested  Trials of two workers, each with a Ray Train group of its own. Target: 15 s.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from statistics import median
from typing import Any

from benches.common import RESULTS, header, keep
from benches.trials import config, timed

TARGETS = {"reused": 2.0, "nested": 15.0}
TRAIN = {"examples": 64, "batch_size": 8, "validations": 2}


def measure(part: str, trials: int, cpus: int) -> dict[str, Any]:
    """One trial after the other, by holding all CPUs; the first, which starts the actor, isn't counted.

    overhead = from the end of the trial before to this one's end, less what its run took (`cost.total_seconds`)
    inside   = the part of it in which the trial's function ran: planning, locks, (nested) the worker group
    between  = the rest: Tune's bookkeeping, the actor's reset (nested: a new actor)
    """
    rates = {"train.lr": {"choice": [1e-3 * (k + 1) for k in range(trials)]}}
    workers = 1 if part == "reused" else 2
    cluster = {"workers": workers, "cpus_per_worker": max(cpus // workers, 1)}
    done, news = timed(config("finetune", rates, trials=trials, cluster=cluster, train=TRAIN))
    assert all(trial.status == "done" for trial in done), done
    ends = [one for one in news if one["state"] == "done"]
    overheads = [b["at"] - a["at"] - b["seconds"] for a, b in itertools.pairwise(ends)]
    inside = [one["wall"] - one["seconds"] for one in ends[1:]]
    return {
        "trials": trials,
        "target_s": TARGETS[part],
        "median_overhead_s": round(median(overheads), 2),
        "overheads_s": [round(x, 2) for x in overheads],
        "median_inside_s": round(median(inside), 2),
        "median_between_s": round(median(o - i for o, i in zip(overheads, inside, strict=True)), 2),
        "median_run_s": round(median(one["seconds"] for one in ends[1:]), 2),
        "load_after": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--nested-trials", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--out", type=Path, default=RESULTS / "trial_overhead.json")
    arguments = parser.parse_args()
    for part in [arguments.only] if arguments.only else list(TARGETS):
        head = header()
        count = arguments.trials if part == "reused" else arguments.nested_trials
        figures = measure(part, count, arguments.cpus)
        print(part, figures)
        keep(arguments.out, part, figures | head)


if __name__ == "__main__":
    main()
