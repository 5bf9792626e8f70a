"""How small a difference a benchmark can detect, and how many more images or seeds a given difference needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.errors import DataError
from harness.stats.bootstrap import covariance, degrees_of_freedom, t_quantile, variance_components
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior, moderated

ALPHA, POWER = 0.05, 0.8
MOST_GROUPS, MOST_SEEDS = 10_000_000, 10_000


@dataclass(frozen=True)
class Noise:
    """The variance components of a paired difference, for one group and one seed, and the sizes of the sample."""

    images: float
    """Between groups, shared by all seeds."""
    answers: float
    """Between groups, specific to a seed."""
    seeds: float | None
    """Between seeds, for infinitely many groups; None: measured on a single seed, without other rows."""
    measured_groups: int
    measured_seeds: int
    prior: Prior | None = None
    """What the other rows tell about the variance between seeds: it adds degrees of freedom."""


def noise(point_s: Floats, drawn_ns: Floats, groups: int, prior: Prior | None = None) -> Noise:
    """The noise of the paired difference of two rows, from S seeds (S,) and their replicates over groups (n, S)."""
    count, cov_ss = len(point_s), covariance(drawn_ns)
    images = variance_components(point_s, cov_ss, groups).images
    answers = max(0.0, float(np.trace(cov_ss)) / count * groups / (groups - 1) - images) if count > 1 else 0.0
    if count == 1 and prior is None:
        return Noise(images * groups, 0.0, None, groups, count)
    own = float(point_s.var(ddof=1)) if count > 1 else 0.0
    (between,), _ = moderated(np.array([own]), count - 1, prior)
    return Noise(images * groups, answers * groups, max(0.0, float(between) - answers), groups, count, prior)


def detectable(
    found: Noise, groups: int | None = None, seeds: int | None = None, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The difference that a two-sided test at `alpha` detects with this power, for these numbers of groups and seeds.

    Default: those of the measurement. (t_{1 - alpha/2} + t_power) standard errors, with the degrees of freedom
    of `bootstrap.degrees_of_freedom`. Raises `DataError` for several seeds if only one was measured.
    """
    groups, seeds = groups or found.measured_groups, seeds or found.measured_seeds
    if found.seeds is None and seeds > 1:
        raise DataError(f"{seeds} seeds: only one was measured, which doesn't show how seeds differ; run two more")
    images = found.images / groups
    if seeds == 1 and found.prior is None:  # all that this seed has for itself, and nothing of other seeds
        images, between = images + found.answers / groups, 0.0
    else:
        between = ((found.seeds or 0.0) + found.answers / groups) / seeds
    if images + between <= 0:
        return 0.0
    _, seeds_df = moderated(np.zeros(1), seeds - 1, found.prior)
    df = degrees_of_freedom(images, between, groups, seeds_df)
    return float((t_quantile(1 - alpha / 2, df) + t_quantile(power, df)) * np.sqrt(images + between))


@dataclass(frozen=True)
class Needed:
    """What would make two rows significantly different, if their true difference is the observed one.

    None: no number would, or it is unknown.
    """

    groups: int | None
    """With the present seeds."""
    seeds: int | None
    """With the present groups."""


def needed(found: Noise, difference: float, alpha: float = ALPHA, power: float = POWER) -> Needed:
    """The smallest number of groups, and of seeds, with which `difference` is detectable."""

    def enough_groups(groups: int) -> bool:
        return detectable(found, groups, None, alpha, power) <= abs(difference)

    def enough_seeds(seeds: int) -> bool:
        return detectable(found, None, seeds, alpha, power) <= abs(difference)

    return Needed(
        _fewest(enough_groups, MOST_GROUPS), None if found.seeds is None else _fewest(enough_seeds, MOST_SEEDS)
    )


@dataclass(frozen=True)
class PowerReport:
    """A difference, what these data can detect, and how much more data would detect this one."""

    difference: float
    detectable: float
    images: int | None
    """As `Needed.groups`; `more_images` is the number still missing; 0: there are enough."""
    seeds: int | None
    more_images: int | None
    more_seeds: int | None


def power_report(found: Noise, difference: float) -> PowerReport:
    """`detectable` and `needed` together, for a difference that was measured with this noise."""
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
