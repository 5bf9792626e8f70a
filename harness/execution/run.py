"""One run from plan to record: train, score, write. It doesn't import ray; `ray_train` calls it on the workers."""

from __future__ import annotations

import ctypes
import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness import provenance
from harness.errors import StoreError
from harness.evaluation.predict import evaluate
from harness.events import Event, raise_if_stopped
from harness.execution import records
from harness.models.distributed import ProcessGroup, RankLost, locked, rank_lost
from harness.planning.plan import Plan
from harness.record import Cost, Record
from harness.store import HistoryRow, PredictionRow, Store, history_frame, live, predictions_frame
from harness.store.local import room_for
from harness.store.tensor_cache import cache_of
from harness.train.loop import Trained, train

WAIT_SECONDS = 2.0


def execute(plan: Plan, io: ProcessGroup, store: Store) -> Record:
    """Train and score the plan, and write its record (rank 0). A finished run is returned unchanged.

    If another process is executing the same run, this one waits and then returns that record (or runs it, if it
    failed).

    Every error leads to a record with status `failed` and the reason; the run can be started again. Only if another
    rank
    is gone, this one raises `RankLost`: either that rank has written the record, or the run continues later.
    """
    work = store.work(plan.run_id)
    with _lock(plan, io, store), _progress_file(plan, io, work):
        # All ranks must do the same: they use what rank 0 finds.
        done: Record | None = io.gather(store.finished(plan.run_id) if io.rank == 0 else None)[0]
        if done is not None:
            return done
        started, clock = provenance.now(), time.perf_counter()
        provenance.reset_peak_memory()
        try:
            store.backend.download_checkpoint(f".work/{plan.run_id}", work)
            cache = cache_of(store, plan.config.cluster)
            trained = train(plan, io, work, cache, lambda folder: _upload(store, plan.run_id, folder))
            predictions, test_forwards, test_seconds = _score(plan, trained, io)
        except Exception as error:
            raise_if_stopped()  # a library may have made this error of Ctrl-C
            if io.world > 1 and rank_lost(error):
                raise RankLost(f"run {plan.run_id}: another rank is gone") from error
            record = records.failed(plan, error, started, io.world)
            return _write(store, record)  # on any rank: the others may be waiting for it forever
        cost = _cost(trained, test_forwards, test_seconds, time.perf_counter() - clock)
        record = Record(
            **records.plan_fields(plan),
            status="done",
            stages=trained.stages,
            metrics=records.metrics(plan, predictions),
            cost=cost,
            preflight=trained.preflight,
            provenance=records.provenance_of(plan, started, io.world, trained.resumed),
        )
        if io.rank == 0:
            student = _save_student(trained, work) if plan.config.save_student else None
            history = history_frame(HistoryRow(**row) for row in trained.history)
            record = _write(store, record, predictions, history, student)
            shutil.rmtree(work, ignore_errors=True)
            store.backend.remove(f".work/{plan.run_id}")
        io.gather(None)
    return record


def _write(
    store: Store,
    record: Record,
    predictions: pd.DataFrame | None = None,
    history: pd.DataFrame | None = None,
    student: Path | None = None,
) -> Record:
    """Write the record and return it with its checksums; if another process was faster, return the one of that."""
    if (done := store.finished(record.run_id)) is not None:
        return done
    try:
        store.write(record, predictions, history, student)
    except StoreError:
        if (done := store.finished(record.run_id)) is None:
            raise
        return done
    return store.read(record.run_id)


def _lock(plan: Plan, io: ProcessGroup, store: Store) -> AbstractContextManager[None]:
    """Wait until no other process executes this run, and keep others from executing it meanwhile.

    Two processes that train it at once would delete each other's checkpoints.
    """

    def on_wait() -> None:
        io.report({"stage": "wait for the process that runs it", "step": 0, "steps": 1})

    return locked(io, lambda: store.lock(plan.run_id, WAIT_SECONDS), on_wait)


@contextmanager
def _progress_file(plan: Plan, io: ProcessGroup, work: Path) -> Iterator[None]:
    """Within the context, rank 0's events are also written to the work folder, see `harness.store.live`."""
    if io.rank != 0:
        yield
        return
    config, report = plan.config, io.report
    about = {
        "run_id": plan.run_id,
        "method": config.method,
        "benchmark": config.benchmark,
        "student": config.student,
        "seed": config.seed,
        "tags": config.tags,
        "stages": [planned.stage.name for planned in plan.stages],
    }
    with live.progress_file(work, about) as write:

        def both(event: Event) -> None:
            report(event)
            write(event)

        io.report = both
        try:
            yield
        finally:
            io.report = report


def _upload(store: Store, run_id: str, folder: Path) -> None:
    """Upload a checkpoint to the store, so that the run can continue elsewhere. If that fails, training continues."""
    with suppress(StoreError):
        store.backend.upload_checkpoint(folder, f".work/{run_id}")


def release_memory() -> None:
    """Return a run's memory to the system: otherwise a worker that executes many runs would grow with each."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()  # the libraries' objects are permanent, and scanning them takes 0.25 s each time
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _score(plan: Plan, trained: Trained, io: ProcessGroup) -> tuple[pd.DataFrame, int, float]:
    """Predictions of every split to be scored, the forward passes on test, and the seconds on test."""
    rows: list[dict[str, Any]] = []
    test_forwards, test_seconds = 0, 0.0
    for split in plan.config.evaluate.splits:
        if split not in plan.dataset.splits:
            continue
        clock = time.perf_counter()
        part, forwards, note = evaluate(
            (trained.student, trained.encoder),
            plan.asking,
            plan.dataset.splits[split],
            split,
            plan.config.evaluate.batch_size,
            io,
            plan.config.evaluate.share_prefix,
        )
        rows += part
        if note and trained.preflight and note not in trained.preflight.warnings:
            trained.preflight.warnings.append(note)
        if split == "test":
            test_forwards, test_seconds = forwards, time.perf_counter() - clock
    return predictions_frame(PredictionRow(**row) for row in rows), test_forwards, test_seconds


def _cost(trained: Trained, test_forwards: int, test_seconds: float, total_seconds: float) -> Cost:
    return Cost(
        roles=trained.costs,
        train_seconds=trained.seconds.get("train", 0.0),
        validation_seconds=trained.seconds.get("validation", 0.0),
        test_seconds=test_seconds,
        total_seconds=total_seconds,
        train_flops=sum(c.flops for c in trained.costs.values()),
        test_forwards=test_forwards,
        peak_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else provenance.peak_memory(),
    )


def _save_student(trained: Trained, work: Path) -> Path:
    folder = work / "student"
    with room_for(folder, "the student"):
        trained.student.vlm.save_pretrained(folder)  # type: ignore[operator]
        trained.encoder.processor.save_pretrained(folder)
    return folder
