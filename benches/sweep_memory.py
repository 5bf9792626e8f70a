"""Whether a sweep's driver grows with the number of its trials.

    python -m benches.sweep_memory                 200 trials, kept in benches/results/sweep_memory.json

The trials do nothing but report: what grows is Tune's bookkeeping and the harness's. Resident memory of this process
after each trial; the first ones, in which libraries are still loaded, aren't counted. Target: flat within 100 MiB.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from unittest.mock import patch

import psutil

from benches.common import RESULTS, header, keep
from benches.trials import config, timed
from harness.experiments.space import Point
from harness.experiments.trial import Job, Report

TARGET_MIB = 100


def trivial(job: Job, point: Point, report: Report) -> None:
    """A trial that reports three validations and its score."""
    for validations in (1, 2, 3):
        report({"score": 0.5, "validations": validations})
    report({"score": 0.5, "validations": 3, "status": "done", "runs": [], "seconds": 0.0, "error": ""})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--warm", type=int, default=10, help="Trials that aren't counted.")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep_memory.json")
    arguments = parser.parse_args()
    head, clock, process = header(), time.monotonic(), psutil.Process()
    rates = {"train.lr": {"choice": [1e-6 * (k + 1) for k in range(arguments.trials)]}}
    with patch("harness.experiments.trial.run", trivial):
        sweep = config("finetune", rates, trials=arguments.trials)
        done, news = timed(sweep, lambda: process.memory_info().rss / 2**20)
    assert [trial.status for trial in done] == ["done"] * arguments.trials
    seen = [one["at"] for one in news if one["state"] == "done"]
    counted = seen[arguments.warm :]
    figures = {
        "trials": len(seen),
        "target_mib": TARGET_MIB,
        "growth_mib": round(max(counted) - counted[0], 1),
        "first_mib": round(counted[0], 1),
        "last_mib": round(counted[-1], 1),
        "mib_every_20_trials": [round(x, 1) for x in seen[::20]],
        "seconds": round(time.monotonic() - clock, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }
    print(figures)
    keep(arguments.out, "driver", figures | head)


if __name__ == "__main__":
    main()
