"""Runs as Prometheus metrics, through Ray's own: every node of a cluster serves them (`ray_hkdbench_...`).

The driver counts, from the events of all workers, and its node exports. The tags say what a number is of; `suite` is
the launch's name. Every combination of tags is a series that the node keeps: only three counters have the run.

    hkdbench_runs{suite, state}             gauge: runs that are `waiting` or `running` now
    hkdbench_runs_ended{suite, method, benchmark, status}    counter: `done`, `failed` or `interrupted`
    hkdbench_step_seconds{suite, method, benchmark}          histogram: mean time of a training step, by report
    hkdbench_examples{run, ...}             counter: examples of training steps, over all workers
    hkdbench_train_seconds{run, ...}        counter: seconds of training steps
    hkdbench_data_wait_seconds{run, ...}    counter: those of them in which rank 0 waited for data
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.config import RunConfig
from harness.events import Event, OnEvent

STEP_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
"""The upper limits of the histogram's buckets."""
WHERE = ("suite", "method", "benchmark")


def exporter(configs: Mapping[str, RunConfig], suite: str) -> OnEvent:
    """A callback for the events of the runs in `configs`, all of which are waiting now. Ray must be connected."""
    from ray.util.metrics import Counter, Gauge, Histogram

    runs = Gauge("hkdbench_runs", "Runs that are waiting or running", ("suite", "state"))
    ended = Counter("hkdbench_runs_ended", "Runs that have ended, by status", (*WHERE, "status"))
    step = Histogram("hkdbench_step_seconds", "Mean time of a training step", STEP_SECONDS, WHERE)
    of_run = {
        name: Counter(f"hkdbench_{name}", text, (*WHERE, "run"))
        for name, text in {
            "examples": "Examples of training steps, over all workers",
            "train_seconds": "Seconds of training steps",
            "data_wait_seconds": "Seconds of training steps in which rank 0 waited for data",
        }.items()
    }
    waiting, running = set(configs), set[str]()

    def count() -> None:
        for state, some in (("waiting", waiting), ("running", running)):
            runs.set(len(some), tags={"suite": suite, "state": state})

    def on_event(event: Event) -> None:
        run_id = event.get("run_id", "")
        if run_id not in configs:
            return
        config = configs[run_id]
        where = {"suite": suite, "method": config.method, "benchmark": config.benchmark}
        waiting.discard(run_id)
        if "status" in event:
            running.discard(run_id)
            ended.inc(tags=where | {"status": event["status"]})
        else:
            running.add(run_id)
        count()
        if steps := event.get("examples", 0) / config.train.batch_size:
            step.observe(event["seconds"] / steps, tags=where)
            numbers = {
                "examples": event["examples"],
                "train_seconds": event["seconds"],
                "data_wait_seconds": event["waited"],
            }
            for name, number in numbers.items():
                if number > 0:  # Ray refuses to add nothing
                    of_run[name].inc(number, tags=where | {"run": run_id})

    count()
    return on_event
