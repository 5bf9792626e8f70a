"""A ranking as plain text, Markdown, JSON and CSV. `harness.report.tables` says which tables and columns there are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from pydantic import BaseModel
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from harness.leaderboard.schema import SHOWN, Delta, DirectlyTuned, Distilled, Overall, Power, Row
from harness.record import Interval
from harness.report.columns import ColumnSpec
from harness.report.format import one_line
from harness.report.tables import TableSpec, legend, sections

WIDTH = 110
"""The width of text that isn't written to a terminal."""
_GAP = 2
_CONSOLE = Console(color_system=None)
_IF_WIDE = ("train time", "parameters", "TFLOPs", "raw p", "Holm p", "forwards", "seeds", "tier")
"""Columns that a ranking only has if there is room; the first ones are dropped first."""
_LEVELS = [
    (0, False, False, 24),
    *((gone, True, False, 24) for gone in range(4)),
    *((gone, True, True, 16) for gone in range(1, len(_IF_WIDE) + 1)),
    (len(_IF_WIDE), True, True, 8),
]
"""The levels that are tried until a table fits: how many of `_IF_WIDE` are dropped, whether heads are wrapped, whether
intervals go below their figures, and the minimum width of names."""


# ---------------------------------------------------------------------------------------------- plain text


def to_text(
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    columns: Collection[str] = (),
    overall: Sequence[Overall] = (),
    width: int = WIDTH,
) -> str:
    """The tables as plain text, with this width. A table that can't be made narrow enough is wider: no figure is
    cut."""
    out: list[str] = []
    for section in sections(rows, columns, overall):
        out += [*_wrapped(section.heading, width), ""]
        out += [line for said in section.headline for line in _wrapped(said, width)]
        out += [""] if section.headline else []
        for table in section.tables:
            out += [table.title, ""] if table.title else []
            out += [line for note in table.above for line in _wrapped(note, width)]
            out += [""] if table.above else []
            drawn, left_out = _drawn(table, width)
            out += [*drawn, ""] if drawn else []
            notes_of = [*table.notes, *([f"left out at this width: {', '.join(left_out)}"] if left_out else [])]
            out += [line for note in notes_of for line in _wrapped(note, width)]
            out += [""] if notes_of else []
    for note in ([legend(rows)] if rows else ["No runs."]) + list(notes):
        out += _wrapped(note, width)
    return "\n".join(out) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    return [line for part in text.splitlines() for line in wrap(one_line(part), width)]


def _drawn(table: TableSpec[Any], width: int) -> tuple[list[str], list[str]]:
    """A table's lines, and the heads of the columns that don't fit. See `_LEVELS`."""
    if not table.columns:
        return [], []
    for gone, heads, folded, name in _LEVELS:
        left_out = [column for column in table.columns if column.name in _IF_WIDE[:gone] and not table.title]
        shown = [column for column in table.columns if column not in left_out]
        cells = [[_folded(column, row, folded) for row in table.rows] for column in shown]
        widths = [_width(column, texts, heads, name) for column, texts in zip(shown, cells, strict=True)]
        whole = sum(widths) + _GAP * (len(widths) - 1)
        if whole <= width:
            break
    for at, (column, texts) in enumerate(zip(shown, cells, strict=True)):  # what is left is for names
        more = min(_width(column, texts, heads, width) - widths[at], width - whole)
        if more > 0:
            widths[at], whole = widths[at] + more, whole + more
    lines = [
        *_lines([column.head for column in shown], shown, widths, bottom=True),
        "─" * whole,
        *(line for texts in zip(*cells, strict=True) for line in _lines(texts, shown, widths)),
    ]
    return lines, [column.head for column in left_out]


def _lines(
    texts: Sequence[str], shown: Sequence[ColumnSpec[Any]], widths: Sequence[int], bottom: bool = False
) -> Iterator[str]:
    """The lines of a row of cells: what is wider than its column is wrapped. `bottom`: lower ones end together.

    rich's own `Table` would draw the same, but takes ten times as long: half of the time of a large ranking.
    """
    cells = [_wrapped_cell(text, width) for text, width in zip(texts, widths, strict=True)]
    if bottom:
        cells = [[""] * (max(map(len, cells)) - len(cell)) + cell for cell in cells]
    for parts in zip_longest(*cells, fillvalue=""):
        padded = (
            " " * (width - cell_len(part)) + part if column.align == "right" else set_cell_size(part, width)
            for part, column, width in zip(parts, shown, widths, strict=True)
        )
        if line := (" " * _GAP).join(padded).rstrip():  # a trailing space is wrapped, too
            yield line


def _wrapped_cell(text: str, width: int) -> list[str]:
    if "\n" not in text and cell_len(text) <= width:
        return [text]
    return [line.plain.rstrip() for line in Text(text).wrap(_CONSOLE, width, overflow="fold")]


def _folded(column: ColumnSpec[Any], row: Any, folded: bool) -> str:
    """A cell; if it is `folded`, a figure is above its interval."""
    text = one_line(column.text(row))
    return text.replace(" [", "\n[") if folded and column.align == "right" else text


def _width(column: ColumnSpec[Any], cells: Sequence[str], heads: bool, name: int) -> int:
    """The width of a column. If `heads` may be wrapped, it is that of the longest word; for names it is `name`."""
    texts = [*(column.head.split() if heads else [column.head]), *cells]
    longest = max(cell_len(line) for text in texts for line in text.split("\n"))
    return min(name, longest) if column.align == "left" else longest


# ------------------------------------------------------------------------------------------------ Markdown


def to_markdown(
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    columns: Collection[str] = (),
    overall: Sequence[Overall] = (),
    chosen: Collection[str] = (),
) -> str:
    """The tables in Markdown; `chosen`: see `tables.sections`."""
    out: list[str] = []
    for section in sections(rows, columns, overall, chosen):
        for table in section.tables:
            heading = f"{section.heading}: {table.title}" if table.title else section.heading
            out += [f"**{_escaped(heading)}**", ""]
            if table is section.tables[0] and section.headline:
                out += [*(f"- {_escaped(said)}" for said in section.headline), ""]
            out += [*(f"- {_escaped(note)}" for note in table.above), *([""] if table.above else []), *_pipes(table)]
            out += [f"- {_escaped(note)}" for note in table.notes]
            out += [""] if table.notes else []
    out += [legend(rows) if rows else "No runs.", *(f"- {_escaped(note)}" for note in notes)]
    return "\n".join(out) + "\n"


def _pipes(table: TableSpec[Any]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in cells) + " |"

    if not table.columns:
        return []
    rule = "|" + "|".join("---:" if column.align == "right" else "---" for column in table.columns) + "|"
    rows = (line(column.text(row) for column in table.columns) for row in table.rows)
    return [line(column.head for column in table.columns), rule, *rows, ""]


def _escaped(text: str) -> str:
    """A text on one line in which no tag, no link, no code and no character reference begins."""
    return re.sub(r"[\\`<&]|(?<=\])\(", r"\\\g<0>", one_line(text))


# ---------------------------------------------------------------------------------------------- JSON, CSV


def to_json(rows: Sequence[Row], notes: Sequence[str] = (), overall: Sequence[Overall] = ()) -> str:
    """One JSON document: `rows`, each with all its fields (fractions, not per cent), `notes`, and `overall`."""
    document: dict[str, Any] = {"rows": [row.model_dump(mode="json") for row in rows], "notes": list(notes)}
    if overall:
        document["overall"] = [row.model_dump(mode="json") for row in overall]
    return json.dumps(document, indent=1)


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row, with a header; figures are fractions; lists are separated by spaces."""
    return _csv(*ranking_cells(rows))


def ranking_cells(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of `to_csv`, and the values of each row by column; figures are fractions."""
    metrics = dict.fromkeys([*SHOWN, *(name for row in rows for name in row.values)])
    return list(_cells(None, metrics)), [_cells(row, metrics) for row in rows]


def overall_csv(overall: Sequence[Overall]) -> str:
    """The rows over all benchmarks, in the format of `to_csv`."""
    return _csv(_fields(Overall, None), [_fields(Overall, row) for row in overall])


def _cells(row: Row | None, metrics: Iterable[str]) -> dict[str, Any]:
    line = _fields(Row, row)
    for name in metrics:
        line |= _interval(name, row.values.get(name) if row else None)
    delta = row.delta if row else None
    line |= _interval("delta", delta) | {
        "delta_p": delta.p if delta else None,
        "delta_p_holm": delta.p_holm if delta else None,
    }
    line |= _fields(DirectlyTuned, row.direct if row else None, "direct_")
    line |= _fields(Distilled, row.distil if row else None, "distil_")
    return line | _fields(Power, row.power if row else None, "power_")


def _fields(model: type[BaseModel], value: BaseModel | None, prefix: str = "") -> dict[str, Any]:
    """The plain fields of a value (None if there is no value), without those that `_cells` adds itself."""
    line: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found = getattr(value, name, None)
        if field.annotation == Interval | None:
            line |= _interval(prefix + name, found)
        elif model is DirectlyTuned and name == "difference":
            line |= _interval(prefix + name, found) | {f"{prefix}p": getattr(found, "p", None)}
        elif name not in ("values", "metric", "delta", "direct", "distil", "power"):
            line[prefix + name] = found
    return line


def _interval(name: str, value: Interval | Delta | None) -> dict[str, float | None]:
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: getattr(value, end, None) for column, end in ends.items()}


def _csv(header: Iterable[str], lines: Sequence[dict[str, Any]]) -> str:
    import pandas as pd  # slow to load, and the other forms don't need it

    listed = [
        {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in line.items()}
        for line in lines
    ]
    frame = pd.DataFrame(listed, columns=list(header), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))
