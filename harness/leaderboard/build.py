"""One table of a ranking: its runs' answers from the catalogue or their folders, and one row per group of seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.errors import DataError
from harness.evaluation import controls
from harness.leaderboard import extra_columns, inference, query
from harness.leaderboard.extra_columns import ResultsByRow
from harness.leaderboard.names import Group
from harness.leaderboard.query import Stated
from harness.leaderboard.schema import SHOWN, BrokenRun, Filters, Row, Table
from harness.leaderboard.seed_results import RunAnswers, SeedResults, of_row, read_answers
from harness.leaderboard.seed_spread import Spreads
from harness.record import Interval, Record, Reproduction
from harness.stats.bootstrap import METRICS
from harness.stats.replicates import STORED_METRICS
from harness.store import checksums
from harness.store.catalog import ExampleCounts, View
from harness.store.index import RunSummary
from harness.store.manifest import DataKey
from harness.suite import FLOPS_OF

OF_BENCHMARK = ("benchmark_settings", "skip_missing")
"""Parts of a run's configuration that belong to its benchmark; they don't separate rows across benchmarks."""
ONE_SEED = "one seed: how much seeds differ is taken from all rows"


def make_table(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: Stated,
    spreads: Spreads,
) -> tuple[Table, list[Row], ResultsByRow]:
    """The table of these groups, best first, as the filters show it; all its rows; and the results behind them.

    `figures` are needed for a metric that is only in the records.
    """
    shown = [group for group in groups if query.asked_for(group, filters)]
    beside: list[Group] = []
    if filters.among_shown:
        groups, beside = shown, query.tuned(groups, shown)
    answers = _answers(view, data_key, [*groups, *beside], filters, figures)
    damaged = view.unreadable | {run_id: one.problem for run_id, one in answers.items() if one.problem}
    sizes = view.sizes(data_key)
    pairs = [_row(data_key, group, filters, figures, answers, damaged, sizes, spreads) for group in [*groups, *beside]]
    results = {row.run_ids: of_row for row, of_row in pairs}
    everyone = _with_figures([row for row, _ in pairs], [of_row for _, of_row in pairs])
    rows, others = everyone[: len(groups)], everyone[len(groups) :]
    rows = _attested(view, rows)
    rows = inference.ranked_with_intervals(rows, [results[row.run_ids] for row in rows], filters.baseline)
    rows = extra_columns.with_pareto(_flagged(rows))
    everyone = rows = extra_columns.with_direct(rows, others, results)
    wanted = set(map(id, shown))
    kept = {row.run_ids for group, (row, _) in zip(groups, pairs, strict=False) if id(group) in wanted}
    rows = [row for row in rows if row.run_ids in kept]
    of_pairs = inference.pairs(rows, [results[row.run_ids] for row in rows]) if filters.pairs else []
    if "distil" in filters.columns:
        rows = extra_columns.with_distil(rows, [*everyone, *others], results, view.examples(data_key), filters)
    if "power" in filters.columns:
        rows = extra_columns.with_power(rows, results)
    budgets = {row.budget for row in rows if row.kind == "run" and row.budget}
    table = Table(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=filters.split,
        metric=filters.figure,
        rows=tuple(rows),
        budgets=tuple(sorted(budgets)),
        broken=tuple(
            BrokenRun(run_id=run.run_id, message=damaged[run.run_id])
            for run in sorted(run for group in groups for run in group.members)
            if run.run_id in damaged
        ),
        pairs=tuple(of_pairs),
    )
    return table, everyone, results


def of_metric(results: ResultsByRow, metric: str) -> ResultsByRow:
    """The rows' results without the replicates of other metrics and without choices."""
    return {
        run_ids: replace(one, replicates={n: d for n, d in one.replicates.items() if n == metric}, choices=None)
        for run_ids, one in results.items()
    }


def _flagged(rows: Sequence[Row]) -> list[Row]:
    """A control whose interval is above chance gets a note: see `controls.flag`."""
    constant = [r.values["accuracy"].value for r in rows if controls.is_constant(r.method) and "accuracy" in r.values]
    result = []
    for row in rows:
        said = ""
        if row.kind == "control" and row.chance is not None and "accuracy" in row.values:
            said = controls.flag(row.method, row.values["accuracy"], row.chance, max(constant, default=None))
        result.append(row.model_copy(update={"note": ", ".join(filter(None, (row.note, said)))}) if said else row)
    return result


def _attested(view: View, rows: Sequence[Row]) -> list[Row]:
    """The rows with what is known of their runs that were trained again."""
    names = checksums.attested_names(view.store.backend)
    result = []
    for row in rows:
        last: dict[str, Reproduction] = {}
        said = [row.note] if row.note else []
        for run_id in row.run_ids if names else ():
            record = view.store.load(run_id) if run_id in names else None
            if isinstance(record, Record):
                found, wrong = checksums.reproductions(record, view.store.backend, names[run_id])
                said += wrong
                if found:
                    last[run_id] = found[-1]
        changed = {
            "reproduced": tuple(run_id for run_id, one in last.items() if one.reproduced),
            "refuted": tuple(run_id for run_id, one in last.items() if not one.reproduced),
            "note": ", ".join(said),
        }
        result.append(row.model_copy(update=changed))
    return result


def _answers(
    view: View,
    data_key: DataKey,
    groups: Sequence[Group],
    filters: Filters,
    figures: Stated,
) -> dict[str, RunAnswers]:
    """The answers of all finished runs of a table, by run."""
    done = [run for group in groups for run in group.members if run.status == "done"]
    metric = filters.figure
    by_category = metric.startswith("accuracy/") and any(metric in figures.get(run.run_id, {}) for run in done)
    more = [metric] if by_category or (metric in METRICS and metric not in STORED_METRICS) else []
    return read_answers(view, data_key, done, filters.split, more, "distil" in filters.columns)


def _row(
    data_key: DataKey,
    group: Group,
    filters: Filters,
    figures: Stated,
    answers: dict[str, RunAnswers],
    damaged: Mapping[str, str],
    sizes: dict[str, ExampleCounts],
    spreads: Spreads,
) -> tuple[Row, SeedResults]:
    notes: Counter[str] = Counter(run.status for run in group.members if run.status != "done")
    done: dict[int, RunSummary] = {}
    left_out: list[str] = []
    for run in sorted((run for run in group.members if run.status == "done"), key=lambda run: run.finished):
        if run.run_id in damaged:
            left_out.append(f"seed {run.seed} is left out: {damaged[run.run_id]}")
            continue
        if run.run_id not in answers:
            notes["without predictions"] += 1
            continue
        notes["superseded by a later run of the same seed"] += run.seed in done
        done[run.seed] = run
    used = [done[seed] for seed in sorted(done)]
    said = [*(f"{count} {what}" for what, count in notes.items() if count), *left_out]
    if len(numbers := sorted({run.training for run in used})) > 1:
        said.append(f"seeds of versions {' and '.join(map(str, numbers))} of training")
    elif len(codes := {run.code for run in used}) > 1:
        said.append(f"seeds of {len(codes)} versions of the code")
    of_runs, values = SeedResults(), {}
    try:
        of_runs = of_row(used, answers, sizes, spreads)
        if len(used) == 1 and inference.prior_of(of_runs, filters.figure):
            said.append(ONE_SEED)
        values = _stated(used, filters.figure, figures)
    except DataError as error:
        said.append(f"no figures: {error}")
    one = group.members[0]
    said += [
        f"learned from {one.budget:,} examples: as many as its training takes for the FLOPs of {like}, as planned"
        for like in dict.fromkeys(tag.removeprefix(FLOPS_OF) for tag in one.tags if tag.startswith(FLOPS_OF))
        if one.budget
    ]
    size = sizes.get(answers[used[0].run_id].examples) if used else None
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
        tokens_per_answer=_mean(
            f["answer_tokens"].value for run in used if "answer_tokens" in (f := figures.get(run.run_id, {}))
        ),
        **(_spent(used, filters.split) if one.kind == "run" else {}),
    )
    return row, replace(of_runs, across=_across(one), named=_named(group))


def _spent(used: Sequence[RunSummary], split: str) -> dict[str, float | None]:
    """The costs of a row's runs that aren't in every table: means, except for memory (the maximum)."""

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
    """The identity of a row, without the benchmark's own part of the configuration."""
    compared = {key: value for key, value in json.loads(run.identity).items() if key not in OF_BENCHMARK}
    return json.dumps([run.kind, run.method, run.student, compared], sort_keys=True)


def _named(group: Group) -> str:
    """The identity of a row with a label, which may be tuned for each benchmark; empty for others."""
    run = group.members[0]
    return json.dumps([run.kind, run.method, run.ladder, run.student, run.budget, group.name]) if group.name else ""


def _stated(used: Sequence[RunSummary], metric: str, figures: Stated) -> dict[str, Interval]:
    """The recorded values of the shown metrics that can't be computed: no interval over seeds."""
    values = {}
    for name in dict.fromkeys((*SHOWN, metric)):
        stored = [figures[run.run_id][name] for run in used if name in figures.get(run.run_id, {})]
        if len(stored) == 1 == len(used):
            values[name] = stored[0]
        elif stored and len(stored) == len(used):
            values[name] = Interval(value=sum(s.value for s in stored) / len(stored))
    return values


def _with_figures(rows: Sequence[Row], results: Sequence[SeedResults]) -> list[Row]:
    """The rows with each shown metric over the seeds, if it can be computed."""
    names = dict.fromkeys(name for row in rows for name in (*SHOWN, row.metric))
    found = {name: inference.intervals(results, name) for name in names}
    result = []
    for k, row in enumerate(rows):
        values = {name: found[name].get(k) or row.values.get(name) for name in names}
        result.append(row.model_copy(update={"values": {name: v for name, v in values.items() if v is not None}}))
    return result


def _mean(numbers: Iterable[float]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None
