"""Links between pages."""

from __future__ import annotations

import pytest

from dashboard import navigation


def test_links_keep_the_place_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"benchmark": ["toy"], "size": ["S", "M"]}
    monkeypatch.setattr(navigation, "place", lambda: here)
    assert navigation.href("trade_off") == "./trade-off?benchmark=toy&size=S&size=M"
    assert navigation.href("compare", benchmark="other") == "./compare?benchmark=other&size=S&size=M"
