"""Inference from a set of runs: figures with intervals, paired differences, exact tests, multiple tests.

Intervals are bootstraps over groups (images) and seeds, see `harness.stats.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, stdtr

from harness.errors import DataError
from harness.record import Interval
from harness.stats.bootstrap import (
    METRICS,
    RESAMPLES,
    category_of,
    covariance,
    formula_of,
    group_numbers,
    interval,
    interval_over_seeds,
    intervals_over_seeds,
    one_split,
    resampled_sums,
    t_quantile,
    tallies_of,
    variance_components,
)
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "METRICS",
    "RESAMPLES",
    "Difference",
    "difference_of",
    "group_numbers",
    "holm",
    "interval",
    "mcnemar",
    "mean_intervals",
    "seeds_difference",
    "seeds_interval",
    "seeds_intervals",
    "summarise",
]


@dataclass(frozen=True)
class Difference:
    """A minus B: the mean over paired seeds, its 95 % interval and two-sided p (None: a single group)."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: tuple[int, ...]
    groups: int
    borrowed: bool = False
    """There is one seed: how much seeds differ is taken from all rows on the same data."""


def mean_intervals(values_nd: Floats, groups: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """The mean over N examples of each of D figures, with its interval over groups; no interval with one group."""
    group_n, count = group_numbers(groups)
    columns = [np.ones(len(group_n)), *np.asarray(values_nd, dtype=np.float64).T]
    units_cd = np.stack([np.bincount(group_n, column, count) for column in columns], axis=1).astype(np.float64)
    drawn_nd = resampled_sums(units_cd, resamples, seed) if count > 1 else None
    total = units_cd.sum(0)
    return [
        interval(float(total[d] / total[0]), None if drawn_nd is None else drawn_nd[:, d] / drawn_nd[:, 0])
        for d in range(1, len(total))
    ]


# ----------------------------------------------------------------------------- one run, one split


def summarise(
    predictions: pd.DataFrame,
    labels: Sequence[str] | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """All metrics of one split's predictions with 95 % intervals over groups.

    `predictions` needs the columns group, category, gold, chosen. `labels` are the benchmark's fixed options
    (`record.Data.options`); None if they differ by example: macro-F1 is then over the letters seen. Returns
    accuracy, macro_f1, micro_f1 and `accuracy/<category>`. Raises `DataError` for no or mixed predictions.
    """
    one_split(predictions)
    group_n, groups = group_numbers(predictions["group"])
    names = [*METRICS, *(f"accuracy/{name}" for name in sorted(set(predictions["category"])))]
    tallies = {category_of(name): tallies_of(predictions, group_n, groups, name, labels) for name in names}
    widths = np.cumsum([0] + [units.shape[2] for units in tallies.values()])
    drawn = resampled_sums(np.concatenate(list(tallies.values()), axis=2), resamples, seed)
    parts = {key: drawn[..., widths[i] : widths[i + 1]] for i, key in enumerate(tallies)}
    result = {}
    for name in names:
        units, sums = tallies[category_of(name)], parts[category_of(name)]
        formula = formula_of(name, units.sum(0), labels)
        several = int((units[:, 1].sum(-1) > 0).sum()) > 1
        result[name] = interval(float(formula(units.sum(0))), formula(sums) if several else None)
    return result


# ------------------------------------------------------------------------------- several seeds


def seeds_interval(
    point_s: Floats, drawn_ns: Floats | None, groups: int = 0, seed: int = 0, prior: Prior | None = None
) -> Interval:
    """The mean of S runs' figures (S,) with its interval, from their replicates over groups (n, S); None: one group.

    Seeds are treated as a sample of all seeds, see `bootstrap.VarianceComponents`. With one run and no prior the
    interval is over groups only, a little wider than the percentiles of `summarise` if groups are few. `groups` 0:
    unknown, treated as infinitely many.
    """
    if drawn_ns is None:
        return interval(float(point_s.mean()), None)
    return _within(interval_over_seeds(point_s, drawn_ns, groups, seed, prior), 0, 1)


def seeds_intervals(
    points_rs: Floats, drawn_rsn: Floats, groups: int = 0, seed: int = 0, prior: Prior | None = None
) -> list[Interval]:
    """`seeds_interval` of R rows at once, all with as many seeds: (R, S), (R, S, n), no undefined resamples."""
    return [_within(found, 0, 1) for found in intervals_over_seeds(points_rs, drawn_rsn, groups, seed, prior)]


def seeds_difference(
    point_s: Floats,
    drawn_ns: Floats | None,
    seeds: tuple[int, ...] = (),
    groups: int = 0,
    examples: int = 0,
    prior: Prior | None = None,
) -> Difference:
    """A mean difference, from those of S paired seeds (S,) and their replicates over C groups (n, S); None: one group.

    See `difference_of`.
    """
    if drawn_ns is None:
        return Difference(float(point_s.mean()), None, None, None, seeds, groups)
    return difference_of(point_s, covariance(drawn_ns), seeds, groups, examples, prior)


def difference_of(
    point_s: Floats,
    cov_ss: Floats,
    seeds: tuple[int, ...] = (),
    groups: int = 0,
    examples: int = 0,
    prior: Prior | None = None,
) -> Difference:
    """A mean difference with Student's t over groups and seeds, from those of S seeds and their covariance (S, S).

    The interval and the two-sided p have the same standard error and degrees of freedom
    (`bootstrap.VarianceComponents`): p is below 0.05 where the interval excludes 0. Only p of one seed may be larger,
    see `smallest_p`; `examples` 0: their number is unknown, and p isn't limited.
    """
    off, value = variance_components(point_s, cov_ss, groups, prior), float(point_s.mean())
    error = float(np.sqrt(off.total))
    half = float(t_quantile(0.975, off.df)) * error
    if abs(value) < 1e-12:
        p = 1.0
    else:
        p = 2 * float(stdtr(min(off.df, 1e9), -abs(value) / error)) if error > 0 else 0.0
        if len(point_s) == 1 and examples:
            p = max(p, smallest_p(value, float(cov_ss.mean()), examples, groups))
    borrowed = len(point_s) == 1 and prior is not None
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p, seeds, groups, borrowed)


def smallest_p(value: float, variance: float, examples: int, groups: int) -> float:
    """The smallest two-sided p that the answers of one seed can give for a difference in accuracy: 2^(1 - m).

    m is the sum over groups of the squared difference in right answers, at least the number of groups on which the
    two differ. If the rows are equal, each of these favours either with probability 1/2 (the sign-flip test; with one
    example per group the smallest p of McNemar's test). It prevents a few lucky answers from looking significant.
    `variance` is the difference's variance over resamples of groups.
    """
    differing = examples**2 * (variance + value**2 / groups)
    return float(min(1.0, 2.0 ** (1 - differing)))


def _within(found: Interval, least: float, most: float) -> Interval:
    if found.low is None or found.high is None:
        return found
    return Interval(value=found.value, low=max(least, found.low), high=min(most, found.high))


# ----------------------------------------------------------------------------------- exact tests, multiple tests


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> tuple[int, int, float]:
    """How many examples only A has right, how many only B, and the exact two-sided p of this split.

    `right_a`, `right_b`: (N,) booleans on the same examples. p = min(1, 2 P(Bin(n, 1/2) <= smaller)) over the
    n examples on which exactly one is right; 1 if there are none (McNemar 1947, exact form). It treats
    examples as independent: if several share an image, use the interval over images instead.
    """
    a_n, b_n = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a_n.shape != b_n.shape or a_n.ndim != 1:
        raise DataError(f"answers of shapes {a_n.shape} and {b_n.shape}: expected one answer per example on both sides")
    only_a, only_b = int((a_n & ~b_n).sum()), int((~a_n & b_n).sum())
    return only_a, only_b, min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """The p values of one table adjusted for multiple testing, in the given order (Holm 1979).

    The probability that any true null falls below 0.05 is then at most 5 %, for any dependence between the tests.
    The i-th smallest of m becomes the largest of min(1, (m - j + 1) p_(j)) over j <= i. Raises `DataError` for a
    value outside 0..1.
    """
    p_m = np.asarray(p, dtype=np.float64)
    if not ((p_m >= 0) & (p_m <= 1)).all():  # a NaN too
        raise DataError(f"p value {p_m[~((p_m >= 0) & (p_m <= 1))][0]}: expected a number from 0 to 1")
    order_m = np.argsort(p_m, kind="stable")
    adjusted_m = np.empty_like(p_m)
    adjusted_m[order_m] = np.maximum.accumulate(np.minimum(1, np.arange(len(p_m), 0, -1) * p_m[order_m]))
    return [float(value) for value in adjusted_m]
