"""Agreement of raters beyond chance: Cohen's, Fleiss' and Krippendorff's coefficients over nominal answers.

A rater may be a person, a model, or the same model asked in another way. 1: they always agree; 0: no more than
chance; None: undefined (0/0: all answers are one and the same).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from harness.errors import DataError
from harness.stats.metrics import Floats


def cohen_kappa(
    first: Sequence[int], second: Sequence[int], weights: Literal["none", "linear", "quadratic"] = "none"
) -> float | None:
    """1 - observed / expected disagreement of two raters (Cohen 1960, 1968).

    With weights a disagreement counts by the distance of the two labels among the sorted labels seen.
    """
    if len(first) != len(second) or not len(first):
        raise DataError(f"{len(first)} and {len(second)} ratings: expected one of each rater an item, at least one")
    labels = sorted(set(first) | set(second))
    place = {label: k for k, label in enumerate(labels)}
    counts_kk = np.zeros((len(labels), len(labels)))
    for a, b in zip(first, second, strict=True):
        counts_kk[place[a], place[b]] += 1
    apart_kk = np.abs(np.subtract.outer(np.arange(len(labels)), np.arange(len(labels)))).astype(float)
    cost_kk = {"none": (apart_kk > 0).astype(float), "linear": apart_kk, "quadratic": apart_kk**2}[weights]
    chance_kk = np.outer(counts_kk.sum(1), counts_kk.sum(0)) / len(first)
    return _beyond(float((cost_kk * counts_kk).sum()), float((cost_kk * chance_kk).sum()))


def fleiss_kappa(ratings: Sequence[Sequence[Hashable]]) -> float | None:
    """(P - P_e) / (1 - P_e) of items that R raters each rated, whoever they are (Fleiss 1971)."""
    sizes = {len(row) for row in ratings}
    if len(sizes) != 1 or min(sizes) < 2:
        raise DataError(f"items with {sorted(sizes)} ratings: expected the same number, at least 2, for every item")
    counts_nk = _counts(ratings)
    raters = sizes.pop()
    share_k = counts_nk.sum(0) / counts_nk.sum()
    agreed = ((counts_nk**2).sum(1) - raters) / (raters * (raters - 1))
    return _beyond(1 - float(agreed.mean()), 1 - float((share_k**2).sum()))


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Nominal alpha; None in an item is a rating that is missing (Krippendorff 2011)."""
    counts_nk = _counts([[r for r in row if r is not None] for row in ratings])
    counts_nk = counts_nk[counts_nk.sum(1) > 1]  # a single rating can't be paired
    if not len(counts_nk):
        return None
    size_n, total_k = counts_nk.sum(1), counts_nk.sum(0)
    observed = ((size_n**2 - (counts_nk**2).sum(1)) / (size_n - 1)).sum()
    expected = (total_k.sum() ** 2 - (total_k**2).sum()) / (total_k.sum() - 1)
    return _beyond(float(observed), float(expected))


def _counts(ratings: Sequence[Sequence[Hashable]]) -> Floats:
    """How often each item got each label: (N, K)."""
    place = {label: k for k, label in enumerate(dict.fromkeys(r for row in ratings for r in row))}
    counts_nk = np.zeros((len(ratings), len(place)))
    for n, row in enumerate(ratings):
        for label in row:
            counts_nk[n, place[label]] += 1
    return counts_nk


def _beyond(observed: float, expected: float) -> float | None:
    """1 - observed / expected disagreement; None where no disagreement was to be expected."""
    return None if abs(expected) < 1e-12 else 1 - observed / expected
