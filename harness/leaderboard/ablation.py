"""The results of an ablation: one line for the full method, its variants and its rivals, computed from stored runs.

`<suite>.json` in the store lists the runs of each line; figures are computed from stored predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.api import Split
from harness.errors import ConfigError, StoreError, first_line
from harness.evaluation.controls import control_id
from harness.leaderboard import inference, seed_results
from harness.leaderboard.seed_results import SeedResults
from harness.record import Interval, Record
from harness.stats.inference import holm
from harness.store import Store

FIGURES: tuple[tuple[Split, str], ...] = (("test", "accuracy"), ("test", "macro_f1"), ("ood", "accuracy"))

Part = Literal["full", "ablation", "rival", "control"]


class _AblationModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AblationLine(_AblationModel):
    """A line of the ablation: its settings, and its runs by benchmark and seed."""

    label: str
    part: Part
    method: str
    student: str
    settings: dict[str, Any]
    runs: dict[str, dict[int, str]]


class AblationFigure(_AblationModel):
    """A metric of a line over its seeds, and its difference from the full method (None: no paired runs)."""

    value: Interval
    difference: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    """Holm's correction over the lines of the table that have a p."""


class AblationResult(_AblationModel):
    """A line of a benchmark's table. Costs are means over the seeds; changes are from the full method."""

    label: str
    part: Part
    changed: dict[str, Any]
    """Settings that differ from the full method's."""
    seeds: tuple[int, ...] = ()
    figures: dict[str, AblationFigure] = {}
    """By `split/metric`."""
    train_tflops: float | None = None
    train_tflops_change: float | None = None
    forwards: float | None = None
    """Forward passes per answer."""
    forwards_change: float | None = None
    note: str = ""


class Ablation(_AblationModel):
    """An ablation's lines, and its results by benchmark."""

    name: str
    method: str
    lines: tuple[AblationLine, ...]
    left_out: dict[str, str] = {}
    """Variants that were not run, and why."""
    tables: dict[str, tuple[AblationResult, ...]] = {}


# -------------------------------------------------------------------------------------- results


def evaluated(ablation: Ablation, store: Store) -> Ablation:
    """The ablation with its tables, from the stored records and predictions."""
    benchmarks = dict.fromkeys(name for line in ablation.lines for name in line.runs)
    return ablation.model_copy(update={"tables": {b: _table(ablation, store, b) for b in benchmarks}})


def _table(ablation: Ablation, store: Store, benchmark: str) -> tuple[AblationResult, ...]:
    full = ablation.lines[0]
    assert full.part == "full"
    found = [_runs_of(line, full, store, benchmark) for line in ablation.lines]
    found += _controls(found[0], store, benchmark)
    for split in dict.fromkeys(split for split, _ in FIGURES):
        of_split = seed_results.of_runs(store, [runs.on(split) for runs in found], split)
        for runs, results in zip(found, of_split, strict=True):
            runs.results[split] = results
    lines = [_result(runs, found[0], store) for runs in found]
    for split, metric in FIGURES:
        lines = _corrected(lines, f"{split}/{metric}")
    return tuple(lines)


@dataclass
class _Runs:
    """The finished runs of a line on one benchmark."""

    label: str
    part: Part
    changed: dict[str, Any]
    records: dict[int, Record]
    note: str = ""
    results: dict[str, SeedResults] = field(default_factory=dict)
    """By split."""

    def on(self, split: Split) -> dict[int, str]:
        """The runs by seed; empty if one of them wasn't scored on this split."""
        known = all(split in record.metrics for record in self.records.values())
        return {record.seed: record.run_id for record in self.records.values()} if known else {}


def _runs_of(line: AblationLine, full: AblationLine, store: Store, benchmark: str) -> _Runs:
    done: dict[int, Record] = {}
    missing = 0
    notes: list[str] = []
    for seed, run_id in line.runs.get(benchmark, {}).items():
        if not store.backend.exists(run_id):
            missing += 1
            continue
        try:
            if (record := store.read(run_id)).status == "done":
                store.table(run_id, "predictions", ["split"], record)
                done[seed] = record
            else:
                missing += 1
        except StoreError as error:
            notes.append(f"seed {seed} is left out: {error}")
    notes += [f"{missing} of its runs did not finish"] if missing else []
    changed = {k: v for k, v in line.settings.items() if line.part == "ablation" and full.settings.get(k) != v}
    return _Runs(line.label, line.part, changed, done, "; ".join(notes))


def _controls(full: _Runs, store: Store, benchmark: str) -> Iterator[_Runs]:
    """Majority and random: the same answers for every seed."""
    data = next((record.data for record in full.records.values()), None)
    for control in ("majority", "random"):
        if data is not None and store.status(control_id(control, benchmark, data)) == "done":
            record = store.read(control_id(control, benchmark, data))
            yield _Runs(control, "control", {}, dict.fromkeys(full.records, record))


def _result(runs: _Runs, full: _Runs, store: Store) -> AblationResult:
    result = AblationResult(
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
        mine, whole = runs.results[split], full.results[split]
        if metric in mine.points and (metric in whole.points or not full.records):
            figures[f"{split}/{metric}"] = _figure(mine, whole, metric, runs.part)
    update: dict[str, Any] = {"figures": figures}
    if runs.part != "control":
        own, other = _cost(runs, store), _cost(full, store)
        update |= {"train_tflops": own[0], "forwards": own[1]}
        if runs.part != "full" and full.records:
            update |= {"train_tflops_change": own[0] - other[0], "forwards_change": own[1] - other[1]}
    return result.model_copy(update=update)


def _figure(mine: SeedResults, full: SeedResults, metric: str, part: Part) -> AblationFigure:
    value = inference.intervals([mine], metric)[0]
    found = None if part == "full" else inference.difference(mine, full, metric)
    if found is None:
        return AblationFigure(value=value)
    difference = Interval(value=found.value, low=found.low, high=found.high)
    return AblationFigure(value=value, difference=difference, p=found.p if part != "control" else None)


def _cost(runs: _Runs, store: Store) -> tuple[float, float]:
    """Mean TFLOPs of training, and mean forward passes per answer on test."""
    if not runs.records:
        return float("nan"), float("nan")
    records = list(runs.records.values())
    answers = [record.data.sizes["test"] if record.data else 0 for record in records]
    forwards = [r.cost.test_forwards / n for r, n in zip(records, answers, strict=True) if n]
    return float(np.mean([r.cost.train_flops / 1e12 for r in records])), float(np.mean(forwards))


def _corrected(results: Sequence[AblationResult], figure: str) -> list[AblationResult]:
    """The results with Holm-corrected p for one figure."""
    having = [i for i, r in enumerate(results) if figure in r.figures and r.figures[figure].p is not None]
    corrected = holm([p for i in having if (p := results[i].figures[figure].p) is not None])
    changed = list(results)
    for i, p in zip(having, corrected, strict=True):
        whole = changed[i].figures[figure].model_copy(update={"p_holm": p})
        changed[i] = changed[i].model_copy(update={"figures": {**changed[i].figures, figure: whole}})
    return changed


# ------------------------------------------------------------------------------------------ the files


def check_name(name: str) -> None:
    """Raise `ConfigError` for a name that can't be a file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"suite name {name!r}: expected letters, digits, '.', '_' and '-'; it becomes a file name in the store"
        )


def save(ablation: Ablation, store: Store, markdown: str) -> None:
    """Write `<name>.json` and `<name>.md` to the store, each atomically. Raises `StoreError`."""
    check_name(ablation.name)
    for suffix, text in ((".json", ablation.model_dump_json(indent=1) + "\n"), (".md", markdown)):
        store.write_text(f"{ablation.name}{suffix}", text)


def load(store: Store, name: str) -> Ablation:
    """The ablation that was stored under this name. Raises `StoreError` if there is none, or it is damaged."""
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
            "writes it again"
        ) from None
