"""Calibration, ranking and agreement figures: by hand, and against golden vectors of scikit-learn and others."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.stats import agreement, calibration
from harness.stats.inference import resampled_sums


def close(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


def load(golden: Path, name: str) -> Any:
    return json.loads((golden / f"stats_{name}.json").read_text())


# ---------------------------------------------------------------------------------------------- by hand


def test_ece_by_hand() -> None:
    """0.95, 0.95 and 0.6: bins 14 and 9. Bin 14: one of two right, gap 0.45; bin 9: right, gap 0.4."""
    parts = calibration.binned([0.95, 0.95, 0.6], [1, 0, 1])
    assert [(k, n) for k, n, _, _ in parts] == [(9, 1), (14, 2)]
    assert calibration.ece([0.95, 0.95, 0.6], [1, 0, 1]) == pytest.approx((2 * 0.45 + 0.4) / 3)
    assert [k for k, *_ in calibration.binned([0.0, 1.0], [0, 1])] == [0, 14]


def test_aurc_by_hand() -> None:
    """Right, wrong, right by falling confidence: the errors among the first 1, 2, 3 are 0, 1/2, 1/3."""
    assert calibration.aurc([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    # All alike: whatever k, half of them are wrong. No order of the rows may matter.
    assert calibration.aurc([0.5] * 4, [1, 1, 0, 0]) == calibration.aurc([0.5] * 4, [0, 1, 0, 1]) == 0.5


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_aurc_is_the_mean_over_the_orders_of_equals(answers: list[tuple[int, bool]]) -> None:
    expected = []
    for order in permutations(answers):
        wrong = np.cumsum([not right for _, right in sorted(order, key=lambda a: -a[0])])
        expected.append((wrong / np.arange(1, len(answers) + 1)).mean())
    confidence, right = zip(*answers, strict=True)
    assert calibration.aurc(confidence, right) == pytest.approx(np.mean(expected))


def frame(gold: list[int], scores: list[list[float]], group: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"gold": gold, "scores": scores, "group": group or [f"g{k}" for k in range(len(gold))]})


def test_the_figures_of_a_run_by_hand() -> None:
    log = np.log
    answers = frame([0, 1], [[log(0.8), log(0.2)], [log(0.6), log(0.4)]])
    figures = calibration.figures(answers, ["no", "yes"])
    # Brier: 2 * 0.2^2 and 2 * 0.6^2. NLL: -log 0.8 and -log 0.4. Confidences 0.8 (right) and 0.6 (wrong).
    assert figures["brier"].value == pytest.approx((0.08 + 0.72) / 2, rel=1e-6)
    assert figures["nll"].value == pytest.approx(-(log(0.8) + log(0.4)) / 2, rel=1e-6)
    assert figures["ece"].value == pytest.approx((0.2 + 0.6) / 2, rel=1e-6)
    assert figures["auroc"].value == 1.0  # the one "yes" has the larger probability of yes
    assert figures["aurc"].value == pytest.approx((0 + 1 / 2) / 2)
    assert figures["brier"].low == pytest.approx(0.08, rel=1e-6)  # 2 groups: a resample may hold one of them twice
    assert figures["ece"].low is None


def test_figures_have_the_intervals_of_the_mean_over_groups() -> None:
    rng = np.random.default_rng(0)
    p_nk = rng.dirichlet(np.ones(3), 60)
    gold = rng.integers(0, 3, 60).tolist()
    answers = frame(gold, np.log(p_nk).tolist(), [f"g{k // 4}" for k in range(60)])
    found = calibration.figures(answers, list("xyz"), resamples=300, seed=5)["nll"]
    terms = calibration.nll_terms(calibration.probabilities(answers["scores"]), np.asarray(gold))
    sums = resampled_sums(terms.reshape(15, 4).sum(1), 300, 5) / 60  # groups of equal size
    assert found.value == pytest.approx(terms.mean())
    assert [found.low, found.high] == pytest.approx(np.percentile(sums, [2.5, 97.5]).tolist())


def test_scores_count_as_they_are_stored_and_absent_options_have_no_share() -> None:
    p_nk = calibration.probabilities([[0.1, 0.3, -0.7], [5.0, 5.0]])
    assert p_nk.sum(1) == pytest.approx([1, 1])
    assert p_nk[1].tolist() == [0.5, 0.5, 0.0]
    stored = [np.float32(x) for x in (0.1, 0.3, -0.7)]
    assert (calibration.probabilities([stored])[0] == p_nk[0]).all()


def test_what_is_not_defined_is_left_out() -> None:
    uniform = [[0.0, 0.0]] * 2
    assert calibration.figures(frame([0, 1], [[0.0, 0.0], []]), None) == {}  # a text without scores
    assert calibration.figures(frame([0, 1], [[0.0, 0.0], [0.0, float("nan")]]), None) == {}
    assert "auroc" not in calibration.figures(frame([0, 1], uniform), None)  # options differ by example
    assert "auroc" not in calibration.figures(frame([0, 0], uniform), ["no", "yes"])  # never "yes"
    one_group = calibration.figures(frame([0, 1], uniform, ["g", "g"]), ["no", "yes"])
    assert one_group["nll"].value == pytest.approx(np.log(2))
    assert one_group["nll"].low is None


# --------------------------------------------------------------------------------------- golden vectors


def test_golden_binary_scores(golden: Path) -> None:
    found = load(golden, "binary_scores")
    for name, case in found["predictions"].items():
        y, p, scores = np.asarray(case["y"]), np.asarray(case["p"]), found["scores"][name]
        both = np.stack([1 - p, p], axis=1)
        assert calibration.auroc(p, y) == close(scores["auroc"]), name
        # Of two options: the sum over both is twice the square of one.
        assert calibration.brier_terms(both, y).mean() / 2 == close(scores["brier"]), name
        assert calibration.nll_terms(both, y).mean() == close(scores["nll"]), name
        sides = {"top_label": (np.maximum(p, 1 - p), (p >= 0.5) == y), "positive": (p, y)}
        for side, (confidence, right) in sides.items():
            assert calibration.ece(confidence, right) == close(scores[f"ece15_{side}"]), name
            bins = [list(part) for part in calibration.binned(confidence, right)]
            assert bins == [[k, n, close(c), close(a)] for k, n, c, a in scores[f"bins_{side}"]], name


def test_golden_multiclass_probabilities(golden: Path) -> None:
    found = load(golden, "multiclass_probs")
    for name, case in found["predictions"].items():
        y, p_nk, scores = np.asarray(case["y"]), np.asarray(case["P"]), found["scores"][name]
        confidence, right = p_nk.max(1), p_nk.argmax(1) == y
        pairs = {
            "nll": calibration.nll_terms(p_nk, y).mean(),
            "brier_sum_over_classes": calibration.brier_terms(p_nk, y).mean(),
            "ece15_top_label": calibration.ece(confidence, right),
            "auroc_ovr_macro": calibration.auroc_one_vs_rest(p_nk, y),
        }
        assert pairs == {figure: close(scores[figure]) for figure in pairs}, name


def test_golden_agreement(golden: Path) -> None:
    found = load(golden, "agreement")
    for name, case in found["predictions"]["groups_rows_are_items"].items():
        scores = found["scores"]["groups"][name]
        assert agreement.krippendorff_alpha(case["ratings"]) == close(scores["krippendorff_alpha_nominal"]), name
        missing = agreement.krippendorff_alpha(case["ratings_with_missing"])
        assert missing == close(scores["krippendorff_alpha_nominal_with_missing"]), name


# --------------------------------------------------------------------------------------------- mistakes


def test_what_cannot_be_scored_is_told() -> None:
    with pytest.raises(DataError, match="2 confidences for 1 answers"):
        calibration.ece([0.5, 0.5], [1])
