"""The cells of tables as the browser gets them."""

from __future__ import annotations

from dashboard.table import LONGEST, Link, TableCell, TableRow, _line
from dashboard.widgets.escape import html, plain, visible


def test_a_cell_has_neither_invisible_links_nor_turned_nor_endless_names() -> None:
    """A link that only a button's title tells, U+202E that turns a row round, a label of a hundred settings."""
    cells = (
        TableCell(links=(Link("7", "run", {"run": "a"}),)),
        TableCell("\u200b", links=(Link("\u200b", "run", {"run": "a"}),)),
        TableCell("a\u202eb", small="x=1 " * 100),
    )
    one, hidden, turned = _line(TableRow(cells))["cells"]
    assert one["links"][0]["text"] == "7"
    assert hidden["links"][0]["text"] == "⟨U+200B⟩"
    assert turned["text"] == "a⟨U+202E⟩b"
    assert len(turned["small"]) == LONGEST
    assert turned["title"] == "x=1 " * 100
    assert "202E" in plain("a\u202eb")
    assert html("\u3164") == "⟨U+3164⟩"
    assert visible("می‌خواهم 5\u00a0% 👩‍💻") == "می‌خواهم 5\u00a0% 👩‍💻"


def test_a_difference_of_zero_is_drawn() -> None:
    cell = TableCell("0.0", value=0.0, low=-0.1, high=0.1)
    assert _line(TableRow((cell,)))["cells"] == [{"text": "0.0", "value": 0.0, "low": -0.1, "high": 0.1}]
