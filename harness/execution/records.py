"""Records of runs, made from plans and predictions. It imports neither torch nor ray."""

from __future__ import annotations

import traceback
from typing import Any

import pandas as pd

from harness import provenance
from harness.config import RunConfig
from harness.data import leakage
from harness.data.dataset import settings_of
from harness.errors import TrainingError, UserError
from harness.evaluation.controls import write_controls
from harness.evaluation.scoring import by_letter, data_record, figures_of
from harness.planning.plan import Plan
from harness.record import Data, Failure, Interval, Provenance, Record, TrainedOn
from harness.store import Store


def ensure_controls(plan: Plan, store: Store) -> None:
    """Write the model-free rows of the plan's benchmark (majority, random, ...) unless the store has them."""
    made_by = provenance_of(plan, provenance.now(), 0, 0)
    write_controls(store, plan.dataset, data_of(plan), plan.config.evaluate, made_by)


def failed(plan: Plan, error: BaseException, started: str, workers: int) -> Record:
    """The record of a failed run."""
    user = isinstance(error, UserError | TrainingError)
    failure = Failure(
        type=type(error).__name__,
        message=str(error) or type(error).__name__,
        stage=getattr(error, "stage", None),
        step=getattr(error, "step", None),
        traceback=None if user else "".join(traceback.format_exception(error)),
    )
    return Record(
        **plan_fields(plan), status="failed", provenance=provenance_of(plan, started, workers, 0), error=failure
    )


def interrupted(plan: Plan, started: str, workers: int, why: str | None = None) -> Record:
    """The record of a stopped run. The next identical run continues from its checkpoint, if there is one."""
    return Record(
        **plan_fields(plan),
        status="interrupted",
        provenance=provenance_of(plan, started, workers, 0),
        error=Failure(type="Interrupted", message=why or "stopped before it was done; run it again to resume it"),
    )


def metrics(plan: Plan, frame: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The figures of each split of a run, see `figures_of`; models are asked for a letter."""
    figures = figures_of(plan.dataset, frame, plan.config.evaluate.resamples)
    return {split: by_letter(some) for split, some in figures.items()}


def plan_fields(plan: Plan) -> dict[str, Any]:
    """The fields of a run's record that are known from its plan."""
    c = plan.config
    return {
        "run_id": plan.run_id,
        "kind": "control" if c.control else "run",
        "benchmark": c.benchmark,
        "task": plan.benchmark.task,
        "method": f"{c.method}/{c.control}" if c.control else c.method,
        "settings": plan.settings,
        "ladder": plan.ladder,
        "student": c.student,
        "parameters": plan.student_parameters,
        "budget": plan.budget,
        "seed": c.seed,
        "tags": list(c.tags),
        "config": RunConfig.model_dump(c, mode="json", exclude={"data_dir", "train_on_data_dir"}),
        "identity": plan.identity,
        "data": data_of(plan),
        "trained_on": trained_on(plan),
    }


def data_of(plan: Plan) -> Data:
    return data_record(plan.dataset, plan.published)


def trained_on(plan: Plan) -> TrainedOn | None:
    """The other benchmark that the plan learns from, if there is one."""
    if plan.training is plan.dataset:
        return None
    benchmark = plan.training.benchmark
    return TrainedOn(
        benchmark=benchmark.name,
        settings=settings_of(benchmark),
        data=data_record(plan.training, plan.learned),
        leaks=leakage.exact_between(plan.learned, plan.published),
    )


def provenance_of(plan: Plan, started: str, workers: int, resumed: int) -> Provenance:
    return Provenance(
        **provenance.static(),
        sources=plan.sources,
        started=started,
        finished=provenance.now(),
        workers=workers,
        resumed=resumed,
    )
