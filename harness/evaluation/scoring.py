"""Records of runs, made from plans and predictions. It imports neither torch nor ray."""

from __future__ import annotations

import traceback
from statistics import fmean
from typing import Any

import pandas as pd

from harness import provenance
from harness.api import Answer, Example
from harness.config import EvaluateConfig, RunConfig
from harness.data import leakage
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.controls import control_id, control_names, control_runs
from harness.planning.plan import Plan, settings_of
from harness.record import Data, Failure, Interval, Provenance, Record, TrainedOn
from harness.stats import calibration
from harness.stats.inference import summarise
from harness.stats.metrics import NO_ANSWER
from harness.store import Store


class TrainingError(RuntimeError):
    """A method broke the contract or the numbers broke down; says where, and what to change."""

    def __init__(self, message: str, stage: str, step: int) -> None:
        super().__init__(message)
        self.stage, self.step = stage, step


def ensure_controls(plan: Plan, store: Store) -> None:
    """Write the model-free rows of the plan's benchmark (majority, random, ...) unless the store has them."""
    told = provenance_of(plan, provenance.now(), 0, 0)
    write_controls(store, plan.dataset, data_of(plan), plan.config.evaluate, told)


def write_controls(store: Store, dataset: Dataset, data: Data, evaluate: EvaluateConfig, told: Provenance) -> None:
    """The same for a dataset that no plan stands behind; `data` is what `seen` says of it."""
    benchmark, everything = dataset.benchmark, dataset.splits
    splits = {s: e for s, e in everything.items() if s in evaluate.splits}
    train_golds = [example.gold for example in everything["train"]] if "train" in everything else None
    names = control_names(splits, data, train_golds)
    if all(store.status(control_id(name, benchmark.name, data)) == "done" for name in names):
        return
    for record, frame in control_runs(
        benchmark=benchmark.name,
        task=benchmark.task,
        train_golds=train_golds,
        splits=splits,
        data=data,
        provenance=told,
        figures=lambda frame: figures_of(dataset, frame, evaluate.resamples),
    ):
        config = {
            "benchmark": benchmark.name,
            "benchmark_settings": settings_of(benchmark),
            "skip_missing": bool(dataset.skipped),
            "evaluate": evaluate.model_dump(mode="json"),
        }
        if store.finished(record.run_id) is None:
            store.write(record.model_copy(update={"config": config}), frame)


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


def interrupted(plan: Plan, started: str, workers: int, why: str | None = None) -> Record:
    """The record of a run that was stopped; the next identical run goes on from its checkpoint, where it has one."""
    return Record(
        **identity(plan),
        status="interrupted",
        provenance=provenance_of(plan, started, workers, 0),
        error=Failure(type="Interrupted", message=why or "stopped before it was done; run it again to go on"),
    )


def metrics(plan: Plan, frame: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The figures of each split of a run, see `figures_of`."""
    return figures_of(plan.dataset, frame, plan.config.evaluate.resamples)


def figures_of(dataset: Dataset, frame: pd.DataFrame, resamples: int) -> dict[str, dict[str, Interval]]:
    """The figures of each split from its predictions: the harness's metrics and the benchmark's protocols.

    Beside accuracy and F1: `calibration.FIGURES`, `parse_failures` (the share that couldn't be read as an
    option: 0 for option logits) and `chance` (what a uniform guess scores on average). What a protocol leaves
    undefined has no figure.
    """
    result: dict[str, dict[str, Interval]] = {}
    for split in frame["split"].unique():
        part = frame[frame["split"] == split]
        figures = dict(summarise(part, dataset.options, resamples))
        figures |= calibration.figures(part, dataset.options, resamples)
        examples = {e.id: e for e in dataset.splits[split]}
        figures["parse_failures"] = Interval(value=float((part["chosen"] == NO_ANSWER).mean()))
        figures["chance"] = Interval(value=fmean(1 / len(examples[id_].options) for id_ in part["id"]))
        given = [
            (examples[id_], answer(examples[id_], int(chosen), text))
            for id_, chosen, text in zip(part["id"], part["chosen"], part["text"], strict=True)
        ]
        for protocol, scorer in dataset.benchmark.protocols().items():
            asked = [a for e, a in given if dataset.benchmark.asked(protocol, e)]
            for name, value in (scorer(asked) if asked else {}).items():
                if value is not None:
                    figures[f"{protocol}:{name}"] = Interval(value=value)
        result[split] = figures
    return result


def answer(example: Example, chosen: int, text: str | None) -> Answer:
    """The answer as protocols see it; without a text of its own it is that of the chosen option."""
    e = example
    said = text if isinstance(text, str) else e.options[chosen] if chosen != NO_ANSWER else ""
    return Answer(e.id, e.group, e.category, e.options, e.gold, chosen, said, e.extra)


def identity(plan: Plan) -> dict[str, Any]:
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
        "budget": c.train.examples if plan.stages else 0,
        "seed": c.seed,
        "tags": list(c.tags),
        "config": RunConfig.model_dump(c, mode="json", exclude={"data_dir", "train_on_data_dir"}),
        "identity": plan.identity,
        "data": data_of(plan),
        "trained_on": trained_on(plan),
    }


def data_of(plan: Plan) -> Data:
    return seen(plan.dataset, plan.published)


def seen(dataset: Dataset, published: Dataset | None = None) -> Data:
    """What a run on this data saw of it; `published` is the data with its own images, to look for leaks in."""
    return Data(
        revision=dataset.benchmark.revision,
        fingerprint=dataset.fingerprint,
        sizes=dataset.sizes,
        options=list(dataset.options) if dataset.options else None,
        skipped={str(split): count for split, count in dataset.skipped.items()},
        leaks=None if published is None else leakage.exact(published),
    )


def trained_on(plan: Plan) -> TrainedOn | None:
    """The other benchmark that the plan learns from, if it does."""
    if plan.training is plan.dataset:
        return None
    benchmark = plan.training.benchmark
    return TrainedOn(
        benchmark=benchmark.name,
        settings=settings_of(benchmark),
        data=seen(plan.training, plan.learned),
        leaks=leakage.exact_between(plan.learned, plan.published),
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
