"""Input fields whose value is in the URL, and the choices that several pages share: benchmark, metric, split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.data import store
from dashboard.widgets.escape import plain
from harness.errors import ConfigError, near
from harness.leaderboard.schema import Filters, Ranking, Table
from harness.stats.inference import METRICS
from harness.stats.metrics import NOT_RANKED
from harness.store.index import BROKEN, RunSummary
from harness.store.manifest import DataKey

ALL = "All benchmarks"
WHOLE = "whole page"
"""In the session's state: all tabs of a page are drawn, not only the selected one. For `dashboard.bundle`."""


def data_names(runs: Sequence[RunSummary]) -> dict[str, DataKey]:
    """The datasets that runs were scored on, by name: the benchmark, and its version if there are several."""
    keys = sorted({run.data_key for run in runs if run.status != BROKEN and run.fingerprint})
    versions = [benchmark for benchmark, _, _ in keys]
    return {
        benchmark if versions.count(benchmark) == 1 else f"{benchmark} ({revision}, {fingerprint[:8]})": key
        for key in keys
        for benchmark, revision, fingerprint in [key]
    }


# -------------------------------------------------------------------------- widgets whose value is in the URL
#
# The URL decides: a widget shows the value of its URL parameter and writes the user's choice to it. Each choice adds an
# entry to the browser's history. Streamlit's own `bind="query-params"` doesn't, so "back" would leave the page.


def select(
    label: str,
    options: Sequence[str],
    key: str,
    default: str | None = None,
    strict: bool = False,
    drops: Sequence[str] = (),
    given: str | None = None,
    kept: bool = False,
    **widget_options: Any,
) -> str:
    """Choose one option. Without a value in the URL it is `default`, or the first option.

    A value that isn't there is said; `strict`: nothing else is shown then (`ConfigError`). A choice removes the
    parameters in `drops` from the URL, which belong to what was chosen before. `given`: what other parameters of the
    URL imply; it goes before this one. `kept`: the value may have been chosen on another page for what is there, so one
    that isn't there is said in a caption.
    """
    default = default if default is not None and default in options else options[0]
    asked = given or st.query_params.get(key)
    if asked == ALL and ALL not in options:  # another page's choice, which means here that none is made
        asked = None
    missing = asked is not None and asked not in options
    st.session_state[_state_key(key)] = None if missing and strict else default if missing or asked is None else asked
    args = (key, None if missing or given else default, drops)
    chosen = st.selectbox(
        label, options, key=_state_key(key), on_change=_update_url, args=args, placeholder="choose", **widget_options
    )
    if missing and kept:
        st.caption(plain(f"{asked} isn't here; this is {default}."))
    elif missing:
        _not_here(label, str(asked), options, strict, default)
    return str(chosen or default)


def _not_here(label: str, asked: str, options: Sequence[Any], strict: bool, shown: str) -> None:
    """Says that the address names something that isn't there."""
    known = [*map(str, options[:20]), *([f"… ({len(options):,} in all)"] if len(options) > 20 else [])]
    said = f"the address asks for {label.lower()} {asked!r}, which isn't here; {near(asked, known)}"
    if strict:
        raise ConfigError(f"{said}. Choose one above")
    instead = f" This is {shown}." if shown else ""
    st.warning(plain(f"{said[0].upper()}{said[1:]}.{instead}"), icon=":material/wrong_location:")


def select_optional(label: str, options: Sequence[str], key: str, otherwise: str, strict: bool = False) -> str | None:
    """Choose one option or none. `otherwise` is the text shown for none.

    A value that isn't there is said, and none is chosen; `strict`: nothing else is shown then (`ConfigError`).
    """
    asked = st.query_params.get(key)
    missing = asked is not None and asked not in options
    known, options = options, [*options, *([asked] if missing else [])]
    st.session_state[_state_key(key)] = asked
    chosen: str | None = st.selectbox(
        label,
        options,
        key=_state_key(key),
        on_change=_update_url,
        args=(key, None),
        placeholder=otherwise,
        disabled=not options,
    )
    if missing:
        _not_here(label, str(asked), known, strict, "")
        return None
    return chosen


def segmented(label: str, options: Sequence[str], key: str) -> str:
    """Choose one of a few options, all visible. Without a value in the URL it is the first."""
    asked = st.query_params.get(key)
    st.session_state[_state_key(key)] = asked if asked in options else options[0]
    args = (key, options[0])
    chosen = st.segmented_control(label, options, key=_state_key(key), on_change=_update_url, args=args, required=True)
    return str(chosen or options[0])


def tabs(names: Sequence[str], key: str) -> Sequence[Any]:
    """Tabs. The selected one has `open` set. Without a value in the URL it is the first."""
    asked = st.query_params.get(key)
    st.session_state[_state_key(key)] = asked if asked in names else names[0]
    if WHOLE in st.session_state:
        every: Sequence[Any] = st.tabs(names)
        for tab in every:
            tab.open = True
        return every
    opened: Sequence[Any] = st.tabs(names, key=_state_key(key), on_change=_update_url, args=(key, names[0]))
    return opened


def range_slider(label: str, key: str, most: int, step: int) -> tuple[int, int]:
    """Choose a range within 0 to `most`, both ends included; in the URL as `10-80`."""
    least, _, largest = st.query_params.get(key, "").partition("-")
    asked = (int(least), int(largest)) if least.isdecimal() and largest.isdecimal() else (0, most)
    st.session_state[_state_key(key)] = asked if asked[0] <= asked[1] <= most else (0, most)
    low, high = st.slider(label, 0, most, step=step, key=_state_key(key), on_change=_update_url, args=(key, (0, most)))
    return int(low), int(high)


def multiselect(
    label: str,
    options: Sequence[Any],
    key: str,
    default: Sequence[Any] = (),
    keeps_unknown: bool = True,
    **widget_options: Any,
) -> tuple[Any, ...]:
    """Choose any number of options. Without a value in the URL they are `default`.

    `keeps_unknown`: a value that isn't there is chosen all the same, so that nothing else is shown and it can be
    removed.
    """
    asked = [one for one in st.query_params.get_all(key) if one != ALL]  # another page's choice: no choice here
    unknown = [one for one in asked if one and one not in set(map(str, options))] if keeps_unknown else []
    options = [*options, *unknown]
    found = [option for option in options if str(option) in asked] if asked else list(default)
    st.session_state[_state_key(key)] = found
    chosen = st.multiselect(
        label,
        options,
        key=_state_key(key),
        on_change=_update_url,
        args=(key, list(default)),
        placeholder="any",
        **widget_options,
    )
    return tuple(chosen)


def text_input(label: str, key: str, **widget_options: Any) -> str:
    """Enter a line of text."""
    st.session_state[_state_key(key)] = st.query_params.get(key, "")
    return st.text_input(label, key=_state_key(key), on_change=_update_url, args=(key, ""), **widget_options) or ""


def toggle(label: str, key: str, default: bool) -> bool:
    """Switch on or off."""
    st.session_state[_state_key(key)] = {"true": True, "false": False}.get(st.query_params.get(key, ""), default)
    return bool(st.toggle(label, key=_state_key(key), on_change=_update_url, args=(key, default)))


def number_input(label: str, key: str, default: float, most: float, **widget_options: Any) -> float:
    """Enter a number from 0 to `most`."""
    try:
        asked = float(st.query_params.get(key, default))
    except ValueError:
        asked = default
    st.session_state[_state_key(key)] = asked if 0 <= asked <= most else default
    return float(
        st.number_input(
            label,
            0.0,
            most,
            step=0.5,
            key=_state_key(key),
            on_change=_update_url,
            args=(key, default),
            **widget_options,
        )
    )


def page_number(count: int, key: str = "page") -> int:
    """The current page of a long list, from 1 to `count`. Draws the page buttons if there are several pages."""
    asked = st.query_params.get(key, "1")
    page = min(max(int(asked) if asked.isdecimal() and len(asked) < 7 else 1, 1), max(count, 1))
    if count > 1:
        st.session_state[_state_key(key)] = page
        st.pagination(count, key=_state_key(key), on_change=_update_url, args=(key, 1))
    return page


def _state_key(key: str) -> str:
    return f"chosen {key}"


def put(key: str, value: str) -> None:
    """Set a parameter of the URL, as if it had been chosen. Goes back to page 1."""
    st.query_params.pop("page", None)
    st.query_params[key] = value


def _update_url(key: str, default: Any, drops: Sequence[str] = ()) -> None:
    """Write the user's choice to the URL; remove the parameter for the default. Any choice goes back to page 1."""
    chosen = st.session_state[_state_key(key)]
    for other in drops:
        st.query_params.pop(other, None)
    if key != "page":
        st.query_params.pop("page", None)
    if chosen == default or chosen is None:
        st.query_params.pop(key, None)
    elif isinstance(chosen, tuple):
        st.query_params[key] = "-".join(map(str, chosen))
    elif isinstance(chosen, list):
        st.query_params[key] = [str(one) for one in chosen] or [""]
    else:
        st.query_params[key] = str(chosen).lower() if isinstance(chosen, bool) else str(chosen)


# ------------------------------------------------------------------------------------------ what is ranked


def select_split(runs: Sequence[RunSummary]) -> str:
    """Choose the split."""
    found = sorted({split for run in runs for split in run.splits}, key=lambda name: (name != "test", name))
    return select("Split", found or ["test"], "split", strict=True)


def metrics_of(stated: Sequence[str], protocol: str | None) -> list[str]:
    """The metrics to choose from: the harness's own and those by category, or a protocol's."""
    if protocol is not None:
        return sorted(name for name in stated if name.startswith(f"{protocol}:"))
    by_category = sorted(name for name in stated if name.startswith("accuracy/"))
    taken = {*METRICS, *by_category, *NOT_RANKED}
    return [*METRICS, *by_category, *sorted(n for n in stated if ":" not in n and n not in taken)]


def ranked(filters: Filters) -> Ranking:
    """The ranking. Raises `ConfigError` for names in the URL that no run has; the page shows it."""
    return store.ranking(filters)


def table_of(ranking: Ranking, key: DataKey) -> Table | None:
    """The table of this dataset, or None."""
    return next((t for t in ranking.tables if (t.benchmark, t.revision, t.fingerprint) == key), None)
