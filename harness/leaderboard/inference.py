"""From draws to figures: intervals over seeds, differences to a baseline, places. The one place that judges rows.

`Evidence` is a row's runs on one split, in the shape that `harness.stats.inference` works with: figures (S,), and draws
(n, S) from groups that all runs on the same examples share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.leaderboard.names import is_named
from harness.leaderboard.schema import Delta, Row
from harness.record import Interval
from harness.stats import inference
from harness.stats.bootstrap import Resampled
from harness.stats.metrics import LOWER_IS_BETTER, Floats
from harness.stats.rank_intervals import standings_of

MOST_PLACED = 100
"""Rows of a table that get rank intervals and tiers."""


@dataclass(frozen=True)
class Evidence:
    """A row's runs, one a seed, in order of the seeds."""

    seeds: tuple[int, ...] = ()
    groups: int = 0
    size: int = 0
    """How many examples they answered."""
    examples: str = ""
    """Key of the examples that they answered: rows are paired only where it is the same."""
    across: str = ""
    """What rows on other data share with this one where they are the same method, settings and student."""
    choices: NDArray[np.int16] | None = None
    """The chosen options (S, N), in the order of the example set; only where they were asked for."""
    points: Mapping[str, Floats] = field(default_factory=dict)
    """By metric (S,)."""
    draws: Mapping[str, Floats | None] = field(default_factory=dict)
    """By metric (n, S); None where all examples are of one group."""


def intervals(rows: Sequence[Evidence], metric: str) -> dict[int, Interval]:
    """By place the mean over seeds with its interval over groups and seeds, that of `stats.across_seeds`.

    Of the rows that have the metric. Rows alike in number of seeds and groups are computed together, much faster.
    """
    alike: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        if metric in row.points:
            drawn_ns = row.draws[metric]
            several = drawn_ns is not None and not np.isnan(drawn_ns).any()
            alike[(len(row.seeds), row.groups) if several else None].append(k)
    found = {}
    for key, places in alike.items():
        if key is None:
            for k in places:
                found[k] = inference.seeds_interval(rows[k].points[metric], rows[k].draws[metric], rows[k].groups)
            continue
        points_rs = np.stack([rows[k].points[metric] for k in places])
        drawn_rsn = np.stack([drawn_ns.T for k in places if (drawn_ns := rows[k].draws[metric]) is not None])
        found |= dict(zip(places, inference.seeds_intervals(points_rs, drawn_rsn, key[1]), strict=True))
    return found


def delta(row: Evidence, baseline: Evidence, metric: str) -> Delta | None:
    """The row minus the baseline over the seeds that both have, as `stats.paired_difference` gives it.

    None where they can't be paired: no seed in common, other examples, a figure that only a protocol computes.
    """
    seeds = shared_seeds([row, baseline], metric)
    if not seeds:
        return None
    point_s, drawn_ns = apart(row, baseline, seeds, metric)
    found = inference.seeds_difference(point_s, drawn_ns, groups=row.groups)
    return Delta(value=found.value, low=found.low, high=found.high, p=found.p, seeds=tuple(seeds))


def shared_seeds(rows: Sequence[Evidence], metric: str | None = None) -> list[int]:
    """The seeds that all rows have; none where their examples differ, or one of them has no draws of the metric."""
    same = len({row.examples for row in rows}) == 1
    known = metric is None or all(metric in row.points for row in rows)
    return sorted(set.intersection(*(set(row.seeds) for row in rows))) if same and known else []


def apart(a: Evidence, b: Evidence, seeds: Sequence[int], metric: str) -> tuple[Floats, Floats | None]:
    """A minus B by seed (S,), and over draws (n, S)."""
    (point_a, drawn_a), (point_b, drawn_b) = (of_seeds(side, seeds, metric) for side in (a, b))
    return point_a - point_b, None if drawn_a is None or drawn_b is None else drawn_a - drawn_b


def of_seeds(row: Evidence, seeds: Sequence[int], metric: str) -> tuple[Floats, Floats | None]:
    """A metric of these seeds (S,), and over draws (n, S)."""
    at = [row.seeds.index(seed) for seed in seeds]
    drawn_ns = row.draws[metric]
    return row.points[metric][at], None if drawn_ns is None else drawn_ns[:, at]


def judged(rows: Sequence[Row], evidence: Sequence[Evidence], baseline: str | None) -> list[Row]:
    """A table's rows in order, best first, with all that is said of them jointly: rank, delta.

    Rows without a figure come last; ranks count the runs only, and equal figures share one.
    """
    rows = placed(rows, evidence)
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


def placed(rows: Sequence[Row], evidence: Sequence[Evidence]) -> list[Row]:
    """The rows with rank intervals and tiers (`harness.stats.rank_intervals`), of runs whose metric can be resampled.

    They are about the rows that answered the same examples as most rows did. More than `MOST_PLACED` of them are left
    without: a pair is cheap, but there are half a million pairs of a thousand rows.
    """
    result = list(rows)
    drawn = {
        k: draws_ns
        for k, (row, of) in enumerate(zip(rows, evidence, strict=True))
        if row.kind == "run" and row.figure is not None and (draws_ns := of.draws.get(row.metric)) is not None
    }
    usual = next((key for key, _ in Counter(evidence[k].examples for k in drawn).most_common(1)), None)
    able = [k for k in drawn if evidence[k].examples == usual]
    if not 2 <= len(able) <= MOST_PLACED:
        return result
    found = Resampled(
        np.concatenate([evidence[k].points[rows[k].metric] for k in able]),
        np.concatenate([drawn[k] for k in able], axis=1),
        evidence[able[0]].groups,
        evidence[able[0]].size,
    )
    columns = [(place, seed) for place, k in enumerate(able) for seed in evidence[k].seeds]
    for k, standing in zip(able, standings_of(found, columns), strict=True):
        result[k] = rows[k].model_copy(update=asdict(standing))
    return result


def matches(row: Row, name: str) -> bool:
    """Whether a row is the one that `--baseline` names, see `names.Group.named`."""
    return is_named(name, row.student, (row.label, row.spelled, row.plain))


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first, with ranks."""
    ordered = best_first(rows)
    places: dict[float, int] = {}
    counted = [row for row in ordered if row.kind == "run" and row.figure is not None]
    for place, row in enumerate(counted, 1):
        places.setdefault(_badness(row), place)
    return [
        row.model_copy(update={"rank": places[_badness(row)]}) if row.kind == "run" and row.figure is not None else row
        for row in ordered
    ]


def best_first(rows: Sequence[Row]) -> list[Row]:
    """Rows by their figure; those without one last."""
    return sorted(rows, key=lambda row: (row.figure is None, _badness(row), row.label, row.student))


def _badness(row: Row) -> float:
    sign = 1 if row.metric.rpartition(":")[2] in LOWER_IS_BETTER else -1
    return sign * (row.figure or 0.0)
