"""The leaderboard's logic: which rows are shown, in which order, with which cells. Plain values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dashboard.table import Column, Link, TableCell, TableRow
from harness.leaderboard.schema import Row, Table
from harness.report.columns import ColumnSpec, ranking_columns
from harness.report.format import difference, p_value
from harness.report.tables import named as named

ALWAYS = ("rank", "method", "student", "score")
"""The columns that are always shown. If a row is pinned, so is the difference."""
ON_REQUEST = ("accuracy", "macro_f1")
"""Columns that the printed table shows by default but the dashboard doesn't: its plot of the score needs the room."""


@dataclass(frozen=True)
class BoardColumn:
    """A column of the leaderboard: its specification (shared with the printed tables), its head, and a row's cell."""

    spec: ColumnSpec[Row]
    column: Column
    cell: Callable[[Row], TableCell]


# ----------------------------------------------------------------------------------------- which rows


@dataclass(frozen=True)
class RowFilter:
    """Selects the rows to show. Controls and the pinned row don't depend on methods, students and budgets."""

    methods: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()
    forwards: tuple[float, ...] = ()
    """Forward passes per answer, to two decimals."""
    search: str = ""
    """Words that a row's label, student or ladder must contain, all of them."""
    controls: bool = True

    def matches(self, row: Row) -> bool:
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


def ordered(rows: Sequence[Row], by: BoardColumn | None, descending: bool) -> list[Row]:
    """The rows sorted by a column, those without a value last. Without a column: in the order of the ranking."""
    if by is None:
        return list(rows)
    key = by.spec.key
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key, reverse=descending) + [row for row in rows if key(row) is None]


# ---------------------------------------------------------------------------------------- texts


def short_name(row: Row) -> str:
    """A short name of a row, for labels in charts."""
    return named(row) if len(named(row)) <= 28 else f"{row.label[:24].strip()}… ({row.student})"


def majority_score(rows: Sequence[Row]) -> float | None:
    """The score of the majority control, which always gives the most frequent answer; None without one."""
    values = [row.figure for row in rows if row.kind == "control" and row.method == "majority"]
    return next((value for value in values if value is not None), None)


# ------------------------------------------------------------------------------------------- columns


def domain(rows: Sequence[Row], metric: str, floor: float | None = None) -> tuple[float, float] | None:
    """The range of a metric's values and intervals, including `floor`; None without any."""
    ends = [
        end
        for row in rows
        if (value := row.values.get(metric)) is not None
        for end in (value.value, value.low, value.high)
        if end is not None
    ]
    return (min([*ends, *([floor] if floor is not None else [])]), max(ends)) if ends else None


def board_columns(table: Table, shown: Sequence[Row]) -> dict[str, BoardColumn]:
    """The columns that a table can have, by name, in order. Scales cover the rows that are shown."""
    floor = majority_score(shown)
    ends = [end for row in shown if (d := row.delta) for end in (d.value, d.low, d.high) if end is not None]
    reach = max(map(abs, ends), default=0.0)
    axes = {"score": (domain(shown, table.metric), floor)}
    axes |= {"difference": ((-reach, reach), 0.0)} if reach else {}
    own: dict[str, Callable[[Row], TableCell]] = {
        "method": _method,
        "seeds": _seeds,
        "difference": lambda row: _difference(row, table),
    }
    notes = {"seeds": "; each number links to the run"}
    notes |= {} if floor is None else {"score": "; dashed line: the majority control"}
    found = {}
    for spec in ranking_columns(table.rows, every_interval=True):
        span, reference = axes.get(spec.name, (None, None))
        column = Column(
            spec.name,
            spec.head,
            "left" if spec.name == "seeds" else spec.align,
            spec.help + notes.get(spec.name, ""),
            span,
            reference,
        )
        found[spec.name] = BoardColumn(spec, column, own.get(spec.name) or _plain(spec))
    return found


def optional_columns(found: Mapping[str, BoardColumn]) -> list[str]:
    """The columns that a user can hide."""
    return [name for name in found if name not in (*ALWAYS, "difference")]


def default_columns(found: Mapping[str, BoardColumn], rows: Sequence[Row]) -> list[str]:
    """The columns that are shown by default: those of the printed table, except `ON_REQUEST`."""
    return [name for name in optional_columns(found) if found[name].spec.shown(rows) and name not in ON_REQUEST]


def table_rows(rows: Sequence[Row], shown: Sequence[BoardColumn]) -> list[TableRow]:
    """The rows of the drawn table."""
    return [
        TableRow(
            cells=tuple(column.cell(row) for column in shown),
            quiet=row.kind == "control",
            band=row.tier[0] if row.tier else 0,
            marked=row.baseline,
        )
        for row in rows
    ]


def unbanded(line: TableRow) -> TableRow:
    """The row without the background that marks its tier."""
    return replace(line, band=0)


def _method(row: Row) -> TableCell:
    head = row.name or row.method
    settings = row.label.removeprefix(head).strip()
    note = row.note if len(row.note) <= 90 else row.note[:89] + "…"
    return TableCell(
        head,
        small=settings,
        below=note,
        links=(Link(head, "run", {"run": row.run_ids[0]}, title=f"Open {row.run_ids[0]}"),),
        press=f"{row.label}@{row.student}" if row.kind == "run" or row.figure is not None else "",
        press_label=f"{'Unpin' if row.baseline else 'Pin'} {named(row)} as the row that the others are compared with",
        pressed=row.baseline,
        title=f"{row.spelled or row.label} {row.note}".strip(),
        chip="control" if row.kind == "control" else "",
    )


def _seeds(row: Row) -> TableCell:
    if row.kind == "control":
        return TableCell()
    pairs = list(zip(row.seeds, row.run_ids, strict=False))
    return TableCell(links=tuple(Link(str(seed), "run", {"run": run_id}, title=run_id) for seed, run_id in pairs))


def _plain(spec: ColumnSpec[Row]) -> Callable[[Row], TableCell]:
    """The printed text as a cell: an interval becomes smaller text, and can be drawn."""

    def cell(row: Row) -> TableCell:
        text, _, bounds = spec.text(row).partition(" [")
        found = spec.interval(row) if spec.interval else None
        if found is None:
            return TableCell(text)
        return TableCell(text, f"[{bounds}" if bounds else "", value=found.value, low=found.low, high=found.high)

    return cell


def _difference(row: Row, table: Table) -> TableCell:
    if row.delta is None:
        return TableCell("pinned" if row.baseline else "–")
    text = difference(row.delta, row.baseline).replace("-", "−")
    base = next((other for other in table.rows if other.baseline), None)
    head, _, interval = text.partition(" ")
    if base is None or row.kind == "control" or base.kind == "control":
        link: tuple[Link, ...] = ()
    else:
        params = {"a": row.run_ids[0], "b": base.run_ids[0]}
        link = (Link(head, "compare", params, title=f"Compare {named(row)} with {named(base)}"),)
    named_p = (("raw p", row.delta.p), ("Holm p", row.delta.p_holm))
    p = ", ".join(f"{name} {p_value(p)}" for name, p in named_p if p is not None)
    return TableCell(
        head, small=interval, value=row.delta.value, low=row.delta.low, high=row.delta.high, links=link, title=p
    )
