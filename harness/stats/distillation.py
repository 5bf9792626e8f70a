"""What distillation did: how much of the teacher's lead a student made up, whose errors it makes, at what price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.record import Interval
from harness.stats.bootstrap import covariance, t_quantile, variance_components
from harness.stats.metrics import Floats, Ints

# -------------------------------------------------------------------------------- the gap to the teacher


@dataclass(frozen=True)
class GapClosed:
    """(student - baseline) / (teacher - baseline); None where the teacher isn't surely above the baseline."""

    closed: Interval | None
    gap: Interval
    """Teacher minus baseline."""
    why: str = ""
    """Why `closed` is None."""


def gap_closed(point_3s: Floats, drawn_3ns: Floats | None, groups: int) -> GapClosed:
    """The share of the teacher's lead over the directly tuned student that the distilled one makes up.

    From the figures of student, baseline and teacher (3, S) over S common seeds, and their replicates over groups
    (3, n, S); None: one group. Fieller's interval (1954): all shares r for which student - baseline - r (teacher -
    baseline) can't be distinguished from 0, over groups and seeds. It is a bounded interval just where the gap's own
    excludes 0.
    """
    student_s, baseline_s, teacher_s = point_3s
    lead_s, gap_s = student_s - baseline_s, teacher_s - baseline_s
    lead, gap = float(lead_s.mean()), float(gap_s.mean())
    if drawn_3ns is None:
        return GapClosed(None, Interval(value=gap), "a single image gives no interval")
    student_ns, baseline_ns, teacher_ns = drawn_3ns

    def half_width(point_s: Floats, drawn_ns: Floats) -> float:
        off = variance_components(point_s, covariance(drawn_ns), groups)
        return float(t_quantile(0.975, off.df) * np.sqrt(off.total))

    def outside(share: float) -> float:
        """Above 0 where this share can be distinguished from what was seen."""
        drawn_ns = (student_ns - baseline_ns) - share * (teacher_ns - baseline_ns)
        return abs(lead - share * gap) - half_width(lead_s - share * gap_s, drawn_ns)

    around = half_width(gap_s, teacher_ns - baseline_ns)
    whole = Interval(value=gap, low=gap - around, high=gap + around)
    if gap - around <= 0:
        return GapClosed(None, whole, "the teacher isn't significantly above the baseline")
    low, high = (_crossing(outside, lead / gap, side) for side in (-1, 1))
    return GapClosed(Interval(value=lead / gap, low=low, high=high), whole)


def _crossing(outside: Callable[[float], float], start: float, side: int) -> float | None:
    """Where `outside` becomes positive, going from `start` (where it isn't) to this side; None: nowhere near."""
    from scipy.optimize import brentq  # slow to load, and rankings load this file

    if outside(start) >= 0:  # no noise at all
        return start
    step = 0.25
    while outside(start + side * step) <= 0:
        step *= 2
        if step > 1e6:
            return None
    return float(brentq(outside, start, start + side * step))


# ------------------------------------------------------------------------------- whose errors they are


@dataclass(frozen=True)
class Errors:
    """A row's errors beside another's, as shares of all examples. inherited + introduced is its error rate."""

    inherited: Interval
    """Both are wrong."""
    copied: Interval
    """Both are wrong with the same option; part of `inherited`."""
    introduced: Interval
    """Only this row is wrong."""
    fixed: Interval
    """Only the other is wrong."""


Answers = NDArray[np.integer[Any]]

MARKS: Mapping[str, Callable[[Answers, Answers, Answers], NDArray[np.bool_]]] = {
    "same": lambda one, other, gold: one == other,
    "inherited": lambda one, other, gold: (one != gold) & (other != gold),
    "copied": lambda one, other, gold: (one != gold) & (one == other),
    "introduced": lambda one, other, gold: (one != gold) & (other == gold),
    "fixed": lambda one, other, gold: (one == gold) & (other != gold),
}
"""What can be so of an example, from a's choice, b's choice and the gold (...,), see `Errors`; `same` is agreement."""
ERRORS = ("inherited", "copied", "introduced", "fixed")


def shares(
    a_sn: Answers, b_sn: Answers, gold_n: Answers, group_n: Ints, groups: int, names: Sequence[str] = tuple(MARKS)
) -> dict[str, Interval]:
    """How often each of `MARKS` is so, from two rows' choices (S, N) over common seeds, see `share`."""
    return {name: share(MARKS[name](a_sn, b_sn, gold_n), group_n, groups) for name in names}


def share(marked_sn: NDArray[np.bool_], group_n: Ints, groups: int) -> Interval:
    """The share of marked examples, mean over seeds, with its 95 % interval over groups and seeds.

    A share is a mean, so its covariance over resamples of groups is known without any: of the groups' sums of what is
    off the seed's share. Then `bootstrap.VarianceComponents` with Student's t. No interval where there is one group.
    """
    count = marked_sn.shape[1]
    point_s = marked_sn.mean(axis=1)
    value = float(point_s.mean())
    if groups < 2:
        return Interval(value=value)
    off_sc = np.stack([np.bincount(group_n, of_seed, groups) for of_seed in marked_sn - point_s[:, None]])
    found = variance_components(point_s, off_sc @ off_sc.T / count**2, groups)
    half = float(t_quantile(0.975, found.df) * np.sqrt(found.total))
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


# ---------------------------------------------------------------------------------------- at what price


def pareto(scores: Sequence[float | None], costs: Sequence[float | None]) -> list[bool]:
    """Which rows no other beats: none has a higher score at no higher cost, or the same score at a lower cost.

    A row without a score or without this cost is on no front. Rows that are equal in both are both on it.
    """
    if len(scores) != len(costs):
        raise DataError(f"{len(scores)} scores but {len(costs)} costs: expected one cost a score")
    known = [(c, -s, k) for k, (s, c) in enumerate(zip(scores, costs, strict=True)) if s is not None and c is not None]
    front = [False] * len(scores)
    best, last = -np.inf, None
    for cost, minus, k in sorted(known):
        if -minus > best or (cost, minus) == last:
            front[k], best, last = True, -minus, (cost, minus)
    return front
