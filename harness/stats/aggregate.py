"""One figure per row over several benchmarks: mean, mean rank and interquartile mean. Rows with gaps get none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.record import Interval
from harness.stats.bootstrap import interval, rows_over_seeds
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior


@dataclass(frozen=True)
class Aggregate:
    """The aggregates of a row over several benchmarks; the row has all of them."""

    mean: Interval
    """The mean of its means over seeds, with the benchmarks' weights."""
    mean_rank: Interval
    """The mean of its ranks among the rows that have all benchmarks; equal figures share the mean of their ranks. The
    interval shows how the ranks change with other images and seeds: the ranks of similar rows shrink towards each
    other."""
    iqm: Interval
    """Mean of the middle half of its figures by benchmark and seed (Agarwal et al. 2021, arXiv 2108.13264)."""


@dataclass(frozen=True)
class BenchmarkFigures:
    """A row on one benchmark: figures by seed (S,), and replicates of the mean over seeds (n,)."""

    point_s: Floats
    drawn_n: Floats | None


def benchmark_figures(
    points: Sequence[Floats],
    replicates: Sequence[Floats] | None,
    groups: Sequence[int],
    seed: int,
    priors: Sequence[Prior | None] | None = None,
) -> list[BenchmarkFigures]:
    """The figures of K rows on one benchmark, from figures by seed (S,) and their replicates over C groups (n, S).

    `replicates` None: there are none. `priors`: what other rows tell about the seeds of each. A replicate in which any
    row's figure is undefined is dropped for all rows.
    """
    if replicates is None:
        return [BenchmarkFigures(point_s, None) for point_s in points]
    known_n = ~np.isnan(np.concatenate(replicates, axis=1)).any(axis=1)
    priors = priors or [None] * len(points)
    alike: dict[tuple[int, int, Prior | None], list[int]] = defaultdict(list)
    for k, (point_s, count, prior) in enumerate(zip(points, groups, priors, strict=True)):
        alike[len(point_s), count, prior].append(k)
    drawn: dict[int, Floats] = {}
    for (_, count, prior), rows in alike.items():
        drawn_rsn = np.stack([replicates[k][known_n].T for k in rows])
        found_rn = rows_over_seeds(
            np.stack([points[k] for k in rows]), drawn_rsn, count, [seed + k for k in rows], prior
        )
        drawn |= dict(zip(rows, found_rn, strict=True))
    return [BenchmarkFigures(point_s, drawn[k]) for k, point_s in enumerate(points)]


def aggregated(
    cells_bk: Sequence[Sequence[BenchmarkFigures]],
    weights_b: Sequence[float] | None = None,
    least_is_best: bool = False,
) -> list[Aggregate]:
    """The aggregates of K rows from their figures on B benchmarks, all of which they have; in the rows' order.

    `weights_b`: the benchmarks' weights in the mean; None: equal weights, as in the other figures.
    """
    sign = -1.0 if least_is_best else 1.0
    value_bk = np.array([[cell.point_s.mean() for cell in cells] for cells in cells_bk])
    known = all(cell.drawn_n is not None for cells in cells_bk for cell in cells)
    drawn = [[cell.drawn_n for cell in cells if cell.drawn_n is not None] for cells in cells_bk]
    count = min((len(one_n) for cells in drawn for one_n in cells), default=0)
    drawn_bkn = np.array([[one_n[:count] for one_n in cells] for cells in drawn]) if known else None
    rank_k = np.mean([_ranks(sign * value_k) for value_k in value_bk], axis=0)
    rank_kn = None if drawn_bkn is None else np.mean([_ranks(sign * drawn_kn) for drawn_kn in drawn_bkn], axis=0)
    result = []
    for k, rank in enumerate(rank_k):
        one_bn = None if drawn_bkn is None else drawn_bkn[:, k]
        result.append(
            Aggregate(
                mean=interval(
                    float(np.average(value_bk[:, k], weights=weights_b)),
                    None if one_bn is None else np.average(one_bn, axis=0, weights=weights_b).clip(0, 1),
                ),
                mean_rank=interval(float(rank), None if rank_kn is None else rank_kn[k]),
                iqm=_iqm([cells[k].point_s for cells in cells_bk], one_bn),
            )
        )
    return result


def _ranks(value_kn: Floats) -> Floats:
    """Ranks of K rows, the highest figure first, equal ones with their mean rank: (K, ...).

    scipy.stats has it, too, but takes a second to load; so has `_middle`.
    """
    value_nk = -np.round(np.moveaxis(value_kn, 0, -1), 12)
    order_nk = np.argsort(value_nk, axis=-1)
    sorted_nk, place_k = np.take_along_axis(value_nk, order_nk, -1), np.arange(value_nk.shape[-1])
    starts_nk = np.ones(sorted_nk.shape, dtype=bool)
    starts_nk[..., 1:] = sorted_nk[..., 1:] != sorted_nk[..., :-1]
    ends_nk = np.roll(starts_nk, -1, axis=-1)  # where the next one starts
    first_nk = np.maximum.accumulate(np.where(starts_nk, place_k, 0), axis=-1)
    last_nk = np.minimum.accumulate(np.where(ends_nk, place_k, place_k[-1])[..., ::-1], axis=-1)[..., ::-1]
    rank_nk = np.empty(sorted_nk.shape)
    np.put_along_axis(rank_nk, order_nk, 1 + (first_nk + last_nk) / 2, -1)
    return np.moveaxis(rank_nk, -1, 0)


def _middle(value_nm: Floats) -> Floats:
    """The mean of the middle half of M values: (..., M) -> (...)."""
    count = value_nm.shape[-1]
    cut = count // 4
    return np.asarray(np.partition(value_nm, (cut, count - cut - 1), axis=-1)[..., cut : count - cut].mean(axis=-1))


def _iqm(points: Sequence[Floats], drawn_bn: Floats | None) -> Interval:
    """The interquartile mean. A resample shifts all seeds of a benchmark by as much as their mean."""
    value = float(_middle(np.concatenate(points)))
    if drawn_bn is None:
        return interval(value, None)
    moved = [point_s + (drawn_n - point_s.mean())[:, None] for point_s, drawn_n in zip(points, drawn_bn, strict=True)]
    return interval(value, _middle(np.concatenate(moved, axis=1)).clip(0, 1))
