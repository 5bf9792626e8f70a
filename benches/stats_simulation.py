"""Do the statistics keep their word? Worlds with a known truth, answered by simulated runs, judged by the harness.

    python -m benches.stats_simulation                     all parts, kept in benches/results/stats_simulation.json
    python -m benches.stats_simulation --only ties         one part (coverage, ties, ranks)

A run is right on an example where a sum of normal terms is positive: what the method can, how hard the image is
(shared by all runs and all examples of the image), how the method takes to the image, how the seed turned out, how
this seed takes to the image, and chance. So the true accuracy over all images and seeds is known in closed form.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import beta, norm

from benches.common import RESULTS, header, keep
from harness.record import Interval
from harness.stats import inference
from harness.stats.bootstrap import Resampled, resampled_sums
from harness.stats.metrics import Floats
from harness.stats.rank_intervals import Standing, standings
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

    @property
    def variance(self) -> float:
        """Of all terms that an accuracy averages over, the seed's left out."""
        return 1 + self.image**2 + self.method_image**2 + self.seed_image**2

    def ability(self, accuracy: float) -> float:
        """What a method must be able to do to have this accuracy over all images and seeds."""
        return float(norm.ppf(accuracy) * np.sqrt(self.variance + self.seed**2))


def simulate(world: World, abilities: Sequence[float], rng: np.random.Generator) -> tuple[Bools, Floats]:
    """Which answers are right (M, S, C, per group), and the true accuracy (M, S) of these very runs over all images."""
    m, s, c, n = len(abilities), world.seeds, world.groups, world.per_group
    turned_ms = np.array(abilities)[:, None] + rng.normal(0, world.seed, (m, s))
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


# ------------------------------------------------------------------------------------- do intervals cover?

WORLDS = {
    "one seed, one example an image": World(groups=600, per_group=1, seeds=1),
    "one seed, 5 examples an image": World(groups=120, per_group=5, seeds=1),
    "one seed, 30 images": World(groups=30, per_group=5, seeds=1),
    "3 seeds that hardly differ": World(seed=0.0),
    "3 seeds, as on our benchmarks": World(seed=0.05),
    "3 seeds that differ as much as images": World(seed=0.15),
    "3 seeds that differ wildly": World(seed=0.5),
    "3 seeds, hard clusters": World(groups=100, per_group=6, image=2.0),
    "5 seeds": World(seeds=5),
    "2 seeds": World(seeds=2, seed=0.05),
}


def coverage(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """How often a 95 % interval holds the truth: of a row (0.7), and of a difference (0.75 - 0.7).

    The truth is over all images and all seeds; with one seed, over all images for that seed's model. `plain` is then
    the interval of a run's own record: percentiles of the bootstrap, without what few images hide.
    """
    for number, (name, world) in enumerate(WORLDS.items()):
        rng = np.random.default_rng([7, number])
        held = {"accuracy": 0, "difference": 0} | ({"plain": 0} if world.seeds == 1 else {})
        widths = []
        for trial in range(trials):
            right, true_ms = simulate(world, [world.ability(0.75), world.ability(0.7)], rng)
            better, worse = true_ms[:, 0] if world.seeds == 1 else (0.75, 0.7)
            both, s = accuracies(right, trial), world.seeds
            assert both.drawn_ns is not None
            off_s, off_ns = both.point_s[:s] - both.point_s[s:], both.drawn_ns[:, :s] - both.drawn_ns[:, s:]
            row = inference.seeds_interval(both.point_s[s:], both.drawn_ns[:, s:], world.groups, trial)
            held["accuracy"] += holds(row, worse)
            if world.seeds == 1:
                held["plain"] += holds(inference.interval(float(both.point_s[1]), both.drawn_ns[:, 1]), worse)
            found = inference.seeds_difference(off_s, off_ns, tuple(range(s)), world.groups, trial)
            held["difference"] += holds(found, better - worse)
            widths.append((found.high or 0) - (found.low or 0))
        shares = {key: share(count, trials) for key, count in held.items()}
        yield name, {"world": asdict(world), **shares, "difference_width_median": round(float(np.median(widths)), 4)}
    yield "macro-F1, 3 seeds, as on our benchmarks", _macro_f1(trials)


def _macro_f1(trials: int) -> dict[str, Any]:
    world, rng, held = WORLDS["3 seeds, as on our benchmarks"], np.random.default_rng([7, 100]), 0
    for _ in range(trials):
        runs = tables(simulate(world, [world.ability(0.7)], rng)[0], rng)[0]
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
    """How often two equal methods land in different tiers: alone, and any two of six (a fifth of the trials)."""
    same_answers = {"one seed, almost always the same answer": World(600, 1, 1, 3.0, method_image=0.1, seed_image=0.1)}
    for number, (name, world) in enumerate((WORLDS | same_answers).items()):
        for methods, count in ((2, trials), (6, max(1, trials // 5))):
            apart = 0
            for trial in range(count):
                rng = np.random.default_rng([8, number, methods, trial])
                found = _standings(world, [0.7] * methods, rng, trial)
                apart += any(not set(a.tier) & set(b.tier) for i, a in enumerate(found) for b in found[:i])
            yield f"{methods} equal methods: {name}", {"told_apart": share(apart, count)}


def _standings(world: World, true: Sequence[float], rng: np.random.Generator, seed: int) -> list[Standing]:
    """With one seed the models themselves must have these accuracies: the seed's turn is left out."""
    still = replace(world, seed=0.0) if world.seeds == 1 else world
    right, _ = simulate(still, [still.ability(accuracy) for accuracy in true], rng)
    columns = [(method, s) for method in range(len(true)) for s in range(world.seeds)]
    return standings(accuracies(right, seed), columns)


# ------------------------------------------------------------------------------- do rank intervals cover?


def ranks(trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Six methods on four levels: how often all rank intervals hold all ranks that the truth allows a row.

    Beside it how often the interval of a single row does, and how often the best is told apart from the worst.
    """
    true = [0.78, 0.74, 0.74, 0.70, 0.70, 0.62]
    allowed = [(1, 1), (2, 3), (2, 3), (4, 5), (4, 5), (6, 6)]
    big = {f"{name}, 1,000 images": replace(WORLDS[name], groups=1000) for name in ("5 seeds",)}
    names = ("one seed, 5 examples an image", "3 seeds, as on our benchmarks", "3 seeds that differ as much as images")
    for number, (name, world) in enumerate(({name: WORLDS[name] for name in names} | big).items()):
        everyone, single, told, widths = 0, 0, 0, []
        for trial in range(trials):
            found = _standings(world, true, np.random.default_rng([9, number, trial]), trial)
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
    "ranks": ranks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated coverage, ties and ranks; see this file's head.")
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
