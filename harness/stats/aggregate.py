"""One figure a row over several benchmarks: mean, mean rank and interquartile mean. A gap is never averaged over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.record import Interval
from harness.stats.bootstrap import interval, over_seeds, resampled
from harness.stats.inference import RESAMPLES
from harness.stats.metrics import Floats

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Aggregate:
    """A row over all benchmarks; the figures are None where `missing` names benchmarks that it lacks."""

    mean: Interval | None
    """Of its means over seeds, every benchmark alike."""
    mean_rank: Interval | None
    """Of its ranks among the rows that have all benchmarks; equal figures share the mean of their ranks. The
    interval tells how the ranks move with other images and seeds: rows that are close are drawn to each other."""
    iqm: Interval | None
    """Mean of the middle half of its figures by benchmark and seed (Agarwal et al. 2021, arXiv 2108.13264)."""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A row on one benchmark: figures by seed (S,), and the mean over seeds as it could have been (n,)."""

    point_s: Floats
    drawn_n: Floats | None


def aggregates(
    tables: Mapping[str, Mapping[str, Mapping[int, pd.DataFrame]]],
    labels: Mapping[str, Sequence[str] | None],
    metric: str = "accuracy",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Aggregate]:
    """The aggregates of each row. `tables`: predictions by benchmark, row and seed; `labels`: options by benchmark.

    Benchmarks are resampled independently, the rows of one together. Benchmarks themselves are taken as they are:
    the intervals say nothing of other benchmarks. Raises `DataError` where the examples of a benchmark differ.
    """
    rows = list(dict.fromkeys(row for table in tables.values() for row in table))
    missing = {row: tuple(name for name, table in tables.items() if row not in table) for row in rows}
    complete = [row for row in rows if not missing[row]]
    if not complete:
        return {row: Aggregate(None, None, None, missing[row]) for row in rows}
    cells = [
        _cells([table[row] for row in complete], labels[name], metric, resamples, seed + 1009 * number)
        for number, (name, table) in enumerate(tables.items())
    ]
    figures = dict(zip(complete, aggregated(cells), strict=True))
    return {row: figures.get(row) or Aggregate(None, None, None, missing[row]) for row in rows}


def _cells(
    rows: Sequence[Mapping[int, pd.DataFrame]], labels: Sequence[str] | None, metric: str, resamples: int, seed: int
) -> list[Cell]:
    found = resampled([runs[s] for runs in rows for s in sorted(runs)], labels, metric, resamples, seed)
    ends = np.cumsum([len(runs) for runs in rows])[:-1]
    draws = None if found.drawn_ns is None else np.split(found.drawn_ns, ends, axis=1)
    return cells_of(np.split(found.point_s, ends), draws, [found.groups] * len(rows), seed)


def cells_of(points: Sequence[Floats], draws: Sequence[Floats] | None, groups: Sequence[int], seed: int) -> list[Cell]:
    """The cells of K rows on one benchmark from their figures by seed (S,) and resamples over C groups (n, S).

    `draws` None: there are none. A resample that leaves any row's figure undefined is left out for all.
    """
    if draws is None:
        return [Cell(point_s, None) for point_s in points]
    known_n = ~np.isnan(np.concatenate(draws, axis=1)).any(axis=1)
    return [
        Cell(point_s, over_seeds(point_s, drawn_ns[known_n], count, seed + k))
        for k, (point_s, drawn_ns, count) in enumerate(zip(points, draws, groups, strict=True))
    ]


def aggregated(cells_bk: Sequence[Sequence[Cell]], least_is_best: bool = False) -> list[Aggregate]:
    """The aggregates of K rows from their cells on B benchmarks, all of which they have; in the rows' order."""
    sign = -1.0 if least_is_best else 1.0
    value_bk = np.array([[cell.point_s.mean() for cell in cells] for cells in cells_bk])
    known = all(cell.drawn_n is not None for cells in cells_bk for cell in cells)
    drawn = [[cell.drawn_n for cell in cells if cell.drawn_n is not None] for cells in cells_bk]
    count = min((len(one_n) for cells in drawn for one_n in cells), default=0)
    drawn_bkn = np.array([[one_n[:count] for one_n in cells] for cells in drawn]) if known else None
    rank_k = _ranks(sign * value_bk).mean(axis=0)
    rank_kn = _ranks(sign * drawn_bkn).mean(axis=0) if drawn_bkn is not None else None
    result = []
    for k, rank in enumerate(rank_k):
        one_bn = None if drawn_bkn is None else drawn_bkn[:, k]
        result.append(
            Aggregate(
                mean=interval(float(value_bk[:, k].mean()), None if one_bn is None else one_bn.mean(axis=0)),
                mean_rank=interval(float(rank), None if rank_kn is None else rank_kn[k]),
                iqm=_iqm([cells[k].point_s for cells in cells_bk], one_bn),
            )
        )
    return result


def _ranks(value_bk: Floats) -> Floats:
    """Ranks of the rows on each benchmark, the highest figure first: (B, K, ...)."""
    from scipy.stats import rankdata  # takes a second to load, which a ranking without aggregates needn't wait for

    return np.asarray(rankdata(-np.round(value_bk, 12), axis=1))


def _iqm(points: Sequence[Floats], drawn_bn: Floats | None) -> Interval:
    """A resample moves all seeds of a benchmark as it moves their mean."""
    from scipy.stats import trim_mean

    value = float(trim_mean(np.concatenate(points), 0.25))
    if drawn_bn is None:
        return interval(value, None)
    moved = [point_s[:, None] + (drawn_n - point_s.mean()) for point_s, drawn_n in zip(points, drawn_bn, strict=True)]
    return interval(value, np.asarray(trim_mean(np.concatenate(moved), 0.25, axis=0)))
