"""The names of data and metrics to choose from."""

from __future__ import annotations

from pathlib import Path

from dashboard.widgets import url_state
from harness.store import Store
from harness.store.catalog import View
from harness.store.index import from_arrow
from helpers.runs import add


def test_data_are_named_by_version_only_where_there_are_several(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a")
    found = url_state.data_names(from_arrow(View(store).lines()))
    assert list(found) == ["toy"]
    assert url_state.metrics_of(["accuracy/count", "chance", "official:f1", "ece"], None) == [
        "accuracy", "macro_f1", "micro_f1", "accuracy/count", "ece",  # chance says nothing of a row
    ]  # fmt: skip
    assert url_state.metrics_of(["accuracy", "official:f1"], "official") == ["official:f1"]
