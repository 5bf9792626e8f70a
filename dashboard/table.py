"""A table that draws intervals in its rows. It is real HTML: screen readers, search and the keyboard work.

The browser side (`table.js`, `table.css`) gets plain values and sets them as text, so no name becomes markup. Links
have addresses, so they open in a new tab, too. A plain click stays within the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from dashboard import navigation
from dashboard.widgets.escape import visible


@dataclass(frozen=True)
class Link:
    """A link to a page of the dashboard, with its URL parameters."""

    text: str
    page: str
    params: Mapping[str, str | list[str]]
    title: str = ""


@dataclass(frozen=True)
class TableCell:
    """The content of a cell: text (with smaller text beside or below it), an interval to draw, links, a button."""

    text: str = ""
    small: str = ""
    """Smaller text beside the text."""
    below: str = ""
    """Smaller text under the text."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    links: tuple[Link, ...] = ()
    """One link: `text` becomes the link. Several links: they replace `text`."""
    press: str = ""
    """The value that the button at the end of the cell sends; empty for no button."""
    press_label: str = ""
    pressed: bool = False
    title: str = ""
    chip: str = ""
    shade: float | None = None
    """The cell's background, from 0 (none) to 1 (full colour): a cell of a heatmap."""


@dataclass(frozen=True)
class Column:
    """A column. Its intervals are drawn on the scale `domain`, with a dashed line at `reference`.

    All columns with `help` are explained in a list above the table, which opens with a click, a key or a touch.
    """

    name: str
    label: str
    align: Literal["left", "right", "text"] = "right"
    """In narrow columns, `left` breaks lines anywhere, `text` only between words."""
    help: str = ""
    domain: tuple[float, float] | None = None
    reference: float | None = None
    second: float | None = None
    """Where a dotted line stands, for a second reference."""
    width: int = 132
    """Of the drawing, in pixels."""
    sortable: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row. `quiet`: grey and in italics, for rows without a rank. `band`: odd numbers have a grey background.
    `marked`: with a coloured frame."""

    cells: tuple[TableCell, ...]
    quiet: bool = False
    band: int = 0
    marked: bool = False


_HERE = Path(__file__).parent
LONGEST = 160
"""Smaller text and links are cut to this many characters; the whole is in the cell's title. So no row is taller than a
window."""


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
    """Draws the table. A click on a link opens its page. `caption` describes the table to screen readers.

    `on_sort` gets the name of the column whose head was clicked. `on_press` gets the `press` of the cell whose button
    was clicked. Both run before the page is computed again, so they may change the URL parameters.
    """

    def callback(name: str, handler: Callable[[str], None] | None) -> Callable[[], None]:
        def act() -> None:
            value = st.session_state[key].get(name)
            if handler is not None and value is not None:
                handler(str(value))

        return act

    data = {
        "columns": [_head(column, on_sort is not None) for column in columns],
        "lines": [_line(line) for line in lines],
        "sort": sort,
        "descending": descending,
        "caption": visible(caption),
        "saves": True,
    }
    _component()(
        key=key, data=data, on_sort_change=callback("sort", on_sort), on_press_change=callback("press", on_press)
    )


def _head(column: Column, sorts: bool) -> dict[str, Any]:
    """A column as the browser gets it."""
    texts = {"label": visible(column.label), "help": visible(column.help)}
    return asdict(column) | texts | {"sortable": column.sortable and sorts}


def _line(line: TableRow) -> dict[str, Any]:
    """A row as the browser gets it: empty fields left out, every text visible, links with texts and addresses."""
    cells = []
    for cell in line.cells:
        plain = {
            name: visible(value) if isinstance(value, str) and name != "press" else value
            for name, value in asdict(cell).items()
            if value not in ("", ()) and value is not None and value is not False
        }
        for name in ("small", "below"):
            if len(text := plain.get(name, "")) > LONGEST:
                plain |= {name: text[: LONGEST - 1] + "…", "title": plain.get("title", text)}
        if cell.links:
            plain["links"] = [_anchor(one, cell.text if len(cell.links) == 1 else "") for one in cell.links]
        cells.append(plain)
    return {"cells": cells, "quiet": line.quiet, "band": line.band, "marked": line.marked}


def _anchor(link: Link, text: str) -> dict[str, str]:
    """A link as the browser gets it. It has a text in any case: an empty one can't be seen or clicked."""
    shown = visible(text or link.text).strip() or navigation.named(link.page).title
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return {"text": shown, "title": visible(link.title), "href": navigation.href(link.page, **link.params)}


def _component() -> Any:
    """The component. It is registered at each call, because a restarted server forgets it."""
    return st.components.v2.component(
        "hkdbench_table", css=(_HERE / "table.css").read_text("utf-8"), js=(_HERE / "table.js").read_text("utf-8")
    )
