"""The page ablation."""

from __future__ import annotations

from dashboard import stores


def show() -> None:
    """An honest empty state until the page is there."""
    if stores.any_runs():
        stores.nothing("This page isn't there yet: the command line shows the same.", "hkdbench --help")
