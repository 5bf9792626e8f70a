"""Rank intervals and tiers of the rows of a table.

All rows of a table are resampled together: every resample has the same groups for all rows, and rows are
compared on their common seeds. So effects that all rows share (hard images) don't add noise to their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.stats.bootstrap import Resampled, covariance
from harness.stats.inference import Difference, difference_of, holm
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior

SIGNIFICANT_P = 0.05
"""Two rows are significantly different at this p, after Holm's correction."""

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


def pair_differences(
    found: Resampled, columns: Sequence[tuple[int, int]], prior: Prior | None = None
) -> dict[tuple[int, int], Difference]:
    """The differences of all pairs of rows with a common seed, the first row before the second in the table.

    From the figures and replicates of all their runs; `columns` gives the row, from 0 on, and the seed of each run.
    Empty if there is only one group.
    """
    if found.drawn_ns is None:
        return {}
    place = {column: i for i, column in enumerate(columns)}
    seeds_k: dict[int, set[int]] = defaultdict(set)
    for row, seed in columns:
        seeds_k[row].add(seed)
    cov, result = covariance(found.drawn_ns), {}
    for one, other in combinations(sorted(seeds_k), 2):
        if seeds := tuple(sorted(seeds_k[one] & seeds_k[other])):
            a, b = ([place[row, s] for s in seeds] for row in (one, other))
            cov_ss = cov[np.ix_(a, a)] - cov[np.ix_(a, b)] - cov[np.ix_(b, a)] + cov[np.ix_(b, b)]
            point_s = found.point_s[a] - found.point_s[b]
            result[one, other] = difference_of(point_s, cov_ss, seeds, found.groups, found.examples, prior)
    return result


def standings(means: Sequence[float], pairs: Mapping[tuple[int, int], Difference]) -> list[Standing]:
    """Rank interval and tiers of each row, from the means over seeds and `pair_differences`.

    Two rows are significantly different if p of their paired difference, corrected by Holm over all pairs of the table,
    is at most `SIGNIFICANT_P`. So with 95 % probability no two truly equal rows are called different anywhere in the
    table, and then all rank intervals contain the true ranks (as in Mogstad, Romano, Shaikh and Wilhelm 2024, Inference
    for Ranks, with Holm's steps). Of one seed and without a prior, this is a statement about these particular models,
    else about the methods.

    Rows are in order of their mean over seeds. A tier is a longest run of that order in which no two rows are
    significantly different, where a pair only counts as different if every pair around it is.
    """
    count = len(means)
    p_kk, sign_kk = np.ones((count, count)), np.zeros((count, count))
    for (one, other), found in pairs.items():
        p_kk[one, other] = p_kk[other, one] = 1.0 if found.p is None else found.p
        sign = 0.0 if abs(found.value) < 1e-12 else float(np.sign(found.value))
        sign_kk[one, other], sign_kk[other, one] = sign, -sign
    significant_kk = _holm_pairs(p_kk) <= SIGNIFICANT_P
    order_k = np.argsort(-np.asarray(means), kind="stable")
    tiers = dict(zip(order_k.tolist(), _tiers((significant_kk & (sign_kk > 0))[np.ix_(order_k, order_k)]), strict=True))
    return [
        Standing(
            rank_low=1 + int((significant_kk[k] & (sign_kk[k] < 0)).sum()),
            rank_high=count - int((significant_kk[k] & (sign_kk[k] > 0)).sum()),
            tier=tiers[k],
        )
        for k in range(count)
    ]


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
