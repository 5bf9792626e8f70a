"""The figures of one set of answers: accuracy, macro-F1, micro-F1, accuracy by category.

All of them are functions of a *tally* (3, K): for each label k how often it was right (hits), how often it
was gold, how often it was chosen. Tallies add up over examples, so `harness.stats.inference` can resample
groups of examples without going back to the examples. A choice of -1 means "no answer": wrong, and no label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_ANSWER = -1
LOWER_IS_BETTER = frozenset({"ece", "brier", "nll", "aurc", "parse_failures"})
"""Figures (see `harness.stats.calibration`) for which smaller is better."""
OWN_UNITS = {"nll": "nats", "answer_tokens": "tokens", "brier": "", "ece": "", "aurc": ""}
"""Figures that aren't shares, with their units; "": a plain number. All others are shown in per cent."""
NOT_RANKED = {
    "chance": "it is the accuracy of a uniform guess, a property of the data",
    "parse_failures": "it counts answers that couldn't be read, which are wrong in accuracy already",
    "answer_tokens": "it counts what the student wrote, a cost",
}
"""Figures in records that say nothing of how good a row is, and why."""


def checked(gold: ArrayLike, chosen: ArrayLike, labels: int | None = None) -> tuple[Ints, Ints, int]:
    """Golds and choices as arrays (N,) and the number of labels K.

    `labels` is K; None takes the largest index seen. Raises `DataError` for no examples, unequal lengths, a
    gold outside 0..K-1 or a choice outside -1..K-1.
    """
    gold_n, chosen_n = _indices(gold, "gold"), _indices(chosen, "choice")
    if len(gold_n) != len(chosen_n):
        raise DataError(f"{len(gold_n)} golds but {len(chosen_n)} choices: expected one choice per example")
    if not len(gold_n):
        raise DataError("no answers: at least one example is needed to compute a metric")
    count = int(max(gold_n.max(), chosen_n.max())) + 1 if labels is None else labels
    for what, values, least in (("gold", gold_n, 0), ("choice", chosen_n, NO_ANSWER)):
        outside = values[(values < least) | (values >= count)]
        if len(outside):
            raise DataError(f"{what} {outside[0]} is outside the options: expected {least} to {count - 1}")
    return gold_n, chosen_n, count


def _indices(values: ArrayLike, what: str) -> Ints:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{what}s are {array.dtype}: expected integers, the indices of options")
    return array.astype(np.int64).ravel()


def accuracy_of(tally_3k: Floats) -> Floats:
    """Fraction of right answers of tallies (..., 3, K): (...). NaN if there are no examples."""
    hits, golds = tally_3k[..., 0, :].sum(-1), tally_3k[..., 1, :].sum(-1)
    return _ratio(hits, golds, np.nan)


def micro_f1_of(tally_3k: Floats) -> Floats:
    """F1 of the pooled counts of tallies (..., 3, K): (...). It equals accuracy unless some answers are missing."""
    hits, golds, chosen = np.moveaxis(tally_3k.sum(-1), -1, 0)
    return _ratio(2 * hits, golds + chosen, np.nan)


def macro_f1_of(tally_3k: Floats, seen_k: NDArray[np.bool_] | None = None) -> Floats:
    """Mean F1 over the labels of tallies (..., 3, K): (...). A label without gold and choice counts as 0.

    `seen_k` (..., K) restricts the mean to some labels (default: all K).
    """
    hits, golds, chosen = (tally_3k[..., row, :] for row in range(3))
    f1 = _ratio(2 * hits, golds + chosen, 0.0)
    if seen_k is None:
        return np.asarray(f1.mean(-1))
    return np.asarray((f1 * seen_k).sum(-1) / seen_k.sum(-1))


def _ratio(above: Floats, below: Floats, undefined: float) -> Floats:
    out = np.full_like(above, undefined)
    np.divide(above, below, out=out, where=below > 0)
    return out


def seen_labels(tally_3k: Floats) -> NDArray[np.bool_]:
    """Which labels of tallies (..., 3, K) occur as gold or as choice: (..., K)."""
    return np.asarray(tally_3k[..., 1, :] + tally_3k[..., 2, :] > 0)
