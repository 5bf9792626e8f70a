"""What several pages let their reader choose: the data that are ranked, metric, split. All of it stands in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.data import store
from harness.leaderboard.schema import Filters, Ranking, Table
from harness.stats.inference import METRICS
from harness.store.index import BROKEN, RunSummary
from harness.store.manifest import DataKey

ALL = "All benchmarks"


def data_names(runs: Sequence[RunSummary]) -> dict[str, DataKey]:
    """The data that runs were scored on, by a name to choose them by: the benchmark, and its version where needed."""
    keys = sorted({run.data_key for run in runs if run.status != BROKEN and run.fingerprint})
    versions = [benchmark for benchmark, _, _ in keys]
    return {
        benchmark if versions.count(benchmark) == 1 else f"{benchmark} ({revision}, {fingerprint[:8]})": key
        for key in keys
        for benchmark, revision, fingerprint in [key]
    }


# --------------------------------------------------------------------------- widgets whose value is the URL's
#
# The URL has the last word: a widget shows what stands there under its key, and writes what is chosen there, which
# makes an entry in the browser's history. Streamlit's own `bind="query-params"` makes none: back would leave the page.


def one(label: str, options: Sequence[str], key: str, usual: str | None = None, **more: Any) -> str:
    """A choice of one; without a word in the URL `usual`, else the first."""
    usual = usual if usual in options else options[0]
    asked = st.query_params.get(key)
    st.session_state[_name(key)] = asked if asked in options else usual
    chosen: str = st.selectbox(label, options, key=_name(key), on_change=_told, args=(key, usual), **more)
    return chosen


def maybe(label: str, options: Sequence[str], key: str, otherwise: str) -> str | None:
    """A choice of one or none; `otherwise` says what none means."""
    asked = st.query_params.get(key)
    st.session_state[_name(key)] = asked if asked in options else None
    chosen: str | None = st.selectbox(
        label, options, key=_name(key), on_change=_told, args=(key, None), placeholder=otherwise, disabled=not options
    )
    return chosen


def few(label: str, options: Sequence[str], key: str) -> str:
    """A choice of one of a few, all of them in sight; without a word in the URL the first."""
    asked = st.query_params.get(key)
    st.session_state[_name(key)] = asked if asked in options else options[0]
    args = (key, options[0])
    chosen = st.segmented_control(label, options, key=_name(key), on_change=_told, args=args, required=True)
    return str(chosen or options[0])


def sections(names: Sequence[str], key: str) -> Sequence[Any]:
    """Tabs, of which the one that is looked at is `open`; without a word in the URL the first."""
    asked = st.query_params.get(key)
    st.session_state[_name(key)] = asked if asked in names else names[0]
    opened: Sequence[Any] = st.tabs(names, key=_name(key), on_change=_told, args=(key, names[0]))
    return opened


def span(label: str, key: str, most: int, step: int) -> tuple[int, int]:
    """A part of 0 to `most`, both ends in it; in the URL as `10-80`."""
    least, _, largest = st.query_params.get(key, "").partition("-")
    asked = (int(least), int(largest)) if least.isdecimal() and largest.isdecimal() else (0, most)
    st.session_state[_name(key)] = asked if asked[0] <= asked[1] <= most else (0, most)
    low, high = st.slider(label, 0, most, step=step, key=_name(key), on_change=_told, args=(key, (0, most)))
    return int(low), int(high)


def several(label: str, options: Sequence[Any], key: str, usual: Sequence[Any] = (), **more: Any) -> tuple[Any, ...]:
    """A choice of any number; without a word in the URL those of `usual`."""
    asked = st.query_params.get_all(key)
    found = [option for option in options if str(option) in asked] if asked else list(usual)
    st.session_state[_name(key)] = found
    chosen = st.multiselect(
        label, options, key=_name(key), on_change=_told, args=(key, list(usual)), placeholder="any", **more
    )
    return tuple(chosen)


def words(label: str, key: str, **more: Any) -> str:
    """A line of text."""
    st.session_state[_name(key)] = st.query_params.get(key, "")
    return st.text_input(label, key=_name(key), on_change=_told, args=(key, ""), **more) or ""


def switch(label: str, key: str, usual: bool) -> bool:
    """On or off."""
    st.session_state[_name(key)] = {"true": True, "false": False}.get(st.query_params.get(key, ""), usual)
    return bool(st.toggle(label, key=_name(key), on_change=_told, args=(key, usual)))


def number(label: str, key: str, usual: float, most: float, **more: Any) -> float:
    """A number from 0 to `most`."""
    try:
        asked = float(st.query_params.get(key, usual))
    except ValueError:
        asked = usual
    st.session_state[_name(key)] = asked if 0 <= asked <= most else usual
    return float(
        st.number_input(label, 0.0, most, step=0.5, key=_name(key), on_change=_told, args=(key, usual), **more)
    )


def turned(count: int, key: str = "page") -> int:
    """The page that is looked at, from 1 to `count`; its buttons, where there is more than one."""
    asked = st.query_params.get(key, "1")
    page = min(max(int(asked) if asked.isdecimal() and len(asked) < 7 else 1, 1), max(count, 1))
    if count > 1:
        st.session_state[_name(key)] = page
        st.pagination(count, key=_name(key), on_change=_told, args=(key, 1))
    return page


def _name(key: str) -> str:
    return f"chosen {key}"


def _told(key: str, usual: Any) -> None:
    """Something was chosen: the URL says so; what is usual isn't said. Pages are counted anew."""
    chosen = st.session_state[_name(key)]
    if key != "page":
        st.query_params.pop("page", None)
    if chosen == usual or chosen is None:
        st.query_params.pop(key, None)
    elif isinstance(chosen, tuple):
        st.query_params[key] = "-".join(map(str, chosen))
    elif isinstance(chosen, list):
        st.query_params[key] = [str(one) for one in chosen] or [""]
    else:
        st.query_params[key] = str(chosen).lower() if isinstance(chosen, bool) else str(chosen)


# ------------------------------------------------------------------------------------------ what is ranked


def split_of(runs: Sequence[RunSummary]) -> str:
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
    return store.ranking(filters)


def table_of(ranking: Ranking, key: DataKey) -> Table | None:
    """The table of these data."""
    return next((t for t in ranking.tables if (t.benchmark, t.revision, t.fingerprint) == key), None)
