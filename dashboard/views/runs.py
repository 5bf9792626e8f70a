"""The page of all runs: a table with filters, groups and costs, and the curves of several runs over each other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard.data import run as one_run
from dashboard.data import runs as listed
from dashboard.data import store
from dashboard.table import Column, Link, TableCell, TableRow, table
from dashboard.widgets import curves, dataframes, url_state
from dashboard.widgets.escape import plain
from harness.errors import StoreError
from harness.record import Record
from harness.store.index import RunSummary

A_PAGE = 50
MOST_CURVES = 20
FORMATS = {"accuracy, %": "{:.1f}", "TFLOP": "{:.3g}", "seconds": "{:,.0f}",
           "forwards": "{:.3g}"}  # fmt: skip
HELP = {"TFLOP": "floating-point operations of the training in 10^12, teachers included",
        "forwards": "forward passes of the student per answer", "accuracy, %": "on the test split"}  # fmt: skip
FILTERS = {"status": "status", "benchmark": "benchmark", "method": "method", "student": "size", "tag": "tag"}
"""The URL parameter by field. All but the status are those of the leaderboard's filters, which come along."""
GROUPED = {"TFLOP": "{:,.3g}", "hours": "{:,.2f}"}


def show() -> None:
    """The page."""
    st.title("Runs", anchor=False)
    if not store.has_runs():
        return
    every = store.runs()
    found = listed.sift(every, _filter(every))
    by = url_state.select("Group by", ["nothing", *listed.GROUPS], "by")
    _counted(found, len(every))
    if not found:
        st.info("No run matches these filters.", icon=":material/inbox:")
        return
    _curves()
    if by == "nothing":
        _table(found)
    else:
        _groups(found, by)


def _filter(every: Sequence[RunSummary]) -> listed.RunFilter:
    def of(name: str) -> list[str]:
        return sorted({getattr(one, name) for one in every} - {""})

    row = st.query_params.get("row", "")
    if any(one.run_id == row for one in every):
        st.markdown(plain(f"Only the seeds of the row of {row}."))
        _show_all()
        return listed.RunFilter(row=row)
    data = url_state.data_names(every)
    columns = st.columns(3) + st.columns(3)
    with columns[0]:
        states = url_state.multiselect("Status", of("status"), "status")
    with columns[1]:
        benchmarks = url_state.multiselect("Benchmark", sorted({*of("benchmark"), *data}), "benchmark")
    with columns[2]:
        methods = url_state.multiselect("Method", of("method"), "method")
    with columns[3]:
        students = url_state.multiselect("Student", of("student"), "size")
    with columns[4]:
        tags = url_state.multiselect("Tag", sorted({tag for one in every for tag in one.tags}), "tag")
    with columns[5]:
        words = url_state.text_input("Search", "q", placeholder="id, setting or error")
    if any((states, benchmarks, methods, students, tags, words)):
        _show_all()
    plain_names = set(of("benchmark"))
    chosen = tuple(name if name in plain_names else data.get(name, name) for name in benchmarks)
    return listed.RunFilter(states, chosen, methods, students, tags, tuple(words.lower().split()))


def _show_all() -> None:
    """The button that removes all filters, also those that came along from another page."""
    if st.button("Show all runs", icon=":material/close:"):
        for key in (*FILTERS.values(), "q", "row"):
            st.query_params.pop(key, None)
        st.rerun()


def _counted(found: Sequence[RunSummary], total: int) -> None:
    states = [(state, sum(one.status == state for one in found)) for state in listed.STATES]
    said = ", ".join(f"{count:,} {state}" for state, count in states if count)
    tflops = sum(one.train_flops or 0.0 for one in found) / 1e12
    hours = sum(one.total_seconds for one in found) / 3600
    st.markdown(
        plain(f"{len(found):,} of {total:,} runs" + (f": {said}" if said else "") +
              f". Training {tflops:,.3g} TFLOP, {hours:,.1f} hours in all.")
    )  # fmt: skip


def _table(found: Sequence[RunSummary]) -> None:
    count = -(-len(found) // A_PAGE)
    place = st.container()
    number = url_state.page_number(count)
    accuracy = store.figures("test", "accuracy")
    part = listed.frame(found[(number - 1) * A_PAGE : number * A_PAGE], accuracy)
    part["finished"] = [dataframes.format_time(t).replace(" ", "\u00a0") for t in part["finished"]]
    part["method"] = listed.short_labels(part["method"].tolist())
    marked = st.query_params.get_all("curve")
    with place:
        _marked_table(part, marked)
    st.caption(
        "The pin shows a run's curves above, over those of other pinned runs. Accuracy is on test. TFLOP: training, "
        "teachers included. Forwards: passes of the student per answer. Settings that all runs of a method here share "
        "are left out. The page of a failed run has its error and the command that runs it again."
    )
    st.download_button(
        "Download all that match as CSV",
        lambda: listed.frame(found, accuracy).to_csv(index=False),
        "runs.csv", "text/csv", icon=":material/download:",
    )  # fmt: skip


def _marked_table(part: pd.DataFrame, marked: Sequence[str]) -> None:
    shown = [name for name in part.columns if not (part[name].isna() | part[name].eq("")).all()]
    numbers = {*FORMATS, "seed", "finished"}
    columns = [Column(name, name, "right" if name in numbers else "text", HELP.get(name, "")) for name in shown]
    lines = []
    for row in part.to_dict("records"):
        cells = []
        for name in shown:
            text = dataframes.format_value(row[name], FORMATS.get(name))
            if name == "run":
                cells.append(
                    TableCell(
                        text, links=(Link(text, "run", {"run": text}),), press=text, pressed=text in marked,
                        press_label=f"{'Remove' if text in marked else 'Add'} the curves of {text}",
                    )
                )  # fmt: skip
            else:
                cells.append(TableCell(text))
        lines.append(TableRow(tuple(cells), marked=row["run"] in marked, quiet=row["status"] != "done"))
    table(columns, lines, "runs", "Runs, the newest first", on_press=_toggle)


def _toggle(run_id: str) -> None:
    chosen = st.query_params.get_all("curve")
    kept = [one for one in chosen if one != run_id] if run_id in chosen else [*chosen, run_id][-MOST_CURVES:]
    if kept:
        st.query_params["curve"] = kept
    else:
        st.query_params.pop("curve", None)


def _groups(found: Sequence[RunSummary], by: str) -> None:
    frame = listed.grouped(found, by)
    kept = {key: st.query_params.get_all(key) for key in (*FILTERS.values(), "q", "row") if key in st.query_params}
    kept.pop(FILTERS[by], None)
    dataframes.show_frame(frame, f"by-{by}", f"Runs by {by}", GROUPED, {by: ("runs", FILTERS[by], kept)})


def _curves() -> None:
    """Draws the curves of the pinned runs over each other."""
    known = store.listing().stamps
    asked = [run_id for run_id in st.query_params.get_all("curve") if run_id in known][:MOST_CURVES]
    if not asked:
        return
    st.subheader("Curves", anchor=False)
    frame, without = curves_of(asked)
    if not len(frame):
        st.info("None of the pinned runs has curves.", icon=":material/inbox:")
        return
    term = url_state.select("Curve", one_run.terms(frame), "term", format_func=one_run.term_title)
    curves.over_each_other(frame[frame["term"] == term], term)
    st.caption("Curves of the students, over the steps of all stages. A cross: the run ended before it was done.")
    if without:
        st.caption(plain(f"Without curves: {', '.join(without)}."))


def curves_of(run_ids: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The curves of these runs, see `joined_curves`, and the ids of those that have none."""
    records, histories, without = [], [], []
    for run_id in run_ids:
        record = store.record(run_id)
        try:
            history = store.history(run_id) if isinstance(record, Record) else None
        except StoreError:
            history = None
        if history is None or not len(history) or not isinstance(record, Record):
            without.append(run_id)
            continue
        records.append(record)
        histories.append(history)
    return listed.joined_curves(records, histories, [record.run_id for record in records]), without
