"""Do the statistics keep their word? Worlds with a known truth, answered by simulated runs, judged by the harness.

    python -m benches.stats_simulation                     all parts, kept in benches/results/stats_simulation.json
    python -m benches.stats_simulation --only ties         one part (coverage, ties, power, ranks)

A run is right on an example where a sum of normal terms is positive: what the method can, how hard the image is
(shared by all runs and all examples of the image), how the method takes to the image, how the seed turned out, how
this seed takes to the image, and chance. So the true accuracy over all images and seeds is known in closed form.
Every world is a table of several methods: what its rows tell about the seeds goes into every interval and p.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import beta, norm

from benches.common import RESULTS, header, keep
from harness.record import Interval
from harness.stats import inference, moderated
from harness.stats.bootstrap import Resampled, resampled_sums
from harness.stats.inference import Difference
from harness.stats.metrics import Floats
from harness.stats.rank_intervals import Standing, pair_differences, standings
from harness.stats.replicates import ExampleOrder, replicate

Bools = NDArray[np.bool_]
RESAMPLES = 400
FILE = RESULTS / "stats_simulation.json"


@dataclass(frozen=True)
class World:
    """Standard deviations of the terms; chance has 1."""

    groups: int = 200
    per_group: int = 3
    seeds: int = 3
    image: float = 0.8
    method_image: float = 0.4
    seed: float = 0.1
    seed_image: float = 0.4
    differ: bool = False
    """The methods' own `seed`: its square is that divided by a chi-square of 4 over 4, which parts many by a factor."""
    wild: float = 1.0
    """The last method's `seed` is this many times as large."""

    @property
    def variance(self) -> float:
        """Of all terms that an accuracy averages over, the seed's left out."""
        return 1 + self.image**2 + self.method_image**2 + self.seed_image**2

    def spreads(self, methods: int, rng: np.random.Generator) -> Floats:
        """The methods' `seed` (M,)."""
        spread_m = np.full(methods, self.seed)
        if self.differ:
            spread_m = spread_m / np.sqrt(rng.chisquare(4, methods) / 4)
        spread_m[-1] *= self.wild
        return spread_m


def simulate(world: World, true: Sequence[float], rng: np.random.Generator) -> tuple[Bools, Floats]:
    """Which answers are right (M, S, C, per group), and the true accuracy (M, S) of these very runs over all images.

    `true` are the methods' accuracies over all images and seeds.
    """
    m, s, c, n = len(true), world.seeds, world.groups, world.per_group
    spread_m1 = world.spreads(m, rng)[:, None]
    can_m1 = norm.ppf(true)[:, None] * np.sqrt(world.variance + spread_m1**2)
    turned_ms = can_m1 + rng.normal(0, 1, (m, s)) * spread_m1
    sum_msc = (
        turned_ms[:, :, None]
        + rng.normal(0, world.image, c)
        + rng.normal(0, world.method_image, (m, 1, c))
        + rng.normal(0, world.seed_image, (m, s, c))
    )
    return sum_msc[..., None] + rng.normal(0, 1, (m, s, c, n)) > 0, norm.cdf(turned_ms / np.sqrt(world.variance))


def accuracies(right_mscn: Bools, seed: int) -> Resampled:
    """The accuracy of such runs with its replicates, without the way through tables."""
    m, s, c, n = right_mscn.shape
    hits_cr = right_mscn.sum(-1).reshape(m * s, c).T.astype(np.float64)
    drawn_nr = resampled_sums(hits_cr, RESAMPLES, seed) / (c * n)
    return Resampled(right_mscn.mean((2, 3)).ravel(), drawn_nr, c, c * n)


def tables(right_mscn: Bools, rng: np.random.Generator) -> list[dict[int, pd.DataFrame]]:
    """The same as predictions on three options, by method and seed. Errors fall evenly: macro-F1 is then accuracy."""
    m, s, c, n = right_mscn.shape
    gold_n = rng.integers(0, 3, c * n)
    chosen_msn = np.where(right_mscn.reshape(m, s, -1), gold_n, (gold_n + rng.integers(1, 3, (m, s, c * n))) % 3)
    shared = pd.DataFrame({"id": range(c * n), "group": np.repeat(np.arange(c), n), "category": "", "gold": gold_n})
    return [{seed: shared.assign(chosen=chosen_msn[method, seed]) for seed in range(s)} for method in range(m)]


@dataclass(frozen=True)
class Judged:
    """What a table says of its rows and of each pair of them, A before B."""

    rows: list[Interval]
    pairs: dict[tuple[int, int], Difference]
    standings: list[Standing]


def judge(right_mscn: Bools, seed: int) -> Judged:
    """Intervals, differences and places, as a table has them that knows only these rows."""
    m, s, c, _ = right_mscn.shape
    found = accuracies(right_mscn, seed)
    assert found.drawn_ns is not None
    figures_ms, drawn_msn = found.point_s.reshape(m, s), found.drawn_ns.T.reshape(m, s, -1)
    rows = inference.seeds_intervals(figures_ms, drawn_msn, c, seed, moderated.of_rows(figures_ms))
    columns = [(method, at) for method in range(m) for at in range(s)]
    pairs = pair_differences(found, columns, moderated.of_pairs(figures_ms))
    return Judged(rows, pairs, standings(figures_ms.mean(axis=1).tolist(), pairs))


# ------------------------------------------------------------------------------------- do intervals cover?

WORLDS = {
    "one seed, one example an image": World(groups=600, per_group=1, seeds=1),
    "one seed, 5 examples an image": World(groups=120, per_group=5, seeds=1),
    "one seed, 30 images": World(groups=30, per_group=5, seeds=1),
    "2 seeds that hardly differ": World(seeds=2, seed=0.0),
    "2 seeds, as on our benchmarks": World(seeds=2, seed=0.05),
    "2 seeds that differ as much as images": World(seeds=2, seed=0.15),
    "2 seeds that differ wildly": World(seeds=2, seed=0.5),
    "3 seeds that hardly differ": World(seed=0.0),
    "3 seeds, as on our benchmarks": World(seed=0.05),
    "3 seeds that differ as much as images": World(seed=0.15),
    "3 seeds that differ wildly": World(seed=0.5),
    "3 seeds, hard clusters": World(groups=100, per_group=6, image=2.0),
    "5 seeds": World(seeds=5),
    "5 seeds that differ wildly": World(seeds=5, seed=0.5),
}
UNEQUAL = {
    **{f"{n} seeds, rows differ in their spread": World(seeds=n, seed=0.15, differ=True) for n in (2, 3, 5)},
    **{f"{n} seeds, one row of six is wild": World(seeds=n, wild=5.0) for n in (2, 3, 5)},
}
"""The seeds of some rows differ more than those of others: not what the prior takes for granted."""
SIX = (0.75, 0.7, 0.73, 0.68, 0.71, 0.66)


def coverage(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """How often a 95 % interval holds the truth, in tables of six methods: of a row, of a difference, of the last row.

    The truth is over all images and all seeds; with one seed, over all images for that seed's model. `plain` is then
    the interval of a run's own record: percentiles of the bootstrap, without what few images hide.
    """
    for number, (name, world) in enumerate((WORLDS | UNEQUAL).items()):
        held = {"accuracy": 0, "difference": 0} | ({"last": 0} if name in UNEQUAL else {})
        widths, plain = [], 0
        for trial in range(trials):
            right, true_ms = simulate(world, SIX, np.random.default_rng([7, number, trial]))
            true_m = true_ms[:, 0] if world.seeds == 1 else np.array(SIX)
            found = judge(right, trial)
            held["accuracy"] += sum(map(holds, found.rows, true_m))
            hold = {pair: holds(d, true_m[pair[0]] - true_m[pair[1]]) for pair, d in found.pairs.items()}
            held["difference"] += sum(hold.values())
            if name in UNEQUAL:
                held["last"] += sum(held_here for (_, b), held_here in hold.items() if b == len(SIX) - 1)
            if world.seeds == 1:
                one = accuracies(right[:1], trial)
                assert one.drawn_ns is not None
                plain += holds(inference.interval(float(one.point_s[0]), one.drawn_ns[:, 0]), true_m[0])
            widths += [(d.high or 0) - (d.low or 0) for d in found.pairs.values()]
        counts = {"accuracy": len(SIX), "difference": len(found.pairs), "last": len(SIX) - 1}
        shares = {key: share(count, counts[key] * trials) for key, count in held.items()}
        shares |= {"plain": share(plain, trials)} if world.seeds == 1 else {}
        yield name, {"world": asdict(world), **shares, "difference_width_median": round(float(np.median(widths)), 4)}
    yield "macro-F1, 3 seeds, as on our benchmarks", _macro_f1(trials)


def _macro_f1(trials: int) -> dict[str, Any]:
    world, rng, held = WORLDS["3 seeds, as on our benchmarks"], np.random.default_rng([7, 100]), 0
    for _ in range(trials):
        runs = tables(simulate(world, [0.7], rng)[0], rng)[0]
        order = ExampleOrder()
        taken = [order.take(pa.Table.from_pandas(frame, preserve_index=False)) for frame in runs.values()]
        found = replicate(order.sets[taken[0][0]], np.stack([chosen_n for _, chosen_n in taken]), 3, "macro_f1")
        assert found.replicates_rn is not None
        held += holds(inference.seeds_interval(found.points_r, found.replicates_rn.T, world.groups), 0.7)
    return {"world": asdict(world), "macro_f1": share(held, trials)}


def holds(found: Interval | inference.Difference, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


# ------------------------------------------------------------------------------ are ties left as ties?


def ties(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """How often equal methods are called different: any two of a table of two or six, and a single pair of the six."""
    same_answers = {"one seed, almost always the same answer": World(600, 1, 1, 3.0, method_image=0.1, seed_image=0.1)}
    for number, (name, world) in enumerate((WORLDS | same_answers | UNEQUAL).items()):
        for methods in (2, 6):
            apart = pairs = 0
            for trial in range(trials):
                found = _judged(world, [0.7] * methods, np.random.default_rng([8, number, methods, trial]), trial)
                tiers = [set(one.tier) for one in found.standings]
                apart += any(not a & b for a, b in combinations(tiers, 2))
                pairs += sum(d.p is not None and d.p < 0.05 for d in found.pairs.values())
            of_pairs = share(pairs, trials * len(found.pairs))
            yield f"{methods} equal methods: {name}", {"told_apart": share(apart, trials), "raw_p": of_pairs}


def _judged(world: World, true: Sequence[float], rng: np.random.Generator, seed: int) -> Judged:
    """With one seed the models themselves must have these accuracies: the seed's turn is left out."""
    right, _ = simulate(replace(world, seed=0.0) if world.seeds == 1 else world, true, rng)
    return judge(right, seed)


# ------------------------------------------------------------------------------- is what is there found?


def power(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """How often a true difference of 5 points is found between two rows of a table, by p and by p after Holm.

    The standard deviation between seeds is 1.5 points: of the paired difference, or of each row (then 2.1 of the
    difference). `known` is what a test could find at most: one that knows the standard error, from the trials.
    """
    of_row = 0.015 / 0.238  # around 0.72 an ability of 1 is an accuracy of 0.238: the normal density over its width
    sizes = ((1000, True), (4000, True), (4000, False))
    for number, (seeds, methods, (images, of_difference)) in enumerate(product((2, 3), (2, 6, 12), sizes)):
        world = World(images, 1, seeds, seed=of_row / (np.sqrt(2) if of_difference else 1))
        true = [0.75, 0.7, *np.linspace(0.66, 0.74, methods - 2)]
        seen, by_p, by_holm = [], 0, 0
        for trial in range(trials):
            found = _judged(world, true, np.random.default_rng([10, number, trial]), trial)
            p = {pair: d.p for pair, d in found.pairs.items() if d.p is not None}
            corrected = dict(zip(p, inference.holm(list(p.values())), strict=True))
            seen.append(found.pairs[0, 1].value)
            by_p, by_holm = by_p + (p[0, 1] < 0.05), by_holm + (corrected[0, 1] < 0.05)
        at_most = float(norm.sf(1.96 - 0.05 / np.std(seen)))
        whose = "the difference" if of_difference else "each row"
        yield (
            f"{seeds} seeds, {methods} rows, {images} images, 1.5 points of {whose}",
            {"found": share(by_p, trials), "found_holm": share(by_holm, trials), "known": round(at_most, 3)},
        )


# ------------------------------------------------------------------------------- do rank intervals cover?


def ranks(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Six methods on four levels: how often all rank intervals hold all ranks that the truth allows a row.

    Also: how often the interval of a single row does, and how often best and worst are significantly different.
    """
    true = [0.78, 0.74, 0.74, 0.70, 0.70, 0.62]
    allowed = [(1, 1), (2, 3), (2, 3), (4, 5), (4, 5), (6, 6)]
    big = {f"{name}, 1,000 images": replace(WORLDS[name], groups=1000) for name in ("5 seeds",)}
    names = ("one seed, 5 examples an image", "3 seeds, as on our benchmarks", "3 seeds that differ as much as images")
    for number, (name, world) in enumerate(({name: WORLDS[name] for name in names} | big).items()):
        everyone, single, told, widths = 0, 0, 0, []
        for trial in range(trials):
            found = _judged(world, true, np.random.default_rng([9, number, trial]), trial).standings
            hold = [s.rank_low <= low and high <= s.rank_high for s, (low, high) in zip(found, allowed, strict=True)]
            everyone, single = everyone + all(hold), single + sum(hold)
            told += not set(found[0].tier) & set(found[-1].tier)
            widths += [s.rank_high - s.rank_low for s in found]
        yield (
            name,
            {
                "all_hold": share(everyone, trials),
                "one_holds": share(single, 6 * trials),
                "best_told_from_worst": share(told, trials),
                "mean_width": round(float(np.mean(widths)), 2),
            },
        )


def share(count: int, trials: int) -> dict[str, float | int]:
    """A share with its own 95 % interval (Clopper and Pearson)."""
    low = float(beta.ppf(0.025, count, trials - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, trials - count)) if count < trials else 1.0
    count = int(count)
    return {"share": round(count / trials, 4), "low": round(low, 4), "high": round(high, 4), "trials": trials}


PARTS: dict[str, Callable[[int], Iterator[tuple[str, dict[str, Any]]]]] = {
    "coverage": coverage,
    "ties": ties,
    "power": power,
    "ranks": ranks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated coverage, ties, power and ranks; see this file's head.")
    parser.add_argument("--only", choices=list(PARTS), action="append")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--dry-run", action="store_true", help="print the figures, keep nothing")
    options = parser.parse_args()
    for part in options.only or PARTS:
        about, began = header(), time.process_time()
        figures = {}
        for name, found in PARTS[part](options.trials):
            figures[name] = found
            shares = {k: v["share"] for k, v in found.items() if isinstance(v, dict) and "share" in v}
            print(f"{part}, {name}: {shares}", flush=True)
        seconds = round(time.process_time() - began, 1)
        print(f"{part}: {seconds} s of CPU")
        if not options.dry_run:
            keep(FILE, part, about | {"cpu_seconds": seconds, "resamples": RESAMPLES, "figures": figures})


if __name__ == "__main__":
    main()
