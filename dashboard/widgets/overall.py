"""The leaderboard over all benchmarks: weighted means. A row without a result on some benchmark has no mean."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard.data.leaderboard import RowFilter
from dashboard.table import Column, Link, TableCell, TableRow, table
from dashboard.widgets import url_state
from dashboard.widgets.escape import plain
from harness.leaderboard.overall import table_names
from harness.leaderboard.schema import AGGREGATES, Filters, Overall, Ranking
from harness.record import Interval
from harness.report.columns import ColumnSpec, by_name, has_own_unit, overall_columns, with_unit
from harness.report.format import percent

MOST_WEIGHT = 100.0


def show(filters: Filters, shown: RowFilter, columns_at: Any, download_at: Any) -> None:
    """Draws the table over all benchmarks, and the fields for the weights."""
    alike = url_state.ranked(filters.model_copy(update={"aggregate": AGGREGATES}))
    if not alike.tables:
        st.info("No run matches these filters. Remove some of them.", icon=":material/filter_list_off:")
        return
    names = table_names(alike.tables)
    if len(names) < 2:
        st.info(
            f"Only one benchmark matches these filters: {names[0]}. Select it as the benchmark.",
            icon=":material/filter_1:",
        )
        return
    with columns_at:
        st.caption("This table always has one column per benchmark.")
    with st.expander("Weights of the benchmarks", icon=":material/balance:"), st.container(horizontal=True):
        weights = {
            name: url_state.number_input(plain(name), f"weight {name}", 1.0, MOST_WEIGHT, width=220) for name in names
        }
    if not any(weights.values()):
        st.info("All weights are 0. Set at least one of them above 0.", icon=":material/balance:")
        return
    metric = alike.tables[0].metric
    fitting = {(row.full_label, row.student) for row in alike.rows if shown.matches(row)}
    found = [one for one in _weighted(alike, filters, weights) if (one.label, one.student) in fitting]
    ends = [e for one in found if one.mean for e in (one.mean.low, one.mean.high, one.mean.value) if e is not None]
    unweighted = _unweighted(alike.overall)
    columns = [
        Column("rank", "#"),
        Column("method", "method", "left"),
        Column("student", "student", "left"),
        Column(
            "mean",
            f"weighted mean of {with_unit(metric)}",
            help="With its 95 % interval. It holds for these benchmarks only",
            domain=(min(ends), max(ends)) if ends else None,
        ),
        *(Column(name, name, help=f"Weight {weights[name]:g}") for name in names),
        *(
            Column(
                spec.head, spec.head, help=f"{spec.help}. Benchmarks of weight 0 are left out; the others count alike"
            )
            for spec in unweighted
        ),
    ]
    lines, place, common = [], 0, shared_settings(found)
    for one in found:
        ranked = one.kind == "run" and one.mean is not None
        place += ranked
        cells = (
            TableCell(str(place) if ranked else ""),
            *_cells(one, names, common),
            *_unweighted_cells(one, unweighted),
        )
        lines.append(TableRow(cells, quiet=one.kind == "control"))
    with download_at:
        st.caption(f"The {len(found):,} rows of this table.")
        st.download_button("CSV", to_csv(found, names).encode(), "all-benchmarks.csv", "text/csv")
    if not found:
        st.info("No row matches these filters. Remove some of them.", icon=":material/filter_list_off:")
        return
    table(columns, lines[:500], key="totals", caption=f"Weighted mean of {metric} over {len(names)} benchmarks")
    st.caption(
        "A row without a result on one of the benchmarks has no mean. For the intervals, each benchmark is resampled "
        "independently. Select one benchmark to see rank intervals, tiers and paired differences."
    )
    for method, words in common.items():
        st.caption(plain(f"All rows of {method}: {' '.join(words)}."))


def shared_settings(found: Sequence[Overall]) -> dict[str, tuple[str, ...]]:
    """By method: the settings in the labels of all its rows, if there are several. They are said once, below."""
    words: dict[str, list[list[str]]] = {}
    for one in found:
        if one.label.startswith(f"{one.method} "):
            words.setdefault(one.method, []).append(one.label.split()[1:])
    rows = Counter(one.method for one in found)
    shared = {
        method: tuple(word for word in of_rows[0] if all(word in them for them in of_rows[1:]))
        for method, of_rows in words.items()
        if len(of_rows) == rows[method] > 1
    }
    return {method: same for method, same in shared.items() if same}


def _weighted(alike: Ranking, filters: Filters, weights: Mapping[str, float]) -> Sequence[Overall]:
    """The rows over all benchmarks with these weights."""
    chosen = tuple((name, weight) for name, weight in weights.items() if weight != 1)
    if not chosen:
        return alike.overall
    return url_state.ranked(filters.model_copy(update={"aggregate": AGGREGATES, "weights": chosen})).overall


def to_csv(found: Sequence[Overall], names: Sequence[str]) -> str:
    """CSV with one line per row: the mean with its interval, and the score on each benchmark, as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "student", "kind", "mean", "low", "high", *names])
    for one in found:
        bounds = [getattr(one.mean, name, None) for name in ("value", "low", "high")]
        writer.writerow([one.label, one.student, one.kind, *bounds, *(one.figures.get(name) for name in names)])
    return out.getvalue()


def _cells(one: Overall, names: Sequence[str], common: Mapping[str, Sequence[str]]) -> list[TableCell]:
    head = one.method if one.label.startswith(one.method) else one.label
    settings = " ".join(w for w in one.label.removeprefix(head).split() if w not in common.get(one.method, ()))
    own = has_own_unit(one.metric)
    lacks = f"no result on {len(one.missing)} of {len(names)} benchmarks" if one.missing else ""
    link = Link(head, "run", {"run": one.run_ids[0]}, title=f"{one.label}: open {one.run_ids[0]}")
    cells = [
        TableCell(head, small=settings, below=lacks, links=(link,), chip="control" if one.kind == "control" else ""),
        TableCell(one.student),
    ]
    if one.mean is None:
        cells.append(TableCell("–"))
    else:
        text = percent(one.mean, bounds=False, own_unit=own)
        small = "" if own else percent(one.mean).removeprefix(text).strip()
        cells.append(TableCell(text, small=small, value=one.mean.value, low=one.mean.low, high=one.mean.high))
    figures = [Interval(value=one.figures[name]) if name in one.figures else None for name in names]
    return [*cells, *(TableCell(percent(figure, own_unit=own) if figure else "–") for figure in figures)]


def _unweighted(rows: Sequence[Overall]) -> list[ColumnSpec[Overall]]:
    """The two aggregates that have no weights: mean rank and interquartile mean."""
    return by_name(overall_columns(rows), "rank", "iqm")


def _unweighted_cells(one: Overall, columns: Sequence[ColumnSpec[Overall]]) -> list[TableCell]:
    known = one.mean_rank is not None and one.iqm is not None
    return [TableCell(column.text(one) if known else "–") for column in columns]
