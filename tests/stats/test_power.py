"""What a benchmark can show: against statsmodels, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from statsmodels.stats.power import TTestPower

from harness.errors import DataError
from harness.leaderboard.inference import paired_difference
from harness.stats import power
from harness.stats.power import Noise
from helpers.runs import results_of


def test_one_seed_is_the_power_of_a_paired_t_test() -> None:
    for groups in (50, 1000):
        found = power.detectable(Noise(images=0.25, answers=0.0, seeds=None, measured_groups=groups, measured_seeds=1))
        effect = TTestPower().solve_power(nobs=groups, alpha=0.05, power=0.8)
        assert found == pytest.approx(effect * 0.5, rel=0.002)


def test_seeds_and_images_by_hand() -> None:
    noise = Noise(images=0.1, answers=0.2, seeds=0.0001, measured_groups=500, measured_seeds=3)
    images, between = 0.1 / 500, (0.0001 + 0.2 / 500) / 3
    df = 1 / ((between / (images + between)) ** (2 / 3) / 2 + images / (images + between) / 499)
    expected = (t.ppf(0.975, df) + t.ppf(0.8, df)) * (images + between) ** 0.5
    assert power.detectable(noise) == pytest.approx(expected)
    assert power.detectable(noise, groups=5000) < power.detectable(noise, seeds=30) < power.detectable(noise)
    # One seed: what it has for itself counts whole, and nothing is said of other seeds.
    one = power.detectable(noise, seeds=1)
    assert one == pytest.approx((t.ppf(0.975, 499) + t.ppf(0.8, 499)) * (0.3 / 500) ** 0.5)


def test_needed_is_the_fewest() -> None:
    noise = Noise(images=0.1, answers=0.2, seeds=0.0001, measured_groups=500, measured_seeds=3)
    found = power.needed(noise, -0.04)
    assert found.groups is not None
    assert found.seeds is not None
    assert power.detectable(noise, groups=found.groups) <= 0.04 < power.detectable(noise, groups=found.groups - 1)
    assert power.detectable(noise, seeds=found.seeds) <= 0.04 < power.detectable(noise, seeds=found.seeds - 1)
    # Seeds alone spread the difference by more than this: no number of images tells it. More seeds won't either.
    assert power.needed(noise, 0.001) == power.Needed(None, None)
    assert power.needed(Noise(0.1, 0.0, None, 500, 1), 0.02).seeds is None


def noise(a: dict[int, pd.DataFrame], b: dict[int, pd.DataFrame]) -> Noise:
    """The noise of a difference in accuracy, from predictions on the same seeds."""
    rows = results_of(a, b)
    point_s, replicates_ns = paired_difference(rows[0], rows[1], sorted(a), "accuracy")
    assert replicates_ns is not None
    return power.noise(point_s, replicates_ns, rows[0].groups)


def test_noise_is_measured() -> None:
    """Differences made of known parts, 4,000 images and 40 seeds: what is found is near what was put in."""
    rng = np.random.default_rng(0)
    shared_c = rng.random(4000) < 0.2  # on these images A is right whatever the seed and B wrong
    ids = [str(c) for c in range(4000)]

    def run(right_c: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 1, "chosen": right_c.astype(int)})

    own = {seed: rng.random(4000) < 0.5 for seed in range(40)}
    a = {seed: run(shared_c | own[seed]) for seed in own}
    b = {seed: run(~shared_c & (rng.random(4000) < 0.5)) for seed in own}
    found = noise(a, b)
    # A - B: on shared images 1; elsewhere mean 0 and variance 1/2 within a seed, nothing that all seeds share.
    assert found.images == pytest.approx(0.2 * 0.8, rel=0.1)
    assert found.answers == pytest.approx(0.8 * 0.5, rel=0.1)
    assert found.seeds == pytest.approx(0, abs=5e-5)
    assert (found.measured_groups, found.measured_seeds) == (4000, 40)
    single = noise({0: a[0]}, {0: b[0]})
    assert single.images == pytest.approx(0.2 * 0.8 + 0.8 * 0.5, rel=0.1)
    assert single.seeds is None


def test_bad_input() -> None:
    with pytest.raises(DataError, match="3 seeds: only one was measured"):
        power.detectable(Noise(0.1, 0.0, None, 500, 1), seeds=3)
