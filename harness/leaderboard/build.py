"""One table of a ranking: its runs' answers from the catalogue or their folders, and a row for each group of seeds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError
from harness.evaluation import controls
from harness.leaderboard import extra_columns as columns
from harness.leaderboard import inference
from harness.leaderboard.extra_columns import Evidences
from harness.leaderboard.inference import Evidence
from harness.leaderboard.names import Group
from harness.leaderboard.query import Stated
from harness.leaderboard.schema import SHOWN, Filters, Row, Table
from harness.record import Interval
from harness.stats import inference as stats
from harness.stats import replicates
from harness.stats.metrics import Floats
from harness.store.catalog import BATCH, ExampleCounts, View
from harness.store.index import RunSummary
from harness.store.manifest import DataKey

OF_BENCHMARK = ("benchmark_settings", "skip_missing")
"""Parts of a run's configuration that are its benchmark's: they don't part rows across benchmarks."""


def make_table(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: Stated,
    beside: Sequence[Group] = (),
) -> tuple[Table, Evidences]:
    """The table of these groups, best first, and what its rows rest on.

    `figures` are needed for a metric that only records state. Those `beside` aren't in the table, but may be the
    teachers of rows that are.
    """
    lines = _lines(view, data_key, [*groups, *beside], filters, figures)
    sizes = view.sizes(data_key)
    pairs = [_row(data_key, group, filters, figures, lines, sizes) for group in [*groups, *beside]]
    evidence = {row.run_ids: of_row for row, of_row in pairs}
    everyone = _with_figures([row for row, _ in pairs], [of_row for _, of_row in pairs])
    rows, others = everyone[: len(groups)], everyone[len(groups) :]
    rows = inference.judged(rows, [evidence[row.run_ids] for row in rows], filters.baseline)
    rows = columns.with_pareto(_flagged(rows))
    if "distil" in filters.columns:
        rows = columns.with_distil(rows, others, evidence, view.examples(data_key), filters)
    if "power" in filters.columns:
        rows = columns.with_power(rows, evidence)
    budgets = {row.budget for row in rows if row.kind == "run" and row.budget}
    table = Table(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=filters.split,
        metric=filters.figure,
        rows=tuple(rows),
        budgets=tuple(sorted(budgets)),
    )
    return table, evidence


def of_metric(evidence: Evidences, metric: str) -> Evidences:
    """What rows rest on, the draws of other metrics and the choices let go."""
    return {
        run_ids: replace(one, draws={n: d for n, d in one.draws.items() if n == metric}, choices=None)
        for run_ids, one in evidence.items()
    }


def _flagged(rows: Sequence[Row]) -> list[Row]:
    """A control whose interval lies above chance has that in its note: see `controls.flag`."""
    constant = [r.values["accuracy"].value for r in rows if controls.is_constant(r.method) and "accuracy" in r.values]
    result = []
    for row in rows:
        said = ""
        if row.kind == "control" and row.chance is not None and "accuracy" in row.values:
            said = controls.flag(row.method, row.values["accuracy"], row.chance, max(constant, default=None))
        result.append(row.model_copy(update={"note": ", ".join(filter(None, (row.note, said)))}) if said else row)
    return result


@dataclass
class Line:
    """A run's answers to the split: what they were to, what was wrong with them, figures and draws by metric."""

    examples: str
    problem: str | None
    points: dict[str, float]
    draws: dict[str, Floats | None]
    chosen_n: NDArray[np.int16] | None = None
    """The choices, where they were asked for."""


def _lines(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: Stated,
) -> dict[str, Line]:
    """The answers of all finished runs of a table, by run: from the catalogue where it has them."""
    done = [run for group in groups for run in group.members if run.status == "done"]
    options = next((len(run.options) for run in done if run.options), None)
    metric = filters.figure
    by_category = metric.startswith("accuracy/") and any(metric in figures.get(run.run_id, {}) for run in done)
    extra = metric if by_category or (metric in stats.METRICS and metric not in replicates.KEPT) else None
    choices = extra is not None or "distil" in filters.columns
    wanted = ["run_id", "examples", "problem", *replicates.KEPT, *(f"{name}_draws" for name in replicates.KEPT)]
    lines: dict[str, Line] = {}
    for chunk in view.answers(data_key, filters.split, [*wanted, *(["chosen"] if choices else [])], done):
        plain = chunk.select(["run_id", "examples", "problem", *replicates.KEPT]).to_pylist()
        for line in plain:
            points = {name: line[name] for name in replicates.KEPT if line[name] is not None}
            lines[line["run_id"]] = Line(line["examples"], line["problem"], points, dict.fromkeys(points))
        by_set: dict[str, list[int]] = defaultdict(list)
        for at, line in enumerate(plain):
            if line["problem"] is None:
                by_set[line["examples"]].append(at)
        sizes = view.sizes(data_key)
        for key, rows in by_set.items():
            of_set = chunk.take(rows)
            ids = of_set["run_id"].to_pylist()
            for name in replicates.KEPT:
                column = of_set[f"{name}_draws"]
                if column.null_count == 0:  # else all examples are of one group: no run on them has draws
                    draws_rn = replicates.from_column(name, column, sizes[key].golds_n)
                    for run_id, draws_n in zip(ids, draws_rn, strict=True):
                        lines[run_id].draws[name] = draws_n
            if "distil" in filters.columns:
                chosen_rn = replicates.unpack_choices(of_set["chosen"].to_pylist(), sizes[key].examples)
                for run_id, chosen_n in zip(ids, chosen_rn, strict=True):
                    lines[run_id].chosen_n = chosen_n
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
    examples = view.examples(data_key)[key]
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        chosen_rn = replicates.unpack_choices(chosen[start : start + BATCH], examples.table.num_rows)
        try:
            drawn = replicates.draw(examples, chosen_rn, options, metric)
        except (ConfigError, DataError):  # these examples have none of that category
            return
        for r, run_id in enumerate(part):
            lines[run_id].points[metric] = float(drawn.points_r[r])
            lines[run_id].draws[metric] = None if drawn.draws_rn is None else drawn.draws_rn[r]


def _row(
    data_key: DataKey,
    group: Group,
    filters: Filters,
    figures: Stated,
    lines: dict[str, Line],
    sizes: dict[str, ExampleCounts],
) -> tuple[Row, Evidence]:
    notes: Counter[str] = Counter(run.status for run in group.members if run.status != "done")
    done: dict[int, RunSummary] = {}
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
    evidence, values = Evidence(), {}
    try:
        evidence = _evidence(used, lines, sizes)
        values = _stated(used, filters.figure, figures)
    except DataError as error:
        said.append(f"no figures: {error}")
    one = group.members[0]
    size = sizes.get(lines[used[0].run_id].examples) if used else None
    examples, of_groups = (size.examples, size.groups) if size else (0, 0)
    row = Row(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=filters.split,
        kind="control" if one.kind == "control" else "run",
        method=one.method,
        label=group.label,
        name=group.name,
        spelled=group.spelled,
        plain=group.plain,
        shared=group.shared,
        shared_by_method=group.shared_by_method,
        ladder=one.ladder,
        student=one.student,
        seeds=tuple(sorted(done)),
        examples=examples,
        groups=of_groups,
        metric=filters.figure,
        values=values,
        train_tflops=_mean(run.train_flops / 1e12 for run in used if run.train_flops is not None),
        train_seconds=_mean(run.train_seconds for run in used if run.train_seconds is not None),
        forwards_per_answer=_mean(run.forwards for run in used if run.forwards is not None),
        parameters=next((run.parameters for run in used if run.parameters is not None), None),
        run_ids=tuple(run.run_id for run in (used or group.members)),
        chance=_mean(run.chance for run in used if run.chance is not None),
        note=", ".join(said),
        budget=(used or group.members)[0].budget,
        **(_spent(used, filters.split) if one.kind == "run" else {}),
    )
    return row, replace(evidence, across=_across(one))


def _spent(used: Sequence[RunSummary], split: str) -> dict[str, float | None]:
    """What the runs of a row cost, beside the fields that every table shows: means, but the largest of memory."""

    def mean(numbers: Iterable[float | None], unit: float = 1.0) -> float | None:
        return _mean(number / unit for number in numbers if number is not None)

    asked = [run for run in used if run.test_examples and run.test_seconds and split == "test"]
    memory = [run.peak_memory_bytes / 2**20 for run in used if run.peak_memory_bytes]
    return {
        "student_tflops": mean((run.student_flops for run in used), 1e12),
        "teacher_tflops": mean((run.teacher_flops for run in used), 1e12),
        "student_seconds": mean(run.student_seconds for run in used),
        "teacher_seconds": mean(run.teacher_seconds for run in used),
        "cache_share": mean(run.cache_share for run in used),
        "ms_per_example": _mean(1000 * run.test_seconds / (run.test_examples or 1) for run in asked),
        "peak_memory_mib": max(memory, default=None),
    }


def _across(run: RunSummary) -> str:
    """What makes a row, the benchmark's own part of the configuration left out."""
    compared = {key: value for key, value in json.loads(run.identity).items() if key not in OF_BENCHMARK}
    return json.dumps([run.kind, run.method, run.student, compared], sort_keys=True)


def _evidence(used: Sequence[RunSummary], lines: dict[str, Line], sizes: dict[str, ExampleCounts]) -> Evidence:
    """What the runs of a row say together. Raises `DataError` where they can't be paired."""
    of_runs = [lines[run.run_id] for run in used]
    if not of_runs:
        return Evidence()
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
        draws[name] = np.stack(columns).T if len(columns) == len(of_runs) else None  # a run's lie side by side
    points = {name: np.array([line.points[name] for line in of_runs]) for name in names}
    chosen = [line.chosen_n for line in of_runs if line.chosen_n is not None]
    return Evidence(
        seeds=tuple(run.seed for run in used),
        groups=sizes[first].groups,
        size=sizes[first].examples,
        examples=first,
        choices=np.stack(chosen) if len(chosen) == len(of_runs) else None,
        points=points,
        draws=draws,
    )


def _stated(used: Sequence[RunSummary], metric: str, figures: Stated) -> dict[str, Interval]:
    """What the records state of the shown metrics, for those that can't be computed: no interval over seeds."""
    values = {}
    for name in dict.fromkeys((*SHOWN, metric)):
        stored = [figures[run.run_id][name] for run in used if name in figures.get(run.run_id, {})]
        if len(stored) == 1 == len(used):
            values[name] = stored[0]
        elif stored and len(stored) == len(used):
            values[name] = Interval(value=sum(s.value for s in stored) / len(stored))
    return values


def _with_figures(rows: Sequence[Row], evidence: Sequence[Evidence]) -> list[Row]:
    """The rows with each shown metric over the seeds, where it can be computed."""
    names = dict.fromkeys(name for row in rows for name in (*SHOWN, row.metric))
    found = {name: inference.intervals(evidence, name) for name in names}
    result = []
    for k, row in enumerate(rows):
        values = {name: found[name].get(k) or row.values.get(name) for name in names}
        result.append(row.model_copy(update={"values": {name: v for name, v in values.items() if v is not None}}))
    return result


def _mean(numbers: Iterable[float]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None
