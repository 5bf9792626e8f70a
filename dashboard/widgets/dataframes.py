"""Data frames as tables: text is escaped, numbers are right-aligned, ids may be links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from dashboard.table import Column, Link, TableCell, TableRow, table

MISSING = "–"
NumberFormat = str | Callable[[float], str]
"""The format of a column's numbers: such as `{:.1f}`, or a function."""
Linked = tuple[str, str, Mapping[str, str] | Mapping[str, list[str]]]
"""The page that a column's texts link to, the URL parameter that holds the text, other parameters."""


def show_frame(
    frame: pd.DataFrame,
    key: str,
    caption: str,
    formats: Mapping[str, NumberFormat] | None = None,
    links: Mapping[str, Linked] | None = None,
) -> None:
    """Draws the frame. `formats`: by column, the format of its numbers; without one, integers get commas.

    `links`: by column, what its texts link to.
    Columns that are empty in all rows are left out, except in an empty table.
    """
    if len(frame):
        frame = frame[[name for name in frame.columns if not (frame[name].isna() | frame[name].eq("")).all()]]
    columns = [Column(str(n), str(n), align="right" if _numbers(frame[n]) else "text") for n in frame.columns]
    lines = [
        TableRow(tuple(_cell(str(name), value, formats or {}, links or {}) for name, value in row.items()))
        for row in frame.to_dict("records")
    ]
    table(columns, lines, key, caption)


def _numbers(values: pd.Series) -> bool:
    known = values.dropna()
    return len(known) > 0 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def _cell(name: str, value: Any, formats: Mapping[str, NumberFormat], links: Mapping[str, Linked]) -> TableCell:
    text = format_value(value, formats.get(name))
    if name in links:
        page, parameter, others = links[name]
        return TableCell(text, links=(Link(text, page, {parameter: text, **others}),))
    return TableCell(text)


def format_value(value: Any, form: NumberFormat | None = None) -> str:
    """The text of a value: `–` for a missing one, numbers in the format `form`."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if callable(form):
        return form(value)
    if isinstance(value, int):
        return (form or "{:,}").format(value)
    if isinstance(value, float):
        return (form or ("{:,.0f}" if value.is_integer() and abs(value) >= 1000 else "{:.4g}")).format(value)
    return str(value)


def format_time(text: str) -> str:
    """A time of a record, which is in UTC, in a readable form."""
    return f"{text[:16].replace('T', ' ')} UTC" if text else ""
