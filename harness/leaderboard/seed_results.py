"""The results of a row on one split: its runs' figures and their replicates, one run per seed.

Replicates (see `harness.stats.replicates`) come from the catalogue if it has them, else from the predictions. All
statistics of rows are computed from these by `harness.leaderboard.inference`, for rankings, comparisons, ablations,
sweeps and the dashboard: so a pair of rows has the same difference, interval and p everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, StoreError
from harness.leaderboard.seed_spread import COLUMNS, SeedSpread, Spreads
from harness.stats import replicates
from harness.stats.metrics import Floats
from harness.stats.replicates import STORED_METRICS, Examples
from harness.store import Store
from harness.store.catalog import BATCH, ExampleCounts, View, option_count
from harness.store.index import RunSummary, from_arrow
from harness.store.manifest import DataKey


@dataclass(frozen=True)
class SeedResults:
    """A row's runs, one per seed, in order of the seeds."""

    seeds: tuple[int, ...] = ()
    groups: int = 0
    size: int = 0
    """The number of answered examples."""
    examples: str = ""
    """Key of the answered examples: only rows with the same key can be paired."""
    any_seed: bool = False
    """A control without a model gives the same answers for every seed: it is paired with every seed."""
    across: str = ""
    """The key shared with rows on other data that have the same method, settings and student."""
    named: str = ""
    """The key shared with rows on other data that have the same label, method, student and budget; "": no label."""
    choices: NDArray[np.int16] | None = None
    """The chosen options (S, N), in the order of the example set; only if they were requested."""
    points: Mapping[str, Floats] = field(default_factory=dict)
    """By metric (S,)."""
    replicates: Mapping[str, Floats | None] = field(default_factory=dict)
    """By metric (n, S); None if all examples are in one group."""
    spread: SeedSpread | None = None
    """How the seeds of all rows on the same data and split differ; None: nothing is known of other rows."""


@dataclass
class RunAnswers:
    """A run's answers to a split: the example set, a possible problem, figures and replicates by metric."""

    examples: str
    problem: str | None
    points: dict[str, float]
    replicates: dict[str, Floats | None]
    chosen_n: NDArray[np.int16] | None = None
    """The choices, if they were requested."""


def of_runs(
    store: Store, rows: Sequence[Mapping[int, str]], split: str, metrics: Sequence[str] = STORED_METRICS
) -> list[SeedResults]:
    """The results of rows, each given as finished runs by seed; empty for a row without runs.

    Metrics that a row's examples don't allow (an unknown category) are missing from it. Raises `DataError` if a
    row's runs can't be paired, `StoreError` if a run has no predictions on the split.
    """
    view, entries = open_runs(store, {run_id for row in rows for run_id in row.values()})
    spreads = Spreads(view, split)
    by_data: dict[DataKey, list[RunSummary]] = defaultdict(list)
    for entry in entries.values():
        by_data[entry.data_key].append(entry)
    answers: dict[str, RunAnswers] = {}
    sizes: dict[str, ExampleCounts] = {}
    for data_key, runs in by_data.items():
        answers |= read_answers(view, data_key, runs, split, [m for m in metrics if m not in STORED_METRICS])
        sizes |= view.sizes(data_key)
    check_answered(store, entries, answers, split)
    return [of_row([entries[row[seed]] for seed in sorted(row)], answers, sizes, spreads) for row in rows]


def open_runs(store: Store, run_ids: Collection[str]) -> tuple[View, dict[str, RunSummary]]:
    """A view of the store, and these runs' entries by id. Raises `KeyError` for a run that isn't there."""
    view = View(store, COLUMNS)
    lines = view.lines()
    found = from_arrow(lines.filter(pc.is_in(lines["run_id"], pa.array(run_ids, pa.string()))))
    entries = {entry.run_id: entry for entry in found}
    return view, {run_id: entries[run_id] for run_id in sorted(run_ids)}


def check_answered(store: Store, run_ids: Collection[str], answers: Collection[str], split: str) -> None:
    """Raise `StoreError` for a run without predictions on the split."""
    if missing := next((run_id for run_id in run_ids if run_id not in answers), None):
        store.predictions(missing)  # raises if the file can't be read
        raise StoreError(f"run {missing} has no predictions on split {split!r}: choose another with --split")


def read_answers(
    view: View,
    data_key: DataKey,
    runs: Sequence[RunSummary],
    split: str,
    more_metrics: Sequence[str] = (),
    with_choices: bool = False,
) -> dict[str, RunAnswers]:
    """The answers of finished runs on the same data, by run; none for a run without predictions on the split.

    `more_metrics` are computed in addition to those in the catalogue, if the examples allow it.
    """
    options = option_count(runs)
    columns = ["run_id", "examples", "problem", *STORED_METRICS, *(f"{name}_draws" for name in STORED_METRICS)]
    columns += ["chosen"] if with_choices or more_metrics else []
    answers: dict[str, RunAnswers] = {}
    for chunk in view.answers(data_key, split, columns, runs):
        plain = chunk.select(["run_id", "examples", "problem", *STORED_METRICS]).to_pylist()
        by_set: dict[str, list[int]] = defaultdict(list)
        for at, line in enumerate(plain):
            points = {name: line[name] for name in STORED_METRICS if line[name] is not None}
            found = RunAnswers(line["examples"], line["problem"], points, dict.fromkeys(points))
            answers[line["run_id"]] = found
            if found.problem is None:
                by_set[found.examples].append(at)
        for key, at_rows in by_set.items():
            of_set = chunk.take(at_rows)
            of_runs = [answers[run_id] for run_id in of_set["run_id"].to_pylist()]
            _unpack(of_runs, of_set, view.sizes(data_key)[key], with_choices)
            if more_metrics:
                examples = view.examples(data_key)[key]
                _replicate(of_runs, examples, of_set["chosen"].to_pylist(), options, more_metrics)
    return answers


def _unpack(of_runs: Sequence[RunAnswers], lines: pa.Table, size: ExampleCounts, with_choices: bool) -> None:
    for name in STORED_METRICS:
        column = lines[f"{name}_draws"]
        if len(column) and column.null_count == 0:  # otherwise there is only one group, and no replicates
            stored_rn = replicates.from_column(name, column, size.examples_per_replicate)
            for run, replicates_n in zip(of_runs, stored_rn, strict=True):
                run.replicates[name] = replicates_n
    if with_choices:
        chosen_rn = replicates.unpack_choices(lines["chosen"].to_pylist(), size.examples)
        for run, chosen_n in zip(of_runs, chosen_rn, strict=True):
            run.chosen_n = chosen_n


def _replicate(
    of_runs: Sequence[RunAnswers],
    examples: Examples,
    chosen: Sequence[bytes],
    options: int | None,
    metrics: Sequence[str],
) -> None:
    """Add metrics that the catalogue has no replicates of; they are computed from the choices."""
    for start in range(0, len(of_runs), BATCH):
        chosen_rn = replicates.unpack_choices(chosen[start : start + BATCH], examples.table.num_rows)
        for metric in metrics:
            try:
                found = replicates.replicate(examples, chosen_rn, options, metric)
            except (ConfigError, DataError):  # these examples don't have that category
                continue
            for r, run in enumerate(of_runs[start : start + BATCH]):
                run.points[metric] = float(found.points_r[r])
                run.replicates[metric] = None if found.replicates_rn is None else found.replicates_rn[r]


def of_row(
    runs: Sequence[RunSummary],
    answers: Mapping[str, RunAnswers],
    sizes: Mapping[str, ExampleCounts],
    spreads: Spreads,
) -> SeedResults:
    """The joint results of a row's runs, one per seed. Raises `DataError` if they can't be paired."""
    if not runs:
        return SeedResults()
    of_runs = [answers[run.run_id] for run in runs]
    if problem := next((f"run {r.run_id}: {a.problem}" for r, a in zip(runs, of_runs, strict=True) if a.problem), None):
        raise DataError(problem)
    first = of_runs[0].examples
    if other := next((one.examples for one in of_runs if one.examples != first), None):
        raise different_examples(sizes[first].examples, sizes[other].examples)
    names = [name for name in of_runs[0].points if all(name in one.points for one in of_runs)]
    stacked: dict[str, Floats | None] = {}
    for name in names:
        columns = [found for one in of_runs if (found := one.replicates.get(name)) is not None]
        stacked[name] = np.stack(columns).T if len(columns) == len(of_runs) else None  # a run's values are contiguous
    chosen = [one.chosen_n for one in of_runs if one.chosen_n is not None]
    return SeedResults(
        seeds=tuple(run.seed for run in runs),
        groups=sizes[first].groups,
        size=sizes[first].examples,
        examples=first,
        any_seed=runs[0].kind == "control" and not runs[0].student,
        choices=np.stack(chosen) if len(chosen) == len(of_runs) else None,
        points={name: np.array([one.points[name] for one in of_runs]) for name in names},
        replicates=stacked,
        spread=spreads.of(runs[0].data_key),
    )


def different_examples(first: int, other: int) -> DataError:
    """The error for runs that answered different numbers of examples."""
    return DataError(
        f"runs on different examples ({first} and {other}) can't be paired: compare runs of one benchmark, split "
        "and data fingerprint"
    )


def with_metrics(row: SeedResults, examples: Examples, options: int | None, metrics: Sequence[str]) -> SeedResults:
    """The row with additional metrics, computed from its choices. Raises `ConfigError` for an unknown one."""
    assert row.choices is not None
    found = replicates.replicate_all(examples, row.choices, options, metrics)
    points = {name: one.points_r for name, one in found.items()}
    more = {name: None if one.replicates_rn is None else one.replicates_rn.T for name, one in found.items()}
    return replace(row, points={**row.points, **points}, replicates={**row.replicates, **more})
