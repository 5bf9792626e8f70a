"""Agreement of raters beyond chance: Krippendorff's coefficient over nominal answers.

A rater may be a person, a model, or the same model with a changed question. 1: they always agree; 0: no more than
by chance; None: undefined (0/0, all answers are the same).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from harness.stats.metrics import Floats


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Nominal alpha; None in an item is a missing rating (Krippendorff 2011)."""
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
    """1 - observed / expected disagreement; None if the expected disagreement is 0."""
    return None if abs(expected) < 1e-12 else 1 - observed / expected
