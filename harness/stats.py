"""Intervals and paired differences by the bootstrap over groups (images), and over seeds.

Examples about one image are not independent: whole groups are drawn. Groups are numbered by first
appearance; resample i draws C of C with replacement, all from one `default_rng(seed).integers(0, C, (n, C))`
(made in blocks, which gives the same stream). What a group adds to a metric is a tally (see
`harness.metrics`), so a resample is one row of counts times the groups' tallies: no loop over resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness.errors import ConfigError, DataError, near
from harness.metrics import (
    NO_ANSWER,
    Floats,
    Ints,
    accuracy_of,
    checked,
    macro_f1_of,
    micro_f1_of,
    seen_labels,
)
from harness.record import Interval

RESAMPLES = 2000
METRICS = ("accuracy", "macro_f1", "micro_f1")
"""The harness's own metrics; beside them `accuracy/<category>`."""

_BLOCK = 1 << 21
"""Draws made at a time: bounds the memory at some 50 MB whatever the number of groups."""


@dataclass(frozen=True)
class Difference:
    """A minus B: the mean over paired seeds, its 95 % interval and two-sided p (None: a single group)."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: tuple[int, ...]
    groups: int


# ------------------------------------------------------------------------------------- the bootstrap


def group_numbers(groups: ArrayLike) -> tuple[Ints, int]:
    """The number of each example's group (N,), counted by first appearance, and how many groups there are."""
    numbers, names = pd.factorize(np.asarray(groups))
    if (numbers < 0).any():
        raise DataError(f"example {int(np.argmax(numbers < 0))} has no group: expected the name of its image")
    return np.asarray(numbers, dtype=np.int64), len(names)


def group_tallies(group_n: Ints, groups: int, gold: ArrayLike, chosen: ArrayLike, labels: int | None = None) -> Floats:
    """The tally of each group's examples: (C, 3, K), see `harness.metrics.tally`."""
    gold_n, chosen_n, count = checked(gold, chosen, labels)
    right, answered = gold_n == chosen_n, chosen_n != NO_ANSWER

    def per_group(label_n: Ints, keep: np.ndarray) -> Ints:
        flat = np.bincount(group_n[keep] * count + label_n[keep], minlength=groups * count)
        return flat.reshape(groups, count)

    rows = [per_group(gold_n, right), per_group(gold_n, right | True), per_group(chosen_n, answered)]
    return np.stack(rows, axis=1).astype(np.float64)


def resampled_sums(units_c: Floats, resamples: int, seed: int | Sequence[int]) -> Floats:
    """Sums over drawn groups of what each group adds: (C, ...) -> (resamples, ...)."""
    groups = len(units_c)
    units_cd = units_c.reshape(groups, -1)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, units_cd.shape[1]))
    step = max(1, _BLOCK // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        sums[start : start + rows] = counts.astype(np.float64) @ units_cd
    return sums.reshape(resamples, *units_c.shape[1:])


def interval(value: float, resampled_n: Floats | None) -> Interval:
    """The estimate with the 2.5th and 97.5th percentile of its resamples (undefined ones left out)."""
    if resampled_n is None or np.isnan(resampled_n).all():
        return Interval(value=value)
    known_n = resampled_n[~np.isnan(resampled_n)]
    low, high = np.percentile(known_n, [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


def two_sided_p(resampled_n: Floats) -> float:
    """min(1, 2 min((1 + #(d <= 0)) / (N + 1), (1 + #(d >= 0)) / (N + 1))) of N resampled differences d."""
    known_n = np.round(resampled_n[~np.isnan(resampled_n)], 12)  # a tie is a tie, whatever the last bits say
    below, above = int((known_n <= 0).sum()), int((known_n >= 0).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (len(known_n) + 1))


# ----------------------------------------------------------------------------- one run, one split


def summarise(
    predictions: pd.DataFrame,
    labels: Sequence[str] | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """All metrics of one split's predictions with 95 % intervals over groups.

    `predictions` needs the columns group, category, gold, chosen. `labels` are the benchmark's fixed options
    (`record.Data.options`); None where they differ by example: macro-F1 is then over the letters seen. Gives
    accuracy, macro_f1, micro_f1 and `accuracy/<category>`. Raises `DataError` for no or mixed predictions.
    """
    _one_split(predictions)
    group_n, groups = group_numbers(predictions["group"])
    names = [*METRICS, *(f"accuracy/{name}" for name in sorted(set(predictions["category"])))]
    tallies = {_category(name): _tallies(predictions, group_n, groups, name, labels) for name in names}
    widths = np.cumsum([0] + [units.shape[2] for units in tallies.values()])
    drawn = resampled_sums(np.concatenate(list(tallies.values()), axis=2), resamples, seed)
    parts = {key: drawn[..., widths[i] : widths[i + 1]] for i, key in enumerate(tallies)}
    result = {}
    for name in names:
        units, sums = tallies[_category(name)], parts[_category(name)]
        formula = _formula(name, units.sum(0), labels)
        several = int((units[:, 1].sum(-1) > 0).sum()) > 1
        result[name] = interval(float(formula(units.sum(0))), formula(sums) if several else None)
    return result


def _one_split(predictions: pd.DataFrame) -> None:
    if not len(predictions):
        raise DataError("no predictions: at least one example is needed to compute a metric")
    if "split" in predictions and predictions["split"].nunique() > 1:
        found = ", ".join(sorted(map(str, predictions["split"].unique())))
        raise DataError(f"predictions of several splits ({found}): expected one, choose it by `split`")


def _category(metric: str) -> str | None:
    """The category of `accuracy/<category>`, None for the metrics over all examples."""
    name, slash, category = metric.partition("/")
    if metric in METRICS:
        return None
    if not slash or name != "accuracy" or not category:
        raise ConfigError(f"unknown metric {metric!r}; {near(metric, [*METRICS, 'accuracy/<category>'])}")
    return category


def _tallies(
    predictions: pd.DataFrame, group_n: Ints, groups: int, metric: str, labels: Sequence[str] | None
) -> Floats:
    """What each group adds to a metric: (C, 3, K). For a category only right or wrong counts: K = 1."""
    gold, chosen = predictions["gold"].to_numpy(), predictions["chosen"].to_numpy()
    category = _category(metric)
    if category is None:
        return group_tallies(group_n, groups, gold, chosen, None if labels is None else len(labels))
    inside = (predictions["category"] == category).to_numpy()
    if not inside.any():
        known = (f"accuracy/{name}" for name in set(predictions["category"]))
        raise ConfigError(f"unknown metric {metric!r}; {near(metric, [*METRICS, *known])}")
    choice = np.where(gold == chosen, 0, NO_ANSWER)[inside]
    return group_tallies(group_n[inside], groups, np.zeros(len(choice), dtype=np.int64), choice, 1)


def _formula(metric: str, total: Floats, labels: Sequence[str] | None) -> Callable[[Floats], Floats]:
    """The metric as a function of tallies (..., 3, K). `total` (..., 3, K) says which labels were seen."""
    if metric == "macro_f1":
        seen_k = seen_labels(total) if labels is None else None
        return lambda sums: macro_f1_of(sums, seen_k)
    return micro_f1_of if metric == "micro_f1" else accuracy_of


# ------------------------------------------------------------------------------- several seeds


def across_seeds(
    runs: Sequence[pd.DataFrame],
    labels: Sequence[str] | None,
    metric: str = "accuracy",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of a metric over runs of several seeds, with its interval over seeds and groups.

    The runs answer the same examples, so every resample draws groups once for all of them, and draws runs
    (with one run: groups only). A handful of seeds says little about their spread: the draws understate it
    by the factor sqrt((S - 1) / S). Raises `DataError` when the runs' examples differ.
    """
    return seeds_interval(*_by_seed(runs, labels, metric, resamples, seed), seed)


def seeds_interval(point_s: Floats, drawn_ns: Floats | None, seed: int = 0) -> Interval:
    """`across_seeds` from the runs' figures (S,) and their resamples over groups (n, S); None: one group."""
    return interval(float(point_s.mean()), None if drawn_ns is None else _draw_seeds(drawn_ns, seed))


def paired_difference(
    a: Mapping[int, pd.DataFrame],
    b: Mapping[int, pd.DataFrame],
    labels: Sequence[str] | None,
    metric: str = "accuracy",
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """A minus B of a metric, paired by seed and example: the mean over the seeds that both have.

    `a` and `b` give the predictions of one split by seed. Resamples draw seeds and groups, see
    `across_seeds`; p is two-sided, see `two_sided_p`. Raises `DataError` without a common seed or where the
    examples differ.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        raise DataError(f"no seed in common: one side has {sorted(a)}, the other {sorted(b)}")
    frames = [a[s] for s in seeds] + [b[s] for s in seeds]
    point_s, drawn_ns = _by_seed(frames, labels, metric, resamples, seed)
    half, groups = len(seeds), int(frames[0]["group"].nunique())
    off_ns = None if drawn_ns is None else drawn_ns[:, :half] - drawn_ns[:, half:]
    return seeds_difference(point_s[:half] - point_s[half:], off_ns, tuple(seeds), groups, seed)


def seeds_difference(
    point_s: Floats, drawn_ns: Floats | None, seeds: tuple[int, ...] = (), groups: int = 0, seed: int = 0
) -> Difference:
    """`paired_difference` from the differences of S seeds (S,), resampled over groups (n, S); None: one group."""
    value = float(point_s.mean())
    if drawn_ns is None:
        return Difference(value, None, None, None, seeds, groups)
    drawn_n = _draw_seeds(drawn_ns, seed)
    bounds = interval(value, drawn_n)
    return Difference(value, bounds.low, bounds.high, two_sided_p(drawn_n), seeds, groups)


def _by_seed(
    runs: Sequence[pd.DataFrame], labels: Sequence[str] | None, metric: str, resamples: int, seed: int
) -> tuple[Floats, Floats | None]:
    """A metric of S runs on the same examples: (S,), and resampled over groups (n, S); None: one group."""
    frames = _aligned(runs)
    group_n, groups = group_numbers(frames[0]["group"])
    units = [_tallies(frame, group_n, groups, metric, labels) for frame in frames]
    widest = max(unit.shape[2] for unit in units)
    units_cs3k = np.stack([np.pad(u, ((0, 0), (0, 0), (0, widest - u.shape[2]))) for u in units], axis=1)
    total_s3k = units_cs3k.sum(0)
    formula = _formula(metric, total_s3k, labels)
    category = _category(metric)
    inside = group_n if category is None else group_n[(frames[0]["category"] == category).to_numpy()]
    if len(np.unique(inside)) < 2:
        return formula(total_s3k), None
    return formula(total_s3k), formula(resampled_sums(units_cs3k, resamples, seed))


def _draw_seeds(values_ns: Floats, seed: int) -> Floats:
    """For each resample the mean over S drawn seeds: (n, S) -> (n,)."""
    drawn = _drawn_seeds(*values_ns.shape, seed)
    return np.asarray(np.take_along_axis(values_ns, drawn, axis=1).mean(axis=1))


@lru_cache(maxsize=32)
def _drawn_seeds(resamples: int, seeds: int, seed: int) -> Ints:
    return np.random.default_rng([seed, 1]).integers(0, seeds, size=(resamples, seeds))


def _aligned(runs: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The runs' rows in the order of the first run's. Raises `DataError` unless the examples are the same."""
    if not runs:
        raise DataError("no runs: at least one is needed to compute a metric")
    indexed = []
    for frame in runs:
        _one_split(frame)
        if frame["id"].duplicated().any():
            twice = frame["id"][frame["id"].duplicated()].iloc[0]
            raise DataError(f"example {twice!r} is predicted twice: expected one prediction an example")
        indexed.append(frame.set_index("id"))
    first = indexed[0]
    for other in indexed[1:]:
        if len(other) != len(first) or not other.index.isin(first.index).all():
            raise DataError(
                f"runs on different examples ({len(first)} and {len(other)}) can't be paired: compare runs "
                "of one benchmark, split and data fingerprint"
            )
    aligned = [first, *(other.loc[first.index] for other in indexed[1:])]
    for other in aligned[1:]:
        for column in ("gold", "group"):
            differs = (other[column] != first[column]).to_numpy()
            if differs.any():
                name = first.index[int(np.argmax(differs))]
                raise DataError(f"example {name!r} has another {column} in another run: the data changed")
    return aligned
