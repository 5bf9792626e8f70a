"""Two rows, or two runs, side by side: paired differences, whose errors, and the examples that they part on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import Split
from harness.errors import ConfigError, StoreError, near
from harness.leaderboard import leaderboard
from harness.leaderboard.names import is_named
from harness.leaderboard.schema import Row
from harness.record import Interval, Record
from harness.report.format import forwards_apart, percent, short
from harness.report.text import WIDTH
from harness.stats import distillation, inference, power
from harness.stats.bootstrap import aligned
from harness.stats.inference import Difference
from harness.store import Store

RESAMPLES = 10_000


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
    """Forward passes an answer on test."""


@dataclass(frozen=True)
class Category:
    """The difference in accuracy within a category, and its p by Holm over all categories."""

    name: str
    examples: int
    difference: Difference
    p_holm: float | None


@dataclass(frozen=True)
class McNemar:
    """Of one seed: the examples that one alone has right, and the exact p."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Parted:
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
    """A's errors beside B's: inherited (both wrong), introduced (A alone), fixed (B alone)."""
    parted: tuple[Parted, ...]
    """The first of them, those that all seeds part on before the rest."""
    parted_in_all: int
    power: power.Told | None
    """What would tell the two apart; None where all examples are about one image."""


# ----------------------------------------------------------------------------------- who is compared


def sides(store: Store, a: str, b: str, split: Split = "test", benchmark: str | None = None) -> tuple[Side, Side]:
    """What two names mean: a run id, or its beginning, or a row of the ranking.

    A row is named by its label, or as `method[@student][ key=value ...]` with settings that its user set; a row that
    has just these goes before rows that have more.
    Raises `ConfigError` for a name that fits nothing or several, and for two that aren't on the same data.
    """
    ids = store.ids()
    runs = {who: _run(store, ids, who) for who in (a, b)}
    rows: list[Row] = []
    if None in runs.values():
        known = {found.benchmark for found in runs.values() if found}
        rows = [
            row
            for row in leaderboard.table(store, benchmark or (known.pop() if len(known) == 1 else None), split=split)
            if row.seeds
        ]
    found_a, found_b = (_sides(who, runs[who], rows, store) for who in (a, b))
    pairs = [(x, y) for x in found_a for y in found_b if (x.benchmark, x.data) == (y.benchmark, y.data)]
    pairs = [pair for pair in pairs if benchmark in (None, pair[0].benchmark)]
    if not pairs:
        on_a, on_b = (", ".join(sorted({side.benchmark for side in found})) for found in (found_a, found_b))
        raise ConfigError(f"{a!r} (on {on_a}) and {b!r} (on {on_b}) never saw the same data: compare rows of one table")
    if len({(x.benchmark, x.data) for x, _ in pairs}) > 1:
        several = sorted({x.benchmark for x, _ in pairs})
        hint = "choose with --benchmark" if len(several) > 1 else "name run ids: its data have several versions"
        raise ConfigError(f"{a!r} and {b!r} are both on {', '.join(several)}: {hint}")
    for who, names in ((a, {x.name for x, _ in pairs}), (b, {y.name for _, y in pairs})):
        if len(names) > 1:
            raise ConfigError(f"{who!r} could be any of: {'; '.join(sorted(names))}; add what tells them apart")
    return pairs[0]


def _run(store: Store, ids: Sequence[str], who: str) -> Record | None:
    """The run with this id or beginning of one, None where no id begins so."""
    starts = [name for name in ids if name.startswith(who)]
    if not starts:
        return None
    if who not in ids and len(starts) > 1 and store.read(starts[0]).method == who:
        return None  # a method's name, with which the ids of its runs begin
    return store.find(who)


def _sides(who: str, run: Record | None, rows: Sequence[Row], store: Store) -> list[Side]:
    if run is not None:
        if run.status != "done" or run.data is None:
            raise ConfigError(f"run {run.run_id} is {run.status}: expected a finished run")
        return [_side(run.run_id, run, {run.seed: run.run_id})]
    head, *settings = who.split()
    method, _, student = head.partition("@")
    labelled = [row for row in rows if row.name and is_named(who, row.student, (row.label,))]
    fitting = [row for row in rows if row.method == method and student in ("", row.student)]
    fitting = labelled or [row for row in fitting if set(settings) <= _words(row.spelled)]
    if not fitting:
        known = {_name(row) for row in rows} | {row.method for row in rows}
        raise ConfigError(f"no run or row {who!r} in the store; {near(who, known)}")
    found = []
    for data_key in dict.fromkeys(row.data_key for row in fitting):
        of_data = [row for row in fitting if row.data_key == data_key]
        exact = [row for row in of_data if set(settings) in map(_words, filter(None, (row.spelled, row.plain)))]
        for row in exact or of_data:
            runs = dict(zip(row.seeds, row.run_ids, strict=True))
            found.append(_side(_name(row), store.read(row.run_ids[0]), runs))
    return found


def _words(name: str) -> set[str]:
    """The settings in a row's name."""
    return set(name.split()[1:])


def _name(row: Row) -> str:
    if row.name:
        return f"{row.label}@{row.student}" if row.student else row.label
    head, *settings = row.spelled.split()
    return " ".join([f"{head}@{row.student}" if row.student else head, *settings])


def _side(name: str, record: Record, runs: Mapping[int, str]) -> Side:
    assert record.data is not None
    options = tuple(record.data.options) if record.data.options else None
    return Side(
        name, record.benchmark, (record.data.revision, record.data.fingerprint), runs, options, _forwards(record)
    )


def _forwards(record: Record) -> float | None:
    answers = record.data.sizes.get("test") if record.data else None
    return record.cost.test_forwards / answers if answers and record.cost.test_forwards else None


# ---------------------------------------------------------------------------------------- the figures


def compare(
    store: Store, a: Side, b: Side, split: Split = "test", metric: str = "accuracy", examples: int = 10
) -> Comparison:
    """A minus B over their common seeds. Two single runs are paired whatever their seeds.

    Raises `ConfigError` for a metric that can't be computed from predictions, `DataError` without a common seed.
    """
    if ":" in metric:
        known = [*inference.METRICS, "accuracy/<category>"]
        raise ConfigError(f"metric {metric!r} has no paired difference; {near(metric, known)}")
    of_a, of_b = ({seed: _predictions(store, run, split) for seed, run in s.runs.items()} for s in (a, b))
    if len(of_a) == len(of_b) == 1 and set(of_a) != set(of_b):
        of_b = dict(zip(of_a, of_b.values(), strict=True))
    difference = inference.paired_difference(of_a, of_b, a.options, metric, RESAMPLES)
    seeds = difference.seeds
    of_a, of_b = ({seed: runs[seed] for seed in seeds} for runs in (of_a, of_b))
    first = of_a[seeds[0]]
    counts = first["category"].value_counts()
    within = {
        str(name): inference.paired_difference(of_a, of_b, a.options, f"accuracy/{name}", RESAMPLES)
        for name in sorted(counts.index)
    }
    known_p = {name: found.p for name, found in within.items() if found.p is not None}
    holm = dict(zip(known_p, inference.holm(list(known_p.values())), strict=True))
    right = {"a": of_a[seeds[0]], "b": aligned([of_a[seeds[0]], of_b[seeds[0]]])[1]}
    marks = [frame["gold"].to_numpy() == frame["chosen"].to_numpy() for frame in right.values()]
    parted = _parted(of_a, of_b)
    told = None
    if difference.p is not None:
        told = power.told_apart_by(power.noise(of_a, of_b, a.options, metric), difference.value)
    return Comparison(
        a=a,
        b=b,
        split=split,
        metric=metric,
        examples=len(first),
        values=tuple(inference.across_seeds(list(runs.values()), a.options, metric, 2).value for runs in (of_a, of_b)),  # type: ignore[arg-type]
        difference=difference,
        categories=tuple(Category(name, int(counts[name]), d, holm.get(name)) for name, d in within.items()),
        mcnemar=McNemar(*inference.mcnemar(*marks)) if len(seeds) == 1 else None,
        agreement=distillation.agreement(of_a, of_b),
        errors=distillation.errors(of_a, of_b),
        parted=tuple(parted[:examples]),
        parted_in_all=len(parted),
        power=told,
    )


def _predictions(store: Store, run_id: str, split: Split) -> pd.DataFrame:
    frame = store.predictions(run_id, split)
    if not len(frame):
        raise StoreError(f"run {run_id} has no predictions on split {split!r}: choose another with --split")
    return frame


def _parted(a: Mapping[int, pd.DataFrame], b: Mapping[int, pd.DataFrame]) -> list[Parted]:
    """The examples on which one side is right with more seeds, those with the largest difference first."""
    frames = aligned([*a.values(), *(b[seed] for seed in a)])
    gold_n = frames[0]["gold"].to_numpy()
    chosen = [frame["chosen"].to_numpy() for frame in frames]
    lead_n = sum((c == gold_n).astype(int) for c in chosen[: len(a)]) - sum(
        (c == gold_n).astype(int) for c in chosen[len(a) :]
    )
    places = sorted((i for i in range(len(gold_n)) if lead_n[i]), key=lambda i: -abs(lead_n[i]))
    columns = {name: frames[0][name].tolist() for name in ("id", "group", "category")}
    return [
        Parted(
            columns["id"][i],
            columns["group"][i],
            columns["category"][i],
            int(gold_n[i]),
            tuple(int(c[i]) for c in chosen[: len(a)]),
            tuple(int(c[i]) for c in chosen[len(a) :]),
        )
        for i in places
    ]


# ----------------------------------------------------------------------------------- how it is shown


def to_json(found: Comparison) -> str:
    """One JSON document with all fields."""

    def plain(value: Any) -> Any:
        return value.model_dump() if isinstance(value, Interval) else str(value)

    return json.dumps(asdict(found), indent=1, default=plain)


def to_text(found: Comparison) -> str:
    """A page of plain text, figures in per cent."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    d, many = found.difference, len(found.difference.seeds) > 1
    seeds = f"{len(d.seeds)} seeds" if many else "one seed"
    console.print(f"A  {found.a.name}\nB  {found.b.name}")
    console.print(
        f"{found.a.benchmark}, {found.split} split: {found.examples} examples about {d.groups} images, {seeds}\n"
    )
    value_a, value_b = (percent(Interval(value=value)) for value in found.values)
    console.print(f"{found.metric}: A {value_a}, B {value_b}")
    console.print(f"A - B: {_difference(d)}")
    if forwards_apart((found.a.forwards, found.b.forwards)):
        passes = f"A {short(found.a.forwards)}, B {short(found.b.forwards)}"
        console.print(f"forward passes an answer: {passes}, which are not equal terms")
    if found.power:
        console.print(_enough(found.power, d.groups, len(d.seeds)))
    if found.mcnemar:
        m = found.mcnemar
        console.print(f"McNemar, exact: A alone right {m.only_a}, B alone right {m.only_b}, p {m.p:.2g}")
    e = found.errors
    told = (found.agreement, e.inherited, e.copied, e.introduced, e.fixed)
    agreement, inherited, copied, introduced, fixed = (percent(share, bounds=False) for share in told)
    console.print(f"same answer: {agreement}")
    console.print(
        f"A's errors:  inherited (B errs too) {inherited}, of them the same answer {copied}\n"
        f"             introduced (B is right) {introduced}; B's errors that A fixed {fixed}"
    )
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("category", "examples", "A - B in accuracy", "p", "p (Holm)"):
        grid.add_column(name, justify="left" if name == "category" else "right", overflow="fold")
    for c in found.categories:
        holm = "-" if c.p_holm is None else f"{c.p_holm:.2g}"
        grid.add_row(*map(Text, (c.name, str(c.examples), *_difference(c.difference).split(", p "), holm)))
    console.print(grid)
    if found.parted:
        shown = f"{len(found.parted)} of {found.parted_in_all}" if found.parted_in_all > len(found.parted) else "All"
        console.print(
            f"{shown} examples on which one is right {'with more seeds' if many else 'and the other is not'}:"
        )
    for p in found.parted:
        console.print(Text(_example(p, found.a.options)))
    console.print(
        f"\nIntervals (95 %) and p over {'seeds and images' if many else 'images'}, "
        f"{RESAMPLES:,} resamples; Holm's p counts all {len(found.categories)} categories."
    )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _difference(d: Difference) -> str:
    if d.low is None or d.high is None or d.p is None:
        return f"{100 * d.value:+.1f}, p -"
    return f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}], p {d.p:.2g}"


def _enough(told: power.Told, images: int, seeds: int) -> str:
    """What these data can show, and what would show the difference that was seen."""
    here = f"{images:,} images and {'one seed' if seeds == 1 else f'{seeds} seeds'}"
    said = f"{here} show a difference of {100 * told.detectable:.1f} points (at p 0.05, four times in five)"
    if told.more_images == 0:
        return f"{said}: enough for this one"
    ways = [f"{told.images:,} images"] if told.images else []
    ways += [f"{told.seeds:,} seeds"] if told.seeds else []
    if not ways:
        return (
            f"{said}; no number of images alone"
            + (", or of seeds alone," if seeds > 1 else "")
            + " would show this one"
        )
    return f"{said}; to show this one takes {' or '.join(ways)}, all else as it is"


def _example(p: Parted, options: Sequence[str] | None) -> str:
    def name(k: int) -> str:
        return "none" if k < 0 else options[k] if options else chr(65 + k)

    def side(chosen: Sequence[int]) -> str:
        if len(chosen) == 1:
            return name(chosen[0])
        return f"{sum(k == p.gold for k in chosen)} of {len(chosen)} right"

    return f"  {p.id}  {p.category}  gold {name(p.gold)}  A {side(p.a)}  B {side(p.b)}"
