"""Two rows, or two runs, side by side: paired differences, shared errors, and the examples on which they disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.api import Split
from harness.errors import ConfigError, DataError, near
from harness.leaderboard import inference, leaderboard
from harness.leaderboard.names import is_named
from harness.leaderboard.schema import Filters, Row
from harness.leaderboard.seed_results import (
    SeedResults,
    check_answered,
    different_examples,
    of_row,
    open_runs,
    read_answers,
    with_metrics,
)
from harness.leaderboard.seed_spread import Spreads
from harness.record import Interval, Record
from harness.stats import distillation, power
from harness.stats.bootstrap import METRICS
from harness.stats.inference import Difference, holm, mcnemar
from harness.stats.replicates import Examples
from harness.store import Store


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run, or all seeds of a row."""

    name: str
    benchmark: str
    data: tuple[str, str]
    """Revision and fingerprint."""
    runs: Mapping[int, str]
    """Run ids by seed."""
    options: tuple[str, ...] | None
    forwards: float | None = None
    """Forward passes per answer on test."""
    left_out: tuple[str, ...] = ()
    """Of a row: the runs of the store that can't be read, which may be further seeds of it."""
    budget: int | None = None
    """Examples that the student learned from: 0 untrained, None unknown."""


@dataclass(frozen=True)
class Category:
    """The difference in accuracy within a category, and its p with Holm's correction over all categories."""

    name: str
    examples: int
    difference: Difference
    p_holm: float | None


@dataclass(frozen=True)
class McNemar:
    """For one seed: the number of examples that only one side has right, and the exact p."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Disagreement:
    """An example on which one side is right more often. `a` and `b`: the choices by seed, -1 for no answer."""

    id: str
    group: str
    category: str
    gold: int
    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """A minus B on one split. Shares are fractions of all examples."""

    a: Side
    b: Side
    split: str
    metric: str
    examples: int
    values: tuple[float, float]
    """The metric of A and of B, mean over their common seeds."""
    difference: Difference
    categories: tuple[Category, ...]
    mcnemar: McNemar | None
    """None with several seeds."""
    agreement: Interval
    errors: distillation.Errors
    """A's errors compared with B's: inherited (both wrong), introduced (only A), fixed (only B)."""
    parted: tuple[Disagreement, ...]
    """The first ones; examples on which all seeds disagree come first."""
    parted_in_all: int
    power: power.PowerReport | None
    """What would make the two significantly different; None if all examples are about one image."""


# ----------------------------------------------------------------------------------- the two sides


def sides(store: Store, a: str, b: str, split: Split = "test", benchmark: str | None = None) -> tuple[Side, Side]:
    """The sides that two names stand for: a run id or its prefix, or a row of the ranking.

    A row's name is its label, or `method[@student][ key=value ...]` with settings that its user set. A row with exactly
    these keys has priority over rows with more.
    Raises `ConfigError` for a name that matches nothing or several, and for two that aren't on the same data.
    """
    ids = store.ids()
    runs = {who: _run(store, ids, who) for who in (a, b)}
    rows: list[Row] = []
    broken: tuple[str, ...] = ()
    if None in runs.values():
        known = {found.benchmark for found in runs.values() if found}
        asked = Filters(benchmark=benchmark or (known.pop() if len(known) == 1 else None), split=split)
        ranked = leaderboard.ranking(store, asked)
        rows, broken = [row for row in ranked.rows if row.seeds], tuple(map(str, ranked.broken))
    found_a, found_b = (_sides(who, runs[who], rows, store, broken) for who in (a, b))
    pairs = [(x, y) for x in found_a for y in found_b if (x.benchmark, x.data) == (y.benchmark, y.data)]
    pairs = [pair for pair in pairs if benchmark in (None, pair[0].benchmark)]
    if not pairs:
        on_a, on_b = (", ".join(sorted({side.benchmark for side in found})) for found in (found_a, found_b))
        raise ConfigError(f"{a!r} (on {on_a}) and {b!r} (on {on_b}) have no data in common: compare rows of one table")
    if len({(x.benchmark, x.data) for x, _ in pairs}) > 1:
        several = sorted({x.benchmark for x, _ in pairs})
        hint = "choose with --benchmark" if len(several) > 1 else "name run ids: its data have several versions"
        raise ConfigError(f"{a!r} and {b!r} are both on {', '.join(several)}: {hint}")
    for who, names in ((a, {x.name for x, _ in pairs}), (b, {y.name for _, y in pairs})):
        if len(names) > 1:
            raise ConfigError(f"{who!r} could be any of: {'; '.join(sorted(names))}; add what distinguishes them")
    return pairs[0]


def _run(store: Store, ids: Sequence[str], who: str) -> Record | None:
    """The run with this id or prefix, None if there is none."""
    starts = [name for name in ids if name.startswith(who)]
    if not starts:
        return None
    loaded = (store.load(name) for name in starts) if who not in ids and len(starts) > 1 else ()
    if any(isinstance(found, Record) and found.method == who for found in loaded):
        return None  # the name of a method: its runs' ids begin with it
    return store.find(who)


def _sides(who: str, run: Record | None, rows: Sequence[Row], store: Store, broken: tuple[str, ...]) -> list[Side]:
    if run is not None:
        if run.status != "done" or run.data is None:
            raise ConfigError(f"run {run.run_id} is {run.status}: expected a finished run")
        return [_side(run.run_id, run, {run.seed: run.run_id})]
    head, *settings = who.split()
    method, _, student = head.partition("@")
    labelled = [row for row in rows if row.name and is_named(who, row.student, (row.label,))]
    fitting = [row for row in rows if row.method == method and student in ("", row.student)]
    fitting = labelled or [row for row in fitting if set(settings) <= _words(row.spelled)]
    fitting = fitting or [row for row in rows if is_named(who, row.student, (row.label,))]
    if not fitting:
        known = {_name(row) for row in rows} | {row.method for row in rows}
        raise ConfigError(f"no run or row {who!r} in the store; {near(who, known)}")
    found = []
    for data_key in dict.fromkeys(row.data_key for row in fitting):
        of_data = [row for row in fitting if row.data_key == data_key]
        exact = [row for row in of_data if set(settings) in map(_words, filter(None, (row.spelled, row.plain)))]
        for row in exact or of_data:
            runs = dict(zip(row.seeds, row.run_ids, strict=True))
            found.append(_side(_name(row), store.read(row.run_ids[0]), runs, broken))
    return found


def _words(name: str) -> set[str]:
    """The settings in a row's name."""
    return set(name.split()[1:])


def _name(row: Row) -> str:
    if row.name:
        return f"{row.label}@{row.student}" if row.student else row.label
    head, *settings = row.spelled.split()
    return " ".join([f"{head}@{row.student}" if row.student else head, *settings])


def _side(name: str, record: Record, runs: Mapping[int, str], left_out: tuple[str, ...] = ()) -> Side:
    assert record.data is not None
    options = tuple(record.data.options) if record.data.options else None
    data = record.data.revision, record.data.fingerprint
    return Side(name, record.benchmark, data, runs, options, _forwards(record), left_out, record.budget)


def _forwards(record: Record) -> float | None:
    answers = record.data.sizes.get("test") if record.data else None
    return record.cost.test_forwards / answers if answers and record.cost.test_forwards else None


# ---------------------------------------------------------------------------------------- the figures


def compare(
    store: Store, a: Side, b: Side, split: Split = "test", metric: str = "accuracy", examples: int = 10
) -> Comparison:
    """A minus B over their common seeds, from the same replicates as the ranking.

    Two single runs are paired whatever their seeds. Raises `ConfigError` for a metric that can't be computed from
    predictions, `DataError` without a common seed or on different examples, `StoreError` without predictions.
    """
    if ":" in metric:
        known = [*METRICS, "accuracy/<category>"]
        raise ConfigError(f"metric {metric!r} has no paired difference; {near(metric, known)}")
    of_a, of_b, answered = _read(store, a, b, split)
    ids, categories = (answered.table[name].to_pylist() for name in ("id", "category"))
    counts = Counter(categories)
    within = {name: f"accuracy/{name}" for name in sorted(counts)}
    wanted = [name for name in dict.fromkeys((metric, *within.values())) if name not in of_a.points]
    options = len(a.options) if a.options else None
    of_a, of_b = (with_metrics(side, answered, options, wanted) for side in (of_a, of_b))
    difference = inference.difference(of_a, of_b, metric)
    if difference is None:
        raise DataError(f"no seed in common: one side has {list(of_a.seeds)}, the other {list(of_b.seeds)}")
    seeds = difference.seeds
    of_categories = {name: found for name, key in within.items() if (found := inference.difference(of_a, of_b, key))}
    known_p = {name: found.p for name, found in of_categories.items() if found.p is not None}
    p_holm = dict(zip(known_p, holm(list(known_p.values())), strict=True))
    chosen_a, chosen_b = (inference.choices_of(side, seeds) for side in (of_a, of_b))
    shares = distillation.shares(chosen_a, chosen_b, answered.gold_n, *answered.grouped)
    disagreements = _disagreements(answered, chosen_a, chosen_b)
    (point_a, _), (point_b, _) = (inference.of_seeds(side, seeds, metric) for side in (of_a, of_b))
    noise = inference.noise(of_a, of_b, seeds, metric)
    return Comparison(
        a=a,
        b=b,
        split=split,
        metric=metric,
        examples=len(ids),
        values=(float(point_a.mean()), float(point_b.mean())),
        difference=difference,
        categories=tuple(Category(name, counts[name], d, p_holm.get(name)) for name, d in of_categories.items()),
        mcnemar=McNemar(*mcnemar(*(side[0] == answered.gold_n for side in (chosen_a, chosen_b))))
        if len(seeds) == 1
        else None,
        agreement=shares.pop("same"),
        errors=distillation.Errors(**shares),
        parted=tuple(disagreements[:examples]),
        parted_in_all=len(disagreements),
        power=power.power_report(noise, difference.value) if noise else None,
    )


def _read(store: Store, a: Side, b: Side, split: Split) -> tuple[SeedResults, SeedResults, Examples]:
    """The results of both sides with their choices, and the examples that both answered."""
    view, entries = open_runs(store, {*a.runs.values(), *b.runs.values()})
    data_key = entries[next(iter(a.runs.values()))].data_key
    answers = read_answers(view, data_key, list(entries.values()), split, with_choices=True)
    check_answered(store, entries, answers, split)
    sizes, spreads = view.sizes(data_key), Spreads(view, split)
    of_a, of_b = (of_row([entries[s.runs[seed]] for seed in sorted(s.runs)], answers, sizes, spreads) for s in (a, b))
    if of_a.examples != of_b.examples:
        raise different_examples(of_a.size, of_b.size)
    if len(of_a.seeds) == len(of_b.seeds) == 1 and not (of_a.any_seed or of_b.any_seed):
        of_b = replace(of_b, seeds=of_a.seeds)
    return of_a, of_b, view.examples(data_key)[of_a.examples]


def _disagreements(examples: Examples, a_sn: NDArray[np.int16], b_sn: NDArray[np.int16]) -> list[Disagreement]:
    """The examples on which one side is right with more seeds, largest differences first."""
    lead_n = (a_sn == examples.gold_n).sum(0) - (b_sn == examples.gold_n).sum(0)
    places = sorted(np.flatnonzero(lead_n).tolist(), key=lambda i: -abs(int(lead_n[i])))
    ids, groups, categories = (examples.table[name].to_pylist() for name in ("id", "group", "category"))
    return [
        Disagreement(
            ids[i],
            groups[i],
            categories[i],
            int(examples.gold_n[i]),
            tuple(a_sn[:, i].tolist()),
            tuple(b_sn[:, i].tolist()),
        )
        for i in places
    ]
