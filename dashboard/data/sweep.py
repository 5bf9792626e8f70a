"""The trials of a sweep: runs of one method on one dataset, with their settings and results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.record import Record
from harness.report.columns import has_own_unit, lower_is_better
from harness.stats.metrics import NOT_RANKED, Floats, Ints
from harness.store.index import RunSummary, flat, identity

SHUFFLES = 400
"""The number of random permutations from which `threshold` is estimated."""
GROUPS = 4
"""For the importance, a numeric setting with more values than this is split into this many groups of equal size."""
AXES = 8
LEFT_OUT = ("ladder", "tags", "skip_missing", "benchmark_settings", "train_on", "train_on_settings")
"""Parts of a configuration that aren't settings of a trial."""


def tags(runs: Sequence[RunSummary]) -> list[str]:
    """The tags of the runs, sweeps first."""
    found = {tag for run in runs for tag in run.tags}
    return sorted(found, key=lambda tag: (not tag.startswith("sweep"), tag))


def split_confirming(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The trials, and the runs that confirm the best of them with new seeds, by the tags of a sweep.

    Without such tags, all runs are trials.
    """
    confirming = [r for r in records if {"finalist", "winner"} & set(r.tags)]
    searched = [r for r in records if r not in confirming]
    tagged = [r for r in searched if "trial" in r.tags]
    return (tagged if tagged and confirming else searched), confirming


def confirming_runs(records: Sequence[Record], metric: str) -> pd.DataFrame:
    """The confirming runs, the winner's first: run, role, seed, the metric on validation and test, with bounds."""
    factor = 1 if has_own_unit(metric) else 100
    rows = []
    for record in sorted(records, key=lambda r: ("winner" not in r.tags, r.provenance.finished)):
        row: list[Any] = [record.run_id, "winner" if "winner" in record.tags else "finalist", str(record.seed)]
        for split in ("validation", "test"):
            found = record.metrics.get(split, {}).get(metric)
            numbers = (found.value, found.low, found.high) if found else (None, None, None)
            row += [None if n is None else factor * n for n in numbers]
        rows.append(row)
    bounds = [f"{split}{end}" for split in ("validation", "test") for end in ("", " low", " high")]
    return pd.DataFrame(rows, columns=["run", "role", "seed", *bounds])


def trials(records: Sequence[Record], split: str, metric: str) -> pd.DataFrame:
    """One row per trial, in the order in which they finished: run, number (from 1), status, seed, finished, value, low,
    high (fractions in per cent), best (the best value so far), and a column for each setting that varies.
    """
    ended = sorted(records, key=lambda r: (r.provenance.finished, r.run_id))
    varying = _varying(ended)
    factor = 1 if has_own_unit(metric) else 100
    rows = []
    for number, record in enumerate(ended, 1):
        found = record.metrics.get(split, {}).get(metric)
        numbers = (found.value, found.low, found.high) if found else (None, None, None)
        scaled = [None if n is None else factor * n for n in numbers]
        rows.append([record.run_id, number, record.status, record.seed, record.provenance.finished, *scaled])
    columns = ["run", "number", "status", "seed", "finished", "value", "low", "high"]
    frame = pd.DataFrame(rows, columns=columns).astype({"value": float, "low": float, "high": float})
    best = frame["value"].cummin() if lower_is_better(metric) else frame["value"].cummax()
    frame["best"] = best.ffill()
    return pd.concat([frame, pd.DataFrame(varying, index=frame.index)], axis=1)


def metrics(records: Sequence[Record], split: str) -> list[str]:
    """The metrics that the records have on a split, accuracy first, those by category last."""
    found = {name for record in records for name in record.metrics.get(split, {})}
    return sorted(found - set(NOT_RANKED), key=lambda n: (n != "accuracy", "/" in n, n))


def settings(frame: pd.DataFrame) -> list[str]:
    """The settings that vary."""
    return [str(c) for c in frame.columns[9:]]


def _varying(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Each setting that differs between trials, with its value in each trial (None: not set)."""
    flats = [{k: _plain(v) for k, v in _settings(record).items()} for record in records]
    names = dict.fromkeys(name for one in flats for name in one)
    columns = {name: [one.get(name) for one in flats] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}


def _settings(record: Record) -> dict[str, Any]:
    config = {k: v for k, v in identity(record).items() if k not in LEFT_OUT}
    return {name.removeprefix("settings."): value for name, value in flat(config).items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) or value is None else json.dumps(value)


def is_number(values: pd.Series) -> bool:
    """Whether a setting is a number in every trial that has it. Booleans aren't numbers."""
    known = values.dropna()
    return len(known) > 0 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def is_log(values: pd.Series) -> bool:
    """Whether a number needs a logarithmic scale: it is positive and spans at least a factor of 20."""
    known = values.dropna().astype(float)
    return bool((known > 0).all() and known.max() / known.min() >= 20)


# ------------------------------------------------------------------------------------------- importance


def importance(frame: pd.DataFrame) -> pd.DataFrame:
    """The variance that each setting explains alone, largest first: setting, share, threshold (per cent), values.

    `share` is the adjusted R squared of the trials' values given the setting, at least 0:
    1 - (within / (n - k)) / (total / (n - 1)). A number with more than `GROUPS` values is split into `GROUPS` groups of
    equal size. `threshold` is the 95th percentile of the share of a setting without effect, by a permutation test with
    `SHUFFLES` permutations. Empty if fewer than 4 trials have a value.
    """
    done = frame[frame["value"].notna()]
    rows = []
    if len(done) >= 4:
        y_n = done["value"].to_numpy()
        rng = np.random.default_rng(0)
        shuffled_sn = np.stack([rng.permutation(y_n) for _ in range(SHUFFLES)])
        for name in settings(frame):
            codes_n = _codes(done[name])
            if (count := len(set(codes_n.tolist()))) < 2:
                continue
            share = float(_share(y_n[None], codes_n)[0])
            threshold = float(np.quantile(_share(shuffled_sn, codes_n), 0.95))
            rows.append((name, 100 * share, 100 * threshold, count))
    found = pd.DataFrame(rows, columns=["setting", "share", "threshold", "values"])
    return found.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _codes(values: pd.Series) -> Ints:
    """Each trial's value as a group number."""
    if is_number(values) and values.notna().all() and values.nunique() > GROUPS:
        quarters = pd.qcut(values.astype(float).rank(method="average"), GROUPS, labels=False, duplicates="drop")
        return np.asarray(quarters, dtype=np.int64)
    return np.asarray(pd.factorize(values.map(repr))[0], dtype=np.int64)


def _share(y_sn: Floats, codes_n: Ints) -> Floats:
    """The adjusted R squared of each row of `y_sn` given the groups: (S,)."""
    groups, size = int(codes_n.max()) + 1, y_sn.shape[1]
    total_s = ((y_sn - y_sn.mean(1, keepdims=True)) ** 2).sum(1)
    within_s = np.zeros(len(y_sn))
    for k in range(groups):
        part = y_sn[:, codes_n == k]
        within_s += ((part - part.mean(1, keepdims=True)) ** 2).sum(1)
    if size <= groups:
        return np.zeros(len(y_sn))
    ratio_s = np.divide(within_s / (size - groups), total_s / (size - 1), out=np.ones_like(total_s), where=total_s > 0)
    return np.asarray(np.maximum(0.0, 1 - ratio_s))


# ----------------------------------------------------------------------------------- parallel coordinates


def parallel(frame: pd.DataFrame, names: Sequence[str], value_name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lines and ticks of a parallel-coordinates plot: one axis per setting, and the value last.

    Lines: run, number, value, axis, at (0 to 1), shown. Ticks: axis, at, shown. The axis of a number goes from its
    smallest to its largest value (logarithmic if `is_log`). Other axes have their values at equal distances.
    """
    done = frame[frame["value"].notna()]
    lines, ticks = [], []
    for axis in [*names, value_name]:
        values = done["value"] if axis == value_name else done[axis]
        at, marks = _positions(values)
        ticks += [(axis, place, shown) for place, shown in marks]
        shown = [_short(v) for v in values]
        lines.append(
            pd.DataFrame({"run": done["run"], "number": done["number"], "value": done["value"], "axis": axis,
                          "at": at, "shown": shown})
        )  # fmt: skip
    return pd.concat(lines, ignore_index=True), pd.DataFrame(ticks, columns=["axis", "at", "shown"])


def _positions(values: pd.Series) -> tuple[list[float], list[tuple[float, str]]]:
    if is_number(values) and values.notna().all():
        numbers = values.astype(float).to_numpy()
        scaled = np.log(numbers) if is_log(values) else numbers
        low, high = scaled.min(), scaled.max()
        if low == high:
            return [0.5] * len(numbers), [(0.5, _short(numbers[0]))]
        places = ((scaled - low) / (high - low)).tolist()
        marks = dict(zip(places, numbers, strict=True))
        chosen = sorted(marks) if len(marks) <= 6 else [0.0, 1.0]
        return places, [(place, _short(marks[place])) for place in chosen]
    names = sorted({_short(v) for v in values})
    step = 1 / max(len(names) - 1, 1)
    of = {name: (k * step if len(names) > 1 else 0.5) for k, name in enumerate(names)}
    return [of[_short(v)] for v in values], [(place, name) for name, place in of.items()]


def _short(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "not set"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
