"""The variance between seeds, with help from the other rows of a table (empirical Bayes, the moderated t).

Two or three seeds hardly show how much seeds differ: with two, Student's t asks for 12.7 standard errors instead of 2.
But a table has many rows, and their seeds differ about as much. As in Smyth 2004 (Statistical Applications in Genetics
and Molecular Biology 3, article 3), a row's own variance s^2 with d degrees of freedom and the prior of the table,
s0^2 with d0, become

    s~^2 = (d0 s0^2 + d s^2) / (d0 + d)    with d0 + d degrees of freedom, at most those of all rows together

s0^2 and d0 are the most likely ones if the variances of the rows are s0^2 times an F distribution with d and d0 degrees
of freedom: d0 is small where rows differ a lot, and infinite where they differ by no more than chance. Smyth takes them
from the logarithms of the variances; two seeds with equally many right answers have the logarithm of 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betaln, gammaln

from harness.stats.metrics import Floats

MOST_ROWS = 100
"""Of more rows, that many are taken for the differences, evenly spaced: they have 4,950 pairs."""
_DF = np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64])
"""The finite d0 that are tried."""
_NOTHING = 1e-18
"""Variances of fractions below this are rounding."""


@dataclass(frozen=True)
class Prior:
    """What a table's rows tell about the variance between the seeds of any of them."""

    variance: float
    """s0^2: of one seed's figure, for infinitely many images and seeds of none."""
    df: float
    """d0."""
    pooled: float
    """The degrees of freedom of all the table's variances together."""
    mean: float
    """The mean of the table's variances: that of a row of one seed, which may be any of them. At least s0^2, about."""

    def scaled(self, factor: float) -> Prior:
        """For a figure with this times the variance."""
        return replace(self, variance=factor * self.variance, mean=factor * self.mean)


def moderated(variance_r: Floats, df: int, prior: Prior | None) -> tuple[Floats, float]:
    """s~^2 of R variances (R,) between seeds with `df` degrees of freedom each, and those of s~^2.

    `df` 0: one seed. It takes the table's mean with d0 degrees of freedom, so that it is never surer than two.
    """
    if prior is None:
        return variance_r, df
    if df == 0:
        return np.full_like(variance_r, prior.mean), min(prior.df, prior.pooled)
    if np.isinf(prior.df):
        return np.full_like(variance_r, prior.variance), max(prior.pooled, df)
    whole = prior.df + df
    return (prior.df * prior.variance + df * variance_r) / whole, max(min(whole, prior.pooled), df)


# ---------------------------------------------------------------------------------------- from a table's figures


def of_rows(figures_ks: Floats) -> Prior | None:
    """The prior of a row, from the figures of K rows by seed (K, S), NaN where a row lacks the seed.

    None: no row has two seeds.
    """
    count_k = (~np.isnan(figures_ks)).sum(axis=1)
    several = count_k > 1
    df_k = count_k[several] - 1.0
    return most_likely(np.nanvar(figures_ks[several], axis=1, ddof=1), df_k, float(df_k.sum()))


def of_pairs(figures_ks: Floats) -> Prior | None:
    """The prior of a difference of two rows, paired by seed, from the same figures; None: no two share two seeds.

    From the variances of all pairs of rows: what the seeds have in common for all rows isn't in them. Pairs share rows,
    so together they have only the degrees of freedom that remain when each row and each seed is given its mean.
    """
    figures_ks = figures_ks[:: -(-len(figures_ks) // MOST_ROWS) or 1]
    there_ks = (~np.isnan(figures_ks)).astype(np.float64)
    sums_k = np.nansum(figures_ks, axis=1, keepdims=True)
    off_ks = np.where(there_ks > 0, figures_ks - sums_k / np.maximum(1, there_ks.sum(axis=1, keepdims=True)), 0.0)
    count_kk = there_ks @ there_ks.T
    square_kk = off_ks**2 @ there_ks.T
    square_kk = square_kk + square_kk.T - 2 * off_ks @ off_ks.T
    sum_kk = off_ks @ there_ks.T
    sum_kk = sum_kk - sum_kk.T
    pairs = np.triu(count_kk > 1, 1)
    paired_k = pairs.any(axis=0) | pairs.any(axis=1)
    left = there_ks[paired_k].sum() - paired_k.sum() - there_ks[paired_k].any(axis=0).sum() + 1
    count_n = count_kk[pairs]
    variance_n = (square_kk[pairs] - sum_kk[pairs] ** 2 / count_n) / (count_n - 1)
    return most_likely(variance_n, count_n - 1, max(1.0, float(left)))


def most_likely(variance_n: Floats, df_n: Floats, pooled: float) -> Prior | None:
    """The most likely prior, from variances (n,) with their degrees of freedom (n,); None without any."""
    if not len(variance_n):
        return None
    variance_n = np.where(variance_n < _NOTHING, 0.0, variance_n)
    mean = float(np.average(variance_n, weights=df_n))
    if mean == 0:
        return Prior(0.0, np.inf, pooled, 0.0)
    scale_g = _scales(variance_n, df_n, mean)
    of_n, likelihood = df_n * variance_n, []
    for df, scale in zip(_DF, scale_g, strict=True):
        terms_n = -betaln(df_n / 2, df / 2) - df_n / 2 * np.log(df * scale)
        likelihood.append(float((terms_n - (df_n + df) / 2 * np.log1p(of_n / (df * scale))).sum()))
    alike = float((-gammaln(df_n / 2) - df_n / 2 * np.log(2 * mean) - of_n / (2 * mean)).sum())
    best = int(np.argmax(likelihood))
    if alike >= likelihood[best]:
        return Prior(mean, np.inf, pooled, mean)
    return Prior(float(scale_g[best]), float(_DF[best]), pooled, mean)


def _scales(variance_n: Floats, df_n: Floats, start: float) -> Floats:
    """The most likely s0^2 for each of `_DF`: where sum d ((d + d0) s^2 / (d0 s0^2 + d s^2) - 1) is 0.

    The sum falls in s0^2; Newton's steps are in its logarithm.
    """
    log_g = np.full(len(_DF), np.log(start))
    for _ in range(30):
        scaled_gn = (_DF * np.exp(log_g))[:, None]
        below_gn = scaled_gn + df_n * variance_n
        ratio_gn = df_n * (df_n + _DF[:, None]) * variance_n / below_gn
        step_g = (ratio_gn - df_n).sum(axis=1) / (ratio_gn * scaled_gn / below_gn).sum(axis=1)
        log_g += np.clip(step_g, -1, 1)
        if np.abs(step_g).max() < 1e-9:
            break
    return np.asarray(np.exp(log_g))
