"""The bootstrap over groups (images) and seeds: how a figure varies with other images and other seeds.

Examples about one image are not independent, so whole groups are resampled. Groups are numbered by first
appearance. Resample i draws C of C groups with replacement, all from one `default_rng(seed).integers(0, C, (n, C))`
(in blocks, which gives the same stream). A group's contribution to a metric is a tally (see
`harness.stats.metrics`), so a resample is one row of counts times the groups' tallies: no loop over resamples.

A mean over S seeds varies for two reasons, which are kept separate because a handful of seeds can't be resampled:
drawing S of S seeds underestimates their variance by (S - 1) / S, and treats it as known (see `VarianceComponents`).
What other rows tell of the seeds is in `harness.stats.moderated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from harness.errors import ConfigError, DataError, near
from harness.record import Interval
from harness.stats.metrics import (
    NO_ANSWER,
    Floats,
    Ints,
    accuracy_of,
    checked,
    macro_f1_of,
    micro_f1_of,
    seen_labels,
)
from harness.stats.moderated import Prior, moderated

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("accuracy", "macro_f1", "micro_f1")
"""The harness's own metrics; in addition there is `accuracy/<category>`."""
RESAMPLES = 2000

_BLOCK = 1 << 21
"""Draws made at a time: limits the memory to some 50 MB for any number of groups."""


# ------------------------------------------------------------------------------------- drawing groups


def group_numbers(groups: ArrayLike) -> tuple[Ints, int]:
    """The number of each example's group (N,), counted by first appearance, and how many groups there are."""
    import pandas as pd  # slow to load, and rankings of a compacted store don't need it

    numbers, names = pd.factorize(np.asarray(groups))
    if (numbers < 0).any():
        raise DataError(f"example {int(np.argmax(numbers < 0))} has no group: expected the name of its image")
    return np.asarray(numbers, dtype=np.int64), len(names)


def group_tallies(group_n: Ints, groups: int, gold: ArrayLike, chosen: ArrayLike, labels: int | None = None) -> Floats:
    """The tally of each group's examples: (C, 3, K), see `harness.stats.metrics`."""
    gold_n, chosen_n, count = checked(gold, chosen, labels)
    right, answered = gold_n == chosen_n, chosen_n != NO_ANSWER

    def per_group(label_n: Ints, keep: np.ndarray) -> Ints:
        flat = np.bincount(group_n[keep] * count + label_n[keep], minlength=groups * count)
        return flat.reshape(groups, count)

    rows = [per_group(gold_n, right), per_group(gold_n, right | True), per_group(chosen_n, answered)]
    return np.stack(rows, axis=1).astype(np.float64)


def resampled_sums(units_c: Floats, resamples: int, seed: int | Sequence[int]) -> Floats:
    """Sums of the drawn groups' contributions: (C, ...) -> (resamples, ...)."""
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
    """The estimate with the 2.5th and 97.5th percentile of its resamples (undefined ones are dropped)."""
    if resampled_n is None or np.isnan(resampled_n).all():
        return Interval(value=value)
    low, high = np.percentile(resampled_n[~np.isnan(resampled_n)], [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


# ------------------------------------------------------------------------------- the variance of a mean over seeds


@dataclass(frozen=True)
class VarianceComponents:
    """The variance of a mean over S seeds, by its two sources, and the degrees of freedom of their sum.

    With y_sc = m + image_c + seed_s + e_sc, `images` is the part that all seeds share, Var(image) / C, and
    `seeds` the rest, (Var(seed) + Var(e) / C) / S. The first comes from the covariance of the seeds' figures
    over resamples of groups. The second is the variance between the seeds' figures, moderated by that of other
    rows, over S. With one seed, Var(e) / C is in both: a little too much. With one seed and no prior there is only
    `images`: it says nothing about other seeds.
    """

    images: float
    seeds: float
    df: float

    @property
    def total(self) -> float:
        return self.images + self.seeds


def variance_components(
    point_s: Floats, cov_ss: Floats, groups: int = 0, prior: Prior | None = None
) -> VarianceComponents:
    """The components for the mean over seeds, from figures (S,) and their covariance over resamples of C groups (S, S).

    `groups` 0: unknown, treated as infinitely many.
    """
    mean = float(cov_ss.mean())
    of_each = np.array([np.trace(cov_ss)])
    (images,), (between,), seeds_df = _by_source(point_s[None], np.array([mean]), of_each, groups, prior)
    return VarianceComponents(images, between, degrees_of_freedom(images, between, groups, seeds_df))


def degrees_of_freedom(images: float, between: float, groups: int, seeds_df: float) -> float:
    """Of the sum of a variance `images`, estimated from C groups, and a variance `between` with its own `seeds_df`.

    1 / df = (between / total)^e / seeds_df + images / total / (C - 1), with e = 1 - 2 / (3 seeds_df). The ratios aren't
    squared, unlike in Welch and Satterthwaite: with few seeds and a variance mostly between seeds, squares give a
    coverage of 92 % or less. With one or two degrees of freedom `between` is often far too small by chance, and then
    the ratio is, too: hence e, the largest with which p is below 0.05 for at most 5 % of equal rows, whatever the share
    of the seeds. benches/stats_simulation.py measures this.
    """
    return float(_degrees_of_freedom(np.array([images]), np.array([between]), groups, seeds_df)[0])


def _degrees_of_freedom(images_r: Floats, between_r: Floats, groups: int, seeds_df: float) -> Floats:
    total_r = images_r + between_r
    share_r = np.divide(between_r, total_r, out=np.zeros_like(total_r), where=total_r > 0)
    of_seeds_r = share_r ** (1 - 2 / (3 * seeds_df)) / seeds_df if seeds_df > 0 else np.zeros_like(total_r)
    of_groups_r = np.where(images_r > 0, 1 - share_r, 0) / (groups - 1) if groups > 1 else np.zeros_like(total_r)
    whole_r = of_seeds_r + of_groups_r
    return np.divide(1.0, whole_r, out=np.full_like(whole_r, np.inf), where=whole_r > 0)


def t_quantile(place: float | Floats, df: float | Floats) -> Floats:
    """The quantile of Student's t; of the normal distribution for very many degrees of freedom."""
    many = np.asarray(df) >= 1e9
    return np.where(many, ndtri(place), stdtrit(np.where(many, 1.0, df), place))


def covariance(drawn_ns: Floats) -> Floats:
    """The covariance over resamples, without those in which a figure is undefined: (n, S) -> (S, S)."""
    known_ns = drawn_ns[~np.isnan(drawn_ns).any(axis=1)]
    return np.atleast_2d(np.cov(known_ns, rowvar=False)) if len(known_ns) > 1 else np.zeros((drawn_ns.shape[1],) * 2)


def over_seeds(point_s: Floats, drawn_ns: Floats, groups: int = 0, seed: int = 0, prior: Prior | None = None) -> Floats:
    """Replicates of the mean over seeds, with other groups and other seeds: (S,), (n, S) -> (n,).

    The resampled deviations, with the variance `VarianceComponents.images`, plus normal ones with the variance
    `VarianceComponents.seeds`. Each sum is then mapped from its quantile in a normal distribution to that in
    Student's t. (Similar to Hesterberg 2015, The American Statistician 69, who expands percentile intervals by t.)
    With one seed and no prior only groups vary: percentiles from few groups are too narrow by the root of
    (C - 1) / C, and by the ratio of t to the normal quantile.
    """
    known_ns = drawn_ns[~np.isnan(drawn_ns).any(axis=1)]
    if not len(known_ns):
        return np.empty(0)
    return np.asarray(rows_over_seeds(point_s[None], known_ns.T[None], groups, [seed], prior)[0])


def rows_over_seeds(
    points_rs: Floats, drawn_rsn: Floats, groups: int, seeds: Sequence[int], prior: Prior | None = None
) -> Floats:
    """`over_seeds` of R rows at once, all with as many seeds: (R, S), (R, S, n), no undefined resamples -> (R, n).

    `seeds` (R,) are the random seeds of the rows.
    """
    normal_rn = np.stack([_normal(drawn_rsn.shape[2], seed) for seed in seeds])
    off_rn, df_r = _unstretched(points_rs, drawn_rsn, groups, normal_rn, prior)
    for off_n, df in zip(off_rn, df_r, strict=True):
        if df < np.inf:
            off_n[np.argsort(off_n)] *= _stretch(len(off_n), float(df))
    return np.asarray(points_rs.mean(axis=1)[:, None] + off_rn)


def _stretch(count: int, df: float) -> Floats:
    """The quantiles of Student's t at (k + 0.5) / count over the normal ones, k from 0: (count,).

    Computed exactly at 128 places, which is slow, and its logarithm interpolated: it is off by less than 1e-4.
    """
    z_n = _normal_quantiles(count)
    place_k = np.linspace(0.001, max(0.002, z_n[-1]), 128)
    log_k = np.log(-t_quantile(ndtr(-place_k), df) / place_k)
    return np.asarray(np.exp(np.interp(np.abs(z_n), place_k, log_k)))


def interval_over_seeds(
    point_s: Floats, drawn_ns: Floats, groups: int = 0, seed: int = 0, prior: Prior | None = None
) -> Interval:
    """The mean over seeds with the percentiles of `over_seeds`; only these two quantiles are mapped to Student's t."""
    known_ns = drawn_ns[~np.isnan(drawn_ns).any(axis=1)]
    if not len(known_ns):
        return Interval(value=float(point_s.mean()))
    return intervals_over_seeds(point_s[None], known_ns.T[None], groups, seed, prior)[0]


def intervals_over_seeds(
    points_rs: Floats, drawn_rsn: Floats, groups: int = 0, seed: int = 0, prior: Prior | None = None
) -> list[Interval]:
    """`interval_over_seeds` of R rows at once, all with as many seeds: (R, S), (R, S, n), no undefined resamples."""
    off_rn, df_r = _unstretched(points_rs, drawn_rsn, groups, _normal(drawn_rsn.shape[2], seed), prior)
    value_r = points_rs.mean(axis=1)
    bounds_2r = np.percentile(off_rn, [2.5, 97.5], axis=1) * (t_quantile(0.975, df_r) / ndtri(0.975)) + value_r
    return [
        Interval(value=float(value), low=float(low), high=float(high))
        for value, low, high in zip(value_r, *bounds_2r, strict=True)
    ]


def _unstretched(
    points_rs: Floats, drawn_rsn: Floats, groups: int, normal_n: Floats, prior: Prior | None
) -> tuple[Floats, Floats]:
    """Deviations from the mean (R, n), not yet mapped to Student's t, and its degrees of freedom (R,).

    `normal_n` are normal quantiles in random order, (n,) or (R, n).
    """
    seeds, count = drawn_rsn.shape[1:]
    mean_rn = drawn_rsn.mean(axis=1)
    var_r = mean_rn.var(axis=1, ddof=1) if count > 1 else np.zeros(len(mean_rn))
    of_each_r = drawn_rsn.var(axis=2, ddof=1).sum(axis=1) if seeds > 1 and count > 1 else np.zeros(len(mean_rn))
    images_r, between_r, seeds_df = _by_source(points_rs, var_r, of_each_r, groups, prior)
    df_r = _degrees_of_freedom(images_r, between_r, groups, seeds_df)
    shape_r = np.sqrt(np.divide(images_r, var_r, out=np.zeros_like(var_r), where=var_r > 0))
    off_rn = shape_r[:, None] * (mean_rn - points_rs.mean(axis=1)[:, None])
    if (between_r > 0).any():
        off_rn += np.sqrt(between_r)[:, None] * normal_n
    return off_rn, df_r


def _by_source(
    points_rs: Floats, var_r: Floats, of_each_r: Floats, groups: int, prior: Prior | None
) -> tuple[Floats, Floats, float]:
    """`VarianceComponents.images` and `VarianceComponents.seeds` of R rows, and the second's degrees of freedom.

    From the figures (R, S), the variance of their mean over resamples, and the sum of their own variances.
    """
    seeds = points_rs.shape[1]
    shared_r = (seeds**2 * var_r - of_each_r) / (seeds * (seeds - 1)) if seeds > 1 else var_r
    images_r = np.maximum(0.0, shared_r) * (groups / (groups - 1) if groups > 1 else 1)
    own_r = points_rs.var(axis=1, ddof=1) if seeds > 1 else np.zeros_like(images_r)
    between_r, seeds_df = moderated(own_r, seeds - 1, prior)
    return images_r, between_r / seeds, seeds_df


@lru_cache(maxsize=32)
def _normal(count: int, seed: int) -> Floats:
    """The quantiles of the normal distribution in random order (n,)."""
    return _normal_quantiles(count)[np.random.default_rng([seed, 1]).permutation(count)]


@lru_cache(maxsize=8)
def _normal_quantiles(count: int) -> Floats:
    return np.asarray(ndtri((np.arange(count) + 0.5) / count))


# ------------------------------------------------------------------------------- the tallies of predictions


def one_split(predictions: pd.DataFrame) -> None:
    if not len(predictions):
        raise DataError("no predictions: at least one example is needed to compute a metric")
    if "split" in predictions and predictions["split"].nunique() > 1:
        found = ", ".join(sorted(map(str, predictions["split"].unique())))
        raise DataError(f"predictions of several splits ({found}): expected one, choose it by `split`")


def category_of(metric: str) -> str | None:
    """The category of `accuracy/<category>`, None for metrics over all examples. Raises `ConfigError`."""
    name, slash, category = metric.partition("/")
    if metric in METRICS:
        return None
    if not slash or name != "accuracy" or not category:
        raise ConfigError(f"unknown metric {metric!r}; {near(metric, [*METRICS, 'accuracy/<category>'])}")
    return category


def tallies_of(
    predictions: pd.DataFrame, group_n: Ints, groups: int, metric: str, labels: Sequence[str] | None
) -> Floats:
    """Each group's contribution to a metric: (C, 3, K). For a category only right or wrong counts: K = 1."""
    gold, chosen = predictions["gold"].to_numpy(), predictions["chosen"].to_numpy()
    category = category_of(metric)
    if category is None:
        return group_tallies(group_n, groups, gold, chosen, None if labels is None else len(labels))
    inside_n = (predictions["category"] == category).to_numpy()
    if not inside_n.any():
        known = (f"accuracy/{name}" for name in set(predictions["category"]))
        raise ConfigError(f"unknown metric {metric!r}; {near(metric, [*METRICS, *known])}")
    choice_n = np.where(gold == chosen, 0, NO_ANSWER)[inside_n]
    return group_tallies(group_n[inside_n], groups, np.zeros(len(choice_n), dtype=np.int64), choice_n, 1)


def formula_of(metric: str, total: Floats, labels: Sequence[str] | None) -> Callable[[Floats], Floats]:
    """The metric as a function of tallies (..., 3, K). `total` (..., 3, K) says which labels were seen."""
    if metric == "macro_f1":
        seen_k = seen_labels(total) if labels is None else None
        return lambda sums: macro_f1_of(sums, seen_k)
    return micro_f1_of if metric == "micro_f1" else accuracy_of


@dataclass(frozen=True)
class Resampled:
    """A metric of S runs on the same examples."""

    point_s: Floats
    drawn_ns: Floats | None
    """Over resamples of groups, the same ones for all runs; None: there is only one group."""
    groups: int
    examples: int
