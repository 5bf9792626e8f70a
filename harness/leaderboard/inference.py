"""From replicates to statistics: intervals over seeds, differences, ranks. All statistics of rows come from here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from harness.leaderboard.names import is_named
from harness.leaderboard.schema import Delta, Pair, Row
from harness.leaderboard.seed_results import SeedResults
from harness.record import Interval
from harness.stats import inference, power
from harness.stats.bootstrap import Resampled
from harness.stats.inference import Difference
from harness.stats.metrics import LOWER_IS_BETTER, Floats
from harness.stats.moderated import Prior
from harness.stats.power import Noise
from harness.stats.rank_intervals import pair_differences, standings

MOST_RANKED = 100
"""The largest number of rows in a table that get rank intervals and tiers."""


def intervals(rows: Sequence[SeedResults], metric: str) -> dict[int, Interval]:
    """By row index: the mean over seeds with its interval over groups and seeds.

    Only rows that have the metric. Rows with the same numbers of seeds and groups are computed together, much faster.
    """
    alike: dict[tuple[int, int, Prior | None] | None, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        if metric in row.points:
            drawn_ns = row.replicates[metric]
            several = drawn_ns is not None and not np.isnan(drawn_ns).any()
            alike[(len(row.seeds), row.groups, prior_of(row, metric)) if several else None].append(k)
    found = {}
    for key, places in alike.items():
        if key is None:
            for k in places:
                row = rows[k]
                found[k] = inference.seeds_interval(
                    row.points[metric], row.replicates[metric], row.groups, prior=prior_of(row, metric)
                )
            continue
        _, groups, prior = key
        points_rs = np.stack([rows[k].points[metric] for k in places])
        drawn_rsn = np.stack([drawn_ns.T for k in places if (drawn_ns := rows[k].replicates[metric]) is not None])
        found |= dict(zip(places, inference.seeds_intervals(points_rs, drawn_rsn, groups, prior=prior), strict=True))
    return found


def prior_of(row: SeedResults, metric: str) -> Prior | None:
    """What the other rows tell about the seeds of this one; None for a control that has none."""
    return row.spread.rows(metric) if row.spread and not row.any_seed else None


def prior_of_pair(a: SeedResults, b: SeedResults, metric: str) -> Prior | None:
    """What the other rows tell about the seeds of A minus B: only one side's seeds count if the other has none."""
    if a.any_seed or b.any_seed:
        return prior_of(b if a.any_seed else a, metric)
    return a.spread.pairs(metric) if a.spread else None


def difference(a: SeedResults, b: SeedResults, metric: str) -> Difference | None:
    """A minus B, paired by seed and example: the mean over the common seeds, its interval and p.

    None if they can't be paired: no common seed, different examples, or a figure that only a protocol computes.
    """
    seeds = shared_seeds([a, b], metric)
    if not seeds:
        return None
    point_s, replicates_ns = paired_difference(a, b, seeds, metric)
    prior = prior_of_pair(a, b, metric)
    return inference.seeds_difference(point_s, replicates_ns, tuple(seeds), a.groups, a.size, prior)


def delta(row: SeedResults, baseline: SeedResults, metric: str) -> Delta | None:
    """`difference` as a field of a row."""
    found = difference(row, baseline, metric)
    if found is None:
        return None
    return Delta(value=found.value, low=found.low, high=found.high, p=found.p, seeds=found.seeds)


def shared_seeds(rows: Sequence[SeedResults], metric: str | None = None) -> list[int]:
    """The seeds that all rows have; empty if their examples differ, or if one of them lacks the metric.

    A control without a model has every seed.
    """
    if len({row.examples for row in rows}) > 1 or any(metric not in row.points for row in rows if metric is not None):
        return []
    of_runs = [set(row.seeds) for row in rows if not row.any_seed] or [set(row.seeds) for row in rows]
    return sorted(set.intersection(*of_runs))


def paired_difference(
    a: SeedResults, b: SeedResults, seeds: Sequence[int], metric: str
) -> tuple[Floats, Floats | None]:
    """A minus B by seed (S,), and its replicates (n, S)."""
    (point_a, drawn_a), (point_b, drawn_b) = (of_seeds(side, seeds, metric) for side in (a, b))
    return point_a - point_b, None if drawn_a is None or drawn_b is None else drawn_a - drawn_b


def noise(a: SeedResults, b: SeedResults, seeds: Sequence[int], metric: str) -> Noise | None:
    """The noise of A minus B, for `power.detectable`; None: all examples are in one group."""
    point_s, replicates_ns = paired_difference(a, b, seeds, metric)
    return None if replicates_ns is None else power.noise(point_s, replicates_ns, a.groups, prior_of_pair(a, b, metric))


def of_seeds(row: SeedResults, seeds: Sequence[int], metric: str) -> tuple[Floats, Floats | None]:
    """A metric of these seeds (S,), and its replicates (n, S)."""
    at = _columns(row, seeds)
    drawn_ns = row.replicates[metric]
    return row.points[metric][at], None if drawn_ns is None else drawn_ns[:, at]


def choices_of(row: SeedResults, seeds: Sequence[int]) -> NDArray[np.int16]:
    """The choices of these seeds (S, N). They must have been read."""
    assert row.choices is not None
    return row.choices[_columns(row, seeds)]


def _columns(row: SeedResults, seeds: Sequence[int]) -> list[int]:
    return [0 if row.any_seed else row.seeds.index(seed) for seed in seeds]


def ranked_with_intervals(rows: Sequence[Row], results: Sequence[SeedResults], baseline: str | None) -> list[Row]:
    """A table's rows in order, best first, with everything that is computed jointly: rank, delta.

    Rows without a figure come last. Only runs get ranks, and equal figures share one.
    """
    rows = with_rank_intervals(rows, results)
    base = next((of for row, of in zip(rows, results, strict=True) if baseline and matches(row, baseline)), None)
    compared = []
    for row, of in zip(rows, results, strict=True):
        if base is None:
            compared.append(row)
        elif of is base:
            compared.append(row.model_copy(update={"baseline": True}))
        else:
            compared.append(row.model_copy(update={"delta": delta(of, base, row.metric)}))
    return ranked(_corrected(compared))


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm's p, over the differences of all runs from the baseline."""
    p = {k: row.delta.p for k, row in enumerate(rows) if row.kind == "run" and row.delta and row.delta.p is not None}
    result = list(rows)
    for k, p_holm in zip(p, inference.holm(list(p.values())), strict=True):
        if found := rows[k].delta:
            result[k] = rows[k].model_copy(update={"delta": found.model_copy(update={"p_holm": p_holm})})
    return result


def with_rank_intervals(rows: Sequence[Row], results: Sequence[SeedResults]) -> list[Row]:
    """The rows with rank intervals and tiers (`harness.stats.rank_intervals`), for runs whose metric can be resampled.

    They are computed for the rows that answered the most common set of examples. More than `MOST_RANKED` rows get
    none: a pair is cheap, but a thousand rows have half a million pairs.
    """
    result = list(rows)
    able, differences = _all_pairs(rows, results)
    means = [float(results[k].points[rows[k].metric].mean()) for k in able]
    for k, standing in zip(able, standings(means, differences) if able else (), strict=True):
        result[k] = rows[k].model_copy(update=asdict(standing))
    return result


def pairs(rows: Sequence[Row], results: Sequence[SeedResults]) -> list[Pair]:
    """The differences that rank intervals and tiers are made of, with Holm's p over all of them."""
    able, differences = _all_pairs(rows, results)
    unpaired = len(able) * (len(able) - 1) // 2 - len(differences)  # they count as pairs that are not different
    known = [1.0 if found.p is None else found.p for found in differences.values()]
    corrected = inference.holm(known + [1.0] * unpaired)
    return [
        Pair(
            a=rows[able[one]].run_ids[0],
            b=rows[able[other]].run_ids[0],
            value=found.value,
            low=found.low,
            high=found.high,
            p=found.p,
            p_holm=None if found.p is None else p_holm,
        )
        for ((one, other), found), p_holm in zip(differences.items(), corrected, strict=False)
    ]


def _all_pairs(
    rows: Sequence[Row], results: Sequence[SeedResults]
) -> tuple[list[int], dict[tuple[int, int], Difference]]:
    """The rows that can be resampled together, by index, and the differences of their pairs, by place among them."""
    drawn = {
        k: replicates_ns
        for k, (row, of) in enumerate(zip(rows, results, strict=True))
        if row.kind == "run" and row.figure is not None and (replicates_ns := of.replicates.get(row.metric)) is not None
    }
    usual = next((key for key, _ in Counter(results[k].examples for k in drawn).most_common(1)), None)
    able = [k for k in drawn if results[k].examples == usual]
    if not 2 <= len(able) <= MOST_RANKED:
        return [], {}
    found = Resampled(
        np.concatenate([results[k].points[rows[k].metric] for k in able]),
        np.concatenate([drawn[k] for k in able], axis=1),
        results[able[0]].groups,
        results[able[0]].size,
    )
    columns = [(place, seed) for place, k in enumerate(able) for seed in results[k].seeds]
    spread, metric = results[able[0]].spread, rows[able[0]].metric
    prior = spread.pairs(metric) if spread else None
    return able, pair_differences(found, columns, prior)


def matches(row: Row, name: str) -> bool:
    """Whether `--baseline` names this row, see `names.Group.named`."""
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
