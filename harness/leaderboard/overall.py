"""The rows of several tables together: one figure per method over all benchmarks, see `harness.stats.aggregate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.leaderboard.extra_columns import ResultsByRow
from harness.leaderboard.inference import prior_of
from harness.leaderboard.schema import Overall, Row, Table
from harness.leaderboard.seed_results import SeedResults
from harness.stats.aggregate import Aggregate, BenchmarkFigures, aggregated, benchmark_figures
from harness.stats.metrics import LOWER_IS_BETTER, Floats

RowsOfTable = dict[str, tuple[Row, SeedResults]]
"""A table's rows with a figure and their results, by the key that identifies the row across tables."""


def over_all(
    tables: Sequence[tuple[Table, ResultsByRow]], asked: tuple[str, ...], weights: Mapping[str, float] | None = None
) -> list[Overall]:
    """The rows of all tables, best mean first; those without a result in some table last. Only runs are ranked.

    `weights` are the tables' weights in the mean, by name (see `table_names`); 1 for the others. A table of weight 0 is
    ignored, so no row counts as missing there. Tables are resampled independently, the rows of one table together.
    With fewer than two tables the result is empty.
    """
    if len(tables) < 2:
        return []
    weight_of = {name: (weights or {}).get(name, 1.0) for name in table_names([table for table, _ in tables])}
    known = [_rows(table, results) for table, results in tables]
    counted = [one for one, weight in zip(known, weight_of.values(), strict=True) if weight]
    names = [name for name, weight in weight_of.items() if weight]
    metric = tables[0][0].metric
    keys = list(dict.fromkeys(key for one in known for key in one))
    missing = {key: tuple(name for name, one in zip(names, counted, strict=True) if key not in one) for key in keys}
    rows = {key: next(one[key][0] for one in known if key in one) for key in keys}
    least = metric.rpartition(":")[2] in LOWER_IS_BETTER
    found: dict[str, Aggregate] = {}
    for kind in ("run", "control"):
        complete = [key for key in keys if not missing[key] and rows[key].kind == kind]
        if complete and counted:
            figures = [_figures_of_rows(one, complete, number) for number, one in enumerate(counted)]
            aggregates = aggregated(figures, [weight_of[name] for name in names] if weights else None, least)
            found |= dict(zip(complete, aggregates, strict=True))
    result = []
    for key, row in rows.items():
        of_row = found.get(key)
        result.append(
            Overall(
                kind=row.kind,
                method=row.method,
                label=row.full_label,
                ladder=row.ladder,
                student=row.student,
                metric=metric,
                asked=asked,
                mean=of_row.mean if of_row else None,
                mean_rank=of_row.mean_rank if of_row and row.kind == "run" else None,
                iqm=of_row.iqm if of_row else None,
                benchmarks=tuple(name for name in names if name not in missing[key]),
                missing=missing[key],
                figures={
                    name: one[key][0].values[metric].value
                    for name, one in zip(weight_of, known, strict=True)
                    if key in one
                },
                run_ids=row.run_ids,
            )
        )
    sign = 1 if least else -1
    return sorted(result, key=lambda one: (one.mean is None, sign * one.mean.value if one.mean else 0.0, one.label))


def _rows(table: Table, results: ResultsByRow) -> RowsOfTable:
    """Rows are known by their label, where only one row of the table has it; else by their configuration."""
    named = Counter(of_row.named for of_row in results.values())
    rows: RowsOfTable = {}
    for row in table.rows:
        if row.figure is not None:
            of_row = results[row.run_ids]
            key = of_row.named if of_row.named and named[of_row.named] == 1 else of_row.across
            rows[key if key not in rows else f"{key} {row.full_label}"] = row, of_row
    return rows


def _figures_of_rows(rows: RowsOfTable, keys: Sequence[str], number: int) -> list[BenchmarkFigures]:
    points, replicates = zip(*(_figures(*rows[key], number) for key in keys), strict=True)
    there = [drawn_ns for drawn_ns in replicates if drawn_ns is not None]
    groups = [rows[key][1].groups for key in keys]
    priors = [prior_of(rows[key][1], rows[key][0].metric) for key in keys]
    return benchmark_figures(points, there if len(there) == len(replicates) else None, groups, 1009 * number, priors)


def _figures(row: Row, results: SeedResults, number: int) -> tuple[Floats, Floats | None]:
    """The figures by seed, and the replicates in a table-specific order, so that tables are independent."""
    metric = row.metric
    if metric not in results.points:  # only in the records
        return np.array([row.values[metric].value]), None
    drawn_ns = results.replicates[metric]
    if drawn_ns is None:
        return results.points[metric], None
    return results.points[metric], drawn_ns[np.random.default_rng([number, 2]).permutation(len(drawn_ns))]


def table_names(tables: Sequence[Table]) -> list[str]:
    """The tables' names: the benchmark's, with its data if the store has several versions of them."""
    count = Counter(table.benchmark for table in tables)
    return [t.benchmark if count[t.benchmark] == 1 else f"{t.benchmark} {t.fingerprint[:8]}" for t in tables]
