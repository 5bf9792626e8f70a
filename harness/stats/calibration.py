"""How reliable a model's probabilities are: calibration, ranking by score, and abstaining at low confidence.

A prediction's `scores` are one log-probability per option; their softmax is used as the model's probabilities (if a
method fuses several views, its logarithms may not sum to one: the softmax normalizes them). Definitions:

    brier    mean over examples of the sum over options of (p - [option is gold])^2, from 0 to 2
        nll      mean of -log p(gold), natural logarithm, p clipped to [2^-52, 1 - 2^-52]
    ece      15 equal bins of the confidence max p: the mean over examples of |accuracy - mean confidence| of the bin
    auroc    chance that a positive scores above a negative, ties 1/2; over more than two options the mean over
             them of each against the rest. Only where all examples have the same options.
    aurc     area under risk against coverage: the mean, over k = 1..N, of the error among the k most confident

Smaller is better except for auroc. Sources: Guo et al. 2017 (ECE), Geifman et al. 2019 (AURC).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import DataError
from harness.record import Interval
from harness.stats import inference
from harness.stats.metrics import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

BINS = 15
FIGURES = ("ece", "brier", "nll", "auroc", "aurc")
TINY = 2.0**-52


# ------------------------------------------------------------------------------------------ one run


def figures(
    predictions: pd.DataFrame, labels: Sequence[str] | None, resamples: int = inference.RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The `FIGURES` of one split's predictions (columns group, gold, scores) that are defined.

    There are none if an answer has no scores (the text of an external model). `labels` are the fixed
    options, None if they differ by example. Brier and NLL are means over examples and have intervals over
    groups. The others have no intervals: a resampled ECE is biased upwards, so that its percentiles may not
    contain the value. Scores are used as stored, in float32: the store reproduces the same figures.
    """
    if not len(predictions) or not all(_usable(scores) for scores in predictions["scores"]):
        return {}
    gold_n = predictions["gold"].to_numpy(dtype=np.int64)
    p_nk = probabilities(predictions["scores"])
    right_n, confidence_n = p_nk.argmax(1) == gold_n, p_nk.max(1)
    terms_n2 = np.stack([brier_terms(p_nk, gold_n), nll_terms(p_nk, gold_n)], axis=1)
    brier, nll = inference.mean_intervals(terms_n2, predictions["group"], resamples, seed)
    result = {"ece": Interval(value=ece(confidence_n, right_n)), "brier": brier, "nll": nll}
    ranked = None if labels is None else auroc_one_vs_rest(p_nk, gold_n)
    if ranked is not None:
        result["auroc"] = Interval(value=ranked)
    return result | {"aurc": Interval(value=aurc(confidence_n, right_n))}


def probabilities(scores: Iterable[ArrayLike]) -> Floats:
    """The softmax of each example's scores: (N, K) for the largest K; a missing option has 0."""
    rows = [np.asarray(row, dtype=np.float32).astype(np.float64) for row in scores]
    logs_nk = np.full((len(rows), max(map(len, rows))), -np.inf)
    for k, row in enumerate(rows):
        logs_nk[k, : len(row)] = row
    powers_nk = np.exp(logs_nk - logs_nk.max(1, keepdims=True))
    return np.asarray(powers_nk / powers_nk.sum(1, keepdims=True))


def _usable(scores: object) -> bool:
    row = np.asarray(scores, dtype=np.float32)
    return bool(row.ndim == 1 and len(row) and np.isfinite(row).all())


# --------------------------------------------------------------------------------- probabilities


def brier_terms(p_nk: Floats, gold_n: Ints) -> Floats:
    """Each example's squared distance from the gold answer: (N,), 0 to 2."""
    right_nk = np.arange(p_nk.shape[1]) == gold_n[:, None]
    return np.asarray(((p_nk - right_nk) ** 2).sum(1))


def nll_terms(p_nk: Floats, gold_n: Ints) -> Floats:
    """Each example's -log p(gold): (N,)."""
    return np.asarray(-np.log(p_nk[np.arange(len(gold_n)), gold_n].clip(TINY, 1 - TINY)))


def binned(confidence_n: ArrayLike, right_n: ArrayLike, bins: int = BINS) -> list[tuple[int, int, float, float]]:
    """The non-empty bins: number from 0, examples, mean confidence, mean of `right`.

    Bin k of `bins` goes from k / bins to (k + 1) / bins; 0 is in the first, 1 in the last.
    """
    conf, right = np.asarray(confidence_n, dtype=np.float64), np.asarray(right_n, dtype=np.float64)
    if not len(conf) or len(conf) != len(right):
        raise DataError(f"{len(conf)} confidences for {len(right)} answers: expected one per answer, at least one")
    number_n = np.minimum((conf * bins).astype(np.int64), bins - 1)
    counts, sums, hits = (np.bincount(number_n, w, bins) for w in (np.ones(len(conf)), conf, right))
    return [(int(k), int(counts[k]), sums[k] / counts[k], hits[k] / counts[k]) for k in np.flatnonzero(counts)]


def ece(confidence_n: ArrayLike, right_n: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: the gaps of the bins, weighted by their numbers of examples."""
    parts = binned(confidence_n, right_n, bins)
    return float(sum(n * abs(hit - conf) for _, n, conf, hit in parts) / sum(n for _, n, _, _ in parts))


# ----------------------------------------------------------------------------------- ranking metrics


def _steps(score_n: ArrayLike, positive_n: ArrayLike) -> tuple[Floats, Floats]:
    """Positives and negatives at or above each distinct score, highest first: two (D,)."""
    score, positive = np.asarray(score_n, dtype=np.float64), np.asarray(positive_n, dtype=bool)
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return np.cumsum(positive[order])[last].astype(float), np.cumsum(~positive[order])[last].astype(float)


def auroc(score_n: ArrayLike, positive_n: ArrayLike) -> float | None:
    """Area under the ROC curve; None if there are only positives or only negatives."""
    hits, alarms = _steps(score_n, positive_n)
    if not hits[-1] or not alarms[-1]:
        return None
    x, y = np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])
    return float(np.trapezoid(y, x))


def aurc(confidence_n: ArrayLike, right_n: ArrayLike) -> float:
    """Area under the risk-coverage curve: the error rate among the k most confident, averaged over k.

    Among equal confidences every order is equally likely: the result is the mean over the orders.
    """
    right, wrong = _steps(confidence_n, right_n)
    ends = right + wrong
    if not len(ends):
        raise DataError("no answers: at least one is needed for a risk-coverage curve")
    kept_n = np.arange(1.0, ends[-1] + 1)
    wrong_n = np.interp(kept_n, np.append(0.0, ends), np.append(0.0, wrong))
    return float((wrong_n / kept_n).mean())


def auroc_one_vs_rest(p_nk: Floats, gold_n: Ints) -> float | None:
    """The mean over options of AUROC against the rest; with two options, that of one of them.

    None if an option is gold never or always.
    """
    options = range(1, 2) if p_nk.shape[1] == 2 else range(p_nk.shape[1])
    found = [value for k in options if (value := auroc(p_nk[:, k], gold_n == k)) is not None]
    return float(np.mean(found)) if len(found) == len(options) else None
