"""A ranking as tables, in any format: the list of tables, their columns, their rows, and the notes below them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.leaderboard.schema import TUNED, UNTUNED, Delta, Overall, Row
from harness.record import Interval
from harness.report.columns import (
    BUDGET,
    COSTS,
    DISTILLATION,
    FRONT,
    IDENTITY,
    POWER,
    ColumnSpec,
    against,
    by_name,
    has_own_unit,
    lower_is_better,
    overall_columns,
    ranking_columns,
    unit,
    with_front,
)
from harness.report.format import forwards_apart, p_value, percent, points, short

if TYPE_CHECKING:
    import pandas as pd

LEGEND = (
    "Figures are means over seeds, in per cent, with 95 % bootstrap intervals over seeds and images. "
    "Training costs are those of one run, teachers included, but for what the cache gave that another run was billed "
    "for."
)
TRAINING = (
    "student TFLOPs", "teacher TFLOPs", "TFLOPs", "student time", "teacher time", "train time", "cached",
)  # fmt: skip
ANSWER = ("parameters", "forwards", "ms", "memory")

MOST_STUDENTS = 3
"""The headline speaks of so many students."""
SURE = 0.05
"""A difference is called significant in words where its Holm p is below this."""

T = TypeVar("T")


@dataclass(frozen=True)
class TableSpec(Generic[T]):
    """A table: title (none for the ranking itself), columns, rows, and notes below and above it."""

    title: str
    columns: Sequence[ColumnSpec[T]]
    """If empty, there are only notes."""
    rows: Sequence[T]
    notes: Sequence[str] = ()
    above: Sequence[str] = ()
    """Notes above it: what its rows have in common."""

    def frame(self) -> pd.DataFrame:
        """The texts of the cells; the columns have the names of the table's columns."""
        import pandas as pd  # slow to load, and a table in the terminal doesn't need it

        cells = {column.name: [column.text(row) for row in self.rows] for column in self.columns}
        return pd.DataFrame(cells, dtype=object)

    def head(self, name: str) -> str:
        """The head of the column of this name."""
        return next(column.head for column in self.columns if column.name == name)

    def kinds(self) -> list[str]:
        """The kind of each row: `run`, `control` or `baseline`."""
        return ["baseline" if getattr(row, "baseline", False) else getattr(row, "kind", "run") for row in self.rows]


@dataclass(frozen=True)
class Section:
    """The tables for rows on the same data, or for the rows over all benchmarks (then `rows` is empty)."""

    heading: str
    rows: Sequence[Row]
    tables: Sequence[TableSpec[Any]]
    headline: Sequence[str] = ()
    """What its rows say in words."""


def sections(
    rows: Sequence[Row],
    asked: Collection[str] = (),
    overall: Sequence[Overall] = (),
    chosen: Collection[str] = (),
) -> list[Section]:
    """All tables of a ranking. `asked`: the optional tables, from `schema.COLUMNS`; `chosen`: the columns of the
    ranking itself, by name (empty: those by default)."""
    parts = [list(part) for _, part in groupby(rows, key=lambda row: row.data_key)]
    versions = Counter((part[0].benchmark, part[0].split) for part in parts)
    found = []
    for part in parts:
        number = versions[part[0].benchmark, part[0].split]
        version = f"the store has runs on {number} versions of these data: each version has its own table"
        columns = [c for c in ranking_columns(part) if (c.name in chosen if chosen else c.shown(part))]
        ranked = TableSpec("", columns, part, footnotes(part) + ([version] if number > 1 else []), in_common(part))
        found.append(Section(heading(part), part, [ranked, *_asked(part, asked)], headline(part)))
    if overall:
        names = dict.fromkeys(name for row in overall for name in (*row.benchmarks, *row.missing))
        notes = [
            f"over {', '.join(names)}, with equal weights; intervals are over seeds and images, not over other "
            "benchmarks; a row that lacks a benchmark has no figure"
        ]
        table = TableSpec("", overall_columns(overall), overall, notes)
        found.append(Section(f"All benchmarks, {overall[0].metric}", [], [table]))
    return found


def _asked(part: Sequence[Row], asked: Collection[str]) -> list[TableSpec[Row]]:
    """The optional tables."""
    runs = [row for row in part if row.kind == "run" and row.figure is not None]
    found = []
    if "cost" in asked and runs:
        front = f"{FRONT} on the Pareto front: no run has a better {part[0].metric} at the same or a lower cost"
        seconds = (
            "student s and teacher s: time of their forward and backward passes; train s: wall time of the training; "
            "cached: share of the frozen models' outputs that took no forward pass"
        )
        training = [column if column.name == "cached" else with_front(column) for column in by_name(COSTS, *TRAINING)]
        written = ("tokens",) if any(row.tokens_per_answer is not None for row in runs) else ()
        answer = [*map(with_front, by_name(COSTS, *ANSWER)), *by_name(COSTS, *written)]
        found += [TableSpec("cost of training", [*IDENTITY, BUDGET, *training], runs, [seconds, front])]
        found += [TableSpec("cost of an answer", [*IDENTITY, *answer], runs, [front])]
    if "distil" in asked:
        found.append(_distillation([row for row in runs if row.distil]))
    if "power" in asked and (powered := [row for row in runs if row.power]):
        found.append(_power(part, powered))
    return found


def _distillation(taught: Sequence[Row]) -> TableSpec[Row]:
    if not taught:
        return TableSpec("distillation", [], [], ["no row has a larger, directly tuned teacher here"])
    notes = [
        "gap closed: share of the gap between the directly tuned student and the teacher; errors in per cent of all "
        "examples: inherited (row and teacher are wrong), copied (of these, with the same answer), introduced (only "
        "the row is wrong), fixed (only the teacher is wrong)"
    ]
    notes += [f"{named(row)}: {row.distil.why}" for row in taught if row.distil and row.distil.why]
    teachers = {row.distil.teacher for row in taught if row.distil}
    if len(teachers) == 1:
        return TableSpec(f"distillation, compared with {teachers.pop()}", [*IDENTITY, *DISTILLATION[1:]], taught, notes)
    return TableSpec("distillation", [*IDENTITY, *DISTILLATION], taught, notes)


def _power(part: Sequence[Row], powered: Sequence[Row]) -> TableSpec[Row]:
    base = next((row for row in part if row.baseline), None)
    places = {f"{row.label}@{row.student}" if row.student else row.label: f"#{row.rank}" for row in part if row.rank}
    columns = [*IDENTITY, *([] if base else [against(places)]), *POWER]
    least = median(row.power.detectable for row in powered if row.power)
    groups = max(row.groups for row in part)
    notes = [
        f"difference from {named(base) if base else 'the row above'}, in points; detectable: the smallest difference "
        "that these images and seeds detect at the 5 % level with a power of 80 %; more images (or seeds, with as many "
        "of the other unchanged): how many more would make the observed difference detectable; 0: there are enough; "
        "-: no number is enough, or there is only one seed",
        f"with {groups:,} images as here a difference of {100 * least:.1f} points is detectable (median of these rows)",
    ]
    return TableSpec("power", columns, powered, notes)


# --------------------------------------------------------------------------------------- the headline


@dataclass(frozen=True)
class StudentSummary:
    """What the rows of one student say: the sentence about the best one, the rows best first, and what they are seen
    against."""

    sentence: str
    rows: Sequence[Row]
    direct: Row | None
    """Direct tuning of the same student; None: it isn't among the rows."""
    larger: Row | None
    """The largest directly tuned model, if it is larger than this student."""


def answers(rows: Sequence[Row]) -> list[StudentSummary]:
    """The answers of the students with more than direct tuning, smallest first, at most `MOST_STUDENTS`."""
    runs = _best_first(rows)
    larger = _reference(runs)
    found = []
    for mine in _by_student(runs)[:MOST_STUDENTS]:
        label = next((row.direct.label for row in mine if row.direct), None)
        direct = next((row for row in mine if row.method == TUNED and label in (None, row.label)), None)
        above = larger if larger is not None and (larger.parameters or 0) > (mine[0].parameters or 0) else None
        found.append(StudentSummary(_of_student(mine), mine, direct, above))
    return found


def headline(rows: Sequence[Row]) -> list[str]:
    """What the rows that are shown say in words: which method is best for a student, by how much, at which cost.

    The directly tuned larger model is what they are seen against.
    """
    runs = _best_first(rows)
    if not runs:
        return ["No finished run is ranked here yet."]
    said = [one.sentence for one in answers(runs)]
    if not said:
        tuned = {row.student: row for row in reversed(runs)}.values()
        ascending = sorted(tuned, key=lambda row: row.parameters or 0)
        listed = ", ".join(f"{row.student} {_score(row, bounds=False)}" for row in ascending)
        said = [f"Only direct tuning is shown: {listed}."]
    elif (larger := _reference(runs)) is not None:
        said.append(f"For reference, {larger.student} tuned directly: {_score(larger)}.")
    floors = [row for row in rows if row.kind == "control" and row.method == "majority" and row.figure is not None]
    return said + [f"Always giving the most frequent answer: {_score(floor)}." for floor in floors[:1]]


def _best_first(rows: Sequence[Row]) -> list[Row]:
    """The runs with a figure."""
    sign = 1 if rows and lower_is_better(rows[0].metric) else -1
    runs = [row for row in rows if row.kind == "run" and row.figure is not None]
    return sorted(runs, key=lambda row: (sign * (row.figure or 0.0), row.label))


def _by_student(runs: Sequence[Row]) -> list[list[Row]]:
    """The runs of each student that has more than direct tuning (and none), smallest students first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in runs:
        found.setdefault((row.ladder, row.student), []).append(row)
    distilled = [mine for mine in found.values() if any(row.method not in (TUNED, UNTUNED) for row in mine)]
    return sorted(distilled, key=lambda mine: (mine[0].parameters or 0, mine[0].student))


def _reference(runs: Sequence[Row]) -> Row | None:
    """The largest directly tuned model, if it is larger than one of the students that are compared."""
    least = min((mine[0].parameters or 0 for mine in _by_student(runs)), default=math.inf)
    tuned = [row for row in runs if row.method == TUNED and (row.parameters or 0) > least]
    return max(tuned, key=lambda row: row.parameters or 0, default=None)


def _of_student(mine: Sequence[Row]) -> str:
    """Of a student's rows, best first: the best one, its difference to direct tuning, and the costs of both."""
    best = mine[0]
    if best.method == TUNED:
        other = next(row for row in mine if row.method != TUNED)
        name = "" if best.label == "direct tuning" else f" ({best.label})"
        text = f"Best for student {best.student}: direct tuning{name}, {_score(best)}; "
        difference = other.direct.difference if other.direct else None
        text += f"the best other row, {other.label}, is at {_score(other, bounds=False)}{_compared(difference)}"
        beside, tflops, forwards = other.label, other.train_tflops, other.forwards_per_answer
    elif (direct := best.direct) is not None:
        text = f"Best for student {best.student}: {best.label}, {_score(best)}{_compared(direct.difference)}"
        if direct.difference is None:
            text += f"; direct tuning is at {_in_unit(best.metric, Interval(value=direct.figure))}"
        beside, tflops, forwards = "direct tuning", direct.train_tflops, direct.forwards_per_answer
    else:
        text = f"Best for student {best.student}: {best.label}, {_score(best)}; no direct tuning to compare with"
        beside, tflops, forwards = "", None, None
    text += f". Training: {short(best.train_tflops)} TFLOPs" + _beside(beside, tflops)
    text += f"; forward passes per answer: {short(best.forwards_per_answer)}" + _beside(beside, forwards) + "."
    alike = [row.label for row in mine[1:] if set(row.tier) & set(best.tier)]
    if alike:
        more = f" and {len(alike) - 2} more" if len(alike) > 2 else ""
        text += f" Not significantly different from it (Holm p over all pairs): {', '.join(alike[:2])}{more}."
    return text


def _beside(name: str, cost: float | None) -> str:
    return "" if cost is None else f" ({name}: {short(cost)})"


def _score(row: Row, bounds: bool = True) -> str:
    return _in_unit(row.metric, row.values[row.metric], bounds)


def _in_unit(metric: str, value: Interval, bounds: bool = True) -> str:
    """A figure with its unit, and its name and direction where they aren't plain."""
    own = has_own_unit(metric)
    text = f"{percent(value, bounds, own)} {unit(metric)}".rstrip()
    return f"{metric} {text}{', lower is better' if lower_is_better(metric) else ''}" if own else text


def _compared(found: Delta | None) -> str:
    """A difference to direct tuning, in words."""
    if found is None:
        return ""
    if found.p_holm is None:
        return f": {points(found)} points compared with direct tuning"
    verdict = "significant" if found.p_holm < SURE else "not significant"
    return f": {points(found)} points compared with direct tuning ({verdict}, Holm p {p_value(found.p_holm)})"


def seeds_needed(rows: Sequence[Row]) -> str:
    """What would show the differences of a student's rows to its direct tuning, the baseline, if they are as observed.

    Of rows with `power`; empty if all of these differences are detectable already.
    """
    base = next(row for row in rows if row.baseline)
    said = []
    for row in rows:
        if row.student == base.student and row.power is not None and row.power.more_seeds != 0:
            ways = [
                f"{more:,} more {what}{'s' if more > 1 else ''}"
                for what, more in (("seed", row.power.more_seeds), ("image", row.power.more_images))
                if more
            ]
            said.append(f"{row.label} ({100 * row.power.difference:+.1f}) {' or '.join(ways) or 'more of both'}")
    begins = f"To show such differences to {base.label} ({base.student}) with 80 % power: "
    return begins + "; ".join(said) + "." if said else ""


# ------------------------------------------------------------------------------------------ texts


def legend(rows: Sequence[Row]) -> str:
    """The explanation of the figures, below all tables."""
    own = next((row.metric for row in rows if has_own_unit(row.metric)), None)
    if own is None:
        return LEGEND
    whose = "in the protocol's own unit" if ":" in own else f"in {unit(own)}" if unit(own) else "a plain number"
    return f"{LEGEND} {own} is {whose}{', lower is better' if lower_is_better(own) else ''}."


def heading(part: Sequence[Row]) -> str:
    """The data of a table's rows."""
    first, largest = part[0], max(part, key=lambda row: row.examples)
    said = f"{first.benchmark}, {first.split} split: {largest.examples} examples about {largest.groups} images"
    return said + (f" (revision {first.revision}, data {first.fingerprint[:12]})" if first.fingerprint else "")


def in_common(part: Sequence[Row]) -> list[str]:
    """The settings that rows of one table have in common, for above the table."""
    everywhere = next((row.shared for row in part if row.kind == "run"), ())
    said = [f"all runs: {' '.join(everywhere)}; other settings are the defaults"] if everywhere else []
    by_method = {row.method: row.shared_by_method for row in part if row.shared_by_method}
    return said + [f"all rows of {method}: {' '.join(shared)}" for method, shared in by_method.items()]


def footnotes(part: Sequence[Row]) -> list[str]:
    """The notes about the rows of one table."""
    base = next((row for row in part if row.baseline), None)
    said = []
    if base is not None:
        said += [
            f"difference: from {named(base)}, paired by seed and example; * where raw p is below 0.05, ** where Holm p "
            "(over the runs of this table) is, too"
        ]
    if any(row.tier for row in part):
        said += ["rows that share a tier are not significantly different (paired, Holm p over all pairs of the table)"]
    budgets = sorted({row.budget for row in part if row.kind == "run" and row.budget})
    if len(budgets) > 1:
        said += [
            f"rows of {len(budgets)} budgets (training examples), which can't be compared on equal terms: "
            + ", ".join(f"{budget:,}" for budget in budgets)
        ]
    if apart := forwards_apart(row.forwards_per_answer for row in part if row.kind == "run"):
        said += [f"{apart} (rank --forwards N shows only rows with N)"]
    return said + [f"{named(row)}: {row.note}" for row in part if row.note]


def unequal(rows: Sequence[Row]) -> str:
    """In what trained rows differ that makes a comparison unfair, in words; empty if in nothing of it."""
    found = {
        "student": [row.student for row in rows],
        "training examples": [f"{row.budget:,}" for row in rows if row.budget],
        "forward passes per answer": [short(row.forwards_per_answer) for row in rows if row.forwards_per_answer],
    }
    return "; ".join(f"{name} ({', '.join(them)})" for name, them in found.items() if len(set(them) - {""}) > 1)


def named(row: Row) -> str:
    """A row's label with its student."""
    return f"{row.label} ({row.student})" if row.student else row.label
