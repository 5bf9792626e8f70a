"""A table that draws intervals in its rows: real HTML, so that it can be read aloud, searched and used by keyboard.

The browser's side (`table.js`, `table.css`) gets plain values and sets them as text: no name becomes markup. Links have
addresses (they open in a new tab too); a plain click goes there within the page's session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from dashboard import navigation


@dataclass(frozen=True)
class Link:
    """A place to go: a page of the dashboard and what its URL says."""

    text: str
    page: str
    params: Mapping[str, str | list[str]]
    title: str = ""


@dataclass(frozen=True)
class TableCell:
    """What stands in a row: text (with smaller text beside or below it), an interval to draw, links, a button."""

    text: str = ""
    small: str = ""
    """Beside the text, quieter."""
    below: str = ""
    """Under the text, quieter."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    links: tuple[Link, ...] = ()
    """One link: the text is the link; more: they stand instead of it."""
    press: str = ""
    """What a button at the cell's end sends."""
    press_label: str = ""
    pressed: bool = False
    title: str = ""
    chip: str = ""


@dataclass(frozen=True)
class Column:
    """A column: intervals in it are drawn over `domain`, with a line at `reference`."""

    name: str
    label: str
    align: Literal["left", "right", "text"] = "right"
    """`left` may be broken anywhere where room is short, `text` between words."""
    help: str = ""
    domain: tuple[float, float] | None = None
    reference: float | None = None
    sortable: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row; `quiet` ones are beside the competition, `band` alternates the background of rows that belong together."""

    cells: tuple[TableCell, ...]
    quiet: bool = False
    band: int = 0
    marked: bool = False


_HERE = Path(__file__).parent


def table(
    columns: Sequence[Column],
    lines: Sequence[TableRow],
    key: str,
    caption: str,
    sort: str = "",
    descending: bool = False,
    on_sort: Callable[[str], None] | None = None,
    on_press: Callable[[str], None] | None = None,
) -> None:
    """Draws the table; a click on a link opens its page. `caption` says what it holds, for who hears it read.

    `on_sort` gets the column whose head was clicked, `on_press` the `press` of the cell whose button was: both before
    the page is computed anew, so they may set what it is computed from.
    """

    def told(name: str, handler: Callable[[str], None] | None) -> Callable[[], None]:
        def act() -> None:
            value = st.session_state[key].get(name)
            if handler is not None and value is not None:
                handler(str(value))

        return act

    data = {
        "columns": [asdict(column) | {"sortable": column.sortable and on_sort is not None} for column in columns],
        "lines": [_line(line) for line in lines],
        "sort": sort,
        "descending": descending,
        "caption": caption,
    }
    _component()(key=key, data=data, on_sort_change=told("sort", on_sort), on_press_change=told("press", on_press))


def _line(line: TableRow) -> dict[str, Any]:
    """A row as the browser gets it: without what is empty, links with their addresses."""
    cells = []
    for cell in line.cells:
        plain = {name: value for name, value in asdict(cell).items() if value not in ("", None, False, ())}
        if cell.links:
            plain["links"] = [asdict(one) | {"href": navigation.href(one.page, **one.params)} for one in cell.links]
        cells.append(plain)
    return {"cells": cells, "quiet": line.quiet, "band": line.band, "marked": line.marked}


def _component() -> Any:
    """The component, registered anew where a restarted server lost it."""
    return st.components.v2.component(
        "hkdbench_table", css=(_HERE / "table.css").read_text("utf-8"), js=(_HERE / "table.js").read_text("utf-8")
    )
