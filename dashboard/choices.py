"""What several pages let their reader choose: the data that are ranked, metric, split. All of it stands in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import stores
from harness.entries import BROKEN, Entry
from harness.manifest import DataKey
from harness.rows import Filters, Ranking, Table
from harness.stats import METRICS

ALL = "All benchmarks"


def data_names(runs: Sequence[Entry]) -> dict[str, DataKey]:
    """The data that runs were scored on, by a name to choose them by: the benchmark, and its version where needed."""
    keys = sorted({run.data_key for run in runs if run.status != BROKEN and run.fingerprint})
    versions = [benchmark for benchmark, _, _ in keys]
    return {
        benchmark if versions.count(benchmark) == 1 else f"{benchmark} ({revision}, {fingerprint[:8]})": key
        for key in keys
        for benchmark, revision, fingerprint in [key]
    }


def one(label: str, options: Sequence[str], key: str, **more: Any) -> str:
    """A choice of one, kept in the URL under `key`; the first is the default."""
    chosen: str = st.selectbox(label, options, key=key, bind="query-params", **more)
    return chosen


def several(label: str, options: Sequence[Any], key: str, **more: Any) -> tuple[Any, ...]:
    """A choice of any number, kept in the URL under `key`; none stands for all."""
    return tuple(st.multiselect(label, options, key=key, bind="query-params", placeholder="any", **more))


def maybe(label: str, options: Sequence[str], key: str, otherwise: str) -> str | None:
    """A choice of one or none, kept in the URL under `key`; `otherwise` says what none means."""
    chosen: str | None = st.selectbox(
        label, options, index=None, key=key, bind="query-params", placeholder=otherwise, disabled=not options
    )
    return chosen


def split_of(runs: Sequence[Entry]) -> str:
    """The split that is looked at."""
    found = sorted({split for run in runs for split in run.splits}, key=lambda name: (name != "test", name))
    return one("Split", found or ["test"], "split")


def metrics_of(stated: Sequence[str], protocol: str | None) -> list[str]:
    """The metrics to choose from: the harness's own and those by category, or a protocol's figures."""
    if protocol is not None:
        return sorted(name for name in stated if name.startswith(f"{protocol}:"))
    by_category = sorted(name for name in stated if name.startswith("accuracy/"))
    return [*METRICS, *by_category, *sorted(n for n in stated if ":" not in n and n not in (*METRICS, *by_category))]


def ranked(filters: Filters) -> Ranking:
    """The ranking; what the URL asks for that isn't there is told by `stores.mistakes_told`."""
    return stores.ranking(filters)


def table_of(ranking: Ranking, key: DataKey) -> Table | None:
    """The table of these data."""
    return next((t for t in ranking.tables if (t.benchmark, t.revision, t.fingerprint) == key), None)
