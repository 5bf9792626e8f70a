"""A sweep's trial, on the worker that trains it: one run per seed, and the reports of its score."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.errors import UserError, first_line
from harness.events import Event, OnEvent
from harness.execution import logs, ray_train
from harness.execution.trackers import tracker
from harness.experiments.space import Point
from harness.experiments.sweep import Search
from harness.planning import plan
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store

Report = Callable[[dict[str, Any]], None]
"""Called with `score` and `validations`; the last report also has `status`, `runs`, `seconds`, `error` and `note`."""

FAILED = 0.0
"""The score of a trial that failed: the worst possible."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common."""

    search: Search
    store: str
    """The store's URL."""
    folder: str
    """The driver's working directory: paths in the sweep are relative to it."""


def run(job: Job, point: Point, report: Report) -> None:
    """Train one run per seed; report the score at every validation of the student, and finally the mean over the
    seeds."""
    import torch

    with suppress(OSError):  # another machine may not have this folder
        os.chdir(job.folder)
    search, store = job.search, Store(job.store)
    sweep = search.sweep
    torch.set_num_threads(sweep.cluster.cpus_per_worker)
    scores: list[float] = []
    runs: list[str] = []
    notes: list[str] = []
    seconds, validations, error = 0.0, 0, None
    for seed in sweep.seeds:
        try:
            planned = plan.make(search.trial(point, seed))
        except UserError as problem:
            error = first_line(problem)
            break
        record = _train(planned, search.name, store, _reporter(planned, scores, report), notes.append)
        runs.append(planned.run_id)
        seconds += record.cost.total_seconds
        if record.status != "done":
            error = record.error.message if record.error else record.status
            break
        scores.append(record.metrics["validation"][sweep.metric].value)
        validations += student_validations(planned)
    report(
        {
            "score": FAILED if error else fmean(scores),
            "validations": validations,
            "status": "failed" if error else "done",
            "runs": runs,
            "seconds": seconds,
            "error": error or "",
            "note": "; ".join(dict.fromkeys(notes)),
        }
    )


def _train(planned: Plan, name: str, store: Store, send: OnEvent, on_note: Callable[[str], None]) -> Record:
    """The run's record: trained here, or by its own worker group. `name` is the search's; `on_note` is called if a
    tracker fails."""
    import torch

    from harness.execution import run as runner
    from harness.models.distributed import SingleProcess

    if (done := store.finished(planned.run_id)) is not None:
        return done
    cluster = planned.config.cluster
    track = tracker(planned.config.track, store, {planned.run_id: planned.config}, on_note)
    log = logs.log(planned.config.track.logs, name, store, on_note)

    def on_event(event: Event) -> None:
        for told in (track, log):
            told({"run_id": planned.run_id, **event})
        send(event)

    if cluster.workers > 1:
        ray_train.execute([(planned.run_id, planned.config)], store, cluster, on_event, "trial", lambda: None)
        return store.read(planned.run_id)
    device = torch.device("cuda" if cluster.gpus_per_worker else "cpu")
    try:
        record = runner.execute(planned, SingleProcess(on_event, device), store)
        for told in (track, log):
            told({"run_id": planned.run_id, "status": record.status})
        return record
    finally:
        runner.release_memory()


def _reporter(planned: Plan, scores: Sequence[float], report: Report) -> OnEvent:
    """Reports the student's validations: the mean of the finished seeds' scores and the current best one."""
    stages, student, each = learning(planned), planned.method.student, planned.config.train.validations
    before, finished, best = len(scores) * student_validations(planned), list(scores), 0.0

    def on_event(event: Event) -> None:
        nonlocal best
        value = event.get("validation", {}).get(student)
        if value is None or event["stage"] not in stages:
            return
        best = max(best, value)
        at = before + stages.index(event["stage"]) * each + round(each * event["step"] / event["steps"])
        report({"score": fmean([*finished, best]), "validations": at})

    return on_event


def learning(planned: Plan) -> list[str]:
    """The stages in which a run's student learns."""
    student = planned.method.student
    stages = [p.stage for p in planned.stages]
    return [stage.name for stage in stages if student in stage.roles and stage.roles[student].changes]


def student_validations(planned: Plan) -> int:
    """How often a run's student is validated during training."""
    return len(learning(planned)) * planned.config.train.validations
