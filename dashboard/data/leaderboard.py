"""The leaderboard's logic: which rows are shown, in which order, and what stands in their cells. Plain values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dashboard.table import Cell, Column, Line, Link
from harness.leaderboard.schema import Row, Table
from harness.record import Interval
from harness.report.columns import has_own_unit
from harness.report.format import count, difference, percent, short
from harness.stats.metrics import LOWER_IS_BETTER

USUAL = ("ranks", "tier", "seeds", "TFLOPs", "train time", "parameters")
"""The columns that are shown unless others are chosen; method, student, score and difference always are."""


@dataclass(frozen=True)
class Measure:
    """A column that the leaderboard can show: its head, a row's cell, and what rows are sorted by in it."""

    column: Column
    cell: Callable[[Row], Cell]
    key: Callable[[Row], Any]


# ----------------------------------------------------------------------------------------- which rows


@dataclass(frozen=True)
class Shown:
    """What of a table is shown; ranks and tiers stay those of the whole table. Controls stay whatever is asked."""

    methods: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()
    forwards: tuple[float, ...] = ()
    """Forward passes an answer, to two decimals."""
    search: str = ""
    """Words that a row's label or student must hold, all of them."""
    controls: bool = True

    def fits(self, row: Row) -> bool:
        """Whether a row is shown."""
        words = self.search.lower().split()
        if not all(word in f"{row.label} {row.spelled} {row.student} {row.ladder}".lower() for word in words):
            return False
        if row.kind == "control":
            return self.controls
        if row.baseline:
            return True
        forwards = None if row.forwards_per_answer is None else round(row.forwards_per_answer, 2)
        asked = (
            (self.methods, row.method),
            (self.students, row.student),
            (self.budgets, row.budget),
            (self.forwards, forwards),
        )
        return all(not wanted or value in wanted for wanted, value in asked)


def ordered(rows: Sequence[Row], by: Measure | None, descending: bool) -> list[Row]:
    """Rows by a column, those without a figure in it last; as they are ranked without one."""
    if by is None:
        return list(rows)
    known = [row for row in rows if by.key(row) is not None]
    return sorted(known, key=by.key, reverse=descending) + [row for row in rows if by.key(row) is None]


# ---------------------------------------------------------------------------------------- what is said


def unit(metric: str) -> str:
    """The unit that a metric is shown in; empty for a protocol's own."""
    return "" if has_own_unit(metric) else "%"


def named(row: Row) -> str:
    """A row in words."""
    return f"{row.label} ({row.student})" if row.student else row.label


def short_name(row: Row) -> str:
    """A row in few words: where there is no room for its settings."""
    return named(row) if len(named(row)) <= 28 else f"{row.label[:24].strip()}… ({row.student})"


def headline(table: Table) -> str:
    """Who leads, and whether that is real. In plain text."""
    runs = [row for row in table.rows if row.rank is not None]
    if not runs:
        return "No finished run is ranked here yet."
    best = runs[0]
    figure = percent(best.values[table.metric], own_unit=has_own_unit(table.metric))
    said = f"{named(best)} leads with {figure} {unit(table.metric)}".rstrip()
    first = [row for row in runs if 1 in row.tier]
    if len(runs) == 1:
        said += "; it is the only row."
    elif not first:
        said += "; how far ranks are certain isn't known here."
    elif len(first) == 1:
        said += f": told apart from all {len(runs) - 1} others."
    else:
        others = ", ".join(named(row) for row in first[1:4])
        others += f" and {len(first) - 4} more" if len(first) > 4 else ""
        said += f", but the data don't tell it apart from {len(first) - 1} of {len(runs) - 1}: {others}."
    floor = floor_of(table)
    if floor is not None:
        said += f" Always the same answer gives {percent(Interval(value=floor))} %."
    return said


def floor_of(table: Table) -> float | None:
    """What the majority answer gets, the line that rows are to be above; None where it isn't in the table."""
    values = [row.figure for row in table.rows if row.kind == "control" and row.method == "majority"]
    return next((value for value in values if value is not None), None)


# ------------------------------------------------------------------------------------------- columns


def domain(rows: Sequence[Row], metric: str, floor: float | None = None) -> tuple[float, float] | None:
    """The range that a metric's intervals take up, the floor included; None without any."""
    ends = [
        end
        for row in rows
        if (value := row.values.get(metric)) is not None
        for end in (value.value, value.low, value.high)
        if end is not None
    ]
    return (min([*ends, *([floor] if floor is not None else [])]), max(ends)) if ends else None


def measures(table: Table) -> dict[str, Measure]:
    """All columns that a table can have, by name, in order. Scales are the whole table's: a filter moves nothing."""
    rows, metric, floor = table.rows, table.metric, floor_of(table)
    lower = metric.rpartition(":")[2] in LOWER_IS_BETTER
    deltas = [row.delta for row in rows if row.delta]
    reach = max((abs(end) for d in deltas for end in (d.value, d.low, d.high) if end is not None), default=0.0)

    def score(name: str, drawn: bool) -> Measure:
        sign = unit(name)
        label = name.replace("macro_f1", "macro-F1").replace("micro_f1", "micro-F1") + (f" ({sign})" if sign else "")
        if drawn and lower:
            label += ", low is good"
        column = Column(
            name,
            label,
            help="Mean over seeds with its 95 % interval over seeds and images"
            + (" (dashed: the majority answer)" if drawn and floor is not None else ""),
            domain=domain(rows, name, floor) if drawn else None,
            reference=floor if drawn else None,
        )
        return Measure(column, lambda row: _figure(row, name, drawn), lambda row: _value(row, name))

    def plain(name: str, label: str, text: Callable[[Row], str], key: Callable[[Row], Any], help_: str) -> Measure:
        return Measure(Column(name, label, help=help_), lambda row: Cell(text(row)), key)

    def of_run(text: Callable[[Row], str]) -> Callable[[Row], str]:
        return lambda row: text(row) if row.kind == "run" else ""

    def cost(name: str, label: str, of: Callable[[Row], float | None], help_: str, show: Any = short) -> Measure:
        return plain(name, label, of_run(lambda row: show(of(row))), lambda row: _known(row, of(row)), help_)

    return {
        "rank": plain("rank", "#", lambda row: str(row.rank or ""), lambda row: row.rank, "Rank by the score"),
        "ranks": plain("ranks", "ranks", _ranks, lambda row: row.rank_low, "The ranks that the data allow"),
        "tier": plain(
            "tier", "tier", _tier, lambda row: row.tier or None, "Rows that share a tier aren't told apart by the data"
        ),
        "method": Measure(Column("method", "method", "left"), _method, lambda row: row.label),
        "student": Measure(
            Column("student", "student", "left"), lambda row: Cell(row.student), lambda row: row.student
        ),
        "score": score(metric, True),
        "difference": Measure(
            Column(
                "difference",
                "difference (points)",
                help="To the pinned row, paired by seed and example, with its 95 % interval; * where p is below 0.05",
                domain=(-reach, reach) if reach else None,
                reference=0.0 if reach else None,
            ),
            lambda row: _difference(row, table),
            lambda row: row.delta.value if row.delta else None,
        ),
        **{name: score(name, False) for name in ("accuracy", "macro_f1") if name != metric},
        "seeds": Measure(
            Column("seeds", "seeds", "left", help="A link to the run of each seed"),
            _seeds,
            lambda row: len(row.seeds),
        ),
        "budget": cost("budget", "budget", lambda row: row.budget, "Examples that the student learned from", _whole),
        "TFLOPs": cost("TFLOPs", "TFLOPs", lambda row: row.train_tflops, "Of a run's training, teachers included"),
        "teacher TFLOPs": cost(
            "teacher TFLOPs", "of teachers", lambda row: row.teacher_tflops, "Of the TFLOPs, what was not the student's"
        ),
        "train time": cost(
            "train time", "train s", lambda row: row.train_seconds, "Seconds of a run's training, teachers included"
        ),
        "forwards": cost(
            "forwards", "forwards", lambda row: row.forwards_per_answer, "Forwards of the student an answer"
        ),
        "ms": cost("ms", "ms / answer", lambda row: row.ms_per_example, "Milliseconds an answer on the test split"),
        "memory": cost("memory", "memory (MiB)", lambda row: row.peak_memory_mib, "The most that a run's process took"),
        "parameters": cost("parameters", "params", lambda row: row.parameters, "Of the student", count),
        "ladder": Measure(Column("ladder", "ladder", "left"), lambda row: Cell(row.ladder), lambda row: row.ladder),
    }


def optional(found: Mapping[str, Measure]) -> list[str]:
    """The columns that may be left out."""
    return [name for name in found if name not in ("rank", "method", "student", "score", "difference")]


def lines(rows: Sequence[Row], shown: Sequence[Measure]) -> list[Line]:
    """The rows as they are drawn."""
    return [
        Line(
            cells=tuple(measure.cell(row) for measure in shown),
            quiet=row.kind == "control",
            band=row.tier[0] if row.tier else 0,
            marked=row.baseline,
        )
        for row in rows
    ]


def unbanded(line: Line) -> Line:
    """A row whose background says nothing of its tier."""
    return replace(line, band=0)


def _method(row: Row) -> Cell:
    head = row.name or row.method
    settings = row.label.removeprefix(head).strip()
    note = row.note if len(row.note) <= 90 else row.note[:89] + "…"
    return Cell(
        head,
        small=settings,
        below=note,
        links=(Link(head, "run", {"run": row.run_ids[0]}, title=f"Open {row.run_ids[0]}"),),
        press=f"{row.label}@{row.student}" if row.kind == "run" or row.figure is not None else "",
        press_label=f"{'Unpin' if row.baseline else 'Pin'} {named(row)} as the row that others are compared with",
        pressed=row.baseline,
        title=f"{row.spelled or row.label} {row.note}".strip(),
        chip="control" if row.kind == "control" else "",
    )


def _seeds(row: Row) -> Cell:
    if row.kind == "control":
        return Cell()
    pairs = list(zip(row.seeds, row.run_ids, strict=False))
    return Cell(links=tuple(Link(str(seed), "run", {"run": run_id}, title=run_id) for seed, run_id in pairs))


def _figure(row: Row, name: str, drawn: bool) -> Cell:
    found = row.values.get(name)
    if found is None:
        return Cell("–")
    text = percent(found, bounds=False, own_unit=has_own_unit(name))
    bounded = percent(found, own_unit=has_own_unit(name)) if not has_own_unit(name) else text
    small = bounded.removeprefix(text).strip()
    return Cell(text, small=small, value=found.value, low=found.low, high=found.high) if drawn else Cell(text, small)


def _difference(row: Row, table: Table) -> Cell:
    text = difference(row.delta, row.baseline).replace("-", "−")
    if row.delta is None:
        return Cell("pinned" if row.baseline else "–")
    base = next((other for other in table.rows if other.baseline), None)
    head, _, interval = text.partition(" ")
    if base is None or row.kind == "control" or base.kind == "control":
        link: tuple[Link, ...] = ()
    else:
        params = {"a": row.run_ids[0], "b": base.run_ids[0]}
        link = (Link(head, "compare", params, title=f"Compare {named(row)} with {named(base)}"),)
    p = "" if row.delta.p is None else f"p {row.delta.p:.2g}"
    return Cell(
        head, small=interval, value=row.delta.value, low=row.delta.low, high=row.delta.high, links=link, title=p
    )


def _value(row: Row, name: str) -> float | None:
    found = row.values.get(name)
    return None if found is None else found.value


def _known(row: Row, value: float | None) -> float | None:
    return value if row.kind == "run" else None


def _ranks(row: Row) -> str:
    if row.rank_low is None:
        return ""
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}–{row.rank_high}"


def _tier(row: Row) -> str:
    return "–".join(map(str, row.tier))


def _whole(number: float | None) -> str:
    return "–" if number is None else f"{int(number):,}"
