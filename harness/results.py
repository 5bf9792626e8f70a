"""Records of runs, made from plans and predictions. It imports neither torch nor ray."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness import provenance
from harness.api import Answer, Benchmark, Example
from harness.config import RunConfig
from harness.controls import CONTROLS, control_id, control_runs
from harness.errors import UserError
from harness.plan import Plan
from harness.record import Data, Failure, Interval, Provenance, Record
from harness.stats import summarise
from harness.store import Store


class TrainingError(RuntimeError):
    """A method broke the contract or the numbers broke down; says where, and what to change."""

    def __init__(self, message: str, stage: str, step: int) -> None:
        super().__init__(message)
        self.stage, self.step = stage, step


def finished(store: Store, run_id: str) -> Record | None:
    """The run's record if it is done, else None."""
    return store.read(run_id) if store.status(run_id) == "done" else None


def ensure_controls(plan: Plan, store: Store) -> None:
    """Write the model-free rows of the plan's benchmark (majority, random) unless the store has them."""
    data = data_of(plan)
    if all(store.status(control_id(name, plan.config.benchmark, data)) == "done" for name in CONTROLS):
        return
    for record, frame in control_runs(
        benchmark=plan.config.benchmark,
        task=plan.benchmark.task,
        train_golds=[example.gold for example in plan.dataset.splits["train"]],
        splits={s: e for s, e in plan.dataset.splits.items() if s in plan.config.evaluate.splits},
        data=data,
        provenance=provenance_of(plan, provenance.now(), 0, 0),
    ):
        seen = {"benchmark", "benchmark_settings", "evaluate"}
        config = plan.config.model_dump(mode="json", include=seen)
        whole = record.model_copy(update={"metrics": metrics(plan, frame), "config": config})
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
    return Record(**identity(plan), status="failed", provenance=provenance_of(plan, started, workers, 0), error=failure)


def interrupted(plan: Plan, started: str, workers: int) -> Record:
    """The record of a run that was stopped; the next identical run goes on from its checkpoint."""
    return Record(
        **identity(plan),
        status="interrupted",
        provenance=provenance_of(plan, started, workers, 0),
        error=Failure(type="Interrupted", message="stopped before it was done; run it again to go on"),
    )


def metrics(plan: Plan, frame: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The figures of each split from its predictions: the harness's metrics and the benchmark's protocols."""
    result: dict[str, dict[str, Interval]] = {}
    for split in frame["split"].unique():
        part = frame[frame["split"] == split]
        figures = dict(summarise(part, plan.dataset.options, plan.config.evaluate.resamples))
        result[split] = figures | protocol_figures(plan.benchmark, plan.dataset.splits[split], part)
    return result


def protocol_figures(benchmark: Benchmark, examples: Sequence[Example], part: pd.DataFrame) -> dict[str, Interval]:
    """The figures of the benchmark's own protocols, `<protocol>:<name>`, of one split's predictions."""
    by_id = {e.id: e for e in examples}
    answers = [
        Answer(e.id, e.group, e.category, e.options, e.gold, int(chosen), e.extra)
        for id_, chosen in zip(part["id"], part["chosen"], strict=True)
        if (e := by_id[id_])
    ]
    return {
        f"{protocol}:{name}": Interval(value=value)
        for protocol, scorer in benchmark.protocols().items()
        for name, value in scorer(answers).items()
    }


def identity(plan: Plan) -> dict[str, Any]:
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
        "budget": c.train.examples if plan.stages else 0,
        "seed": c.seed,
        "tags": list(c.tags),
        "config": RunConfig.model_dump(c, mode="json", exclude={"data_dir"}),
        "identity": plan.identity,
        "data": data_of(plan),
    }


def data_of(plan: Plan) -> Data:
    return Data(
        revision=plan.benchmark.revision,
        fingerprint=plan.dataset.fingerprint,
        sizes=plan.dataset.sizes,
        options=list(plan.dataset.options) if plan.dataset.options else None,
    )


def provenance_of(plan: Plan, started: str, workers: int, resumed: int) -> Provenance:
    return Provenance(
        **provenance.static(),
        code=plan.code,
        started=started,
        finished=provenance.now(),
        workers=workers,
        resumed=resumed,
    )
