"""How small a difference a benchmark can show, and how many more images or seeds a given one would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.errors import DataError
from harness.stats.bootstrap import covariance, degrees_of_freedom, t_quantile, variance_components
from harness.stats.metrics import Floats

ALPHA, POWER = 0.05, 0.8
MOST_GROUPS, MOST_SEEDS = 10_000_000, 10_000


@dataclass(frozen=True)
class Noise:
    """The variance of a paired difference, by source, for one group and one seed, and what it was measured on."""

    images: float
    """Between groups, of what all seeds share."""
    answers: float
    """Between groups, of what a seed has for itself."""
    seeds: float | None
    """Between seeds, answers to infinitely many groups; None: measured on a single seed, which can't tell."""
    measured_groups: int
    measured_seeds: int


def noise(point_s: Floats, drawn_ns: Floats, groups: int) -> Noise:
    """Of the paired difference of two rows, from that of S seeds (S,) and their replicates over groups (n, S)."""
    count, cov_ss = len(point_s), covariance(drawn_ns)
    images = variance_components(point_s, cov_ss, groups).images
    answers = max(0.0, float(np.trace(cov_ss)) / count * groups / (groups - 1) - images)
    between = max(0.0, float(point_s.var(ddof=1)) - answers) if count > 1 else None
    return Noise(images * groups, answers * groups if count > 1 else 0.0, between, groups, count)


def detectable(
    found: Noise, groups: int | None = None, seeds: int | None = None, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The difference that a two-sided test at `alpha` finds with this chance, with so many groups and seeds.

    Default: as many as it was measured on. (t_{1 - alpha/2} + t_power) standard errors, with the degrees of freedom
    of `bootstrap.degrees_of_freedom`. Raises `DataError` for several seeds where one was measured.
    """
    groups, seeds = groups or found.measured_groups, seeds or found.measured_seeds
    if found.seeds is None and seeds > 1:
        raise DataError(f"{seeds} seeds: how seeds differ was measured on a single one; run two more first")
    images = found.images / groups
    between = ((found.seeds or 0.0) + found.answers / groups) / seeds if found.seeds is not None and seeds > 1 else 0.0
    images += found.answers / groups if seeds == 1 else 0.0
    if images + between <= 0:
        return 0.0
    df = degrees_of_freedom(images, between, groups, seeds)
    return float((t_quantile(1 - alpha / 2, df) + t_quantile(power, df)) * np.sqrt(images + between))


@dataclass(frozen=True)
class Needed:
    """What would make two rows distinguishable, if their difference is what it seems. None: no number, or unknown."""

    groups: int | None
    """At the present seeds."""
    seeds: int | None
    """On the present groups."""


def needed(found: Noise, difference: float, alpha: float = ALPHA, power: float = POWER) -> Needed:
    """The fewest groups, and the fewest seeds, with which `difference` is detectable."""

    def enough_groups(groups: int) -> bool:
        return detectable(found, groups, None, alpha, power) <= abs(difference)

    def enough_seeds(seeds: int) -> bool:
        return detectable(found, None, seeds, alpha, power) <= abs(difference)

    return Needed(
        _fewest(enough_groups, MOST_GROUPS), None if found.seeds is None else _fewest(enough_seeds, MOST_SEEDS)
    )


@dataclass(frozen=True)
class PowerReport:
    """What a difference is, what these data would show, and how much more would show this one."""

    difference: float
    detectable: float
    images: int | None
    """As `Needed.groups`; `more_images` is what is missing to it: 0, there are enough."""
    seeds: int | None
    more_images: int | None
    more_seeds: int | None


def power_report(found: Noise, difference: float) -> PowerReport:
    """`detectable` and `needed` in one, for a difference that was measured with this noise."""
    least = detectable(found)
    images, seeds = found.measured_groups, found.measured_seeds
    if difference == 0:
        return PowerReport(difference, least, None, None, None, None)
    if abs(difference) >= least:
        return PowerReport(difference, least, images, seeds, 0, 0)
    enough = needed(found, difference)
    more = [None if n is None else max(1, n - now) for n, now in ((enough.groups, images), (enough.seeds, seeds))]
    return PowerReport(difference, least, enough.groups, enough.seeds, *more)


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 2 to `most` that is enough, for a condition that stays true once it is."""
    low, high = 1, 2
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(most, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
