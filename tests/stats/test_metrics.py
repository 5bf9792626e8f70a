"""Metrics by hand, against scikit-learn and against golden vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score

from harness.errors import DataError
from harness.stats.bootstrap import group_tallies
from harness.stats.metrics import Floats, accuracy_of, macro_f1_of, micro_f1_of, seen_labels

# Four examples, three labels. Label 0: gold twice, chosen once, right once -> F1 = 2/3. Label 1: gold
# twice, chosen three times, right twice -> F1 = 4/5. Label 2 never occurs.
GOLD, CHOSEN = [0, 0, 1, 1], [0, 1, 1, 1]


def tally(gold: ArrayLike, chosen: ArrayLike, labels: int | None = None) -> Floats:
    """Hits, golds and choices of each label (3, K), of one group."""
    return group_tallies(np.zeros(np.size(gold), dtype=np.int64), 1, gold, chosen, labels)[0]


def accuracy(gold: ArrayLike, chosen: ArrayLike) -> float:
    return float(accuracy_of(tally(gold, chosen)))


def micro_f1(gold: ArrayLike, chosen: ArrayLike) -> float:
    return float(micro_f1_of(tally(gold, chosen)))


def macro_f1(gold: ArrayLike, chosen: ArrayLike, labels: int | None = None) -> float:
    """Over `labels` options; None: over those that occur as gold or choice."""
    counts = tally(gold, chosen, labels)
    return float(macro_f1_of(counts, None if labels is not None else seen_labels(counts)))


def test_by_hand() -> None:
    assert accuracy(GOLD, CHOSEN) == 3 / 4
    assert micro_f1(GOLD, CHOSEN) == 3 / 4
    assert macro_f1(GOLD, CHOSEN) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert macro_f1(GOLD, CHOSEN, labels=3) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert tally(GOLD, CHOSEN, labels=3).tolist() == [[1, 2, 0], [2, 2, 0], [1, 3, 0]]


def test_no_answer_is_wrong_and_no_label() -> None:
    # One of two is right. Pooled: 1 hit, 2 golds, 1 choice -> micro-F1 = 2 * 1 / (2 + 1).
    assert accuracy([0, 1], [0, -1]) == 1 / 2
    assert micro_f1([0, 1], [0, -1]) == 2 / 3
    assert macro_f1([0, 1], [0, -1]) == (1 + 0) / 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30))
def test_equal_to_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    gold, chosen = zip(*pairs, strict=True)
    seen = sorted((set(gold) | set(chosen)) - {-1})
    options = {"average": "macro", "zero_division": 0}
    assert accuracy(gold, chosen) == pytest.approx(accuracy_score(gold, chosen))
    assert macro_f1(gold, chosen) == pytest.approx(f1_score(gold, chosen, labels=seen, **options))
    assert macro_f1(gold, chosen, 4) == pytest.approx(f1_score(gold, chosen, labels=range(4), **options))
    expected = f1_score(gold, chosen, labels=seen, average="micro", zero_division=0)
    assert micro_f1(gold, chosen) == pytest.approx(expected)


def test_golden_vectors(golden: Path) -> None:
    known = json.loads((golden / "stats_multiclass.json").read_text())
    for name, case in known["predictions"].items():
        gold, chosen, scores = case["y_true"], case["y_pred"], known["scores"][name]
        assert accuracy(gold, chosen) == pytest.approx(scores["accuracy"], rel=1e-9)
        assert macro_f1(gold, chosen) == pytest.approx(scores["macro_f1"], rel=1e-9)
        assert micro_f1(gold, chosen) == pytest.approx(scores["micro_f1"], rel=1e-9)
        over_all = scores["macro_f1_over_all_K_classes"]
        assert macro_f1(gold, chosen, case["K"]) == pytest.approx(over_all, rel=1e-9)


@pytest.mark.parametrize(
    ("gold", "chosen", "labels", "message"),
    [
        ([], [], None, "no answers"),
        ([0, 1], [0], None, "2 golds but 1 choices"),
        ([0, 4], [0, 1], 4, "gold 4 is outside the options: expected 0 to 3"),
        ([0, -1], [0, 1], None, "gold -1 is outside"),
        ([0, 1], [0, 4], 4, "choice 4 is outside the options: expected -1 to 3"),
        (np.array([0.5, 1]), [0, 1], None, "golds are float64"),
    ],
)
def test_bad_answers(gold: list[int], chosen: list[int], labels: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        macro_f1(gold, chosen, labels)
