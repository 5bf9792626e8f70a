"""The tables that a ranking is printed as, whatever the format: their columns, and what has to be said below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Generic, Literal, TypeVar

from harness.leaderboard.schema import SHOWN, Distilled, Overall, Power, Row
from harness.record import Interval
from harness.report.format import count, difference, forwards_apart, more, percent, plain, short

LEGEND = (
    "Means over n seeds, in per cent, with 95 % intervals by bootstrap over seeds and images. "
    "Training cost is a run's, teachers included."
)
FRONT = "†"
"""Marks what is on the Pareto front of the score against a cost."""

T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table: its name, its side, and what stands in it."""

    name: str
    align: Literal["left", "right"]
    cell: Callable[[T], str]


@dataclass(frozen=True)
class Grid(Generic[T]):
    """A table: what it is of beside its heading (nothing for the ranking itself), columns, lines, notes around it."""

    title: str
    columns: list[Column[T]]
    lines: Sequence[T]
    notes: list[str] = field(default_factory=list)
    """Below the table."""
    above: list[str] = field(default_factory=list)


def grids(part: Sequence[Row], asked: Collection[str] = ()) -> list[Grid[Row]]:
    """The ranking of one table, and what was asked for beside it, of `rows.COLUMNS`."""
    found = [Grid("", columns(part), part, footnotes(part), in_common(part))]
    runs = [row for row in part if row.kind == "run" and row.figure is not None]
    if "cost" in asked and runs:
        front = [f"{FRONT} no run has a higher {part[0].metric} for as little, or the same for less"]
        found += [Grid("cost of training", [*_who(), *_TRAINING], runs, _TRAINING_NOTES + front)]
        found += [Grid("cost of an answer", [*_who(), *_ANSWER], runs, front)]
    if "distil" in asked:
        taught = [row for row in runs if row.distil]
        notes = [
            "gap closed: how much of the teacher's lead over the directly tuned student a row makes up; errors in per "
            "cent of all examples: inherited (the teacher errs too; of these copied: with the same answer), introduced "
            "(the teacher is right), fixed (the teacher alone errs)"
        ]
        notes += [f"{_name(row)}: {row.distil.why}" for row in taught if row.distil and row.distil.why]
        teachers = {row.distil.teacher for row in taught if row.distil}
        title = f"distillation, beside {teachers.pop()}" if len(teachers) == 1 else "distillation"
        shown = [*_who(), *(_DISTIL if title == "distillation" else _DISTIL[1:])]
        found += [Grid(title, shown, taught, notes)] if taught else []
        found += [] if taught else [Grid("distillation: no row has a larger, directly tuned teacher here", [], [])]
    if "power" in asked and (told := [row for row in runs if row.power]):
        places = {f"{row.label}@{row.student}" if row.student else row.label: f"#{row.rank}" for row in runs}
        against = [] if any(row.baseline for row in part) else [_power("to", lambda p: places.get(p.against, "-"))]
        found += [Grid("power", [*_who(), *against, *_POWER], told, _power_notes(part, told))]
    return found


def overall_grid(overall: Sequence[Overall]) -> Grid[Overall]:
    """The rows over all benchmarks, with the aggregates that were asked for."""
    own_unit = has_own_unit(overall[0].metric)

    def figure(of: Callable[[Overall], Interval | None]) -> Callable[[Overall], str]:
        return lambda row: plain(of(row)) if own_unit else percent(of(row))

    offered: dict[str, Column[Overall]] = {
        "mean": Column("mean", "right", figure(lambda row: row.mean)),
        "rank": Column("mean rank", "right", lambda row: plain(row.mean_rank) if row.kind == "run" else ""),
        "iqm": Column("IQM", "right", figure(lambda row: row.iqm)),
    }
    shown: list[Column[Overall]] = [
        Column("method", "left", lambda row: row.label),
        Column("student", "left", lambda row: row.student),
        *(column for name, column in offered.items() if name in overall[0].asked),
    ]
    if any(row.missing for row in overall):
        shown += [Column("missing", "left", lambda row: ", ".join(row.missing))]
    names = dict.fromkeys(name for row in overall for name in (*row.benchmarks, *row.missing))
    notes = [
        f"over {', '.join(names)}: every benchmark counts alike; intervals over seeds and images, not over other "
        "benchmarks; a row that lacks one of them has no figure"
    ]
    return Grid(f"All benchmarks, {overall[0].metric}", shown, overall, notes)


# --------------------------------------------------------------------------------------------- the columns


def columns(part: Sequence[Row]) -> list[Column[Row]]:
    """The columns of one table. What would say the same in every row, or nothing, has none."""
    metric = part[0].metric
    shown = list(SHOWN if metric in SHOWN else (metric, *SHOWN))
    delta = any(row.delta for row in part)
    budgets = {row.budget for row in part if row.kind == "run" and row.budget}
    # More figures leave no room for all intervals: then only the one that sorts has its own.
    bounds = {name: name == metric or (len(shown) == 2 and not delta) for name in shown}

    def figure(name: str) -> Column[Row]:
        return Column(
            name.replace("macro_f1", "macro-F1"),
            "right",
            lambda row: percent(row.values.get(name), bounds[name], has_own_unit(name)),
        )

    found: list[Column[Row]] = [Column("#", "right", lambda row: str(row.rank or ""))]
    if any(row.rank_low for row in part):
        found += [Column("ranks", "right", _ranks), Column("tier", "right", lambda row: "-".join(map(str, row.tier)))]
    found += [*_who()[1:], Column("n", "right", lambda row: str(len(row.seeds))), *map(figure, shown)]
    if delta:
        found += [Column("difference", "right", lambda row: difference(row.delta, row.baseline))]
    if len(budgets) > 1:
        found += [Column("budget", "right", lambda row: "-" if row.budget is None else f"{row.budget:,}")]
    if unequal_forwards(part):
        found += [Column("forwards", "right", _of_run(lambda row: short(row.forwards_per_answer)))]
    return [
        *found,
        Column("TFLOPs", "right", _of_run(lambda row: short(row.train_tflops))),
        Column("train s", "right", _of_run(lambda row: short(row.train_seconds))),
        Column("params", "right", _of_run(lambda row: count(row.parameters))),
    ]


def unequal_forwards(rows: Iterable[Row]) -> bool:
    """Whether an answer costs some of the runs more forwards than others."""
    return bool(forwards_apart(row.forwards_per_answer for row in rows if row.kind == "run"))


def _who() -> list[Column[Row]]:
    return [
        Column("#", "right", lambda row: str(row.rank or "")),
        Column("method", "left", lambda row: row.label),
        Column("student", "left", lambda row: row.student),
    ]


def _of_run(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: cell(row) if row.kind == "run" else ""


def _ranks(row: Row) -> str:
    return "" if row.rank_low is None else f"{row.rank_low}-{row.rank_high}"


def _cost(name: str, of: str, said: Callable[[Row], str] | None = None) -> Column[Row]:
    """A cost, marked where the row is on its front."""

    def cell(row: Row) -> str:
        return (said(row) if said else short(getattr(row, of))) + (FRONT if of in row.pareto else "")

    return Column(name, "right", cell)


_TRAINING = [
    _cost("student TFLOPs", "student_tflops"),
    _cost("teacher", "teacher_tflops"),
    _cost("both", "train_tflops"),
    Column[Row]("student s", "right", lambda row: short(row.student_seconds)),
    Column[Row]("teacher s", "right", lambda row: short(row.teacher_seconds)),
    _cost("train s", "train_seconds"),
    Column[Row]("cached", "right", lambda row: "-" if row.cache_share is None else f"{100 * row.cache_share:.0f}%"),
]
_TRAINING_NOTES = [
    "seconds of student and teacher are those of their passes, train s is all that training took; "
    "cached: of the examples that frozen models were shown, those that took no pass"
]
_ANSWER = [
    _cost("params", "parameters", lambda row: count(row.parameters)),
    _cost("forwards", "forwards_per_answer"),
    _cost("ms an example", "ms_per_example"),
    _cost("peak MiB", "peak_memory_mib"),
]


def _distil(name: str, cell: Callable[[Distilled], str]) -> Column[Row]:
    return Column(name, "right", lambda row: cell(row.distil) if row.distil else "")


_DISTIL: list[Column[Row]] = [
    Column("teacher", "left", lambda row: row.distil.teacher if row.distil else ""),
    _distil("gap closed", lambda d: percent(d.gap_closed)),
    _distil("agreement", lambda d: percent(d.agreement)),
    _distil("inherited", lambda d: percent(d.inherited, bounds=False)),
    _distil("copied", lambda d: percent(d.copied, bounds=False)),
    _distil("introduced", lambda d: percent(d.introduced, bounds=False)),
    _distil("fixed", lambda d: percent(d.fixed, bounds=False)),
]


def _power(name: str, cell: Callable[[Power], str]) -> Column[Row]:
    return Column(name, "right", lambda row: cell(row.power) if row.power else "")


_POWER = [
    _power("difference", lambda p: f"{100 * p.difference:+.1f}"),
    _power("detectable", lambda p: f"{100 * p.detectable:.1f}"),
    _power("more images", lambda p: more(p.more_images)),
    _power("or more seeds", lambda p: more(p.more_seeds)),
]


def _power_notes(part: Sequence[Row], told: Sequence[Row]) -> list[str]:
    base = next((row for row in part if row.baseline), None)
    least = median(row.power.detectable for row in told if row.power)
    groups = max(row.groups for row in part)
    return [
        f"difference to {_name(base) if base else 'the row above'}, in points; detectable: what these images and seeds "
        "would show at the 5 % level four times in five; more images (or seeds, the other as it is): what would show "
        "the difference that was seen; 0: there are enough, -: no number would do, or one seed can't tell",
        f"with {groups:,} images as here a difference of {100 * least:.1f} points is detectable (median of these rows)",
    ]


# ------------------------------------------------------------------------------------------ what is said


def has_own_unit(metric: str) -> bool:
    """Whether a figure is a protocol's, in the unit of its original: the others are fractions."""
    return ":" in metric


def legend(rows: Sequence[Row]) -> str:
    """What the figures are, below all tables."""
    protocol = next((row.metric for row in rows if has_own_unit(row.metric)), None)
    return LEGEND + (f" {protocol} is in the protocol's own unit." if protocol else "")


def parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by table, each with its heading."""
    found = [(key, list(part)) for key, part in groupby(rows, key=lambda row: row.data_key)]
    versions = Counter((benchmark, split) for (benchmark, _, _, split), _ in found)
    result = []
    for (benchmark, revision, fingerprint, split), part in found:
        largest = max(part, key=lambda row: row.examples)
        heading = f"{benchmark}, {split} split: {largest.examples} examples about {largest.groups} images"
        if fingerprint:
            heading += f" (revision {revision}, data {fingerprint[:12]})"
        if (number := versions[benchmark, split]) > 1:
            heading += f"\nThe store has runs on {number} versions of these data, ranked apart."
        result.append((heading, part))
    return result


def in_common(part: Sequence[Row]) -> list[str]:
    """What rows of one table share: said once above it, so that it needn't stand in every row."""
    everywhere = next((row.shared for row in part if row.kind == "run"), ())
    said = [f"all runs: {' '.join(everywhere)}; whatever isn't said is as by default"] if everywhere else []
    by_method = {row.method: row.shared_by_method for row in part if row.shared_by_method}
    return said + [f"all rows of {method}: {' '.join(shared)}" for method, shared in by_method.items()]


def footnotes(part: Sequence[Row]) -> list[str]:
    """What has to be said about rows of one table."""
    base = next((row for row in part if row.baseline), None)
    said = []
    if base is not None:
        said += [f"difference: to {_name(base)}, paired by seed and example; * where p is below 0.05"]
    if any(row.tier for row in part):
        said += ["rows that share a tier aren't told apart: paired, Holm over all pairs of the table"]
    budgets = sorted({row.budget for row in part if row.kind == "run" and row.budget})
    if len(budgets) > 1:
        said += [f"rows of {len(budgets)} budgets (training examples), which are not equal terms: {_listed(budgets)}"]
    if apart := forwards_apart(row.forwards_per_answer for row in part if row.kind == "run"):
        said += [f"{apart}: rank --forwards N shows rows of N alone"]
    return said + [f"{_name(row)}: {row.note}" for row in part if row.note]


def _name(row: Row) -> str:
    return f"{row.label}{f', {row.student}' if row.student else ''}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)
