"""The filters of rows. Their values are in the URL and hold on every page that shows rows of the ranking."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.data import store
from dashboard.data.leaderboard import RowFilter
from dashboard.widgets import url_state
from harness.leaderboard.schema import Filters
from harness.store.index import RunSummary
from harness.store.manifest import DataKey


def choose(runs: Sequence[RunSummary], key: DataKey | None) -> tuple[Filters, RowFilter, bool]:
    """Choose what is ranked (split, protocol, tag, task), which rows are shown, and whether only these are ranked.

    `key`: the data; None for all benchmarks.
    """
    trained = [run for run in runs if run.kind == "run"]
    forwards = sorted({run.forwards for run in trained if run.forwards is not None})
    st.caption(
        "Method, student, budget, forward passes and the search hide rows. Split, protocol, task and tag select the "
        "runs that are ranked."
    )
    shown = RowFilter(
        methods=url_state.multiselect("Method", sorted({run.method for run in trained}), "method"),
        students=url_state.multiselect("Student (size)", _students(trained), "size", format_func=lambda name: name),
        budgets=url_state.multiselect(
            "Budget (training examples)", sorted({run.budget for run in trained if run.budget is not None}), "budget"
        ),
        forwards=url_state.multiselect("Forward passes per answer", forwards, "forwards", format_func=_number),
        controls=url_state.toggle("Show controls", "controls", True),
    )
    among_shown = key is not None and url_state.toggle("Rank only the rows that are shown", "among", False)
    split = url_state.select_split(runs)
    protocols = sorted({name.partition(":")[0] for name in store.metric_names(key, split) if ":" in name})
    protocol = url_state.select_optional("Protocol", protocols, "protocol", "the harness's own metrics", True)
    tag = url_state.select_optional("Tag", sorted({tag for run in runs for tag in run.tags}), "tag", "any", True)
    task = None
    if key is None:
        task = url_state.select_optional("Task", sorted({run.task for run in runs if run.task}), "task", "any", True)
    return Filters(split=split, protocol=protocol, tag=tag, task=task), shown, among_shown


def search() -> str:
    """The words that a row must contain."""
    return url_state.text_input("Search", "q", placeholder="method, setting or student", icon=":material/search:")


def _students(runs: Sequence[RunSummary]) -> list[str]:
    """The students, smallest first."""
    sizes = {run.student: run.parameters or 0 for run in runs if run.student}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def _number(number: object) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
