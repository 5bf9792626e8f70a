"""A ranking as plain text, Markdown, JSON and CSV. `grids` says which tables and columns there are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from textwrap import wrap
from typing import Any, TypeVar

from pydantic import BaseModel

from harness.leaderboard.schema import SHOWN, Delta, Distilled, Overall, Power, Row
from harness.record import Interval
from harness.report.columns import Column, Grid, grids, legend, overall_grid, parts
from harness.report.format import percent

__all__ = ["WIDTH", "overall_csv", "percent", "to_csv", "to_json", "to_markdown", "to_text"]

WIDTH = 110
_FLEXIBLE = ("missing", "teacher", "method", "student")
"""Columns that may break their lines."""
_METHOD = 22
"""What is left to the method's column in plain text; costs are left out where there is less."""

T = TypeVar("T")


# ---------------------------------------------------------------------------------------------- plain text


def to_text(
    rows: Sequence[Row], notes: Sequence[str] = (), columns: Collection[str] = (), overall: Sequence[Overall] = ()
) -> str:
    """The tables as plain text, at most 110 columns wide."""
    out: list[str] = []
    for heading, part in parts(rows):
        out += [heading, ""]
        for grid in grids(part, columns):
            out += _text(grid)
    if overall:
        out += _text(overall_grid(overall))
    for note in ([legend(rows)] if rows else ["No runs."]) + list(notes):
        out += wrap(note, WIDTH)
    return "\n".join(line.rstrip() for line in out) + "\n"


def _text(grid: Grid[T]) -> list[str]:
    """A table with its title and its notes."""
    out = [grid.title, ""] if grid.title else []
    if grid.above:
        out += [*(line for note in grid.above for line in wrap(note, WIDTH)), ""]
    if grid.columns:
        out += [*_lines(_fitting(grid.columns, grid.lines), grid.lines), ""]
    out += [line for note in grid.notes for line in wrap(note, WIDTH)]
    return [*out, ""]


def _lines(shown: Sequence[Column[T]], rows: Sequence[T]) -> list[str]:
    """A table's lines: names and students that are too long for the width go on in the next line."""
    cells = [[column.cell(row) for column in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip([c.name for c in shown], *cells, strict=True)]
    for at in (k for name in _FLEXIBLE for k, column in enumerate(shown) if column.name == name):
        over = sum(widths) + 2 * (len(widths) - 1) - WIDTH
        widths[at] = max(min(widths[at], 8), widths[at] - max(over, 0))
    lines = []
    for line in [[column.name for column in shown], *cells]:
        folded = [_folded(text, width) for text, width in zip(line, widths, strict=True)]
        for k in range(max(map(len, folded))):
            pieces = (
                f"{part[k] if k < len(part) else '':{'>' if column.align == 'right' else '<'}{width}}"
                for column, part, width in zip(shown, folded, widths, strict=True)
            )
            lines.append("  ".join(pieces))
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines


def _folded(text: str, width: int) -> list[str]:
    """The lines of a cell. Nearly all fit, and `wrap` is slow."""
    return [text] if len(text) <= width and text.isprintable() else wrap(text, width) or [""]


def _fitting(shown: list[Column[T]], rows: Sequence[T]) -> list[Column[T]]:
    """The columns without as many of the costs as must go for the width of plain text."""
    widths = {c.name: 2 + max(len(c.name), *(len(c.cell(row)) for row in rows)) for c in shown if c.name != "method"}
    for name in ("train s", "params", "TFLOPs"):
        if name in widths and sum(widths.values()) > WIDTH - _METHOD:
            widths.pop(name)
    return [column for column in shown if column.name in widths or column.name == "method"]


# ------------------------------------------------------------------------------------------------ Markdown


def to_markdown(
    rows: Sequence[Row], notes: Sequence[str] = (), columns: Collection[str] = (), overall: Sequence[Overall] = ()
) -> str:
    """The tables in Markdown."""
    out: list[str] = []
    for heading, part in parts(rows):
        for grid in grids(part, columns):
            out += _markdown(grid, f"{heading}: {grid.title}" if grid.title else heading)
    if overall:
        together = overall_grid(overall)
        out += _markdown(together, together.title)
    out += [legend(rows) if rows else "No runs.", *(f"- {note}" for note in notes)]
    return "\n".join(out) + "\n"


def _markdown(grid: Grid[T], heading: str) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    out = [f"**{heading}**", "", *(f"- {note}" for note in grid.above), *([""] if grid.above else [])]
    if grid.columns:
        out += [line(column.name for column in grid.columns)]
        out += ["|" + "|".join("---:" if column.align == "right" else "---" for column in grid.columns) + "|"]
        out += [*(line(column.cell(row) for column in grid.columns) for row in grid.lines), ""]
    out += [f"- {note}" for note in grid.notes]
    return out + ([""] if grid.notes else [])


# ---------------------------------------------------------------------------------------------- JSON, CSV


def to_json(rows: Sequence[Row], notes: Sequence[str] = (), overall: Sequence[Overall] = ()) -> str:
    """One JSON document: `rows`, each with all its fields (fractions, not per cent), `notes`, and `overall`."""
    document: dict[str, Any] = {"rows": [row.model_dump(mode="json") for row in rows], "notes": list(notes)}
    if overall:
        document["overall"] = [row.model_dump(mode="json") for row in overall]
    return json.dumps(document, indent=1)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row, with a header; figures are fractions; lists are separated by spaces."""
    metrics = dict.fromkeys([*SHOWN, *(name for row in rows for name in row.values)])
    return _csv(_cells(None, metrics), [_cells(row, metrics) for row in rows])


def overall_csv(overall: Sequence[Overall]) -> str:
    """The rows over all benchmarks, as `to_csv` writes those of a table."""
    return _csv(_fields(Overall, None), [_fields(Overall, row) for row in overall])


def _cells(row: Row | None, metrics: Iterable[str]) -> dict[str, Any]:
    line = _fields(Row, row)
    for name in metrics:
        line |= _interval(name, row.values.get(name) if row else None)
    delta = row.delta if row else None
    line |= _interval("delta", delta) | {"delta_p": delta.p if delta else None}
    line |= _fields(Distilled, row.distil if row else None, "distil_")
    return line | _fields(Power, row.power if row else None, "power_")


def _fields(model: type[BaseModel], value: BaseModel | None, prefix: str = "") -> dict[str, Any]:
    """The plain fields of a value, None for nothing at all; what `_cells` has places of its own for is left out."""
    line: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found = getattr(value, name, None)
        if field.annotation == Interval | None:
            line |= _interval(prefix + name, found)
        elif name not in ("values", "metric", "delta", "distil", "power"):
            line[prefix + name] = " ".join(map(str, found)) if isinstance(found, tuple) else found
    return line


def _interval(name: str, value: Interval | Delta | None) -> dict[str, float | None]:
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: getattr(value, end, None) for column, end in ends.items()}


def _csv(header: Iterable[str], lines: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(header), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
