"""What distillation achieved: the part of the gap to the teacher that was closed, inherited errors, and the cost."""

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
from harness.stats.moderated import Prior

# -------------------------------------------------------------------------------- the gap to the teacher


@dataclass(frozen=True)
class GapClosed:
    """(student - baseline) / (teacher - baseline); None if the teacher isn't significantly above the baseline."""

    closed: Interval | None
    gap: Interval
    """Teacher minus baseline."""
    why: str = ""
    """Why `closed` is None."""


def gap_closed(point_3s: Floats, drawn_3ns: Floats | None, groups: int, prior: Prior | None = None) -> GapClosed:
    """The fraction of the gap between teacher and directly tuned student that the distilled student closes.

    From the figures of student, baseline and teacher (3, S) over S common seeds, and their replicates over groups
    (3, n, S); None: one group. Fieller's interval (1954): all fractions r for which student - baseline - r (teacher -
    baseline) isn't significantly different from 0, over groups and seeds. It is bounded exactly if the gap's own
    interval excludes 0. `prior`: what other rows tell about the seeds of a difference of two rows.
    """
    student_s, baseline_s, teacher_s = point_3s
    lead_s, gap_s = student_s - baseline_s, teacher_s - baseline_s
    lead, gap = float(lead_s.mean()), float(gap_s.mean())
    if drawn_3ns is None:
        return GapClosed(None, Interval(value=gap), "a single image gives no interval")
    student_ns, baseline_ns, teacher_ns = drawn_3ns

    def half_width(point_s: Floats, drawn_ns: Floats, share: float = 0.0) -> float:
        # student - (1 - share) baseline - share teacher; the variance of two rows' difference is that of both
        of_seeds = prior.scaled((1 + (1 - share) ** 2 + share**2) / 2) if prior else None
        off = variance_components(point_s, covariance(drawn_ns), groups, of_seeds)
        return float(t_quantile(0.975, off.df) * np.sqrt(off.total))

    def outside(share: float) -> float:
        """Above 0 if this fraction is significantly different from the observed one."""
        drawn_ns = (student_ns - baseline_ns) - share * (teacher_ns - baseline_ns)
        return abs(lead - share * gap) - half_width(lead_s - share * gap_s, drawn_ns, share)

    around = half_width(gap_s, teacher_ns - baseline_ns)
    whole = Interval(value=gap, low=gap - around, high=gap + around)
    if gap - around <= 0:
        return GapClosed(None, whole, "the teacher isn't significantly above the baseline")
    low, high = (_crossing(outside, lead / gap, side) for side in (-1, 1))
    return GapClosed(Interval(value=lead / gap, low=low, high=high), whole)


def _crossing(outside: Callable[[float], float], start: float, side: int) -> float | None:
    """Where `outside` becomes positive on this side of `start` (where it isn't positive); None: not nearby."""
    from scipy.optimize import brentq  # slow to load, and rankings load this file

    if outside(start) >= 0:  # no variance at all
        return start
    step = 0.25
    while outside(start + side * step) <= 0:
        step *= 2
        if step > 1e6:
            return None
    return float(brentq(outside, start, start + side * step))


# ------------------------------------------------------------------------------- inherited errors


@dataclass(frozen=True)
class Errors:
    """A row's errors compared with another's, as fractions of all examples. inherited + introduced is its error
    rate."""

    inherited: Interval
    """Both are wrong."""
    copied: Interval
    """Both are wrong with the same option; part of `inherited`."""
    introduced: Interval
    """Only this row is wrong."""
    fixed: Interval
    """Only the other row is wrong."""


Answers = NDArray[np.integer[Any]]

MARKS: Mapping[str, Callable[[Answers, Answers, Answers], NDArray[np.bool_]]] = {
    "same": lambda one, other, gold: one == other,
    "inherited": lambda one, other, gold: (one != gold) & (other != gold),
    "copied": lambda one, other, gold: (one != gold) & (one == other),
    "introduced": lambda one, other, gold: (one != gold) & (other == gold),
    "fixed": lambda one, other, gold: (one == gold) & (other != gold),
}
"""Properties of an example, from a's choice, b's choice and the gold (...,), see `Errors`; `same` is agreement."""
ERRORS = ("inherited", "copied", "introduced", "fixed")


def shares(
    a_sn: Answers, b_sn: Answers, gold_n: Answers, group_n: Ints, groups: int, names: Sequence[str] = tuple(MARKS)
) -> dict[str, Interval]:
    """How often each of `MARKS` holds, from two rows' choices (S, N) over common seeds, see `share`."""
    return {name: share(MARKS[name](a_sn, b_sn, gold_n), group_n, groups) for name in names}


def share(marked_sn: NDArray[np.bool_], group_n: Ints, groups: int) -> Interval:
    """The fraction of marked examples, mean over seeds, with its 95 % interval over groups and seeds.

    A fraction is a mean, so its covariance over resamples of groups is known exactly: from the groups' sums of
    deviations from the seed's fraction. Then `bootstrap.VarianceComponents` with Student's t. With one group there is
    no
    interval.
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


# ---------------------------------------------------------------------------------------- cost


def pareto(scores: Sequence[float | None], costs: Sequence[float | None]) -> list[bool]:
    """The rows that no other row beats: none has a higher score at no higher cost, or the same score at a lower cost.

    A row without a score or without this cost isn't on the front. Rows that are equal in both are both on it.
    """
    if len(scores) != len(costs):
        raise DataError(f"{len(scores)} scores but {len(costs)} costs: expected one cost per score")
    known = [(c, -s, k) for k, (s, c) in enumerate(zip(scores, costs, strict=True)) if s is not None and c is not None]
    front = [False] * len(scores)
    best, last = -np.inf, None
    for cost, minus, k in sorted(known):
        if -minus > best or (cost, minus) == last:
            front[k], best, last = True, -minus, (cost, minus)
    return front
