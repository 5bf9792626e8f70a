"""The rows of several tables together: one figure a method over all benchmarks, see `harness.stats.aggregate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from harness.leaderboard.extra_columns import Evidences
from harness.leaderboard.inference import Evidence
from harness.leaderboard.schema import Overall, Row, Table
from harness.stats.aggregate import Aggregate, Cell, aggregated, cells_of
from harness.stats.metrics import LOWER_IS_BETTER, Floats

Cells = dict[str, tuple[Row, Evidence]]
"""Of a table the rows with a figure and what they rest on, by what the row is called in other tables too."""


def over_all(tables: Sequence[tuple[Table, Evidences]], asked: tuple[str, ...]) -> list[Overall]:
    """The rows of all tables, best mean first, those that lack a table last. Only runs are ranked.

    Tables are resampled independently, the rows of one together. Nothing for fewer than two tables.
    """
    if len(tables) < 2:
        return []
    names, metric = _names([table for table, _ in tables]), tables[0][0].metric
    known = [_rows(table, evidence) for table, evidence in tables]
    keys = list(dict.fromkeys(key for one in known for key in one))
    missing = {key: tuple(name for name, one in zip(names, known, strict=True) if key not in one) for key in keys}
    rows = {key: next(one[key][0] for one in known if key in one) for key in keys}
    least = metric.rpartition(":")[2] in LOWER_IS_BETTER
    found: dict[str, Aggregate] = {}
    for kind in ("run", "control"):
        complete = [key for key in keys if not missing[key] and rows[key].kind == kind]
        if complete:
            cells = [_cells(one, complete, number) for number, one in enumerate(known)]
            found |= dict(zip(complete, aggregated(cells, least), strict=True))
    result = []
    for key, row in rows.items():
        of_row = found.get(key) or Aggregate(None, None, None)
        result.append(
            Overall(
                kind=row.kind,
                method=row.method,
                label=row.full_label,
                ladder=row.ladder,
                student=row.student,
                metric=metric,
                asked=asked,
                mean=of_row.mean,
                mean_rank=of_row.mean_rank if row.kind == "run" else None,
                iqm=of_row.iqm,
                benchmarks=tuple(name for name in names if name not in missing[key]),
                missing=missing[key],
            )
        )
    sign = 1 if least else -1
    return sorted(result, key=lambda one: (one.mean is None, sign * one.mean.value if one.mean else 0.0, one.label))


def _rows(table: Table, evidence: Evidences) -> Cells:
    cells: Cells = {}
    for row in table.rows:
        if row.figure is not None:
            of_row = evidence[row.run_ids]
            cells[of_row.across if of_row.across not in cells else f"{of_row.across} {row.full_label}"] = row, of_row
    return cells


def _cells(cells: Cells, keys: Sequence[str], number: int) -> list[Cell]:
    points, draws = zip(*(_figures(*cells[key], number) for key in keys), strict=True)
    there = [drawn_ns for drawn_ns in draws if drawn_ns is not None]
    groups = [cells[key][1].groups for key in keys]
    return cells_of(points, there if len(there) == len(draws) else None, groups, 1009 * number)


def _figures(row: Row, evidence: Evidence, number: int) -> tuple[Floats, Floats | None]:
    """By seed, and over draws, whose order is shuffled for each table: the draws of two tables are independent."""
    metric = row.metric
    if metric not in evidence.points:  # only the records state it
        return np.array([row.values[metric].value]), None
    drawn_ns = evidence.draws[metric]
    if drawn_ns is None:
        return evidence.points[metric], None
    return evidence.points[metric], drawn_ns[np.random.default_rng([number, 2]).permutation(len(drawn_ns))]


def _names(tables: Sequence[Table]) -> list[str]:
    """The tables' names: the benchmark's, with its data where the store has several versions of them."""
    count = Counter(table.benchmark for table in tables)
    return [t.benchmark if count[t.benchmark] == 1 else f"{t.benchmark} {t.fingerprint[:8]}" for t in tables]
