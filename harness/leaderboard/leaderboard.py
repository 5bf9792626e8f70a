"""The ranking: one row per method and setting, over its seeds, computed from the stored predictions.

Runs are ranked together only if they saw the same data (benchmark, revision, fingerprint): each such set has its own
table. A run without figures (failed, interrupted, without predictions) is counted in its row's note. One that can't be
read is named, and all else is as if it weren't there. The controls (majority, random, runs without images, ...) have a
row without a rank in every table that has them in the store; one that beats chance is flagged.

A compacted store uses its catalogue (`harness.store.catalog`) and caches its answers: a table
is computed again only when a run on its data was added, changed or deleted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from harness.leaderboard.cache import LeaderboardCache
from harness.leaderboard.schema import BrokenRun, Filters, Overall, Ranking, Row, Table
from harness.store import Store

if TYPE_CHECKING:
    from harness.leaderboard.extra_columns import ResultsByRow
    from harness.store.manifest import DataKey

__all__ = [
    "Filters",
    "Overall",
    "Ranking",
    "Row",
    "Table",
    "ranking",
    "table",
    "tables",
]


def table(store: Store, benchmark: str | None = None, metric: str = "accuracy", split: str = "test") -> list[Row]:
    """The rows of all tables, one table after another, best first; see `tables`."""
    return ranking(store, Filters(benchmark=benchmark, metric=metric, split=split)).rows


def tables(store: Store, filters: Filters | None = None) -> list[Table]:
    """The tables of a store, each best first.

    The metric is one of `stats.METRICS`, `accuracy/<category>` or a figure in the records, like a
    protocol's. Raises `ConfigError` for a benchmark, task, method, student, tag, budget, forwards, metric, split,
    baseline or teacher that no run in the store has, and for unknown columns and aggregates.
    """
    return list(ranking(store, filters).tables)


def ranking(store: Store, filters: Filters | None = None, keep: bool = True) -> Ranking:
    """`tables`, and the runs of the store that can't be read. Without `keep` nothing is written, only read."""
    filters = filters or Filters()
    cache = LeaderboardCache(store, filters, keep)
    if (known := cache.ranking()) is not None:
        return known
    answer = _answer(store, filters, cache)
    cache.put_ranking(answer)
    return answer


def _answer(store: Store, filters: Filters, cache: LeaderboardCache) -> Ranking:
    from harness.leaderboard import build, query
    from harness.leaderboard.seed_spread import COLUMNS, Spreads
    from harness.stats import inference
    from harness.store import index
    from harness.store.catalog import View

    stated = filters.figure not in inference.METRICS
    view = View(store, COLUMNS, cache.stamps)
    lines = view.lines(COLUMNS)
    found = index.from_arrow(lines)
    runs = [run for run in found if run.status != index.BROKEN and run.kind != "robustness"]
    wrote = any(index.generates(run) for run in runs)
    figures = index.figures(lines, filters.split) if stated or wrote else {}
    query.check_names(runs, filters)
    kept = [run for run in runs if filters.benchmark in (None, run.benchmark)]
    query.check_figures([run for run in kept if run.status == "done"], figures, filters)
    if filters.tag is not None:
        kept = [run for run in kept if run.kind == "control" or filters.tag in run.tags]
    grouped, spreads = query.grouped(kept), Spreads(view, filters.split)
    of_data: dict[DataKey, list[tuple[str, str]]] = defaultdict(list)
    for run in runs:
        of_data[run.data_key].append((run.run_id, run.stamp))
    query.check_rows([group for groups in grouped.values() for group in groups], filters)
    made: list[Table] = []
    whole: list[Table] = []
    results: list[ResultsByRow] = []
    for data_key, everyone in sorted(grouped.items()):
        groups = [group for group in everyone if query.asked_for(group, filters)]
        if not any(run.kind == "run" for group in groups for run in group.members) and query.restricts(filters):
            continue
        stamps = {(run.run_id, run.stamp) for group in everyone for run in group.members}.union(of_data[data_key])
        one = cache.table(data_key, stamps) if not filters.aggregate else None
        if one is None:
            ranked = [group for group in everyone if filters.task in (None, group.members[0].task)]
            one, all_rows, of_rows = build.make_table(view, data_key, ranked, filters, figures, spreads)
            cache.put_table(data_key, stamps, one)
            if filters.aggregate:
                whole.append(one.model_copy(update={"rows": tuple(all_rows)}))
                results.append(build.of_metric(of_rows, one.metric))
        made.append(one)
    broken = [BrokenRun(run_id=problem.run_id, message=problem.message) for problem in cache.problems]
    broken += [BrokenRun(run_id=run.run_id, message=run.problem or "") for run in found if run.status == index.BROKEN]
    broken += [run for one in made for run in one.broken]
    together: list[Overall] = []
    if filters.aggregate:
        from harness.leaderboard.overall import over_all

        shown = {row.run_ids for one in made for row in one.rows}
        found_over_all = over_all(list(zip(whole, results, strict=True)), filters.aggregate, dict(filters.weights))
        together = [one for one in found_over_all if one.run_ids in shown]
    return Ranking(tables=tuple(made), broken=tuple(broken), overall=tuple(together))
