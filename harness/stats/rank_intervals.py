"""Rank intervals and tiers of the rows of a table.

All rows of a table are resampled together: every resample has the same groups for all rows, and rows are
compared on their common seeds. So effects that all rows share (hard images) don't add noise to their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from harness.stats.bootstrap import Resampled, covariance, variance_components
from harness.stats.inference import holm
from harness.stats.metrics import Floats

SIGNIFICANT_P = 0.035
"""Two rows are significantly different at this p. Below 0.05, because the p are approximate: in simulations, truly
equal
rows are then called different in at most 5 % of tables, whether images, seeds or both vary
(benches/stats_simulation.py)."""

# ---------------------------------------------------------------------------------- ranks and tiers


@dataclass(frozen=True)
class Standing:
    """A row's possible ranks and tiers in its table."""

    rank_low: int
    """1 plus the number of rows that are significantly better."""
    rank_high: int
    """The number of rows minus those that are significantly worse."""
    tier: tuple[int, ...]
    """From 1. Rows in one tier aren't significantly different; a row between two tiers is in both."""


def standings(found: Resampled, columns: Sequence[tuple[int, int]]) -> list[Standing]:
    """Rank interval and tiers of each row, from the figures and replicates of all their runs.

    `columns` gives the row, from 0 on, and the seed of each run. Two rows are significantly different if p of their
    paired
    difference, corrected by Holm over all pairs of the table, is at most `SIGNIFICANT_P`. So with 95 % probability no
    two
    truly equal rows are called different anywhere in the table, and then all rank intervals contain the true ranks (as
    in
    Mogstad, Romano, Shaikh and Wilhelm 2024, Inference for Ranks, with Holm's steps). With one seed this is a statement
    about these particular models, with several seeds about the methods.

    Rows are in order of their mean over seeds. A tier is a longest run of that order in which no two rows are
    significantly different, where a pair only counts as different if every pair around it is.
    """
    count = max((row for row, _ in columns), default=-1) + 1
    row_r = np.array([row for row, _ in columns], dtype=np.int64)
    mean_k = np.array([found.point_s[row_r == k].mean() for k in range(count)])
    p_kk, sign_kk = _pairs(found, columns, count)
    significant_kk = _holm_pairs(p_kk) <= SIGNIFICANT_P
    order_k = np.argsort(-mean_k, kind="stable")
    tiers = dict(zip(order_k.tolist(), _tiers((significant_kk & (sign_kk > 0))[np.ix_(order_k, order_k)]), strict=True))
    return [
        Standing(
            rank_low=1 + int((significant_kk[k] & (sign_kk[k] < 0)).sum()),
            rank_high=count - int((significant_kk[k] & (sign_kk[k] > 0)).sum()),
            tier=tiers[k],
        )
        for k in range(count)
    ]


def _pairs(found: Resampled, columns: Sequence[tuple[int, int]], count: int) -> tuple[Floats, Floats]:
    """p and sign of each pair's difference, the row's figure minus the column's (K, K)."""
    p_kk, sign_kk = np.ones((count, count)), np.zeros((count, count))
    if found.drawn_ns is None:
        return p_kk, sign_kk
    place = {column: i for i, column in enumerate(columns)}
    seeds_k: list[set[int]] = [set() for _ in range(count)]
    for row, seed in columns:
        seeds_k[row].add(seed)
    cov = covariance(found.drawn_ns)
    for a, b in combinations(range(count), 2):
        if seeds := sorted(seeds_k[a] & seeds_k[b]):
            value, p = _pair(found, cov, [place[a, s] for s in seeds], [place[b, s] for s in seeds])
            p_kk[a, b] = p_kk[b, a] = p
            sign_kk[a, b], sign_kk[b, a] = np.sign(value), -np.sign(value)
    return p_kk, sign_kk


def _pair(found: Resampled, cov: Floats, a: list[int], b: list[int]) -> tuple[float, float]:
    """The difference of two rows' columns and its two-sided p, from Student's t: p from resamples can't be below 1 /
    n."""
    point_s = found.point_s[a] - found.point_s[b]
    cov_ss = cov[np.ix_(a, a)] - cov[np.ix_(a, b)] - cov[np.ix_(b, a)] + cov[np.ix_(b, b)]
    off, value = variance_components(point_s, cov_ss, found.groups), float(point_s.mean())
    if abs(value) < 1e-12:
        return 0.0, 1.0
    p = 2 * float(stdtr(min(off.df, 1e9), -abs(value) / np.sqrt(off.total))) if off.total > 0 else 0.0
    if len(a) == 1:
        p = max(p, smallest_p(value, float(cov_ss.mean()), found.examples, found.groups))
    return value, p


def smallest_p(value: float, variance: float, examples: int, groups: int) -> float:
    """The smallest two-sided p that the answers of one seed can give for a difference in accuracy: 2^(1 - m).

    m is the sum over groups of the squared difference in right answers, at least the number of groups on which the
    two differ. If the rows are equal, each of these favours either with probability 1/2 (the sign-flip test; with one
    example per group the smallest p of McNemar's test). It prevents a few lucky answers from looking significant.
    `variance` is the difference's variance over resamples of groups.
    """
    differing = examples**2 * (variance + value**2 / groups)
    return float(min(1.0, 2.0 ** (1 - differing)))


def _holm_pairs(p_kk: Floats) -> Floats:
    """The Holm-corrected p of the pairs above the diagonal, on both sides of it; 1 on the diagonal."""
    adjusted_kk = np.ones_like(p_kk)
    above = np.triu_indices(len(p_kk), 1)
    adjusted_kk[above] = holm(p_kk[above].tolist())
    return np.minimum(adjusted_kk, adjusted_kk.T)


def _tiers(significant_kk: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """The tiers of rows in order, best first, from the matrix of significant differences (above the diagonal)."""
    count = len(significant_kk)
    closed_kk = np.logical_and.accumulate(significant_kk, axis=0)  # all rows above the upper one
    closed_kk = np.logical_and.accumulate(closed_kk[:, ::-1], axis=1)[:, ::-1]  # and all rows below the lower one
    ends = [max([i, *(j for j in range(i + 1, count) if not closed_kk[i, j])]) for i in range(count)]
    stretches = [(i, end) for i, end in enumerate(ends) if i == 0 or end > ends[i - 1]]
    return [tuple(n for n, (first, last) in enumerate(stretches, 1) if first <= row <= last) for row in range(count)]
