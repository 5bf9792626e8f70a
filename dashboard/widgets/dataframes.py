"""Frames as tables: what is text stays text, numbers stand at the right, an id may be a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboard.table import Column, Link, TableCell, TableRow, table

MISSING = "–"


def shown(
    frame: pd.DataFrame,
    key: str,
    caption: str,
    formats: Mapping[str, str] | None = None,
    links: Mapping[str, tuple[str, str, Mapping[str, str]]] | None = None,
) -> None:
    """Draws the frame. `formats`: how a column's numbers are written, as `{:.1f}`; whole numbers get commas.

    `links`: a column's texts are links, to a page (its name), under a parameter (its name), beside other parameters.
    """
    columns = [Column(str(n), str(n), align="right" if _numbers(frame[n]) else "text") for n in frame.columns]
    lines = [
        TableRow(tuple(_cell(str(name), value, formats or {}, links or {}) for name, value in row.items()))
        for row in frame.to_dict("records")
    ]
    table(columns, lines, key, caption)


def _numbers(values: pd.Series) -> bool:
    known = values.dropna()
    return len(known) > 0 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def _cell(
    name: str, value: Any, formats: Mapping[str, str], links: Mapping[str, tuple[str, str, Mapping[str, str]]]
) -> TableCell:
    text = written(value, formats.get(name))
    if name in links:
        page, parameter, others = links[name]
        return TableCell(text, links=(Link(text, page, {parameter: text, **others}),))
    return TableCell(text)


def written(value: Any, form: str | None = None) -> str:
    """A value as a cell has it: `–` for none, numbers as `form` says."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return (form or "{:,}").format(value)
    if isinstance(value, float):
        return (form or ("{:,.0f}" if value.is_integer() and abs(value) >= 1000 else "{:.4g}")).format(value)
    return str(value)


def moment(text: str) -> str:
    """A time of a record, which is UTC, as people read it."""
    return f"{text[:16].replace('T', ' ')} UTC" if text else ""
