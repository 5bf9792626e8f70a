"""Contradictions between a record, its tables and the benchmark's data, as text.

Pure functions for `harness.submission.verify`; each yields one text per contradiction. They take records and tables
that may come from somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from harness.config import EvaluateConfig, Settings, TrainConfig, parse
from harness.data.dataset import Dataset
from harness.errors import ConfigError
from harness.evaluation import controls, scoring
from harness.evaluation.choices import read_choice
from harness.record import Interval, Record
from harness.stats import calibration, inference
from harness.stats.metrics import NO_ANSWER
from harness.versions import SCORING

TOLERANCE = 1e-12
"""Figures are fractions near 1: only their last bits may differ between machines."""

LATER = frozenset({*calibration.FIGURES, "parse_failures", "chance"})
"""Figures that the first version didn't have."""

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Setup:
    """The parts of a recorded config that figures depend on; None if they are missing or don't parse."""

    benchmark_settings: Mapping[str, Any] = field(default_factory=dict)
    evaluate: EvaluateConfig | None = None
    train: TrainConfig | None = None
    skip_missing: bool = False


def planned(r: Record) -> bool:
    """Whether the run was planned and trained: not so for model-free controls, imported answers and robustness runs."""
    return bool(r.student) and r.kind != "robustness"


def setup(config: Mapping[str, Any]) -> Setup:
    """A recorded config's parts. A control of an older version has none: its metrics are the default's."""
    settings = config.get("benchmark_settings", {})
    return Setup(
        benchmark_settings=settings if isinstance(settings, Mapping) else {},
        evaluate=_parsed(EvaluateConfig, config.get("evaluate", {})),
        train=_parsed(TrainConfig, config["train"]) if "train" in config else None,
        skip_missing=config.get("skip_missing") is True,
    )


def _parsed(model: type[S], table: Any) -> S | None:
    try:
        return parse(model, table, "the recorded config")
    except ConfigError:
        return None


def differ(recorded: float | None, now: float | None) -> bool:
    """Whether two figures differ by more than rounding; None equals None only, NaN equals nothing."""
    if recorded is None or now is None:
        return recorded is not now
    return not abs(recorded - now) <= TOLERANCE


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return iter(frame.itertuples())


# ------------------------------------------------------------------------------- the record alone


def in_record(r: Record, known: Setup) -> Iterator[str]:
    """Values that a record contains twice, if they differ."""
    if r.status == "done" and (r.data is None or not r.metrics or r.error is not None):
        yield "it is done, but has an error, or no data or figures"
    if r.status != "done" and (r.metrics or r.error is None):
        yield f"it is {r.status}, but has figures or no error"
    if r.provenance.finished < r.provenance.started:
        yield f"it finished at {r.provenance.finished}, before it started at {r.provenance.started}"
    if r.kind == "control" and not r.student and r.data is not None:
        expected = controls.control_id(r.method, r.benchmark, r.data)
        if r.run_id != expected:
            yield f"its id is {r.run_id}, that of this control on these data is {expected}"
    if r.provenance.imported and controls.is_control_name(r.method):
        yield f"its answers were imported, and its name {r.method!r} is that of a control"
    if planned(r):
        yield from _repeated(r, known)
        yield from _said_twice(r)


def _repeated(r: Record, known: Setup) -> Iterator[str]:
    control = r.config.get("control")
    method = f"{r.config.get('method')}/{control}" if control else r.config.get("method")
    prefix = f"{f'control-{control}-' if control else ''}{r.config.get('method')}-{r.student}-{r.benchmark}-s{r.seed}-"
    if r.config and not r.run_id.startswith(prefix):
        yield f"its id is {r.run_id}, expected {prefix}..."
    if r.config and (r.method, r.kind) != (method, "control" if control else "run"):
        yield f"it is a {r.kind} of method {r.method!r}, by its config {method!r}"
    for name in ("benchmark", "student", "seed", "tags"):
        if name in r.config and r.config[name] != getattr(r, name):
            yield f"{name} is {getattr(r, name)!r}, in the config {r.config[name]!r}"
    given = r.config.get("settings")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if r.settings.get(name) != value:
            yield f"setting {name} is {r.settings.get(name)!r}, in the config {value!r}"
    if r.stages and "student" in (roles := r.stages[-1].roles) and roles["student"].parameters != r.parameters:
        yield f"it has {r.parameters} parameters, its student {roles['student'].parameters}"
    budgets = [0 if r.status == "done" else r.budget]
    if known.train is not None and r.stages:  # in whole steps; earlier records have what was asked for
        asked, size = known.train.examples, known.train.batch_size
        budgets = [-(-asked // size) * size, asked]
    if r.config and r.budget is not None and r.budget not in budgets:
        yield f"its budget is {r.budget}, by its config and stages {budgets[0]}"
    for stage in r.stages:
        if known.train is not None and stage.examples != stage.steps * known.train.batch_size:
            yield f"stage {stage.name}: {stage.examples} examples in {stage.steps} steps of {known.train.batch_size}"


def _said_twice(r: Record) -> Iterator[str]:
    """Ladder, training data and workers, which the record has besides its config."""
    ladder, rungs = r.config.get("ladder"), r.identity.get("ladder")
    if isinstance(ladder, list) and all(isinstance(rung, Mapping) for rung in ladder):
        names = [str(rung.get("name")) for rung in ladder]
        if r.ladder != "+".join(names):
            yield f"its ladder is {r.ladder!r}, in the config {'+'.join(names)!r}"
        if isinstance(rungs, Mapping) and not rungs.keys() <= set(names):
            yield f"its identity has the rungs {', '.join(rungs)}, its config's ladder {', '.join(names)}"
    elif isinstance(ladder, str) and not ladder.endswith(".toml") and r.ladder != ladder:
        yield f"its ladder is {r.ladder!r}, in the config {ladder!r}"
    if isinstance(rungs, Mapping):
        made = {f"{stage.name}.{name}" for stage in r.stages for name in stage.roles}
        used = {role.weights for stage in r.stages for role in stage.roles.values()} - made
        if r.status == "done" and rungs.keys() != used | {r.student}:
            yield f"its identity has the rungs {', '.join(rungs)}, its stages use {', '.join(used | {r.student})}"
    other = r.config.get("train_on") if r.stages else None
    there = r.trained_on.benchmark if r.trained_on else None
    if r.config and r.status == "done" and other != there:
        yield f"it was trained on {there or 'its own benchmark'}, by its config on {other or 'its own benchmark'}"
    cluster = r.config.get("cluster")
    workers = cluster.get("workers") if isinstance(cluster, Mapping) else None
    if isinstance(workers, int) and r.status == "done" and r.provenance.workers > max(workers, 1):
        yield f"it had {r.provenance.workers} workers, by its config {workers}"
    least = (r.parameters or 0) // (2 * max(r.provenance.workers, 1))  # four bits each
    if r.status == "done" and r.stages and r.cost.peak_memory_bytes is not None and r.cost.peak_memory_bytes < least:
        yield f"peak_memory_bytes is {r.cost.peak_memory_bytes}, less than its student's {r.parameters} parameters take"


def not_checked(r: Record) -> Iterator[str]:
    """What a record states that can't be computed from its files, its data and its code."""
    if r.provenance.imported:
        yield "that a model gave the answers"
    elif planned(r):
        yield "that this training gives these answers"
        yield "losses and learning rates in the history"
        yield "whether a step asks a model in one view of an example or in two"
        if any(cost.generated or cost.scored for cost in r.cost.roles.values()):
            yield "how many tokens of responses were written and read"
        yield "peak memory"
        yield "how often it was resumed"
    yield "seconds, dates, machine and versions of packages"


def in_cost(r: Record, predictions: pd.DataFrame | None) -> Iterator[str]:
    """The costs of the roles sum to the total, and no part exceeds the whole."""
    cost = r.cost
    total = sum(role.flops for role in cost.roles.values())
    if not math.isclose(cost.train_flops, total, rel_tol=TOLERANCE):
        yield f"train_flops is {cost.train_flops}, the roles sum to {total}"
    trainable = {f"{s.name}.{name}": role.trainable for s in r.stages for name, role in s.roles.items()}
    if trainable.keys() != cost.roles.keys():
        yield f"billed are {', '.join(cost.roles)}, the stages have {', '.join(trainable)}"
    for name, role in cost.roles.items():
        if role.trained > (role.forwards if trainable.get(name) else 0):
            yield f"{name} was trained on {role.trained} examples and forwarded {role.forwards}"
    parts = cost.train_seconds + cost.validation_seconds + cost.test_seconds
    # A resumed run sums the seconds of its parts over all attempts, but total_seconds is that of the last one.
    if not r.provenance.resumed and not parts <= cost.total_seconds * (1 + TOLERANCE):
        yield f"training, validation and test took {parts} s, the whole run {cost.total_seconds} s"
    asked = 0 if predictions is None else int((predictions["split"] == "test").sum())
    if cost.test_forwards < asked:
        yield f"{cost.test_forwards} forwards for {asked} answers on test"


def in_history(history: pd.DataFrame, r: Record, known: Setup) -> Iterator[str]:
    """Logged values must belong to steps of their stages, and the best of each role must be the best logged value."""
    steps = {stage.name: stage.steps for stage in r.stages}
    for row in _rows(history):
        where, last = f"{row.stage}, step {row.step}, {row.role} {row.term}", steps.get(row.stage, 0)
        if not 1 <= row.step <= last:
            yield f"{where}: the record has no such step"
        elif differ(row.progress, row.step / last):
            yield f"{where}: progress is {row.progress}, expected {row.step / last}"
        if not math.isfinite(row.value):
            yield f"{where}: the value is {row.value}"
    validation = history[(history["term"] == "validation/accuracy") & np.isfinite(history["value"])]
    learnt = r.trained_on.data if r.trained_on else r.data
    if learnt is not None and known.train is not None:
        size = min(known.train.validation_examples, learnt.sizes.get("validation", 0))
        for value in validation["value"]:
            if size and not abs(value * size - round(value * size)) <= 1e-6:
                yield f"validation accuracy {value} isn't a fraction of {size} examples"
    for stage in r.stages:
        for role, best in stage.best.items():
            logged = validation[(validation["stage"] == stage.name) & (validation["role"] == role)]["value"]
            if differ(best, float(logged.max()) if len(logged) else None):
                yield f"stage {stage.name}: the best of {role} is {best}, logged is {logged.max()}"


# ------------------------------------------------------------------------------ predictions and figures


def in_answers(frame: pd.DataFrame, r: Record, known: Setup) -> Iterator[str]:
    """Predictions: one per example, none missing, and the choice has the largest score."""
    sizes: Mapping[str, int] = r.data.sizes if r.data else {}
    counts: dict[str, int] = {str(split): int(n) for split, n in frame["split"].value_counts(sort=False).items()}
    for split, count in counts.items():
        if sizes.get(split) != count:
            yield f"{count} predictions of split {split}, which has {sizes.get(split, 'no')} examples"
    wanted = set(known.evaluate.splits) & sizes.keys() if known.evaluate and planned(r) else counts.keys()
    if not counts.keys() == r.metrics.keys() == wanted:
        asked = ", ".join(sorted(wanted))
        yield f"predictions of {', '.join(counts)}; figures of {', '.join(r.metrics)}; to be scored were {asked}"
    for row in _rows(frame[frame.duplicated(["split", "id"])]):
        yield f"example {row.id!r} of {row.split} is predicted twice"
    for row in _rows(frame):
        scores = [] if row.scores is None else list(row.scores)
        where = f"example {row.id!r} of {row.split}"
        if not all(map(math.isfinite, scores)):
            yield f"{where}: a score isn't finite"
        elif scores and row.chosen >= 0 and (row.chosen >= len(scores) or scores[row.chosen] < max(scores)):
            yield f"{where}: the choice is {row.chosen}, the largest score is at {scores.index(max(scores))}"
        if not row.seconds >= 0:
            yield f"{where}: it took {row.seconds} seconds"


def in_golds(frame: pd.DataFrame, dataset: Dataset, reads: bool = False) -> Iterator[str]:
    """Ids, groups, categories and golds of the predictions must equal the benchmark's.

    `reads`: the choices are what the texts say.
    """
    examples = {(str(split), e.id): e for split, rows in dataset.splits.items() for e in rows}
    for row in _rows(frame):
        example, where = examples.get((row.split, row.id)), f"example {row.id!r} of {row.split}"
        if example is None:
            yield f"{where} isn't in the benchmark"
            continue
        text = row.text if isinstance(row.text, str) else ""
        if reads and (said := read_choice(text, example.options)) != row.chosen:
            yield f"{where}: the choice is {row.chosen}, its text says {said}"
        for name in ("gold", "group", "category"):
            recorded, now = getattr(row, name), getattr(example, name)
            if recorded != now:
                yield f"{where}: {name} is {recorded!r}, in the benchmark {now!r}"
        scores, options = 0 if row.scores is None else len(row.scores), len(example.options)
        if scores not in (0, options) or not -1 <= row.chosen < options:
            yield f"{where}: choice {row.chosen} among {scores} scores, it has {options} options"


def in_control(frame: pd.DataFrame, dataset: Dataset, r: Record) -> Iterator[str]:
    """The answers of a model-free control must follow from the data."""
    assert r.data is not None
    made = {
        name: answers.set_index(["split", "id"])["chosen"]
        for name, answers in controls.control_answers(
            benchmark=r.benchmark,
            train_golds=[e.known_gold for e in dataset.splits["train"]] if "train" in dataset.splits else None,
            splits={split: rows for split, rows in dataset.splits.items() if split in set(frame["split"])},
            data=r.data,
        ).items()
    }
    if r.method not in made:
        yield f"it isn't one of the controls ({', '.join(made)})"
        return
    expected = made[r.method]
    found = frame.drop_duplicates(["split", "id"]).set_index(["split", "id"])["chosen"]
    both = pd.DataFrame({"expected": expected, "found": found.reindex(expected.index, fill_value=-2)})
    for row in _rows(both[both["expected"] != both["found"]]):
        split, name = row.Index
        yield f"example {name!r} of {split}: the answer is {row.found}, the data give {row.expected}"


@dataclass(frozen=True)
class Figures:
    """The recomputed figures of all splits, compared with those of the record."""

    right: int
    wrong: list[str]
    intervals: list[str]
    """Figures with the right value and a different interval."""
    unknown: list[str]
    """Figures that need the benchmark's data: those of its protocols, and chance."""


def figures(frame: pd.DataFrame, r: Record, resamples: int, dataset: Dataset | None) -> Figures:
    """Recompute every figure of every split; those of the benchmark's protocols if its data are available."""
    right, wrong, intervals, unknown = 0, list[str](), list[str](), list[str]()
    options = r.data.options if r.data else None
    for split in frame["split"].unique():
        part = frame[frame["split"] == split]
        try:
            now = _recomputed(part, split, options, resamples, dataset)
        except ValueError as error:  # a gold or choice out of range
            wrong.append(f"{split}: no figures can be computed: {error}")
            continue
        recorded = r.metrics.get(split, {})
        now = scoring.named_as(recorded, now)
        for name in dict.fromkeys((*now, *recorded)):
            where = f"{split} {name}"
            if name not in now and (":" in name or name == "chance") and dataset is None:
                unknown.append(where)
            elif name not in now:
                wrong.append(f"{where} is {recorded[name].value}, no such figure can be computed")
            elif name not in recorded and r.provenance.scoring != SCORING and name in LATER:
                continue
            elif name not in recorded:
                wrong.append(f"{where} is missing, the predictions give {now[name].value}")
            elif differ(recorded[name].value, now[name].value):
                wrong.append(f"{where} is {recorded[name].value}, the predictions give {now[name].value}")
            elif differ(recorded[name].low, now[name].low) or differ(recorded[name].high, now[name].high):
                intervals.append(f"{where} has {_bounds(recorded[name])}, the predictions give {_bounds(now[name])}")
            else:
                right += 1
    return Figures(right, wrong, intervals, unknown)


def _recomputed(
    part: pd.DataFrame, split: Any, options: list[str] | None, resamples: int, dataset: Dataset | None
) -> dict[str, Interval]:
    if dataset is None or split not in dataset.splits:
        now = dict(inference.summarise(part, options, resamples)) | calibration.figures(part, options, resamples)
        written = {"answer_tokens": Interval(value=float(part["tokens"].mean()))} if "tokens" in part else {}
        return now | written | {"parse_failures": Interval(value=float((part["chosen"] == NO_ANSWER).mean()))}
    known = part["id"].isin({e.id for e in dataset.splits[split]})  # unknown ids are reported with the golds
    return scoring.figures_of(dataset, part[known], resamples).get(split, {})


def _bounds(value: Interval) -> str:
    return f"the interval {value.low} to {value.high}"
