"""The ablation of a method: the whole method beside variants that lack a part, and beside its rivals.

Which parts there are the method says itself (`Method.ablations`: a name, and the settings that differ). Runs go
through `harness.execution.launch` like those of any suite, so finished ones are never repeated. `<suite>.json` in the
store keeps which runs make which line; every figure is computed again from the stored predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from harness import registry
from harness.api import Split
from harness.config import RunConfig, SuiteConfig, SuiteRun
from harness.errors import ConfigError, StoreError, first_line
from harness.evaluation.controls import control_id
from harness.models.ladders import find
from harness.planning import plan
from harness.record import Interval, Record
from harness.stats import inference
from harness.store import Store

RIVALS = ("zero_shot", "finetune", "offline_kd", "mutual", "assistant")
"""What stands beside the method where no suite says otherwise; those that don't exist are left out."""

FIGURES: tuple[tuple[Split, str], ...] = (("test", "accuracy"), ("test", "macro_f1"), ("ood", "accuracy"))
RESAMPLES = 10_000

Part = Literal["full", "ablation", "rival", "control"]


@dataclass(frozen=True)
class Variant:
    """A line of the ablation before it is run."""

    label: str
    part: Part
    run: SuiteRun


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(_Model):
    """A line of the ablation: what was run, and the runs by benchmark and seed."""

    label: str
    part: Part
    method: str
    student: str
    settings: dict[str, Any]
    runs: dict[str, dict[int, str]]


class Figure(_Model):
    """A metric of a line over its seeds, and its difference to the full method (None: nothing to pair)."""

    value: Interval
    difference: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    """Holm's correction over the lines of the table that have a p."""


class Result(_Model):
    """A line of a benchmark's table. Costs are means over the seeds; changes are to the full method."""

    label: str
    part: Part
    changed: dict[str, Any]
    """Settings that differ from the full method's."""
    seeds: tuple[int, ...] = ()
    figures: dict[str, Figure] = {}
    """By `split/metric`."""
    train_tflops: float | None = None
    train_tflops_change: float | None = None
    forwards: float | None = None
    """Forwards an answer takes."""
    forwards_change: float | None = None
    note: str = ""


class Ablation(_Model):
    """An ablation as it was laid out, and what came out by benchmark."""

    name: str
    method: str
    lines: tuple[Line, ...]
    left_out: dict[str, str] = {}
    """Variants that were not run, and why."""
    tables: dict[str, tuple[Result, ...]] = {}


# ---------------------------------------------------------------------------------------- what to run


def suite_table(
    method: str, seeds: Sequence[int], benchmarks: Sequence[str], student: str, ladder: str
) -> dict[str, Any]:
    """The table of a suite with the method and its rivals, as a TOML file would give it."""
    rungs = [rung.name for rung in find(ladder).rungs]
    known = registry.methods()
    rivals = [
        {"method": rival, "student": rung}
        for rival in RIVALS
        if rival in known and rival != method
        for rung in (rungs if rival == "finetune" else [student])
    ]
    return {
        "name": f"{method}_ablation",
        "seeds": list(seeds),
        "benchmarks": list(benchmarks),
        "ladder": ladder,
        "runs": [{"method": method, "student": student}, *rivals],
    }


def variants(method: str, suite: SuiteConfig) -> tuple[list[Variant], dict[str, str]]:
    """The full method (the suite's first run of it), its ablations, and the suite's other runs.

    Beside them, why some were left out: they don't fit the ladder, or change nothing. Raises `ConfigError` for
    a suite without the method, and for one of its own runs that doesn't fit.
    """
    mine = next((run for run in suite.runs if run.method == method), None)
    if mine is None:
        raise ConfigError(f"suite {suite.name!r} has no run of {method!r}: add [[runs]] with method = {method!r}")
    name, settings = registry.resolve_preset(method, mine.settings)
    full = mine.model_copy(update={"method": name, "settings": settings})
    found = [Variant(mine.label or "full", "full", full)]
    for label, override in registry.methods()[name].load().ablations.items():
        own = f"{mine.label}, {label}" if mine.label else None
        run = full.model_copy(update={"settings": {**settings, **override}, "label": own})
        found.append(Variant(label, "ablation", run))
    declared = len(found)
    others = [run for run in suite.runs if run is not mine]
    found += [Variant(_label(run, mine), "ablation" if run.method == method else "rival", run) for run in others]
    kept: list[Variant] = []
    left_out: dict[str, str] = {}
    seen: dict[str, str] = {}
    for number, variant in enumerate(found):
        one = suite.model_copy(update={"runs": (variant.run,), "seeds": suite.seeds[:1]}).run_configs()[0]
        try:
            run_id = plan.make(one).run_id
        except ConfigError as error:
            plain_rival = variant.run.method in RIVALS and not variant.run.settings
            if not (0 < number < declared or (number and plain_rival)):
                raise  # a mistake of the suite's, not a ladder without a fitting rung
            left_out[variant.label] = str(error)
            continue
        if run_id in seen:
            left_out[variant.label] = f"the same run as {seen[run_id]!r}"
            continue
        seen[run_id] = variant.label
        kept.append(variant)
    return kept, left_out


def _label(run: SuiteRun, full: SuiteRun) -> str:
    if run.label:
        return run.label
    settings = "".join(f" {key}={value}" for key, value in run.settings.items() if full.settings.get(key) != value)
    return f"{run.method}{settings} ({run.student})"


def configs(suite: SuiteConfig, kept: Sequence[Variant]) -> list[RunConfig]:
    """Every run of the ablation, seeds outermost."""
    return suite.model_copy(update={"runs": tuple(v.run for v in kept)}).run_configs()


def lay_out(method: str, suite: SuiteConfig, kept: Sequence[Variant], left_out: Mapping[str, str]) -> Ablation:
    """The ablation with the run ids of all its lines."""
    check_name(suite.name)
    lines = []
    for variant in kept:
        runs: dict[str, dict[int, str]] = {}
        for config in configs(suite, [variant]):
            planned = plan.make(config)
            runs.setdefault(config.benchmark, {})[config.seed] = planned.run_id
            settings = planned.settings
        lines.append(
            Line(
                label=variant.label,
                part=variant.part,
                method=variant.run.method,
                student=variant.run.student,
                settings=settings,
                runs=runs,
            )
        )
    return Ablation(name=suite.name, method=method, lines=tuple(lines), left_out=dict(left_out))


# -------------------------------------------------------------------------------------- what came out


def evaluated(ablation: Ablation, store: Store, resamples: int = RESAMPLES) -> Ablation:
    """The ablation with its tables, from the stored records and predictions."""
    benchmarks = dict.fromkeys(name for line in ablation.lines for name in line.runs)
    return ablation.model_copy(update={"tables": {b: _table(ablation, store, b, resamples) for b in benchmarks}})


@dataclass(frozen=True)
class _Runs:
    """The finished runs of a line on one benchmark."""

    label: str
    part: Part
    changed: dict[str, Any]
    records: dict[int, Record]
    note: str = ""


def _table(ablation: Ablation, store: Store, benchmark: str, resamples: int) -> tuple[Result, ...]:
    full = ablation.lines[0]
    assert full.part == "full"
    found = [_runs_of(line, full, store, benchmark) for line in ablation.lines]
    found += _controls(found[0], store, benchmark)
    results = [_result(runs, found[0], store, resamples) for runs in found]
    for split, metric in FIGURES:
        results = _corrected(results, f"{split}/{metric}")
    return tuple(results)


def _runs_of(line: Line, full: Line, store: Store, benchmark: str) -> _Runs:
    done: dict[int, Record] = {}
    missing = 0
    for seed, run_id in line.runs.get(benchmark, {}).items():
        if store.status(run_id) == "done":
            done[seed] = store.read(run_id)
        else:
            missing += 1
    changed = {k: v for k, v in line.settings.items() if line.part == "ablation" and full.settings.get(k) != v}
    return _Runs(line.label, line.part, changed, done, f"{missing} of its runs did not finish" if missing else "")


def _controls(full: _Runs, store: Store, benchmark: str) -> Iterator[_Runs]:
    """Majority and random: the same answers whatever the seed."""
    data = next((record.data for record in full.records.values()), None)
    for control in ("majority", "random"):
        if data is not None and store.status(control_id(control, benchmark, data)) == "done":
            record = store.read(control_id(control, benchmark, data))
            yield _Runs(control, "control", {}, dict.fromkeys(full.records, record))


def _result(runs: _Runs, full: _Runs, store: Store, resamples: int) -> Result:
    result = Result(
        label=runs.label,
        part=runs.part,
        changed=runs.changed,
        seeds=tuple(sorted(runs.records)),
        note=runs.note,
    )
    if not runs.records:
        return result
    figures = {}
    for split, metric in FIGURES:
        if all(split in record.metrics for record in (*runs.records.values(), *full.records.values())):
            figures[f"{split}/{metric}"] = _figure(runs, full, store, split, metric, resamples)
    update: dict[str, Any] = {"figures": figures}
    if runs.part != "control":
        own, other = _cost(runs, store), _cost(full, store)
        update |= {"train_tflops": own[0], "forwards": own[1]}
        if runs.part != "full" and full.records:
            update |= {"train_tflops_change": own[0] - other[0], "forwards_change": own[1] - other[1]}
    return result.model_copy(update=update)


def _figure(runs: _Runs, full: _Runs, store: Store, split: Split, metric: str, resamples: int) -> Figure:
    data = next(iter(runs.records.values())).data
    labels = data.options if data else None
    mine, whole = (_predictions(one, store, split) for one in (runs, full))
    value = inference.across_seeds(
        [mine[seed] for seed in sorted(mine)], labels, metric, min(resamples, inference.RESAMPLES)
    )
    if runs.part == "full" or not set(mine) & set(whole):
        return Figure(value=value)
    apart = inference.paired_difference(mine, whole, labels, metric, resamples)
    difference = Interval(value=apart.value, low=apart.low, high=apart.high)
    return Figure(value=value, difference=difference, p=apart.p if runs.part != "control" else None)


def _predictions(runs: _Runs, store: Store, split: Split) -> dict[int, pd.DataFrame]:
    frames = {run_id: store.predictions(run_id, split) for run_id in {r.run_id for r in runs.records.values()}}
    return {seed: frames[record.run_id] for seed, record in runs.records.items()}


def _cost(runs: _Runs, store: Store) -> tuple[float, float]:
    """Mean TFLOPs of training, and mean forwards that an answer on test takes."""
    if not runs.records:
        return float("nan"), float("nan")
    records = list(runs.records.values())
    answers = [record.data.sizes["test"] if record.data else 0 for record in records]
    forwards = [r.cost.test_forwards / n for r, n in zip(records, answers, strict=True) if n]
    return float(np.mean([r.cost.train_flops / 1e12 for r in records])), float(np.mean(forwards))


def _corrected(results: Sequence[Result], figure: str) -> list[Result]:
    """The results with Holm's p of one figure."""
    having = [i for i, r in enumerate(results) if figure in r.figures and r.figures[figure].p is not None]
    corrected = inference.holm([p for i in having if (p := results[i].figures[figure].p) is not None])
    changed = list(results)
    for i, p in zip(having, corrected, strict=True):
        whole = changed[i].figures[figure].model_copy(update={"p_holm": p})
        changed[i] = changed[i].model_copy(update={"figures": {**changed[i].figures, figure: whole}})
    return changed


# ------------------------------------------------------------------------------------------ the files


def check_name(name: str) -> None:
    """Raise `ConfigError` for a name that can't be a file's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"suite name {name!r}: expected letters, digits, '.', '_' and '-'; it names a file of the store"
        )


def save(ablation: Ablation, store: Store, markdown: str) -> None:
    """Write `<name>.json` and `<name>.md` into the store, each whole or not at all. Raises `StoreError`."""
    check_name(ablation.name)
    for suffix, text in ((".json", ablation.model_dump_json(indent=1) + "\n"), (".md", markdown)):
        store.write_text(f"{ablation.name}{suffix}", text)


def load(store: Store, name: str) -> Ablation:
    """The ablation that was stored under this name. Raises `StoreError` where there is none, or it is damaged."""
    check_name(name)
    try:
        return Ablation.model_validate_json(store.backend.read(f"{name}.json"))
    except FileNotFoundError:
        raise StoreError(f"no ablation {name!r} in {store.url!r}: run `hkdbench ablate` with this store") from None
    except StoreError:
        raise
    except (OSError, ValidationError) as error:
        raise StoreError(
            f"{name}.json in {store.url!r} is damaged: {first_line(error)}; run `hkdbench ablate` again, which "
            "writes it anew"
        ) from None
