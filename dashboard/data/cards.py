"""The results so far of a method, a benchmark or a model, and who made them, for their cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from harness.errors import StoreError
from harness.leaderboard.schema import Ranking, Row
from harness.report import describe
from harness.report.columns import has_own_unit, with_unit
from harness.report.format import count, percent, points
from harness.store import Store
from harness.store.index import RunSummary

MOST = 50
"""A card has so many results."""
HERE = "made in this store"


def of_ladder(student: str, ladder: str) -> str:
    """The name of a model: a rung of a ladder."""
    return f"{student} of {ladder}" if ladder else student


def models(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """One row per student of the store's runs, smallest first: its parameters, runs, methods and benchmarks."""
    trained: dict[tuple[str, str], list[RunSummary]] = {}
    for run in runs:
        if run.kind == "run" and run.student:
            trained.setdefault((run.student, run.ladder), []).append(run)
    known = {one["name"]: one["summary"] for one in describe.listing("ladders", None)}
    rows = []
    for (student, ladder), mine in trained.items():
        sizes = [run.parameters for run in mine if run.parameters]
        rows.append(
            {
                "model": of_ladder(student, ladder),
                "parameters": count(max(sizes)) if sizes else "",
                "ladder": f"{ladder}: {known[ladder]}" if ladder in known else ladder,
                "runs in this store": len(mine),
                "methods": len({run.method for run in mine}),
                "benchmarks": len({run.benchmark for run in mine}),
                "size": max(sizes, default=0),
            }
        )
    frame = pd.DataFrame(rows, columns=["model", "parameters", "ladder", "runs in this store", "methods", "benchmarks",
                                        "size"])  # fmt: skip
    return frame.sort_values(["size", "model"], kind="stable").drop(columns="size")


def results(ranking: Ranking, chosen: Callable[[Row], bool], store: Store) -> tuple[pd.DataFrame, int]:
    """One row per chosen row of the ranking, the best of each benchmark first, at most `MOST`; and how many there are.

    `made`: in this store, or the file in which its first run was submitted and when.
    """
    found = []
    for table in ranking.tables:
        ranked = sum(row.rank is not None for row in table.rows)
        found += [(row, ranked) for row in table.rows if row.kind == "run" and row.figure is not None and chosen(row)]
    found.sort(key=lambda one: (one[0].benchmark, one[0].rank or 0))
    rows = []
    for row, ranked in found[:MOST]:
        direct = row.direct.difference if row.direct else None
        rows.append(
            {
                "benchmark": row.benchmark,
                "student": row.student,
                "row": row.label,
                "rank": f"{row.rank} of {ranked}",
                with_unit(row.metric): percent(row.values[row.metric], own_unit=has_own_unit(row.metric)),
                "points compared with direct tuning": "" if direct is None else points(direct).replace("-", "−"),
                "seeds": len(row.seeds),
                "made": made(store, row.run_ids[0]),
                "run": row.run_ids[0],
            }
        )
    return pd.DataFrame(rows), len(found)


def made(store: Store, run_id: str) -> str:
    """Where a run comes from: made in this store, or submitted from elsewhere."""
    try:
        received = store.received(run_id)
    except StoreError:
        return "submitted; what it came in can't be read"
    return HERE if received is None else f"submitted as {received.file}, {received.time[:10]}"
