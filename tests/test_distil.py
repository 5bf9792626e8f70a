"""What distillation did, by hand on few answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from harness.errors import DataError
from harness.stats import distillation, inference


def chosen(options: Sequence[int]) -> pd.DataFrame:
    """Choices on questions whose gold is option 0, one an image."""
    ids = [f"e{k}" for k in range(len(options))]
    return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 0, "chosen": options})


def right(count: int, of: int = 200) -> pd.DataFrame:
    return chosen([0] * count + [1] * (of - count))


def test_half_of_the_gap() -> None:
    seeds = range(3)
    found = distillation.gap_closed(
        {s: right(120 + s) for s in seeds}, {s: right(100 + s) for s in seeds}, {s: right(140 + s) for s in seeds}, None
    )
    assert found.closed is not None
    assert found.closed.value == pytest.approx(0.5)
    assert found.closed.low is not None
    assert found.closed.high is not None
    assert 0.2 < found.closed.low < 0.5 < found.closed.high < 0.8
    assert found.gap.value == pytest.approx(0.2)
    assert found.seeds == (0, 1, 2)


def test_fiellers_interval_is_that_of_the_difference() -> None:
    """Exactly: with teacher - baseline free of noise, the share's interval is the lead's divided by the gap."""
    rng = np.random.default_rng(0)
    baseline, teacher = chosen([1] * 400), chosen([0] * 400)
    student = chosen((rng.random(400) > 0.3).astype(int).tolist())
    found = distillation.gap_closed({0: student}, {0: baseline}, {0: teacher}, None, resamples=10_000)
    lead = inference.paired_difference({0: student}, {0: baseline}, None)
    assert found.closed is not None
    assert found.closed.value == pytest.approx(lead.value)
    assert [found.closed.low, found.closed.high] == pytest.approx([lead.low, lead.high], abs=0.003)


def test_a_gap_that_may_be_none_is_not_divided_by() -> None:
    for teacher in (right(101), right(60)):
        found = distillation.gap_closed({0: right(120)}, {0: right(100)}, {0: teacher}, None)
        assert found.closed is None
        assert found.gap.low is not None
        assert found.gap.low <= 0
        assert "isn't told apart from the baseline, or is below it" in found.why
    with pytest.raises(DataError, match="no seed in common"):
        distillation.gap_closed({0: right(1)}, {1: right(1)}, {0: right(1)}, None)


def test_fiellers_interval_covers() -> None:
    """150 worlds, student half-way: about 95 % of the intervals hold 0.5."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(150):
        hard_n = rng.random(300)  # all three find the same images hard
        runs = [
            {0: chosen((hard_n + rng.normal(0, 0.3, 300) > limit).astype(int).tolist())} for limit in (0.5, 0.3, 0.7)
        ]
        found = distillation.gap_closed(*runs, None, resamples=200)
        assert found.closed is not None
        held += found.closed.low <= 0.5 <= found.closed.high  # type: ignore[operator]
    assert 0.9 <= held / 150 <= 0.99


def test_errors_beside_the_teachers() -> None:
    #                 fixed, both right, introduced, copied, inherited with another option
    student, teacher = chosen([0, 0, 1, 1, 2]), chosen([1, 0, 0, 1, 1])
    found = distillation.errors({0: student}, {0: teacher})
    shares = (found.inherited.value, found.copied.value, found.introduced.value, found.fixed.value)
    assert shares == pytest.approx((2 / 5, 1 / 5, 1 / 5, 1 / 5))
    assert distillation.agreement({0: student}, {0: teacher}).value == pytest.approx(2 / 5)
    assert found.inherited.value + found.introduced.value == pytest.approx(1 - 2 / 5)


def test_no_answer_agrees_with_none() -> None:
    assert distillation.agreement({0: chosen([-1, 0])}, {0: chosen([-1, 1])}).value == 0.5


def test_shares_are_means_over_common_seeds() -> None:
    found = distillation.errors({0: right(100), 1: right(80)}, {0: right(100), 1: right(100), 2: right(0)})
    assert found.introduced.value == pytest.approx((0 + 20 / 200) / 2)
    with pytest.raises(DataError, match="no seed in common"):
        distillation.agreement({0: right(1)}, {1: right(1)})


def test_pareto() -> None:
    scores, costs = [0.9, 0.8, 0.8, 0.7, 0.95, None, 0.99], [10, 5, 6, 5, 20, 1, None]
    # 0.8 at 6 and 0.7 at 5 are beaten by 0.8 at 5; without a score or a cost a row isn't on the front.
    assert distillation.pareto(scores, costs) == [True, True, False, False, True, False, False]
    assert distillation.pareto([0.5, 0.5], [1, 1]) == [True, True]
    with pytest.raises(DataError, match="2 scores but 1 costs"):
        distillation.pareto([0.5, 0.5], [1])


def test_the_interval_of_a_share_is_that_of_a_mean() -> None:
    """One seed: the t-interval of the images' shares, as scipy has it. Several: nearly that of the bootstrap."""
    rng = np.random.default_rng(3)
    marked_n = rng.random(80) < 0.3
    group_n = np.repeat(np.arange(40), 2)
    found = distillation.share(marked_n[None], group_n, 40)
    wanted = ttest_1samp(marked_n.reshape(40, 2).mean(1), 0).confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((marked_n.mean(), wanted.low, wanted.high))
    hard_n = rng.random(400)
    runs = {s: chosen((hard_n + rng.normal(0, 0.3, 400) > 0.6).astype(int).tolist()) for s in range(3)}
    perfect = {s: chosen([0] * 400) for s in range(3)}
    agreed, drawn = distillation.agreement(runs, perfect), inference.across_seeds(list(runs.values()), None)
    assert (agreed.value, agreed.low, agreed.high) == pytest.approx((drawn.value, drawn.low, drawn.high), abs=0.005)
    assert distillation.share(marked_n[None], np.zeros(80, dtype=np.int64), 1).low is None
    assert distillation.share(np.ones((2, 80), dtype=bool), group_n, 40).high == 1
