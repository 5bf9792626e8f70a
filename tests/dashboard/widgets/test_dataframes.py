"""Data frames as tables."""

from __future__ import annotations

import pandas as pd
import pytest

from dashboard.widgets import dataframes


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, None, "–"),
        (float("nan"), "{:.1f}", "–"),
        (1234, None, "1,234"),
        (14216.0, None, "14,216"),
        (0.00012345, None, "0.0001234"),
        (0.5, "{:.2f}", "0.50"),
        (True, None, "true"),
        ("<b>", None, "<b>"),
    ],
)
def test_cells(value: object, form: str | None, text: str) -> None:
    assert dataframes.format_value(value, form) == text


def test_columns_without_any_value_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    monkeypatch.setattr(dataframes, "table", lambda columns, *rest: heads.extend(c.name for c in columns))
    dataframes.show_frame(pd.DataFrame({"a": [1, 2], "b": ["", ""], "c": [None, None], "d": ["", "x"]}), "key", "")
    assert heads == ["a", "d"]
