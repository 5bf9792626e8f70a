"""One run from plan to record: train, score, write. It imports no ray; `rayrun` calls it on the workers."""

from __future__ import annotations

import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness import provenance
from harness.api import Answer
from harness.config import RunConfig
from harness.controls import CONTROLS, control_id, control_runs
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.io import Io
from harness.plan import Plan
from harness.record import Cost, Data, Failure, Interval, Provenance, Record
from harness.stats import summarise
from harness.store import HistoryRow, PredictionRow, Store, history_frame, predictions_frame
from harness.train import Trained, TrainingError, train


def execute(plan: Plan, io: Io, store: Store) -> Record:
    """Train and score the plan, and write its record (rank 0). A finished run is returned as it is.

    Whatever goes wrong leaves a record with status `failed` and the reason; it can be run again.
    """
    done = finished(store, plan.run_id)
    if done is not None:
        return done
    started, clock = provenance.now(), time.perf_counter()
    provenance.reset_peak_memory()
    work = store.work(plan.run_id)
    try:
        trained = train(plan, io, work)
        rows, forwards, test_seconds = _score(plan, trained, io)
    except Exception as error:
        record = failed(plan, error, started, io.world)
        if finished(store, plan.run_id) is None:  # else another process was faster
            store.write(record)  # whichever rank it was: the others may be waiting for it for ever
        return record
    record = _record(plan, trained, rows, forwards, test_seconds, started, time.perf_counter() - clock, io.world)
    if io.rank == 0:
        student = _save_student(trained, work) if plan.config.save_student else None
        history = history_frame(HistoryRow(**row) for row in trained.history)
        if finished(store, plan.run_id) is None:  # else another process was faster
            store.write(record, _frame(rows), history, student)
        shutil.rmtree(work, ignore_errors=True)
    io.gather(None)
    return record


def finished(store: Store, run_id: str) -> Record | None:
    """The run's record if it is done, else None."""
    return store.read(run_id) if store.status(run_id) == "done" else None


def ensure_controls(plan: Plan, store: Store) -> None:
    """Write the model-free rows of the plan's benchmark (majority, random) unless the store has them."""
    data = _data(plan)
    if all(store.status(control_id(name, plan.config.benchmark, data)) == "done" for name in CONTROLS):
        return
    for record, frame in control_runs(
        benchmark=plan.config.benchmark,
        task=plan.benchmark.task,
        train_golds=[example.gold for example in plan.dataset.splits["train"]],
        splits={s: e for s, e in plan.dataset.splits.items() if s in plan.config.evaluate.splits},
        data=data,
        provenance=_provenance(plan, provenance.now(), 0, 0),
    ):
        whole = record.model_copy(update={"metrics": metrics(plan, frame)})
        if finished(store, record.run_id) is None:
            store.write(whole, frame)


def failed(plan: Plan, error: BaseException, started: str, workers: int) -> Record:
    """The record of a run that broke."""
    user = isinstance(error, UserError | TrainingError)
    failure = Failure(
        type=type(error).__name__,
        message=str(error) or type(error).__name__,
        stage=getattr(error, "stage", None),
        step=getattr(error, "step", None),
        traceback=None if user else "".join(traceback.format_exception(error)),
    )
    return Record(**_identity(plan), status="failed", provenance=_provenance(plan, started, workers, 0), error=failure)


def interrupted(plan: Plan, started: str, workers: int) -> Record:
    """The record of a run that was stopped; the next identical run goes on from its checkpoint."""
    return Record(
        **_identity(plan),
        status="interrupted",
        provenance=_provenance(plan, started, workers, 0),
        error=Failure(type="Interrupted", message="stopped before it was done; run it again to go on"),
    )


def _score(plan: Plan, trained: Trained, io: Io) -> tuple[list[dict[str, Any]], int, float]:
    """Predictions of every split to be scored, the forwards on test, and the seconds on test."""
    rows: list[dict[str, Any]] = []
    test_forwards, test_seconds = 0, 0.0
    for split in plan.config.evaluate.splits:
        if split not in plan.dataset.splits:
            continue
        clock = time.perf_counter()
        part, forwards = evaluate(
            (trained.student, trained.encoder),
            plan.method,
            plan.dataset.splits[split],
            split,
            plan.config.evaluate.batch_size,
            io,
        )
        rows += part
        if split == "test":
            test_forwards, test_seconds = forwards, time.perf_counter() - clock
    return rows, test_forwards, test_seconds


def _record(
    plan: Plan,
    trained: Trained,
    rows: list[dict[str, Any]],
    test_forwards: int,
    test_seconds: float,
    started: str,
    total_seconds: float,
    workers: int,
) -> Record:
    cost = Cost(
        roles=trained.costs,
        train_seconds=trained.seconds.get("train", 0.0),
        validation_seconds=trained.seconds.get("validation", 0.0),
        test_seconds=test_seconds,
        total_seconds=total_seconds,
        train_flops=sum(c.flops for c in trained.costs.values()),
        test_forwards=test_forwards,
        peak_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else provenance.peak_memory(),
    )
    return Record(
        **_identity(plan),
        status="done",
        stages=trained.stages,
        metrics=metrics(plan, _frame(rows)),
        cost=cost,
        provenance=_provenance(plan, started, workers, trained.resumed),
    )


def metrics(plan: Plan, frame: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The figures of each split from its predictions: the harness's metrics and the benchmark's protocols."""
    result: dict[str, dict[str, Interval]] = {}
    for split in frame["split"].unique():
        part = frame[frame["split"] == split]
        figures = dict(summarise(part, plan.dataset.options, plan.config.evaluate.resamples))
        examples = {e.id: e for e in plan.dataset.splits[split]}
        answers = [
            Answer(e.id, e.group, e.category, e.options, e.gold, int(chosen), e.extra)
            for id_, chosen in zip(part["id"], part["chosen"], strict=True)
            if (e := examples[id_])
        ]
        for protocol, scorer in plan.benchmark.protocols().items():
            for name, value in scorer(answers).items():
                figures[f"{protocol}:{name}"] = Interval(value=value)
        result[split] = figures
    return result


def _identity(plan: Plan) -> dict[str, Any]:
    c = plan.config
    return {
        "run_id": plan.run_id,
        "benchmark": c.benchmark,
        "task": plan.benchmark.task,
        "method": c.method,
        "settings": plan.settings,
        "ladder": plan.ladder,
        "student": c.student,
        "parameters": plan.student_parameters,
        "seed": c.seed,
        "tags": list(c.tags),
        "config": RunConfig.model_dump(c, mode="json", exclude={"data_dir"}),
        "data": _data(plan),
    }


def _data(plan: Plan) -> Data:
    return Data(
        revision=plan.benchmark.revision,
        fingerprint=plan.dataset.fingerprint,
        sizes=plan.dataset.sizes,
        options=list(plan.dataset.options) if plan.dataset.options else None,
    )


def _provenance(plan: Plan, started: str, workers: int, resumed: int) -> Provenance:
    return Provenance(
        **provenance.static(),
        code=plan.code,
        started=started,
        finished=provenance.now(),
        workers=workers,
        resumed=resumed,
    )


def _save_student(trained: Trained, work: Path) -> Path:
    folder = work / "student"
    trained.student.vlm.save_pretrained(folder)  # type: ignore[operator]
    trained.encoder.processor.save_pretrained(folder)
    return folder


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return predictions_frame(PredictionRow(**row) for row in rows)
