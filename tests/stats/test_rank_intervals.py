"""Tiers and rank intervals: by hand, against another library, and the short cut of the bench."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from harness.stats import inference, rank_intervals
from harness.stats.bootstrap import Resampled, resampled_sums
from harness.stats.rank_intervals import Standing
from helpers.runs import results_of, row, yes_no


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
    columns = [(k, seed) for k, row in enumerate(results) for seed in row.seeds]
    means = [float(row.points["accuracy"].mean()) for row in results]
    return rank_intervals.standings(means, rank_intervals.pair_differences(found, columns))


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
    assert standings([{0: yes_no(90)}, {1: yes_no(10)}]) == [Standing(1, 2, (1,))] * 2


def test_few_rows_or_images() -> None:
    assert standings([]) == []
    assert standings([row(5)]) == [Standing(1, 1, (1,))]
    one_image = [{0: yes_no(right, 4).assign(group="i")} for right in (4, 0)]
    assert standings(one_image) == [Standing(1, 2, (1,))] * 2
    assert standings([row(90), row(90)]) == [Standing(1, 2, (1,))] * 2


def test_the_smallest_p_is_mcnemars() -> None:
    for lucky in range(1, 9):
        a, b = [True] * 20, [False] * lucky + [True] * (20 - lucky)
        variance = np.var([0.0] * (20 - lucky) + [1.0] * lucky) / 20
        assert inference.smallest_p(lucky / 20, float(variance), 20, 20) == pytest.approx(inference.mcnemar(a, b)[2])


def test_holm_is_that_of_statsmodels() -> None:
    p = np.random.default_rng(0).beta(0.3, 2, 40)
    assert inference.holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


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
    right, _ = simulation.simulate(world, [0.7, 0.6], rng)
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
