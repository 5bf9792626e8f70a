"""The trials of a sweep: runs of one method on one dataset, with their settings and results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import StoreError
from harness.record import Interval, Record
from harness.report.columns import has_own_unit, lower_is_better
from harness.stats.metrics import NOT_RANKED, Floats, Ints
from harness.store import Store
from harness.store.backend import SWEEPS
from harness.store.index import RunSummary, flat, identity

SHUFFLES = 400
"""The number of random permutations from which `threshold` is estimated."""
GROUPS = 4
"""For the importance, a numeric setting with more values than this is split into this many groups of equal size."""
CUTS = 5
"""In `grid`, a numeric setting with more values than this is cut into this many ranges."""
AXES = 8
LEFT_OUT = ("ladder", "tags", "skip_missing", "benchmark_settings", "train_on", "train_on_settings")
"""Parts of a configuration that aren't settings of a trial."""


SWEEP = "sweep:"
"""What the tag of a sweep's runs begins with."""


@dataclass(frozen=True)
class SweepTrial:
    """A trial as the sweep's result file has it: its number there, its settings, its runs, how it ended."""

    number: int
    point: Mapping[str, Any]
    status: str
    score: float | None
    validations: int
    runs: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class SweepSearch:
    """The result of a search of a sweep. `winner`: the number of the confirmed trial; `figures`: its metric over its
    fresh seeds by split: value, low and high."""

    trials: tuple[SweepTrial, ...]
    winner: int | None = None
    winner_point: Mapping[str, Any] = field(default_factory=dict)
    winner_runs: tuple[str, ...] = ()
    figures: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)


def sweeps(runs: Sequence[RunSummary]) -> list[str]:
    """The names of the sweeps that runs belong to."""
    return sorted({tag.removeprefix(SWEEP) for run in runs for tag in run.tags if tag.startswith(SWEEP)})


def outcome(store: Store, name: str, method: str, student: str, benchmark: str) -> SweepSearch | None:
    """What the sweep's result file says about a search, with the numbers that the command line shows; None if the
    search hasn't ended or the file is gone. Raises `StoreError` for a damaged file."""
    try:
        said = json.loads(store.backend.read(f"{SWEEPS}/{name}.result.json"))
        found = [one for one in said["searches"].values()
                 if (one["method"], one["student"], one["benchmark"]) == (method, student, benchmark)]  # fmt: skip
        return _search(found[0]) if len(found) == 1 else None
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(
            f"{SWEEPS}/{name}.result.json is damaged: run the sweep's command again, which writes it anew"
        ) from None


def _search(said: Mapping[str, Any]) -> SweepSearch:
    trials = tuple(
        SweepTrial(
            number=int(one["number"]),
            point=dict(one["point"]),
            status=str(one["status"]),
            score=None if one["score"] is None else float(one["score"]),
            validations=int(one["validations"]),
            runs=tuple(map(str, one["runs"])),
            error=str(one["error"] or ""),
        )
        for one in said["trials"]
    )
    winner = said["winner"]
    if winner is None:
        return SweepSearch(trials)
    figures = {
        split: {metric: Interval.model_validate(value) for metric, value in of_split.items()}
        for split, of_split in said["figures"].items()
    }
    runs = tuple(map(str, winner["runs"]))
    return SweepSearch(trials, int(winner["number"]), dict(winner["point"]), runs, figures)


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


FIXED = ["run", "number", "status", "seeds", "finished", "value", "low", "high", "best"]


def trials(records: Sequence[Record], split: str, metric: str, known: Sequence[SweepTrial] = ()) -> pd.DataFrame:
    """One row per trial: `FIXED`, and a column for each setting that varies.

    `value` (fractions in per cent) is the mean over the trial's seeds; a trial of one seed has that run's `low` and
    `high`. `best` is the best value so far. `known` are the trials of the result file with their numbers; without
    them, and for others, runs of the same settings are a trial, and numbers go on in the order in which they finished.
    """
    found = _trials(records, known)
    varying = _varying([settings for _, _, settings, _ in found])
    factor = 1 if has_own_unit(metric) else 100
    rows: list[list[Any]] = []
    for number, mine, _, status in found:
        figures = [f for r in mine if (f := r.metrics.get(split, {}).get(metric)) is not None]
        done = len(figures) == len(mine) > 0 and status == "done"
        value = factor * fmean(f.value for f in figures) if done else None
        bounds: list[float | None] = [None, None]
        if done and len(figures) == 1:
            bounds = [None if b is None else factor * b for b in (figures[0].low, figures[0].high)]
        ended = max((r.provenance.finished for r in mine), default="")
        seeds = ", ".join(str(r.seed) for r in mine)
        rows.append([mine[0].run_id if mine else "", number, status, seeds, ended, value, *bounds])
    frame = pd.DataFrame(rows, columns=FIXED[:-1]).astype({"value": float, "low": float, "high": float})
    best = frame["value"].cummin() if lower_is_better(metric) else frame["value"].cummax()
    frame["best"] = best.ffill()
    return pd.concat([frame, pd.DataFrame(varying, index=frame.index)], axis=1)


def _trials(
    records: Sequence[Record], known: Sequence[SweepTrial]
) -> list[tuple[int, list[Record], dict[str, Any], str]]:
    """Number, runs, settings and status of each trial."""
    of = {record.run_id: record for record in records}
    searched: set[str] = set()  # the settings of the search's space, if it is known
    found: list[tuple[int, list[Record], dict[str, Any], str]] = []
    for trial in sorted(known, key=lambda t: t.number):
        mine = [of.pop(run_id) for run_id in trial.runs if run_id in of]
        settings = {name.removeprefix("settings."): value for name, value in trial.point.items()}
        searched |= settings.keys()
        found.append((trial.number, mine, settings, trial.status))
    groups: dict[str, list[Record]] = {}
    for record in sorted(of.values(), key=lambda r: (r.provenance.finished, r.run_id)):
        key, again = repr(sorted(_settings(record).items(), key=str)), 0
        while any(other.seed == record.seed for other in groups.get(f"{key} {again}", ())):
            again += 1
        groups.setdefault(f"{key} {again}", []).append(record)
    first = max((number for number, *_ in found), default=0)
    for number, mine in enumerate(groups.values(), first + 1):
        status = next((r.status for r in mine if r.status != "done"), "done")
        settings = {name: v for name, v in _settings(mine[0]).items() if not known or name in searched}
        found.append((number, mine, settings, status))
    return found


def in_words(row: Mapping[Any, Any], names: Sequence[str]) -> str:
    """A trial's settings: `alpha = 2, divergence = jsd`; those that aren't set are left out."""
    return ", ".join(f"{name} = {_short(row[name])}" for name in names if _short(row[name]) != "not set")


def metrics(records: Sequence[Record], split: str) -> list[str]:
    """The metrics that the records have on a split, accuracy first, those by category last."""
    found = {name for record in records for name in record.metrics.get(split, {})}
    return sorted(found - set(NOT_RANKED), key=lambda n: (n != "accuracy", "/" in n, n))


def settings(frame: pd.DataFrame) -> list[str]:
    """The settings that vary."""
    return [str(c) for c in frame.columns[len(FIXED) :]]


def _varying(of_trials: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Each setting that differs between trials, with its value in each trial (None: not set)."""
    flats = [{k: _plain(v) for k, v in one.items()} for one in of_trials]
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


# ------------------------------------------------------------------------------------ curves, two settings


def validated(history: pd.DataFrame, student: str = "student") -> list[float]:
    """A run's validation accuracies of its student in the order of training; of any role if no role has that name."""
    found = history[history["term"] == "validation/accuracy"]
    own = found[found["role"] == student]
    return [float(value) for value in (own if len(own) else found)["value"]]


def grid(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean value of the trials by two settings, each cut into at most `CUTS` ranges: x, y, value, trials."""
    done = frame[frame["value"].notna()]
    cut = pd.DataFrame({"x": _ranges(done[x]), "y": _ranges(done[y]), "value": done["value"].to_numpy()})
    return cut.groupby(["x", "y"], as_index=False, observed=True, sort=False).agg(
        value=("value", "mean"), trials=("value", "size")
    )


def ranges(frame: pd.DataFrame, name: str) -> list[str]:
    """The ranges of a setting as `grid` names them, in order."""
    values = frame[frame["value"].notna()][name]
    order = dict(zip(_ranges(values), values, strict=True))
    return sorted(order, key=(lambda text: float(order[text])) if is_number(values) and values.notna().all() else str)


def _ranges(values: pd.Series) -> list[str]:
    """The name of each value's range: the value itself where there are few, else equal (or logarithmic) ranges."""
    if not (is_number(values) and values.notna().all() and values.nunique() > CUTS):
        return [_short(value) for value in values]
    numbers = values.astype(float).to_numpy()
    scaled = np.log(numbers) if is_log(values) else numbers
    edges = np.linspace(scaled.min(), scaled.max(), CUTS + 1)
    places = np.clip(np.searchsorted(edges, scaled, side="right") - 1, 0, CUTS - 1)
    ends = np.exp(edges) if is_log(values) else edges
    return [f"{ends[k]:.3g} to {ends[k + 1]:.3g}" for k in places]


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
