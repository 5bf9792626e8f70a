"""Tiers, rank intervals and aggregates: by hand, against other libraries, and the bench's short cut."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from bencheval.evaluator import BenchmarkEvaluator
from scipy.stats import trim_mean
from statsmodels.stats.multitest import multipletests

from harness.errors import DataError
from harness.stats import bootstrap, inference, rank_intervals
from harness.stats.aggregate import aggregates
from harness.stats.rank_intervals import Standing, standings


def answers(right: int | list[bool], count: int = 100) -> pd.DataFrame:
    """Answers to `count` yes/no questions, one an image; the first `right` are right, or those that are marked."""
    right_n = np.arange(count) < right if isinstance(right, int) else np.array(right)
    ids = [f"e{k}" for k in range(len(right_n))]
    return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 0, "chosen": np.where(right_n, 0, 1)})


def row(*right: int) -> dict[int, pd.DataFrame]:
    return {seed: answers(count) for seed, count in enumerate(right)}


def test_rows_far_apart_have_a_rank_and_a_tier_each() -> None:
    assert standings([row(50), row(90), row(10)], None) == [
        Standing(2, 2, (2,)),
        Standing(1, 1, (1,)),
        Standing(3, 3, (3,)),
    ]


def test_rows_not_told_apart_share_a_tier() -> None:
    # 90 and 88 differ on two images: the least p is 1/2. Both are far above 50.
    assert standings([row(90), row(88), row(50)], None) == [
        Standing(1, 2, (1,)),
        Standing(1, 2, (1,)),
        Standing(3, 3, (2,)),
    ]


def test_a_row_between_two_tiers_is_in_both() -> None:
    # p of 5 images is 1/16, of ten of them 1/512; by Holm over three pairs the latter is 3/512.
    assert standings([row(90), row(85), row(80)], None) == [
        Standing(1, 2, (1,)),
        Standing(1, 3, (1, 2)),
        Standing(2, 3, (2,)),
    ]


def test_tiers_from_who_is_told_apart() -> None:
    def tiers(count: int, *apart: tuple[int, int]) -> list[tuple[int, ...]]:
        apart_kk = np.zeros((count, count), dtype=bool)
        apart_kk[tuple(zip(*apart, strict=True))] = True
        return rank_intervals._tiers(apart_kk)

    assert tiers(4, (0, 3)) == [(1,), (1, 2), (1, 2), (2,)]
    assert tiers(4, (0, 2), (0, 3), (1, 3)) == [(1,), (1, 2), (2, 3), (3,)]
    # The second is told apart from the third, but the first, which is above it, isn't: that doesn't count.
    assert tiers(3, (1, 2)) == [(1,), (1,), (1,)]


def test_seeds_that_disagree_tell_less() -> None:
    steady, shaky = [row(70, 70, 70), row(50, 50, 50)], [row(70, 90, 50), row(50, 30, 70)]
    assert [s.tier for s in standings(steady, None)] == [(1,), (2,)]
    assert [s.tier for s in standings(shaky, None)] == [(1,), (1,)]


def test_without_a_common_seed_nothing_is_told_apart() -> None:
    assert standings([{0: answers(90)}, {1: answers(10)}], None) == [Standing(1, 2, (1,))] * 2


def test_few_rows_or_images() -> None:
    assert standings([], None) == []
    assert standings([row(5)], None) == [Standing(1, 1, (1,))]
    one_image = [{0: answers(right, 4).assign(group="i")} for right in (4, 0)]
    assert standings(one_image, None) == [Standing(1, 2, (1,))] * 2
    assert standings([row(90), row(90)], None) == [Standing(1, 2, (1,))] * 2
    with pytest.raises(DataError, match="different examples"):
        standings([row(90), {0: answers(3, 50)}], None)


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
    "two": {"a": row(50, 60), "b": row(60, 60), "c": row(20, 22), "d": row(99, 99)},
    "three": {"a": row(90, 90), "b": row(95, 95), "c": row(10, 12)},
}
LABELS = dict.fromkeys(TABLES)


def test_aggregates_are_those_of_other_libraries() -> None:
    found = aggregates(TABLES, LABELS, resamples=200)
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
        assert one.mean is not None
        assert one.mean_rank is not None
        assert one.iqm is not None
        assert one.mean.value == pytest.approx(np.mean(scores[name]))
        assert one.mean_rank.value == pytest.approx(board.loc[name, "rank"])
        assert one.iqm.value == pytest.approx(trim_mean(np.ravel(scores[name]), 0.25))
        for figure in (one.mean, one.mean_rank, one.iqm):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
    assert [found[name].mean_rank.value for name in "abc"] == pytest.approx(
        [5 / 3, (2.5 + 1 + 1) / 3, (2.5 + 3 + 3) / 3]
    )  # type: ignore[union-attr]


def test_a_row_that_lacks_a_benchmark_has_no_aggregate() -> None:
    found = aggregates(TABLES, LABELS, resamples=50)
    assert (found["d"].mean, found["d"].mean_rank, found["d"].iqm) == (None, None, None)
    assert found["d"].missing == ("one", "three")
    # And it doesn't move the others' ranks: d is above them all on its benchmark.
    assert found["a"].missing == ()
    assert found["a"] == aggregates({n: {r: t[r] for r in "abc"} for n, t in TABLES.items()}, LABELS, resamples=50)["a"]


def test_the_interval_of_a_mean_is_narrower_than_a_benchmarks() -> None:
    tables = {name: {"a": row(70, 70, 70)} for name in ("one", "two", "three", "four")}
    four = aggregates(tables, dict.fromkeys(tables))["a"].mean
    one = inference.across_seeds(list(row(70, 70, 70).values()), None)
    assert four is not None
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.05)  # type: ignore[operator]


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
    frames = [runs[method][seed] for method in range(2) for seed in range(3)]
    whole = bootstrap.resampled(frames, list("abc"), "accuracy", simulation.RESAMPLES, 7)
    assert short.point_s == pytest.approx(whole.point_s)
    assert short.drawn_ns == pytest.approx(whole.drawn_ns)
    assert (short.groups, short.examples) == (whole.groups, whole.examples) == (40, 80)


def test_every_part_of_the_simulation_runs(simulation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["one seed, 5 examples an image", "3 seeds, as on our benchmarks", "3 seeds that differ as much as images"]
    monkeypatch.setattr(simulation, "WORLDS", {n: simulation.WORLDS[n] for n in [*names, "5 seeds"]})
    for part in simulation.PARTS.values():
        figures = dict(part(2))
        assert figures
        shares = [v for f in figures.values() for v in f.values() if isinstance(v, dict) and "share" in v]
        assert all(v["low"] <= v["share"] <= v["high"] for v in shares)
