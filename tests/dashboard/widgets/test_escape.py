"""Texts of others are shown as they are."""

from __future__ import annotations

import pytest

from dashboard.widgets.escape import html, plain


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "[x](javascript:alert(1))", ":red[x] :smile:", "$x$ **b** `c`", "a\nb", "# h"]
)
def test_no_sign_of_a_text_is_left_as_markup(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for sign in "<>[]()*_`$:#!|~":
        assert all(bare[k - 1] == "\\" for k in range(len(bare)) if bare[k] == sign), (sign, shown)
    assert "<" not in html(text)


def test_escaping_changes_nothing_that_is_read() -> None:
    assert plain("offline_kd alpha=2").replace("\\", "") == "offline_kd alpha=2"
