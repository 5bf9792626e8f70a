"""Figures of answers that are sets of labels: which of the options of a caption are hallucinated?

Per label c: precision TP/(TP+FP), recall TP/(TP+FN), F1 2TP/(2TP+FP+FN), 0 where that is 0/0. `macro`: the mean
over all listed labels (absent ones count 0); `weighted`: by how often each is true; `micro`: of the pooled
counts; `samples`: the mean over items of the same figures between two sets (two empty sets: 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.stats.metrics import Floats, macro_f1, weighted_f1

Sets = Sequence[Collection[Any]]


def figures(truth: Sets, said: Sets, labels: Sequence[Any]) -> dict[str, float]:
    """All figures of N items by name: `macro_f1`, `micro_precision`, ..., `exact_match`, `hamming_loss`, `jaccard`.

    `set_macro_f1` and its kin take each whole set as one class. Raises `DataError` for no items, unequal lengths
    or a label that isn't listed.
    """
    true_nc, said_nc = _table(truth, labels, "truth"), _table(said, labels, "answer")
    if len(true_nc) != len(said_nc) or not len(true_nc):
        raise DataError(f"{len(true_nc)} label sets but {len(said_nc)} answers: expected one an item, at least one")
    hits_nc, either_nc = true_nc & said_nc, true_nc | said_nc
    support_c = true_nc.sum(0)
    result: dict[str, float] = {}
    by_label = _prf(hits_nc.sum(0), support_c, said_nc.sum(0))
    pooled = _prf(hits_nc.sum(), true_nc.sum(), said_nc.sum())
    by_item = _prf(hits_nc.sum(1), true_nc.sum(1), said_nc.sum(1))
    weights_c = support_c if support_c.any() else None
    for k, name in enumerate(("precision", "recall", "f1")):
        result[f"macro_{name}"] = float(by_label[k].mean())
        result[f"micro_{name}"] = float(pooled[k])
        result[f"weighted_{name}"] = float(np.average(by_label[k], weights=weights_c))
        result[f"samples_{name}"] = float(by_item[k].mean())
    true_n, said_n = _classes(truth, said)
    return result | {
        "exact_match": float((true_nc == said_nc).all(1).mean()),
        "hamming_loss": float((true_nc != said_nc).mean()),
        "jaccard": float(_ratio(hits_nc.sum(1), either_nc.sum(1)).mean()),
        "set_macro_f1": macro_f1(true_n, said_n),
        "set_weighted_f1": weighted_f1(true_n, said_n),
    }


def by_label(truth: Sets, said: Sets, labels: Sequence[Any]) -> dict[Any, dict[str, float]]:
    """Precision, recall, F1 and support (how often it is true) of each label."""
    true_nc, said_nc = _table(truth, labels, "truth"), _table(said, labels, "answer")
    parts = (*_prf((true_nc & said_nc).sum(0), true_nc.sum(0), said_nc.sum(0)), true_nc.sum(0))
    names = ("precision", "recall", "f1", "support")
    return {label: {n: float(p[k]) for n, p in zip(names, parts, strict=True)} for k, label in enumerate(labels)}


def _table(sets: Sets, labels: Sequence[Any], what: str) -> NDArray[np.bool_]:
    """Which labels each item has: (N, C)."""
    columns = {label: k for k, label in enumerate(labels)}
    table_nc = np.zeros((len(sets), len(columns)), dtype=bool)
    for row, labels_of_one in enumerate(sets):
        for label in labels_of_one:
            if label not in columns:
                raise DataError(f"{what} of item {row}: label {label!r} is unknown; labels: {list(labels)}")
            table_nc[row, columns[label]] = True
    return table_nc


def _classes(truth: Sets, said: Sets) -> tuple[list[int], list[int]]:
    """Each whole set as one number, for truths and answers alike."""
    number = {s: k for k, s in enumerate(Counter(frozenset(s) for s in (*truth, *said)))}
    return [number[frozenset(s)] for s in truth], [number[frozenset(s)] for s in said]


def _prf(hits: NDArray[Any], true: NDArray[Any], said: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    return _ratio(hits, said), _ratio(hits, true), _ratio(2 * hits, true + said)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    out = np.zeros(np.shape(above))
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out
