"""What a table's rows tell about the seeds of one of them: by hand, from the definition, and what must never happen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import f as f_distribution
from scipy.stats import t

from harness.stats import bootstrap, inference, moderated
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior, most_likely

NAN = float("nan")


def test_a_variance_between_its_own_and_the_tables() -> None:
    prior = Prior(variance=0.04, df=3.0, pooled=10.0, mean=0.05)
    # (3 x 0.04 + 1 x 0.08) / (3 + 1) = 0.05, with 4 degrees of freedom.
    (variance,), df = moderated.moderated(np.array([0.08]), 1, prior)
    assert (variance, df) == (pytest.approx(0.05), 4.0)
    # One seed says nothing of its own; rows that all differ alike leave nothing to a row's own.
    assert moderated.moderated(np.array([0.0]), 0, prior) == (pytest.approx([0.05]), 3.0)
    assert moderated.moderated(np.array([0.08]), 1, Prior(0.04, np.inf, 10.0, 0.04)) == (pytest.approx([0.04]), 10.0)
    assert moderated.moderated(np.array([0.08]), 1, None) == (pytest.approx([0.08]), 1)
    # Never surer than all rows together.
    assert moderated.moderated(np.array([0.08]), 2, Prior(0.04, 64.0, 5.0, 0.05))[1] == 5.0


def test_rows_and_pairs_by_hand() -> None:
    figures = np.array([[0.50, 0.54], [0.60, 0.64], [0.30, NAN]])
    # Both rows move by 0.04, together: a variance of 0.0008 each, two degrees of freedom; their difference is steady.
    rows, pairs = moderated.of_rows(figures), moderated.of_pairs(figures)
    assert rows is not None
    assert (rows.variance, rows.df, rows.pooled) == (pytest.approx(0.0008), np.inf, 2)
    assert pairs == Prior(0.0, np.inf, 1, 0.0)
    assert moderated.of_rows(figures[2:]) is moderated.of_pairs(figures[1:]) is None
    assert moderated.of_rows(np.empty((0, 0))) is moderated.of_pairs(np.empty((0, 0))) is None


def test_pairs_are_taken_over_their_common_seeds() -> None:
    rng = np.random.default_rng(0)
    figures = rng.normal(0.5, 0.02, (7, 4))
    figures[rng.random((7, 4)) < 0.3] = NAN
    variances, dfs = [], []
    for a in range(7):
        for b in range(a):
            off = (figures[a] - figures[b])[~np.isnan(figures[a] - figures[b])]
            if len(off) > 1:
                variances.append(off.var(ddof=1))
                dfs.append(len(off) - 1.0)
    found = moderated.of_pairs(figures)
    assert found is not None
    wanted = most_likely(np.array(variances), np.array(dfs), found.pooled)
    assert wanted is not None
    assert (found.variance, found.df) == (pytest.approx(wanted.variance), wanted.df)


@pytest.mark.parametrize("differ", [False, True])
def test_the_prior_is_the_most_likely_one(differ: bool) -> None:
    rng = np.random.default_rng(3)
    df_n = rng.choice([1.0, 2.0, 4.0], 60)
    own_n = 0.01 * (4 / rng.chisquare(4, 60) if differ else np.ones(60))
    variance_n = own_n * rng.chisquare(df_n) / df_n
    found = most_likely(variance_n, df_n, 120)
    assert found is not None

    def unlikely(logs: Floats) -> float:
        scale, df = np.exp(logs)
        return -float(f_distribution.logpdf(variance_n / scale, df_n, df).sum() - 60 * np.log(scale))

    best = minimize(unlikely, np.log([0.01, 5.0]), method="Nelder-Mead")
    if differ:
        assert unlikely(np.log([found.variance, found.df])) == pytest.approx(best.fun, abs=0.2)  # d0 is on a grid
    else:
        assert found.df >= 8
        assert found.variance == pytest.approx(0.01, rel=0.3)


def test_seeds_with_equal_figures_do_not_hide_the_others() -> None:
    """Two seeds of a small test often have equally many right answers: their variance of 0 has no logarithm."""
    some = most_likely(np.array([0.0, 0.0, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 1e-4]), np.ones(8), 8)
    assert some is not None
    assert 5e-5 < some.variance < 5e-4
    assert some.df > 2


def test_one_seed_is_never_surer_than_two() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        others = rng.normal(0.5, 0.02, (rng.integers(1, 6), 2))
        own = others.std(axis=1, ddof=1).mean() / np.sqrt(2)  # a row like the others: its two seeds differ as theirs do
        two, cov_ss = 0.5 + np.array([own, -own]), np.full((2, 2), rng.choice([0, 1e-4, 1e-2]))
        halves = []
        for seeds in (1, 2):
            figures = np.vstack([others, np.where(np.arange(2) < seeds, two, NAN)])
            off = bootstrap.variance_components(
                two[:seeds], cov_ss[:seeds, :seeds], 50, prior=moderated.of_rows(figures)
            )
            halves.append(t.ppf(0.975, off.df) * off.total**0.5)
        assert halves[0] > halves[1]


def test_an_interval_with_a_prior_by_hand() -> None:
    """Two seeds 0.02 apart, 11 images that move both by 0.1: the parts of the spread and Student's t."""
    prior = Prior(variance=0.0004, df=3.0, pooled=10.0, mean=0.0005)
    point_s, drawn_ns = np.array([0.10, 0.12]), np.array([[0.0, 0.02], [0.2, 0.22]])
    found = inference.seeds_difference(point_s, drawn_ns, (0, 1), 11, prior=prior)
    images, seeds = 0.02 * 11 / 10, (3 * 0.0004 + 0.0002) / 4 / 2
    total = images + seeds
    df = 1 / ((seeds / total) ** (1 - 2 / (3 * 4)) / 4 + images / total / 10)
    half = t.ppf(0.975, df) * total**0.5
    assert (found.low, found.high) == pytest.approx((0.11 - half, 0.11 + half))
    assert found.p == pytest.approx(2 * t.sf(0.11 / total**0.5, df))
    one = bootstrap.variance_components(point_s[:1], np.array([[0.02]]), 11, prior)
    assert (one.images, one.seeds) == pytest.approx((0.022, 0.0005))
