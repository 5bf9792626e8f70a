"""trade_off."""

from __future__ import annotations

from dashboard import stores


def show() -> None:
    """The page."""
    stores.any_runs()
