"""Aggregates over benchmarks: against other libraries, and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from bencheval.evaluator import BenchmarkEvaluator
from scipy.stats import rankdata, trim_mean

from harness.leaderboard.inference import intervals
from harness.stats.aggregate import Aggregate, _middle, _ranks, aggregated, benchmark_figures
from helpers.runs import results_of, row

TABLES = {
    "one": {"a": row(80, 84), "b": row(70, 72), "c": row(70, 72)},
    "two": {"a": row(50, 60), "b": row(60, 60), "c": row(20, 22)},
    "three": {"a": row(90, 90), "b": row(95, 95), "c": row(10, 12)},
}


def aggregates(
    tables: Sequence[Mapping[str, Mapping[int, pd.DataFrame]]], weights: Sequence[float] | None = None
) -> dict[str, Aggregate]:
    """The aggregates of the rows of the first table, from their predictions on each."""
    names = list(tables[0])
    figures = []
    for number, table in enumerate(tables):
        results = results_of(*(table[name] for name in names))
        drawn = [found for row in results if (found := row.replicates["accuracy"]) is not None]
        points = [row.points["accuracy"] for row in results]
        figures.append(benchmark_figures(points, drawn, [row.groups for row in results], 1009 * number))
    return dict(zip(names, aggregated(figures, weights), strict=True))


def test_aggregates_are_those_of_other_libraries() -> None:
    found = aggregates(list(TABLES.values()))
    scores = {
        row: [[frame["gold"].eq(frame["chosen"]).mean() for frame in table[row].values()] for table in TABLES.values()]
        for row in "abc"
    }
    errors = pd.DataFrame(
        [
            {"method": row, "task": task, "metric_error": 1 - np.mean(seeds), "time_train_s": 0, "time_infer_s": 0}
            for row, tasks in scores.items()
            for task, seeds in zip(TABLES, tasks, strict=True)
        ]
    )
    board = BenchmarkEvaluator().leaderboard(errors, include_elo=False, include_winrate=False)
    for name in "abc":
        one = found[name]
        assert one.mean.value == pytest.approx(np.mean(scores[name]))
        assert one.mean_rank.value == pytest.approx(board.loc[name, "rank"])
        assert one.iqm.value == pytest.approx(trim_mean(np.ravel(scores[name]), 0.25))
        for figure in (one.mean, one.mean_rank, one.iqm):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
    assert [found[name].mean_rank.value for name in "abc"] == pytest.approx(
        [5 / 3, (2.5 + 1 + 1) / 3, (2.5 + 3 + 3) / 3]
    )


def test_the_interval_of_a_mean_is_narrower_than_a_benchmarks() -> None:
    # The replicates of two tables are independent only in another order, as `leaderboard.overall` puts them.
    (one,) = results_of(row(70, 70, 70))
    drawn_ns = one.replicates["accuracy"]
    assert drawn_ns is not None
    orders = [np.random.default_rng(k).permutation(len(drawn_ns)) for k in range(4)]
    four = [benchmark_figures([one.points["accuracy"]], [drawn_ns[o]], [100], k) for k, o in enumerate(orders)]
    mean, alone = aggregated(four)[0].mean, intervals([one], "accuracy")[0]
    assert (mean.high - mean.low) / (alone.high - alone.low) == pytest.approx(0.5, abs=0.05)  # type: ignore[operator]


def test_weights_are_of_the_mean_alone() -> None:
    tables = list(TABLES.values())
    plain, weighted = aggregates(tables), aggregates(tables, [2, 1, 1])
    # 82, 55 and 90 of 100; the first counts twice.
    assert weighted["a"].mean.value == pytest.approx((2 * 0.82 + 0.55 + 0.9) / 4)
    assert (weighted["a"].mean_rank, weighted["a"].iqm) == (plain["a"].mean_rank, plain["a"].iqm)
    (first,) = intervals(results_of(TABLES["one"]["a"]), "accuracy").values()
    only = aggregates(tables, [1, 0, 0])["a"].mean
    assert only.value == first.value
    assert [only.low, only.high] == pytest.approx([first.low, first.high], abs=0.002)


def test_ranks_and_the_middle_are_those_of_scipy() -> None:
    value_kn = np.random.default_rng(0).integers(0, 5, (7, 40)) / 5  # many ties
    assert _ranks(value_kn) == pytest.approx(rankdata(-value_kn, axis=0))
    assert _ranks(value_kn[:, 0]) == pytest.approx(rankdata(-value_kn[:, 0]))
    for count in (1, 2, 3, 4, 7):
        assert _middle(value_kn.T[:, :count]) == pytest.approx(trim_mean(value_kn.T[:, :count], 0.25, axis=1))
