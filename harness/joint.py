"""From draws to figures: intervals over seeds, differences to a baseline, places. The one place that judges rows.

`Evidence` is a row's runs on one split, in the shape that `harness.stats` works with: figures (S,), and draws
(n, S) from groups that all runs on the same examples share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness import stats
from harness.metrics import LOWER_IS_BETTER, Floats
from harness.record import Interval
from harness.rows import Delta, Row


@dataclass(frozen=True)
class Evidence:
    """A row's runs, one a seed, in order of the seeds."""

    seeds: tuple[int, ...] = ()
    examples: str = ""
    """Key of the examples that they answered: rows are paired only where it is the same."""
    points: Mapping[str, Floats] = field(default_factory=dict)
    """By metric (S,)."""
    draws: Mapping[str, Floats | None] = field(default_factory=dict)
    """By metric (n, S); None where all examples are of one group."""


def interval(row: Evidence, metric: str) -> Interval:
    """The mean over seeds with its interval over groups and seeds, that of `stats.across_seeds`."""
    return stats.seeds_interval(row.points[metric], row.draws[metric])


def delta(row: Evidence, baseline: Evidence, metric: str) -> Delta | None:
    """The row minus the baseline over the seeds that both have, as `stats.paired_difference` gives it.

    None where they can't be paired: no seed in common, other examples, a figure that only a protocol computes.
    """
    seeds = sorted(set(row.seeds) & set(baseline.seeds))
    if not seeds or row.examples != baseline.examples or metric not in row.points or metric not in baseline.points:
        return None
    a, b = ([side.seeds.index(seed) for seed in seeds] for side in (row, baseline))
    point_s = row.points[metric][a] - baseline.points[metric][b]
    of_row, of_baseline = row.draws[metric], baseline.draws[metric]
    drawn_ns = None if of_row is None or of_baseline is None else of_row[:, a] - of_baseline[:, b]
    found = stats.seeds_difference(point_s, drawn_ns)
    return Delta(value=found.value, low=found.low, high=found.high, p=found.p, seeds=tuple(seeds))


def judged(rows: Sequence[Row], evidence: Sequence[Evidence], baseline: str | None) -> list[Row]:
    """A table's rows in order, best first, with all that is said of them jointly: rank, delta.

    Rows without a figure come last; ranks count the runs only, and equal figures share one. What is added to a
    row by comparing it with others (rank intervals, tiers) belongs here: `evidence` holds all of it.
    """
    base = next((of for row, of in zip(rows, evidence, strict=True) if baseline and matches(row, baseline)), None)
    compared = []
    for row, of in zip(rows, evidence, strict=True):
        if base is None:
            compared.append(row)
        elif of is base:
            compared.append(row.model_copy(update={"baseline": True}))
        else:
            compared.append(row.model_copy(update={"delta": delta(of, base, row.metric)}))
    return ranked(compared)


def matches(row: Row, name: str) -> bool:
    """Whether a row is the one that `--baseline` names: by its label, or label@student."""
    return name in (row.label, f"{row.label}@{row.student}")


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first, with ranks."""

    def order(row: Row) -> tuple[bool, float, str, str]:
        return row.figure is None, _badness(row), row.label, row.student

    ordered = sorted(rows, key=order)
    places: dict[float, int] = {}
    counted = [row for row in ordered if row.kind == "run" and row.figure is not None]
    for place, row in enumerate(counted, 1):
        places.setdefault(_badness(row), place)
    return [
        row.model_copy(update={"rank": places[_badness(row)]}) if row.kind == "run" and row.figure is not None else row
        for row in ordered
    ]


def _badness(row: Row) -> float:
    sign = 1 if row.metric.rpartition(":")[2] in LOWER_IS_BETTER else -1
    return sign * (row.figure or 0.0)


def stack(columns: Sequence[Floats]) -> Floats:
    """Draws of S runs, each (n,), as (n, S)."""
    return np.stack(columns, axis=1)
