"""What is ranked: a store's runs grouped into rows and tables, and the checks of the filters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from harness.errors import ConfigError, near
from harness.leaderboard import names
from harness.leaderboard.names import Group
from harness.leaderboard.schema import AGGREGATES, COLUMNS, TUNED, Filters
from harness.record import Interval
from harness.stats.metrics import NOT_RANKED
from harness.store.index import RunSummary
from harness.store.manifest import DataKey

Stated = dict[str, dict[str, Interval]]
"""The recorded figures of the ranked split, by run and metric."""


def grouped(runs: Sequence[RunSummary]) -> dict[DataKey, list[Group]]:
    """Rows by their data. A run that failed before it read its data joins its row's latest data."""
    groups: dict[tuple[DataKey, str], list[RunSummary]] = defaultdict(list)
    latest: dict[tuple[str, str], DataKey] = {}
    for run in sorted((r for r in runs if r.fingerprint), key=lambda r: r.finished):
        groups[run.data_key, run.row].append(run)
        latest[run.benchmark, run.row] = run.data_key
        latest[run.benchmark, ""] = run.data_key
    for run in (r for r in runs if not r.fingerprint):
        known = latest.get((run.benchmark, run.row)) or latest.get((run.benchmark, ""))
        groups[known or (run.benchmark, "", ""), run.row].append(run)
    by_data: dict[DataKey, list[Group]] = defaultdict(list)
    for (data_key, _), members in groups.items():
        by_data[data_key].append(names.group(members))
    return {data_key: names.named(of_data) for data_key, of_data in by_data.items()}


# ------------------------------------------------------------------------------------ checks of the filters


def check_names(runs: Sequence[RunSummary], filters: Filters) -> None:
    """Raise `ConfigError` for a name that no run of the store has: it is a typo, not an empty result."""
    for option, chosen, there_are in (
        ("--columns", filters.columns, COLUMNS),
        ("--aggregate", filters.aggregate, AGGREGATES),
    ):
        if unknown := next((name for name in chosen if name not in there_are), None):
            raise ConfigError(f"{option} {unknown!r}: {near(unknown, there_are)}")
    trained = [run for run in runs if run.kind == "run"]
    asked = {
        "benchmark": (filters.benchmark, {run.benchmark for run in runs}),
        "task": (filters.task, {run.task for run in runs}),
        "method": (filters.method, {run.method for run in runs}),
        "tag": (filters.tag, {tag for run in runs for tag in run.tags}),
    }
    if filters.size is not None:
        filters.fits_size("", 0)  # refuses an invalid range
        if ".." not in filters.size:
            asked["student"] = (filters.size, {run.student for run in trained})
    for what, (name, known) in asked.items():
        if name is not None and name not in known:
            raise ConfigError(f"no run of {what} {name!r} in the store; {near(name, known)}")
    numbers: dict[str, tuple[float | None, set[float | None]]] = {
        "budget": (filters.budget, {run.budget for run in trained}),
        "forwards": (filters.forwards, {run.forwards for run in trained}),
    }
    for what, (number, there) in numbers.items():
        if number is not None and number not in there:
            listed = ", ".join(f"{n:g}" for n in sorted(n for n in there if n is not None)) or "none"
            raise ConfigError(f"no run of {what} {number:g} in the store; known: {listed}")


def check_figures(done: Sequence[RunSummary], figures: Stated, filters: Filters) -> None:
    from harness.stats import inference

    if not done:
        return
    splits = {name for run in done for name in run.splits}
    if filters.split not in splits:
        raise ConfigError(f"no run was scored on split {filters.split!r}; {near(filters.split, splits)}")
    if why := NOT_RANKED.get(filters.figure):
        raise ConfigError(f"metric {filters.figure!r} can't be ranked: {why}; choose another, like accuracy")
    metrics = {name for run in done for name in figures.get(run.run_id, {})} | set(inference.METRICS)
    metrics -= set(NOT_RANKED)
    if filters.figure not in metrics:
        asked = f"no run has metric {filters.figure!r} on split {filters.split!r}"
        raise ConfigError(f"{asked}; {near(filters.figure, metrics)}")


def check_rows(groups: Sequence[Group], filters: Filters) -> None:
    """Raise `ConfigError` for a baseline or a teacher that isn't a row."""
    for what, name in (("baseline", filters.baseline), ("teacher", filters.teacher)):
        if name is not None and not any(group.named(name) for group in groups):
            labels = {name for group in groups for name in (group.label, group.plain) if name}
            raise ConfigError(f"no row {name!r} to be the {what}; {near(name, labels)}")


def asked_for(group: Group, filters: Filters) -> bool:
    one = group.members[0]
    if filters.task not in (None, one.task):
        return False
    if one.kind == "control" or any(group.named(name) for name in (filters.baseline, filters.teacher) if name):
        return True
    if filters.rows and not any(map(group.named, filters.rows)):
        return False
    if filters.method not in (None, one.method) or filters.budget not in (None, one.budget):
        return False
    if filters.forwards is not None and filters.forwards not in {run.forwards for run in group.members}:
        return False
    return filters.fits_size(one.student, next((m.parameters for m in group.members if m.parameters), None))


def tuned(everyone: Sequence[Group], asked: Sequence[Group]) -> list[Group]:
    """The directly tuned rows that the filters hide: the selected rows are compared with them."""
    return [group for group in everyone if group.members[0].method == TUNED and group not in asked]


def restricts(filters: Filters) -> bool:
    return filters.hides or filters.task is not None or filters.tag is not None
