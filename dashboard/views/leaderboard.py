"""The leaderboard page: ranks, scores with intervals, and costs. Each row links to its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import streamlit as st

from dashboard import navigation
from dashboard.data import leaderboard, pairs, store
from dashboard.data.leaderboard import ALWAYS, BoardColumn, RowFilter
from dashboard.table import table
from dashboard.widgets import answers, overall, row_filters, url_state
from dashboard.widgets.escape import plain
from harness.leaderboard.inference import matches
from harness.leaderboard.schema import Filters, Ranking, Row, Table
from harness.report import tables
from harness.report.format import sentence
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import to_csv, to_json, to_markdown
from harness.store.manifest import DataKey

PER_PAGE = 100
MOST_OTHERS = 10
"""Links to other benchmarks; the select box has all."""
VIEWS = ("Table", "Every pair", "Ranks", "Categories")
FORMATS: dict[str, tuple[Callable[[Sequence[Row], Sequence[str]], str], str, str]] = {
    "CSV": (lambda rows, chosen: to_csv(rows), "csv", "text/csv"),
    "JSON": (lambda rows, chosen: to_json(rows), "json", "application/json"),
    "Markdown": (lambda rows, chosen: to_markdown(rows, chosen=chosen), "md", "text/markdown"),
    "LaTeX": (lambda rows, chosen: to_latex(rows, chosen=chosen), "tex", "application/x-tex"),
    "HTML": (lambda rows, chosen: to_html(rows, chosen=chosen), "html", "text/html"),
}


def show() -> None:
    """The page."""
    st.title("Leaderboard", anchor=False)
    if not store.has_runs():
        return
    runs = store.runs()
    data = url_state.data_names(runs)
    if not data:
        store.empty_state("No run has been scored yet.", "hkdbench list runs", "hkdbench run --help")
        store.show_broken()
        return
    first, second, third, fourth = st.columns([5, 4, 5, 7], vertical_alignment="bottom")
    with first:
        names = [*data, *([url_state.ALL] if len(data) > 1 else [])]
        chosen = url_state.select("Benchmark", names, "benchmark", strict=True)
    navigation.titled(chosen, "Leaderboard")
    key = data.get(chosen)
    mine = [run for run in runs if key is None or run.data_key == key]
    with fourth, st.container(horizontal=True, vertical_alignment="bottom"):
        more = st.popover("Filters", icon=":material/filter_list:")
        columns_at = st.popover("Columns", icon=":material/view_column:")
        download_at = st.popover("Download", icon=":material/download:")
    with more:
        filters, shown, among_shown = row_filters.choose(mine, key)
    with second:
        metric = url_state.select(
            "Metric",
            url_state.metrics_of(store.metric_names(key, filters.split), filters.protocol),
            "metric",
            strict=True,
        )
    filters = filters.model_copy(update={"metric": metric.removeprefix(f"{filters.protocol}:")})
    with third:
        shown = replace(shown, search=row_filters.search())
    if key is None:
        overall.show(filters, shown, columns_at, download_at)
        store.show_broken()
    else:
        filters = filters.model_copy(update={"benchmark": key[0]})
        others = [name for name in names if name != chosen]
        _one(filters, key, shown, among_shown, columns_at, download_at, others)
        store.show_broken(filters)


def _one(
    filters: Filters,
    key: DataKey,
    shown: RowFilter,
    among_shown: bool,
    columns_at: object,
    download_at: object,
    others: Sequence[str],
) -> None:
    """The table of one benchmark's data."""
    pinned = st.query_params.get("baseline")
    ranking, missing = _with_baseline(filters, pinned)
    found = url_state.table_of(ranking, key)
    everyone = 0 if found is None else len(found.rows)
    if found is not None and among_shown and not all(map(shown.matches, found.rows)):
        names = tuple(f"{row.label}@{row.student}" for row in found.rows if row.kind == "run" and shown.matches(row))
        alone = filters.model_copy(update={"rows": names or ("",), "among_shown": True})
        found = url_state.table_of(_with_baseline(alone, pinned)[0], key)
    if found is None:
        st.info("No run matches these filters. Remove some of them.", icon=":material/filter_list_off:")
        return
    if missing:
        st.warning(
            plain(f"There is no row {pinned!r} here to compare with. Pin another row."), icon=":material/push_pin:"
        )
    visible = [row for row in found.rows if shown.matches(row)]
    answers.show(visible)
    if others:
        with st.container(horizontal=True):
            st.caption("The same on:", width="content")
            for name in others[:MOST_OTHERS]:
                # Streamlit's own link to the page that is open doesn't change the address.
                st.button(plain(name), key=f"same on {name}", on_click=url_state.put, args=("benchmark", name))
    known = leaderboard.board_columns(found, visible)
    with columns_at:  # type: ignore[attr-defined]
        usual = leaderboard.default_columns(known, found.rows)
        able = leaderboard.optional_columns(known)
        picked = url_state.multiselect("Columns shown", able, "columns", usual, keeps_unknown=False)
    wanted = {*ALWAYS, *picked, *(("difference",) if pinned and not missing else ())}
    columns = [column for name, column in known.items() if name in wanted]
    sort, descending = _sorting(known)
    rows = leaderboard.ordered(visible, known.get(sort), descending)
    with download_at:  # type: ignore[attr-defined]
        _downloads(rows, f"{found.benchmark}-{found.metric}", [column.spec.name for column in columns])
    if not rows:
        st.info("No row matches these filters. Remove some of them.", icon=":material/filter_list_off:")
        return
    ranked, won, ranges, by_category = url_state.tabs(VIEWS, "view")
    if ranked.open:
        with ranked:
            page = _paged(len(rows))
            _drawn(found, rows[page * PER_PAGE : (page + 1) * PER_PAGE], columns, sort, descending)
            _notes(rows, everyone, among_shown)
    if won.open:
        with won:
            _wins(visible, filters, key)
    if ranges.open:
        with ranges:
            _ranks(visible)
    if by_category.open:
        with by_category:
            _categories(visible, filters, key)


def _wins(rows: Sequence[Row], filters: Filters, key: DataKey) -> None:
    whole = url_state.table_of(url_state.ranked(filters.model_copy(update={"pairs": True})), key)
    heads, lines = pairs.wins(rows, whole.pairs if whole else ())
    if not lines:
        st.info(
            "No pairs: this needs at least two and at most 100 rows with a metric that can be resampled.",
            icon=":material/inbox:",
        )
        return
    table(heads, lines, key="wins", caption="Differences of all pairs of rows")
    st.caption(
        "Each cell is the row minus the column, paired by seed and example; “wins” and “loses” where Holm p over all "
        f"pairs of the table is below 0.05. At most {pairs.MOST} rows, the best ones. A click compares the two."
    )


def _ranks(rows: Sequence[Row]) -> None:
    heads, lines = pairs.ranks(rows)
    if not lines:
        st.info("These rows have no rank intervals.", icon=":material/inbox:")
        return
    table(heads, lines, key="ranks", caption="Ranks with the ranges that the data allow")
    st.caption("Rows whose ranges overlap may well stand in the other order. They are computed over the full table.")


def _categories(rows: Sequence[Row], filters: Filters, key: DataKey) -> None:
    heads, lines = pairs.categories(rows, key, filters)
    if len(heads) < 4:
        st.info("The examples of these data are all in one category.", icon=":material/inbox:")
        return
    table(heads, lines, key="by category", caption="Accuracy by category")
    st.caption(
        f"Accuracy in per cent, mean over seeds; the darker, the higher. At most {pairs.MOST} rows, the best ones. For "
        "tests of a difference by category open Compare."
    )


def _with_baseline(filters: Filters, pinned: str | None) -> tuple[Ranking, bool]:
    """The ranking with differences to the pinned row, and whether that row is missing. If so, without differences."""
    if pinned is None:
        return url_state.ranked(filters), False
    unpinned = url_state.ranked(filters)
    if not any(matches(row, pinned) for row in unpinned.rows):
        return unpinned, True
    return url_state.ranked(filters.model_copy(update={"baseline": pinned})), False


def _drawn(found: Table, rows: Sequence[Row], columns: Sequence[BoardColumn], sort: str, descending: bool) -> None:
    lines = leaderboard.table_rows(rows, columns)
    if sort:  # bands mark tiers, which are contiguous only in the order of the ranking
        lines = [leaderboard.unbanded(line) for line in lines]
    table(
        [column.column for column in columns],
        lines,
        key="board",
        caption=f"Ranking on {found.benchmark}, {found.split} split, by {found.metric}",
        sort=sort or "rank",
        descending=descending,
        on_sort=_sort,
        on_press=_pin,
    )


# -------------------------------------------------------------------------------------------- sorting, pins


def _sorting(known: dict[str, BoardColumn]) -> tuple[str, bool]:
    """The column to sort by, and whether descending, from the URL. An empty name: the order of the ranking."""
    asked = st.query_params.get("sort", "")
    name = asked.removeprefix("-")
    return (name, asked.startswith("-")) if name in known and name != "rank" else ("", False)


def _sort(name: str) -> None:
    """Sort by the column whose head was clicked. A second click reverses the order. `#` restores the ranking."""
    st.query_params.pop("page", None)
    now = st.query_params.get("sort", "")
    descending_first = name in ("score", "difference", "accuracy", "macro_f1")  # largest first
    turned = {name: f"-{name}", f"-{name}": name}.get(now, f"-{name}" if descending_first else name)
    if name == "rank":
        st.query_params.pop("sort", None)
    else:
        st.query_params["sort"] = turned


def _pin(name: str) -> None:
    """Pin the row that the others are compared with, or unpin it."""
    if st.query_params.get("baseline") == name:
        del st.query_params["baseline"]
    else:
        st.query_params["baseline"] = name


def _paged(count: int) -> int:
    """The current page of rows, from 0. Draws the page buttons if there are several pages."""
    page = url_state.page_number(-(-count // PER_PAGE)) - 1
    if count > PER_PAGE:
        st.caption(f"Rows {page * PER_PAGE + 1:,} to {min((page + 1) * PER_PAGE, count):,} of {count:,}")
    return page


# -------------------------------------------------------------------------------------- downloads, notes


def _downloads(rows: Sequence[Row], name: str, chosen: Sequence[str]) -> None:
    """The buttons to download the rows that are shown, in their order, and the columns; CSV has all fields."""
    st.caption(
        f"The {len(rows):,} rows of the table, in the same order, with its columns; CSV and JSON have all fields."
    )
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in name)
    for label, (made, ending, mime) in FORMATS.items():
        st.download_button(
            label,
            data=lambda made=made: made(rows, chosen).encode(),
            file_name=f"{safe}.{ending}",
            mime=mime,
            on_click="ignore",
            disabled=not rows,
            width="stretch",
        )


def _notes(rows: Sequence[Row], everyone: int, among_shown: bool) -> None:
    notes = [f"{tables.heading(rows)}.", tables.legend(rows)]
    notes += [sentence(note) for note in tables.in_common(rows)]
    if everyone > len(rows):
        among = "the rows that are shown" if among_shown else "all rows"
        said = f"{len(rows):,} of {everyone:,} rows are shown; ranks, tiers and Holm p are among {among}."
        notes.insert(0, said)
    notes += [sentence(note) for note in tables.footnotes(rows) if not _of_row(note, rows)]
    st.caption("  \n".join(plain(line) for line in notes))


def _of_row(note: str, rows: Sequence[Row]) -> bool:
    """Whether a note is about one row. The row itself shows it."""
    return any(row.note and note.endswith(row.note) for row in rows)
