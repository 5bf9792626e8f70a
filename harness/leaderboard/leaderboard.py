"""The ranking: one row a method and setting, over its seeds, computed from what the store has of its predictions.

Runs are ranked together only where they saw the same data (benchmark, revision, fingerprint): each such set
is a table of its own. A run that gives no figures (failed, interrupted, without predictions) is counted in
its row's note. The controls (majority, random, runs without images, ...) have a row, without a rank, in every
table that has them in the store; one that beats chance is flagged.

A store that was compacted answers from its catalogue (`harness.store.catalog`) and keeps what it answered: a table
is computed anew only when a run on its data came, changed or went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.leaderboard.cache import Memory
from harness.leaderboard.schema import Broken, Filters, Overall, Ranking, Row, Table
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import overall_csv, to_csv, to_json, to_markdown, to_text
from harness.store import Store

if TYPE_CHECKING:
    from harness.leaderboard.extra_columns import Evidences

__all__ = [
    "Filters",
    "Overall",
    "Ranking",
    "Row",
    "Table",
    "overall_csv",
    "ranking",
    "table",
    "tables",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_text",
]


def table(store: Store, benchmark: str | None = None, metric: str = "accuracy", split: str = "test") -> list[Row]:
    """The rows of all tables, one table after another, best first; see `tables`."""
    return ranking(store, Filters(benchmark=benchmark, metric=metric, split=split)).rows


def tables(store: Store, filters: Filters | None = None) -> list[Table]:
    """The tables of a store, each best first.

    The metric is one of `stats.METRICS`, `accuracy/<category>` or a figure that the records state, like a
    protocol's. Raises `ConfigError` for a benchmark, task, method, student, tag, budget, forwards, metric, split,
    baseline or teacher that no run in the store has, and for columns and aggregates that there aren't.
    """
    return list(ranking(store, filters).tables)


def ranking(store: Store, filters: Filters | None = None, keep: bool = True) -> Ranking:
    """`tables`, and the folders of the store without a sound record. Without `keep` nothing is written, only read."""
    filters = filters or Filters()
    memory = Memory(store, filters, keep)
    if (known := memory.whole()) is not None:
        return known
    answer = _answer(store, filters, memory)
    memory.keep_whole(answer)
    return answer


def _answer(store: Store, filters: Filters, memory: Memory) -> Ranking:
    from harness.leaderboard import build, query
    from harness.stats import inference
    from harness.store import index
    from harness.store.catalog import View

    stated = filters.figure not in inference.METRICS
    columns = [*index.LIGHT, *(["metrics"] if stated else [])]
    view = View(store, columns, memory.stamps)
    lines = view.lines(columns)
    found = index.from_arrow(lines)
    runs = [run for run in found if run.status != index.BROKEN and run.kind != "robustness"]
    figures = index.figures(lines, filters.split) if stated else {}
    query.check_names(runs, filters)
    kept = [run for run in runs if filters.benchmark in (None, run.benchmark)]
    query.check_figures([run for run in kept if run.status == "done"], figures, filters)
    if filters.tag is not None:
        kept = [run for run in kept if run.kind == "control" or filters.tag in run.tags]
    grouped = query.grouped(kept)
    query.check_rows([group for groups in grouped.values() for group in groups], filters)
    made: list[Table] = []
    evidences: list[Evidences] = []
    for data_key, everyone in sorted(grouped.items()):
        groups = [group for group in everyone if query.asked_for(group, filters)]
        if not any(run.kind == "run" for group in groups for run in group.members) and query.restricts(filters):
            continue
        stamps = [(run.run_id, run.stamp) for group in everyone for run in group.members]
        one = memory.table(data_key, stamps) if not filters.aggregate else None
        if one is None:
            beside = query.tuned(everyone, groups) if "distil" in filters.columns else []
            one, evidence = build.make_table(view, data_key, groups, filters, figures, beside)
            memory.keep_table(data_key, stamps, one)
            if filters.aggregate:
                evidences.append(build.of_metric(evidence, one.metric))
        made.append(one)
    broken = [Broken(run_id=run.run_id, message=run.problem or "") for run in found if run.status == index.BROKEN]
    together: list[Overall] = []
    if filters.aggregate:
        from harness.leaderboard.overall import over_all  # it loads scipy.stats

        together = over_all(list(zip(made, evidences, strict=True)), filters.aggregate)
    return Ranking(tables=tuple(made), broken=tuple(broken), overall=tuple(together))
