"""What distillation did, by hand on few answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from harness.errors import DataError
from harness.leaderboard.inference import difference, intervals
from harness.record import Interval
from harness.stats import distillation
from harness.stats.distillation import GapClosed
from helpers.runs import results_of


def chosen(options: Sequence[int]) -> pd.DataFrame:
    """Choices on questions whose gold is option 0, one an image."""
    ids = [f"e{k}" for k in range(len(options))]
    return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 0, "chosen": options})


def right(count: int, of: int = 200) -> pd.DataFrame:
    return chosen([0] * count + [1] * (of - count))


Runs = Mapping[int, pd.DataFrame]


def gap_closed(student: Runs, baseline: Runs, teacher: Runs) -> GapClosed:
    """The share of the gap in accuracy, from predictions on the same seeds."""
    rows = results_of(student, baseline, teacher)
    drawn = [found for row in rows if (found := row.replicates["accuracy"]) is not None]
    return distillation.gap_closed(np.stack([row.points["accuracy"] for row in rows]), np.stack(drawn), rows[0].groups)


def shares(a: Runs, b: Runs) -> dict[str, Interval]:
    """How often two rows do the same, from predictions on the same seeds."""
    rows = results_of(a, b)
    frame = a[min(a)]
    gold_n, count = frame["gold"].to_numpy(), len(frame)
    chosen_a, chosen_b = (row.choices for row in rows)
    assert chosen_a is not None
    assert chosen_b is not None
    return distillation.shares(chosen_a, chosen_b, gold_n, np.arange(count), count)


def test_half_of_the_gap() -> None:
    student, baseline, teacher = ({s: right(count + s) for s in range(3)} for count in (120, 100, 140))
    found = gap_closed(student, baseline, teacher)
    assert found.closed is not None
    assert found.closed.value == pytest.approx(0.5)
    assert found.closed.low is not None
    assert found.closed.high is not None
    assert 0.2 < found.closed.low < 0.5 < found.closed.high < 0.8
    assert found.gap.value == pytest.approx(0.2)


def test_fiellers_interval_is_that_of_the_difference() -> None:
    """Exactly: with teacher - baseline free of noise, the share's interval is the lead's divided by the gap."""
    rng = np.random.default_rng(0)
    baseline, teacher = chosen([1] * 400), chosen([0] * 400)
    student = chosen((rng.random(400) > 0.3).astype(int).tolist())
    found = gap_closed({0: student}, {0: baseline}, {0: teacher})
    lead = difference(*results_of({0: student}, {0: baseline}), "accuracy")
    assert lead is not None
    assert found.closed is not None
    assert found.closed.value == pytest.approx(lead.value)
    assert [found.closed.low, found.closed.high] == pytest.approx([lead.low, lead.high], abs=0.003)


def test_a_gap_that_may_be_none_is_not_divided_by() -> None:
    for teacher in (right(101), right(60)):
        found = gap_closed({0: right(120)}, {0: right(100)}, {0: teacher})
        assert found.closed is None
        assert found.gap.low is not None
        assert found.gap.low <= 0
        assert "isn't significantly above the baseline" in found.why


def test_fiellers_interval_covers() -> None:
    """150 worlds, student half-way: about 95 % of the intervals hold 0.5."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(150):
        hard_n = rng.random(300)  # all three find the same images hard
        runs = [
            {0: chosen((hard_n + rng.normal(0, 0.3, 300) > limit).astype(int).tolist())} for limit in (0.5, 0.3, 0.7)
        ]
        found = gap_closed(*runs)
        assert found.closed is not None
        held += found.closed.low <= 0.5 <= found.closed.high  # type: ignore[operator]
    assert 0.9 <= held / 150 <= 0.99


def test_errors_beside_the_teachers() -> None:
    #                 fixed, both right, introduced, copied, inherited with another option
    student, teacher = chosen([0, 0, 1, 1, 2]), chosen([1, 0, 0, 1, 1])
    found = {name: share.value for name, share in shares({0: student}, {0: teacher}).items()}
    wanted = {"same": 2 / 5, "inherited": 2 / 5, "copied": 1 / 5, "introduced": 1 / 5, "fixed": 1 / 5}
    assert found == pytest.approx(wanted)
    assert found["inherited"] + found["introduced"] == pytest.approx(1 - 2 / 5)


def test_no_answer_agrees_with_none() -> None:
    assert shares({0: chosen([-1, 0])}, {0: chosen([-1, 1])})["same"].value == 0.5


def test_shares_are_means_over_seeds() -> None:
    found = shares({0: right(100), 1: right(80)}, {0: right(100), 1: right(100)})
    assert found["introduced"].value == pytest.approx((0 + 20 / 200) / 2)


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
    agreed, (drawn,) = shares(runs, perfect)["same"], intervals(results_of(runs), "accuracy").values()
    assert (agreed.value, agreed.low, agreed.high) == pytest.approx((drawn.value, drawn.low, drawn.high), abs=0.005)
    assert distillation.share(marked_n[None], np.zeros(80, dtype=np.int64), 1).low is None
    assert distillation.share(np.ones((2, 80), dtype=bool), group_n, 40).high == 1
