"""Tiers, rank intervals and aggregates: by hand, against other libraries, and the bench's short cut."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from bencheval.evaluator import BenchmarkEvaluator
from scipy.stats import trim_mean
from statsmodels.stats.multitest import multipletests

from harness.leaderboard.inference import intervals
from harness.stats import inference, rank_intervals
from harness.stats.aggregate import Aggregate, aggregated, benchmark_figures
from harness.stats.bootstrap import Resampled, resampled_sums
from harness.stats.rank_intervals import Standing
from helpers.runs import results_of


def answers(right: int | list[bool], count: int = 100) -> pd.DataFrame:
    """Answers to `count` yes/no questions, one an image; the first `right` are right, or those that are marked."""
    right_n = np.arange(count) < right if isinstance(right, int) else np.array(right)
    ids = [f"e{k}" for k in range(len(right_n))]
    return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 0, "chosen": np.where(right_n, 0, 1)})


def row(*right: int) -> dict[int, pd.DataFrame]:
    return {seed: answers(count) for seed, count in enumerate(right)}


def standings(rows: Sequence[Mapping[int, pd.DataFrame]]) -> list[Standing]:
    """The standings of rows by accuracy, from their predictions."""
    results = results_of(*rows)
    drawn = [found for row in results if (found := row.replicates["accuracy"]) is not None]
    found = Resampled(
        np.concatenate([row.points["accuracy"] for row in results]) if results else np.empty(0),
        np.concatenate(drawn, axis=1) if drawn else None,
        results[0].groups if results else 0,
        results[0].size if results else 0,
    )
    return rank_intervals.standings(found, [(k, seed) for k, row in enumerate(results) for seed in row.seeds])


def test_rows_far_apart_have_a_rank_and_a_tier_each() -> None:
    assert standings([row(50), row(90), row(10)]) == [
        Standing(2, 2, (2,)),
        Standing(1, 1, (1,)),
        Standing(3, 3, (3,)),
    ]


def test_rows_that_are_not_distinguishable_share_a_tier() -> None:
    # 90 and 88 differ on two images: the least p is 1/2. Both are far above 50.
    assert standings([row(90), row(88), row(50)]) == [
        Standing(1, 2, (1,)),
        Standing(1, 2, (1,)),
        Standing(3, 3, (2,)),
    ]


def test_a_row_between_two_tiers_is_in_both() -> None:
    # p of 5 images is 1/16, of ten of them 1/512; by Holm over three pairs the latter is 3/512.
    assert standings([row(90), row(85), row(80)]) == [
        Standing(1, 2, (1,)),
        Standing(1, 3, (1, 2)),
        Standing(2, 3, (2,)),
    ]


def test_tiers_from_significant_pairs() -> None:
    def tiers(count: int, *pairs: tuple[int, int]) -> list[tuple[int, ...]]:
        significant_kk = np.zeros((count, count), dtype=bool)
        significant_kk[tuple(zip(*pairs, strict=True))] = True
        return rank_intervals._tiers(significant_kk)

    assert tiers(4, (0, 3)) == [(1,), (1, 2), (1, 2), (2,)]
    assert tiers(4, (0, 2), (0, 3), (1, 3)) == [(1,), (1, 2), (2, 3), (3,)]
    # The second differs from the third, but the first, which is above it, doesn't: that doesn't count.
    assert tiers(3, (1, 2)) == [(1,), (1,), (1,)]


def test_seeds_that_disagree_tell_less() -> None:
    steady, shaky = [row(70, 70, 70), row(50, 50, 50)], [row(70, 90, 50), row(50, 30, 70)]
    assert [s.tier for s in standings(steady)] == [(1,), (2,)]
    assert [s.tier for s in standings(shaky)] == [(1,), (1,)]


def test_without_a_common_seed_nothing_is_significant() -> None:
    assert standings([{0: answers(90)}, {1: answers(10)}]) == [Standing(1, 2, (1,))] * 2


def test_few_rows_or_images() -> None:
    assert standings([]) == []
    assert standings([row(5)]) == [Standing(1, 1, (1,))]
    one_image = [{0: answers(right, 4).assign(group="i")} for right in (4, 0)]
    assert standings(one_image) == [Standing(1, 2, (1,))] * 2
    assert standings([row(90), row(90)]) == [Standing(1, 2, (1,))] * 2


def test_the_smallest_p_is_mcnemars() -> None:
    for lucky in range(1, 9):
        a, b = [True] * 20, [False] * lucky + [True] * (20 - lucky)
        variance = np.var([0.0] * (20 - lucky) + [1.0] * lucky) / 20
        assert rank_intervals.smallest_p(lucky / 20, float(variance), 20, 20) == pytest.approx(
            inference.mcnemar(a, b)[2]
        )


def test_holm_is_that_of_statsmodels() -> None:
    p = np.random.default_rng(0).beta(0.3, 2, 40)
    assert inference.holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


# ------------------------------------------------------------------------------------- over benchmarks

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


# -------------------------------------------------------------------------------------- the simulation


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch, root: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(root))
    yield importlib.import_module("benches.stats_simulation")
    for name in ("benches.stats_simulation", "benches.common", "benches"):
        sys.modules.pop(name, None)


def test_the_benchs_short_cut_is_the_harness(simulation: ModuleType) -> None:
    world = simulation.World(groups=40, per_group=2, seeds=3)
    rng = np.random.default_rng(0)
    right, _ = simulation.simulate(world, [0.8, 0.5], rng)
    runs = simulation.tables(right, rng)
    short = simulation.accuracies(right, 7)
    whole = results_of(*runs, labels=3)
    assert short.point_s == pytest.approx(np.concatenate([row.points["accuracy"] for row in whole]))
    assert (short.groups, short.examples) == (whole[0].groups, whole[0].size) == (40, 80)
    # The replicates of the harness are those of seed 0.
    drawn = [found for row in whole if (found := row.replicates["accuracy"]) is not None]
    hits_cr = right.sum(-1).reshape(6, 40).T.astype(float)
    assert np.concatenate(drawn, axis=1) == pytest.approx(resampled_sums(hits_cr, inference.RESAMPLES, 0) / 80)
    assert short.drawn_ns == pytest.approx(resampled_sums(hits_cr, simulation.RESAMPLES, 7) / 80)


def test_every_part_of_the_simulation_runs(simulation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["one seed, 5 examples an image", "3 seeds, as on our benchmarks", "3 seeds that differ as much as images"]
    monkeypatch.setattr(simulation, "WORLDS", {n: simulation.WORLDS[n] for n in [*names, "5 seeds"]})
    for part in simulation.PARTS.values():
        figures = dict(part(2))
        assert figures
        shares = [v for f in figures.values() for v in f.values() if isinstance(v, dict) and "share" in v]
        assert all(v["low"] <= v["share"] <= v["high"] for v in shares)
