"""The leaderboard's logic: which rows are shown, in which order, and what stands in their cells. Plain values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dashboard.table import Column, Link, TableCell, TableRow
from harness.leaderboard.schema import Row, Table
from harness.record import Interval
from harness.report.columns import ColumnSpec, has_own_unit, ranking_columns, unit
from harness.report.format import difference, percent
from harness.report.tables import named as named

ALWAYS = ("rank", "method", "student", "score")
"""The columns that can't be left out; so is the difference where a row is pinned."""
ON_REQUEST = ("accuracy", "macro_f1")
"""Columns that the printed table shows unasked, and the dashboard doesn't: the score is drawn, which takes room."""


@dataclass(frozen=True)
class BoardColumn:
    """A column of the leaderboard: what the printed tables know of it, its head here, and a row's cell."""

    spec: ColumnSpec[Row]
    column: Column
    cell: Callable[[Row], TableCell]


# ----------------------------------------------------------------------------------------- which rows


@dataclass(frozen=True)
class Shown:
    """What of a table is shown; ranks and tiers stay those of the whole table. Controls stay whatever is asked."""

    methods: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()
    search: str = ""
    """Words that a row's label or student must hold, all of them."""
    controls: bool = True

    def fits(self, row: Row) -> bool:
        """Whether a row is shown."""
        words = self.search.lower().split()
        if not all(word in f"{row.label} {row.student} {row.ladder}".lower() for word in words):
            return False
        if row.kind == "control":
            return self.controls
        if row.baseline:
            return True
        asked = ((self.methods, row.method), (self.students, row.student), (self.budgets, row.budget))
        return all(not wanted or value in wanted for wanted, value in asked)


def ordered(rows: Sequence[Row], by: BoardColumn | None, descending: bool) -> list[Row]:
    """Rows by a column, those without a figure in it last; as they are ranked without one."""
    if by is None:
        return list(rows)
    key = by.spec.key
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key, reverse=descending) + [row for row in rows if key(row) is None]


# ---------------------------------------------------------------------------------------- what is said


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
        said += "; a table this large has no rank intervals and tiers."
    elif len(first) == 1:
        beaten = "the other row" if len(runs) == 2 else f"all {len(runs) - 1} other rows"
        said += f": significantly better than {beaten}."
    else:
        others = ", ".join(named(row) for row in first[1:4])
        others += f" and {len(first) - 4} more" if len(first) > 4 else ""
        said += f", but not significantly better than {others} ({len(first) - 1} of {len(runs) - 1} other rows)."
    floor = floor_of(table)
    if floor is not None:
        said += f" The majority answer gets {percent(Interval(value=floor))} %."
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


def board_columns(table: Table) -> dict[str, BoardColumn]:
    """All columns that a table can have, by name, in order. Scales are the whole table's: a filter moves nothing."""
    floor = floor_of(table)
    ends = [end for row in table.rows if (d := row.delta) for end in (d.value, d.low, d.high) if end is not None]
    reach = max(map(abs, ends), default=0.0)
    axes = {"score": (domain(table.rows, table.metric, floor), floor)}
    axes |= {"difference": ((-reach, reach), 0.0)} if reach else {}
    own: dict[str, Callable[[Row], TableCell]] = {
        "method": _method,
        "seeds": _seeds,
        "difference": lambda row: _difference(row, table),
    }
    notes = {"seeds": "; each is a link to its run"}
    notes |= {} if floor is None else {"score": "; dashed: the majority answer"}
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


def optional(found: Mapping[str, BoardColumn]) -> list[str]:
    """The columns that may be left out."""
    return [name for name in found if name not in (*ALWAYS, "difference")]


def usual(found: Mapping[str, BoardColumn], rows: Sequence[Row]) -> list[str]:
    """Of these the ones that are shown unless others are chosen: as in the printed table."""
    return [name for name in optional(found) if found[name].spec.shown(rows) and name not in ON_REQUEST]


def lines(rows: Sequence[Row], shown: Sequence[BoardColumn]) -> list[TableRow]:
    """The rows as they are drawn."""
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
    """A row whose background says nothing of its tier."""
    return replace(line, band=0)


def _method(row: Row) -> TableCell:
    head, _, settings = row.label.partition(" ")
    note = row.note if len(row.note) <= 90 else row.note[:89] + "…"
    return TableCell(
        head,
        small=settings,
        below=note,
        links=(Link(head, "run", {"run": row.run_ids[0]}, title=f"Open {row.run_ids[0]}"),),
        press=f"{row.label}@{row.student}" if row.kind == "run" or row.figure is not None else "",
        press_label=f"{'Unpin' if row.baseline else 'Pin'} {named(row)} as the row that others are compared with",
        pressed=row.baseline,
        title=f"{row.label} {row.note}".strip(),
        chip="control" if row.kind == "control" else "",
    )


def _seeds(row: Row) -> TableCell:
    if row.kind == "control":
        return TableCell()
    pairs = list(zip(row.seeds, row.run_ids, strict=False))
    return TableCell(links=tuple(Link(str(seed), "run", {"run": run_id}, title=run_id) for seed, run_id in pairs))


def _plain(spec: ColumnSpec[Row]) -> Callable[[Row], TableCell]:
    """The printed text as a cell: a figure's interval stands smaller beside it, and can be drawn."""

    def cell(row: Row) -> TableCell:
        text, _, bounds = spec.text(row).partition(" [")
        found = spec.interval(row) if spec.interval else None
        if found is None:
            return TableCell(text)
        return TableCell(text, f"[{bounds}" if bounds else "", value=found.value, low=found.low, high=found.high)

    return cell


def _difference(row: Row, table: Table) -> TableCell:
    if row.delta is None:
        return TableCell("pinned" if row.baseline else "-")
    text = difference(row.delta, row.baseline).replace("-", "−")
    base = next((other for other in table.rows if other.baseline), None)
    head, _, interval = text.partition(" ")
    if base is None or row.kind == "control" or base.kind == "control":
        link: tuple[Link, ...] = ()
    else:
        params = {"a": row.run_ids[0], "b": base.run_ids[0]}
        link = (Link(head, "compare", params, title=f"Compare {named(row)} with {named(base)}"),)
    p = "" if row.delta.p is None else f"p {row.delta.p:.2g}"
    return TableCell(
        head, small=interval, value=row.delta.value, low=row.delta.low, high=row.delta.high, links=link, title=p
    )
