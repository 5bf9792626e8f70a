"""Runs of one method on one data set as the trials of a sweep: their settings and their figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.record import Record
from harness.stats.metrics import LOWER_IS_BETTER, Floats, Ints
from harness.store.index import RunSummary, flat, identity

SHUFFLES = 400
"""Random orders of the values from which `threshold` is estimated."""
GROUPS = 4
"""A number with more values than this is cut into so many groups of equal size, to see what it explains."""
AXES = 8
LEFT_OUT = ("ladder", "tags", "skip_missing", "benchmark_settings", "train_on", "train_on_settings")
"""Parts of a configuration that are no setting of a trial."""


def tags(runs: Sequence[RunSummary]) -> list[str]:
    """The tags of the runs, sweeps first."""
    found = {tag for run in runs for tag in run.tags}
    return sorted(found, key=lambda tag: (not tag.startswith("sweep"), tag))


def split_confirming(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The trials, and the runs that confirm the best of them from fresh seeds, by the tags that a sweep gives them.
    Without such tags all runs are trials."""
    confirming = [r for r in records if {"finalist", "winner"} & set(r.tags)]
    searched = [r for r in records if r not in confirming]
    tagged = [r for r in searched if "trial" in r.tags]
    return (tagged if tagged and confirming else searched), confirming


def confirming_runs(records: Sequence[Record], metric: str) -> pd.DataFrame:
    """The confirming runs, the winner's first: run, as, seed, and the figure on validation and test with its bounds."""
    factor = 1 if metric in ("nll", "brier") or ":" in metric else 100
    rows = []
    for record in sorted(records, key=lambda r: ("winner" not in r.tags, r.provenance.finished)):
        row: list[Any] = [record.run_id, "winner" if "winner" in record.tags else "finalist", str(record.seed)]
        for split in ("validation", "test"):
            found = record.metrics.get(split, {}).get(metric)
            numbers = (found.value, found.low, found.high) if found else (None, None, None)
            row += [None if n is None else factor * n for n in numbers]
        rows.append(row)
    bounds = [f"{split}{end}" for split in ("validation", "test") for end in ("", " low", " high")]
    return pd.DataFrame(rows, columns=["run", "as", "seed", *bounds])


def trials(records: Sequence[Record], split: str, metric: str) -> pd.DataFrame:
    """A line a trial in the order of their ends: run, number from 1, status, seed, finished, value, low, high
    (per cent for a share), best (the best value so far), and a column for each setting that varies.
    """
    ended = sorted(records, key=lambda r: (r.provenance.finished, r.run_id))
    varying = _varying(ended)
    factor = 1 if metric in ("nll", "brier") or ":" in metric else 100
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


def lower_is_better(metric: str) -> bool:
    """Whether the smaller value of a figure is the better one."""
    return metric in LOWER_IS_BETTER


def metrics(records: Sequence[Record], split: str) -> list[str]:
    """The figures that the records state for a split, accuracy first, those of categories last."""
    found = {name for record in records for name in record.metrics.get(split, {})}
    return sorted(found - {"chance"}, key=lambda n: (n != "accuracy", "/" in n, n))


def settings(frame: pd.DataFrame) -> list[str]:
    """The settings that vary."""
    return [str(c) for c in frame.columns[9:]]


def _varying(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Each setting that differs between the trials, with its value in each of them (None: not set)."""
    flats = [{k: _plain(v) for k, v in _settings(record).items()} for record in records]
    names = dict.fromkeys(name for one in flats for name in one)
    columns = {name: [one.get(name) for one in flats] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}


def _settings(record: Record) -> dict[str, Any]:
    whole = {k: v for k, v in identity(record).items() if k not in LEFT_OUT}
    return {name.removeprefix("settings."): value for name, value in flat(whole).items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) or value is None else json.dumps(value)


def is_number(values: pd.Series) -> bool:
    """Whether a setting is a number in every trial that has it; truth values are none."""
    known = values.dropna()
    return len(known) > 0 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def is_log(values: pd.Series) -> bool:
    """Whether a number spans so much that a logarithm shows it better."""
    known = values.dropna().astype(float)
    return bool((known > 0).all() and known.max() / known.min() >= 20)


# ------------------------------------------------------------------------------------------- importance


def importance(frame: pd.DataFrame) -> pd.DataFrame:
    """What each setting explains alone, most first: setting, share, threshold (both in per cent), values.

    `share` is the part of the trials' variance between the values of the setting (quarters of equal size where a number
    has more than `GROUPS`), corrected for their number (adjusted R squared), at least 0:
    1 - (within / (n - k)) / (all / (n - 1)). `threshold` is the 95th percentile of the share of a setting without
    effect, from `SHUFFLES` random orders of the trials' values (permutation test). Empty where fewer than 4 trials have
    a value.
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
    """The number of each trial's value, or of its quarter."""
    if is_number(values) and values.notna().all() and values.nunique() > GROUPS:
        quarters = pd.qcut(values.astype(float).rank(method="average"), GROUPS, labels=False, duplicates="drop")
        return np.asarray(quarters, dtype=np.int64)
    return np.asarray(pd.factorize(values.map(repr))[0], dtype=np.int64)


def _share(y_sn: Floats, codes_n: Ints) -> Floats:
    """The corrected share of the variance of each row of `y_sn` between the groups: (S,)."""
    groups, size = int(codes_n.max()) + 1, y_sn.shape[1]
    whole_s = ((y_sn - y_sn.mean(1, keepdims=True)) ** 2).sum(1)
    within_s = np.zeros(len(y_sn))
    for k in range(groups):
        part = y_sn[:, codes_n == k]
        within_s += ((part - part.mean(1, keepdims=True)) ** 2).sum(1)
    if size <= groups:
        return np.zeros(len(y_sn))
    ratio_s = np.divide(within_s / (size - groups), whole_s / (size - 1), out=np.ones_like(whole_s), where=whole_s > 0)
    return np.asarray(np.maximum(0.0, 1 - ratio_s))


# ----------------------------------------------------------------------------------- parallel coordinates


def parallel(frame: pd.DataFrame, names: Sequence[str], value_name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials as lines over axes, one a setting and the value last, and the axes' ticks.

    Lines: run, number, value, axis, at (0 to 1), shown. Ticks: axis, at, shown. A number's axis goes from its
    least to its largest (in logarithms where `is_log`), another's has its values at equal distances.
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
