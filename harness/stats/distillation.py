"""What distillation did: how much of the teacher's lead a student made up, whose errors it makes, at what price.

A row is its predictions by seed, one split. Rows are paired by the seeds that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.record import Interval
from harness.stats.bootstrap import aligned, covariance, group_numbers, resampled, spread, t_quantile
from harness.stats.inference import RESAMPLES
from harness.stats.metrics import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

Runs: TypeAlias = "Mapping[int, pd.DataFrame]"

# -------------------------------------------------------------------------------- the gap to the teacher


@dataclass(frozen=True)
class GapClosed:
    """(student - baseline) / (teacher - baseline); None where the teacher isn't surely above the baseline."""

    closed: Interval | None
    gap: Interval
    """Teacher minus baseline."""
    seeds: tuple[int, ...]
    why: str = ""
    """Why `closed` is None."""


def gap_closed(
    student: Runs,
    baseline: Runs,
    teacher: Runs,
    labels: Sequence[str] | None,
    metric: str = "accuracy",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> GapClosed:
    """The share of the teacher's lead over the directly tuned student that the distilled one makes up.

    Fieller's interval (1954): all shares r for which student - baseline - r (teacher - baseline) is not told apart
    from 0, over groups and seeds. It is a bounded interval just where the gap's own excludes 0. Raises `DataError`
    where the three have no seed in common or the examples differ.
    """
    seeds = sorted(set(student) & set(baseline) & set(teacher))
    if not seeds:
        raise DataError(f"no seed in common: {sorted(student)}, {sorted(baseline)} and {sorted(teacher)}")
    frames = [runs[s] for runs in (student, baseline, teacher) for s in seeds]
    found = resampled(frames, labels, metric, resamples, seed)
    drawn_3ns = None if found.drawn_ns is None else np.stack(np.split(found.drawn_ns, 3, axis=1))
    return gap_closed_of(found.point_s.reshape(3, -1), drawn_3ns, found.groups, tuple(seeds))


def gap_closed_of(point_3s: Floats, drawn_3ns: Floats | None, groups: int, seeds: tuple[int, ...] = ()) -> GapClosed:
    """The same from the figures of student, baseline and teacher (3, S) and their resamples over groups (3, n, S)."""
    student_s, baseline_s, teacher_s = point_3s
    lead_s, gap_s = student_s - baseline_s, teacher_s - baseline_s
    lead, gap = float(lead_s.mean()), float(gap_s.mean())
    if drawn_3ns is None:
        return GapClosed(None, Interval(value=gap), seeds, "a single image gives no interval")
    student_ns, baseline_ns, teacher_ns = drawn_3ns

    def half_width(point_s: Floats, drawn_ns: Floats) -> float:
        off = spread(point_s, covariance(drawn_ns), groups)
        return float(t_quantile(0.975, off.df) * np.sqrt(off.total))

    def outside(share: float) -> float:
        """Above 0 where this share is told apart from what was seen."""
        drawn_ns = (student_ns - baseline_ns) - share * (teacher_ns - baseline_ns)
        return abs(lead - share * gap) - half_width(lead_s - share * gap_s, drawn_ns)

    around = half_width(gap_s, teacher_ns - baseline_ns)
    whole = Interval(value=gap, low=gap - around, high=gap + around)
    if gap - around <= 0:
        return GapClosed(None, whole, seeds, "the teacher isn't told apart from the baseline, or is below it")
    low, high = (_crossing(outside, lead / gap, side) for side in (-1, 1))
    return GapClosed(Interval(value=lead / gap, low=low, high=high), whole, seeds)


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


def agreement(a: Runs, b: Runs) -> Interval:
    """The share of examples on which two rows choose the same option, over their common seeds."""
    return _shares(a, b, ["same"])["same"]


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


def errors(row: Runs, other: Runs) -> Errors:
    """The errors of a row beside those of its teacher, or of the directly tuned student, over their common seeds."""
    return Errors(**_shares(row, other, ERRORS))


Answers = NDArray[np.integer[Any]]

MARKS: Mapping[str, Callable[[Answers, Answers, Answers], NDArray[np.bool_]]] = {
    "same": lambda one, other, gold: one == other,
    "inherited": lambda one, other, gold: (one != gold) & (other != gold),
    "copied": lambda one, other, gold: (one != gold) & (one == other),
    "introduced": lambda one, other, gold: (one != gold) & (other == gold),
    "fixed": lambda one, other, gold: (one == gold) & (other != gold),
}
"""What can be so of an example, from a's choice, b's choice and the gold (...,), see `agreement` and `Errors`."""
ERRORS = ("inherited", "copied", "introduced", "fixed")


def _shares(a: Runs, b: Runs, names: Sequence[str]) -> dict[str, Interval]:
    """How often each of `MARKS` is so, see `share`."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        raise DataError(f"no seed in common: one side has {sorted(a)}, the other {sorted(b)}")
    frames = aligned([runs[s] for runs in (a, b) for s in seeds])
    chosen_sn = np.stack([frame["chosen"].to_numpy() for frame in frames])
    gold_n, grouped = frames[0]["gold"].to_numpy(), group_numbers(frames[0]["group"])
    ours_sn, theirs_sn = chosen_sn[: len(seeds)], chosen_sn[len(seeds) :]
    return {name: share(MARKS[name](ours_sn, theirs_sn, gold_n), *grouped) for name in names}


def share(marked_sn: NDArray[np.bool_], group_n: Ints, groups: int) -> Interval:
    """The share of marked examples, mean over seeds, with its 95 % interval over groups and seeds.

    A share is a mean, so its covariance over resamples of groups is known without any: of the groups' sums of what is
    off the seed's share. Then as `bootstrap.Spread`, with Student's t. No interval where there is one group.
    """
    count = marked_sn.shape[1]
    point_s = marked_sn.mean(axis=1)
    value = float(point_s.mean())
    if groups < 2:
        return Interval(value=value)
    off_sc = np.stack([np.bincount(group_n, of_seed, groups) for of_seed in marked_sn - point_s[:, None]])
    found = spread(point_s, off_sc @ off_sc.T / count**2, groups)
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
