"""The ranking: one row a method and setting, over its seeds, computed from what the store has of its predictions.

Runs are ranked together only where they saw the same data (benchmark, revision, fingerprint): each such set
is a table of its own. A run that gives no figures (failed, interrupted, without predictions) is counted in
its row's note. The controls (majority, random) have a row in every table that has them in the store.

A store that was compacted answers from its catalogue (`harness.catalogue`) and keeps what it answered: a table
is computed anew only when a run on its data came, changed or went.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import ConfigError, DataError, near
from harness.recall import Memory
from harness.record import Interval
from harness.render import to_csv, to_json, to_markdown, to_text
from harness.render_html import to_html
from harness.render_latex import to_latex
from harness.rows import SHOWN, Broken, Filters, Ranking, Row, Table
from harness.store import Store

if TYPE_CHECKING:
    from harness.catalogue import Size, View
    from harness.entries import Entry
    from harness.joint import Evidence
    from harness.manifest import DataKey
    from harness.metrics import Floats

__all__ = [
    "Filters",
    "Ranking",
    "Row",
    "Table",
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
    protocol's. Raises `ConfigError` for a benchmark, task, method, student, tag, budget, metric, split or
    baseline that no run in the store has.
    """
    return list(ranking(store, filters).tables)


def ranking(store: Store, filters: Filters | None = None) -> Ranking:
    """`tables`, and the folders of the store without a sound record."""
    filters = filters or Filters()
    memory = Memory(store, filters)
    if (known := memory.whole()) is not None:
        return known
    answer = _answer(store, filters, memory)
    memory.keep_whole(answer)
    return answer


def _answer(store: Store, filters: Filters, memory: Memory) -> Ranking:
    from harness import entries, stats
    from harness.catalogue import View

    stated = filters.figure not in stats.METRICS
    columns = [*entries.LIGHT, *(["metrics"] if stated else [])]
    view = View(store, columns, memory.stamps)
    lines = view.lines(columns)
    found = entries.from_arrow(lines)
    runs = [run for run in found if run.status != entries.BROKEN]
    figures = entries.figures(lines, filters.split) if stated else {}
    _check_names(runs, filters)
    kept = [run for run in runs if filters.benchmark in (None, run.benchmark)]
    _check_figures([run for run in kept if run.status == "done"], figures, filters)
    if filters.tag is not None:
        kept = [run for run in kept if run.kind == "control" or filters.tag in run.tags]
    grouped = _grouped(kept)
    _check_baseline([group for groups in grouped.values() for group in groups], filters)
    made = []
    for data_key, everyone in sorted(grouped.items()):
        groups = [group for group in everyone if _asked(group, filters)]
        if not any(run.kind == "run" for group in groups for run in group.members) and _restricts(filters):
            continue
        stamps = [(run.run_id, run.stamp) for group in everyone for run in group.members]
        one = memory.table(data_key, stamps)
        if one is None:
            one = _table(view, data_key, groups, filters, figures)
            memory.keep_table(data_key, stamps, one)
        made.append(one)
    broken = [Broken(run_id=run.run_id, message=run.problem or "") for run in found if run.status == entries.BROKEN]
    return Ranking(tables=tuple(made), broken=tuple(broken))


# ------------------------------------------------------------------------------------ what was asked for


def _check_names(runs: Sequence[Entry], filters: Filters) -> None:
    """Raises `ConfigError` for a name that no run of the store has: it is a slip, not an empty answer."""
    trained = [run for run in runs if run.kind == "run"]
    asked = {
        "benchmark": (filters.benchmark, {run.benchmark for run in runs}),
        "task": (filters.task, {run.task for run in runs}),
        "method": (filters.method, {run.method for run in runs}),
        "tag": (filters.tag, {tag for run in runs for tag in run.tags}),
    }
    if filters.size is not None:
        filters.fits_size("", 0)  # a range that can't be read is refused here
        if ".." not in filters.size:
            asked["student"] = (filters.size, {run.student for run in trained})
    for what, (name, known) in asked.items():
        if name is not None and name not in known:
            raise ConfigError(f"no run of {what} {name!r} in the store; {near(name, known)}")
    budgets = {run.budget for run in trained if run.budget is not None}
    if filters.budget is not None and filters.budget not in budgets:
        known_budgets = ", ".join(map(str, sorted(budgets))) or "none"
        raise ConfigError(f"no run of budget {filters.budget} in the store; known: {known_budgets}")


def _check_figures(done: Sequence[Entry], figures: dict[str, dict[str, Interval]], filters: Filters) -> None:
    from harness import stats

    if not done:
        return
    splits = {name for run in done for name in run.splits}
    if filters.split not in splits:
        raise ConfigError(f"no run was scored on split {filters.split!r}; {near(filters.split, splits)}")
    metrics = {name for run in done for name in figures.get(run.run_id, {})} | set(stats.METRICS)
    if filters.figure not in metrics:
        asked = f"no run has metric {filters.figure!r} on split {filters.split!r}"
        raise ConfigError(f"{asked}; {near(filters.figure, metrics)}")


def _check_baseline(groups: Sequence[Group], filters: Filters) -> None:
    if filters.baseline is not None and not any(group.named(filters.baseline) for group in groups):
        labels = {group.label for group in groups}
        raise ConfigError(f"no row {filters.baseline!r} to be the baseline; {near(filters.baseline, labels)}")


def _asked(group: Group, filters: Filters) -> bool:
    one = group.members[0]
    if filters.task not in (None, one.task):
        return False
    if one.kind == "control" or (filters.baseline is not None and group.named(filters.baseline)):
        return True
    if filters.method not in (None, one.method) or filters.budget not in (None, one.budget):
        return False
    return filters.fits_size(one.student, next((m.parameters for m in group.members if m.parameters), None))


def _restricts(filters: Filters) -> bool:
    return any(v is not None for v in (filters.task, filters.method, filters.size, filters.tag, filters.budget))


# ------------------------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class Group:
    """The runs of a row."""

    label: str
    members: tuple[Entry, ...]

    def named(self, name: str) -> bool:
        return name in (self.label, f"{self.label}@{self.members[0].student}")


def _grouped(runs: Sequence[Entry]) -> dict[DataKey, list[Group]]:
    """Rows by the data they saw. A run that failed before it read its data joins its row's latest data."""
    groups: dict[tuple[DataKey, str], list[Entry]] = defaultdict(list)
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
        by_data[data_key].append(Group(members[0].label, tuple(members)))
    return {data_key: _told_apart(of_data) for data_key, of_data in by_data.items()}


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """Rows of one table that would read alike get the parts of their configuration that differ."""
    from harness.entries import flat, label

    alike: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.label, group.members[0].student].append(group)
    result = []
    for same in alike.values():
        if len(same) == 1:
            result += same
            continue
        configs = [flat(json.loads(group.members[0].identity)) for group in same]
        keys = sorted({key for config in configs for key in config})
        differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
        for group, config in zip(same, configs, strict=True):
            extra = label("", {key: config.get(key) for key in differing})
            result.append(replace(group, label=group.label + extra))
    return result


def _table(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: dict[str, dict[str, Interval]],
) -> Table:
    from harness import joint

    lines = _lines(view, data_key, groups, filters, figures)
    sizes = view.sizes(data_key)
    pairs = [_row(data_key, group, filters, figures, lines, sizes) for group in groups]
    rows = joint.judged([row for row, _ in pairs], [evidence for _, evidence in pairs], filters.baseline)
    budgets = {row.budget for row in rows if row.kind == "run" and row.budget}
    return Table(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=filters.split,
        metric=filters.figure,
        rows=tuple(rows),
        budgets=tuple(sorted(budgets)),
    )


@dataclass
class Line:
    """A run's answers to the split: what they were to, what was wrong with them, figures and draws by metric."""

    examples: str
    problem: str | None
    points: dict[str, float]
    draws: dict[str, Floats | None]


def _lines(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: dict[str, dict[str, Interval]],
) -> dict[str, Line]:
    """The answers of all finished runs of a table, by run: from the catalogue where it has them."""
    from harness import material, stats

    done = [run for group in groups for run in group.members if run.status == "done"]
    options = next((len(run.options) for run in done if run.options), None)
    metric = filters.figure
    by_category = metric.startswith("accuracy/") and any(metric in figures.get(run.run_id, {}) for run in done)
    extra = metric if by_category or (metric in stats.METRICS and metric not in material.KEPT) else None
    columns = ["run_id", "examples", "problem", *material.KEPT, *(f"{name}_draws" for name in material.KEPT)]
    lines: dict[str, Line] = {}
    for chunk in view.answers(data_key, filters.split, [*columns, *(["chosen"] if extra else [])], done):
        plain = chunk.select(["run_id", "examples", "problem", *material.KEPT]).to_pylist()
        for line in plain:
            points = {name: line[name] for name in material.KEPT if line[name] is not None}
            lines[line["run_id"]] = Line(line["examples"], line["problem"], points, dict.fromkeys(points))
        by_set: dict[str, list[int]] = defaultdict(list)
        for at, line in enumerate(plain):
            if line["problem"] is None:
                by_set[line["examples"]].append(at)
        sizes = view.sizes(data_key)
        for key, rows in by_set.items():
            of_set = chunk.take(rows)
            ids = of_set["run_id"].to_pylist()
            for name in material.KEPT:
                packed = of_set[f"{name}_draws"].to_pylist()
                if packed and packed[0] is not None:
                    for run_id, draws_n in zip(ids, material.unpack(name, packed, sizes[key].golds_n), strict=True):
                        lines[run_id].draws[name] = draws_n
            if extra is not None:
                _draw_extra(lines, ids, view, data_key, key, of_set["chosen"].to_pylist(), options, extra)
    return lines


def _draw_extra(
    lines: dict[str, Line],
    ids: Sequence[str],
    view: View,
    data_key: DataKey,
    key: str,
    chosen: Sequence[bytes],
    options: int | None,
    metric: str,
) -> None:
    """A metric that the catalogue has no draws of: they are made from the choices."""
    from harness import material

    examples = view.examples(data_key)[key]
    for start in range(0, len(ids), 128):
        part = ids[start : start + 128]
        chosen_rn = material.unpack_choices(chosen[start : start + 128], examples.table.num_rows)
        try:
            drawn = material.draw(examples, chosen_rn, options, metric)
        except (ConfigError, DataError):  # these examples have none of that category
            return
        for r, run_id in enumerate(part):
            lines[run_id].points[metric] = float(drawn.points_r[r])
            lines[run_id].draws[metric] = None if drawn.draws_rn is None else drawn.draws_rn[r]


def _row(
    data_key: DataKey,
    group: Group,
    filters: Filters,
    figures: dict[str, dict[str, Interval]],
    lines: dict[str, Line],
    sizes: dict[str, Size],
) -> tuple[Row, Evidence]:
    from harness import joint

    notes: Counter[str] = Counter(run.status for run in group.members if run.status != "done")
    done: dict[int, Entry] = {}
    for run in sorted((run for run in group.members if run.status == "done"), key=lambda run: run.finished):
        if run.run_id not in lines:
            notes["without predictions"] += 1
            continue
        notes["superseded by a later run of the same seed"] += run.seed in done
        done[run.seed] = run
    used = [done[seed] for seed in sorted(done)]
    said = [f"{count} {what}" for what, count in notes.items() if count]
    if len(codes := {run.code for run in used}) > 1:
        said.append(f"seeds of {len(codes)} versions of the code")
    evidence, values = joint.Evidence(), {}
    try:
        evidence = _evidence(used, lines, sizes)
        values = _values(used, evidence, filters.figure, figures)
    except DataError as error:
        said.append(f"no figures: {error}")
    one = group.members[0]
    size = sizes.get(lines[used[0].run_id].examples) if used else None
    examples, of_groups = (size.examples, size.groups) if size else (0, 0)
    forwards = [run.test_forwards / examples for run in used] if filters.split == "test" and examples else []
    row = Row(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=filters.split,
        kind="control" if one.kind == "control" else "run",
        method=one.method,
        label=group.label,
        ladder=one.ladder,
        student=one.student,
        seeds=tuple(sorted(done)),
        examples=examples,
        groups=of_groups,
        metric=filters.figure,
        values=values,
        train_tflops=_mean(run.train_flops / 1e12 for run in used),
        train_seconds=_mean(run.train_seconds for run in used),
        forwards_per_answer=_mean(forwards),
        parameters=next((run.parameters for run in used if run.parameters is not None), None),
        run_ids=tuple(run.run_id for run in (used or group.members)),
        note=", ".join(said),
        budget=(used or group.members)[0].budget,
    )
    return row, evidence


def _evidence(used: Sequence[Entry], lines: dict[str, Line], sizes: dict[str, Size]) -> Evidence:
    """What the runs of a row say together. Raises `DataError` where they can't be paired."""
    import numpy as np

    from harness import joint

    of_runs = [lines[run.run_id] for run in used]
    if not of_runs:
        return joint.Evidence()
    if problem := next((line.problem for line in of_runs if line.problem), None):
        raise DataError(problem)
    first = of_runs[0].examples
    if other := next((line.examples for line in of_runs if line.examples != first), None):
        raise DataError(
            f"runs on different examples ({sizes[first].examples} and {sizes[other].examples}) can't be paired: "
            "compare runs of one benchmark, split and data fingerprint"
        )
    names = [name for name in of_runs[0].points if all(name in line.points for line in of_runs)]
    draws: dict[str, Floats | None] = {}
    for name in names:
        columns = [drawn for line in of_runs if (drawn := line.draws.get(name)) is not None]
        draws[name] = joint.stack(columns) if len(columns) == len(of_runs) else None
    points = {name: np.array([line.points[name] for line in of_runs]) for name in names}
    return joint.Evidence(tuple(run.seed for run in used), first, points, draws)


def _values(
    used: Sequence[Entry], evidence: Evidence, metric: str, figures: dict[str, dict[str, Interval]]
) -> dict[str, Interval]:
    """Each shown metric over the seeds; one that only the records state has no interval over seeds."""
    from harness import joint

    values = {}
    for name in dict.fromkeys((*SHOWN, metric)):
        stored = [figures[run.run_id][name] for run in used if name in figures.get(run.run_id, {})]
        if name in evidence.points:
            values[name] = joint.interval(evidence, name)
        elif len(stored) == 1 == len(used):
            values[name] = stored[0]
        elif stored and len(stored) == len(used):
            values[name] = Interval(value=sum(s.value for s in stored) / len(stored))
    return values


def _mean(numbers: Iterable[float]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None
