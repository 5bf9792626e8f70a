"""The leaderboard: who leads on what, how sure that is, at what cost. A row leads to its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from dashboard.data import leaderboard, store
from dashboard.data.leaderboard import Measure, Shown
from dashboard.table import table
from dashboard.widgets import overall, url_state
from dashboard.widgets.escape import plain
from harness.leaderboard import leaderboard as rank
from harness.leaderboard.inference import matches
from harness.leaderboard.schema import AGGREGATES, Filters, Ranking, Row, Table
from harness.report import columns as grids
from harness.store.index import RunSummary
from harness.store.manifest import DataKey

PER_PAGE = 100
FORMATS = {
    "CSV": (rank.to_csv, "csv", "text/csv"),
    "Markdown": (rank.to_markdown, "md", "text/markdown"),
    "LaTeX": (rank.to_latex, "tex", "application/x-tex"),
}


def show() -> None:
    """The page."""
    st.title("Leaderboard", anchor=False)
    if not store.any_runs():
        return
    runs = store.runs()
    data = url_state.data_names(runs)
    if not data:
        store.nothing("No run has been scored yet.", "hkdbench list runs", "hkdbench run --help")
        _broken(runs)
        return
    first, second, third, fourth = st.columns([5, 4, 5, 7], vertical_alignment="bottom")
    with first:
        chosen = url_state.one("Benchmark", [*data, *([url_state.ALL] if len(data) > 1 else [])], "benchmark")
    key = data.get(chosen)
    mine = [run for run in runs if key is None or run.data_key == key]
    with fourth, st.container(horizontal=True, vertical_alignment="bottom"):
        more = st.popover("Filters", icon=":material/filter_list:")
        columns_at = st.popover("Columns", icon=":material/view_column:")
        download_at = st.popover("Download", icon=":material/download:")
    with more:
        filters, shown = _filters(mine, key)
    with second:
        metric = url_state.one(
            "Metric", url_state.metrics_of(store.stated(key, filters.split), filters.protocol), "metric"
        )
    filters = filters.model_copy(update={"metric": metric.removeprefix(f"{filters.protocol}:")})
    with third:
        search = url_state.words("Search", "q", placeholder="method, setting or student", icon=":material/search:")
        shown = replace(shown, search=search)
    if key is None:
        overall.show(
            url_state.ranked(filters.model_copy(update={"aggregate": AGGREGATES})), shown, columns_at, download_at
        )
    else:
        _one(filters.model_copy(update={"benchmark": key[0]}), key, shown, columns_at, download_at)
    _broken(runs)


def _one(filters: Filters, key: DataKey, shown: Shown, columns_at: object, download_at: object) -> None:
    """The table of one benchmark's data."""
    pinned = st.query_params.get("baseline")
    ranking, missing = _with_baseline(filters, pinned)
    found = url_state.table_of(ranking, key)
    if found is None:
        st.info("No run fits these filters: take some of them off.", icon=":material/filter_list_off:")
        return
    if missing:
        st.warning(plain(f"No row {pinned!r} here to compare with: pin another."), icon=":material/push_pin:")
    st.markdown(plain(leaderboard.headline(found)))
    measures = leaderboard.measures(found)
    with columns_at:  # type: ignore[attr-defined]
        usual = [name for name in leaderboard.USUAL if name in measures]
        unequal = {"budget": len(found.budgets) > 1, "forwards": grids.unequal_forwards(found.rows)}
        usual += [name for name, shown_too in unequal.items() if shown_too]
        optional = leaderboard.optional(measures)
        picked = url_state.several("Columns shown", optional, "columns", usual)
    always = ("rank", "method", "student", "score", *(("difference",) if pinned and not missing else ()))
    columns = [measure for name, measure in measures.items() if name in always or name in picked]
    sort, descending = _sorting(measures)
    rows = leaderboard.ordered([row for row in found.rows if shown.fits(row)], measures.get(sort), descending)
    with download_at:  # type: ignore[attr-defined]
        _downloads(rows, f"{found.benchmark}-{found.metric}")
    if not rows:
        st.info("No row fits these filters: take some of them off.", icon=":material/filter_list_off:")
        return
    page = _paged(len(rows))
    _drawn(found, rows[page * PER_PAGE : (page + 1) * PER_PAGE], columns, sort, descending)
    _notes(found, rows)


def _with_baseline(filters: Filters, pinned: str | None) -> tuple[Ranking, bool]:
    """The ranking with differences to the pinned row; without them where these data have no such row."""
    if pinned is None:
        return url_state.ranked(filters), False
    plainly = url_state.ranked(filters)
    if not any(matches(row, pinned) for row in plainly.rows):
        return plainly, True
    return url_state.ranked(filters.model_copy(update={"baseline": pinned})), False


def _drawn(found: Table, rows: Sequence[Row], columns: Sequence[Measure], sort: str, descending: bool) -> None:
    lines = leaderboard.lines(rows, columns)
    if sort:  # bands tell tiers, which lie together in the ranking's order only
        lines = [leaderboard.unbanded(line) for line in lines]
    table(
        [measure.column for measure in columns],
        lines,
        key="board",
        caption=f"Ranking on {found.benchmark}, {found.split} split, by {found.metric}",
        sort=sort or "rank",
        descending=descending,
        on_sort=_sort,
        on_press=_pin,
    )


# ----------------------------------------------------------------------------------- what is asked for


def _filters(runs: Sequence[RunSummary], key: DataKey | None) -> tuple[Filters, Shown]:
    """What is ranked (split, protocol, tag, task), and what of it is shown."""
    trained = [run for run in runs if run.kind == "run"]
    st.caption("Ranks and tiers stay those among all rows; split, protocol, task and tag choose what is ranked.")
    forwards = sorted({run.forwards for run in trained if run.forwards is not None})
    shown = Shown(
        methods=url_state.several("Method", sorted({run.method for run in trained}), "method"),
        students=url_state.several("Student (size)", _students(trained), "size", format_func=lambda name: name),
        budgets=url_state.several(
            "Budget (training examples)", sorted({run.budget for run in trained if run.budget is not None}), "budget"
        ),
        forwards=url_state.several("Forward passes an answer", forwards, "forwards", format_func=lambda n: f"{n:g}"),
        controls=url_state.switch("Show controls", "controls", True),
    )
    split = url_state.split_of(runs)
    protocols = sorted({name.partition(":")[0] for name in store.stated(key, split) if ":" in name})
    protocol = url_state.maybe("Protocol", protocols, "protocol", "the harness's own metrics")
    tag = url_state.maybe("Tag", sorted({tag for run in runs for tag in run.tags}), "tag", "any")
    task = None
    if key is None:
        task = url_state.maybe("Task", sorted({run.task for run in runs if run.task}), "task", "any")
    return Filters(split=split, protocol=protocol, tag=tag, task=task), shown


def _students(runs: Sequence[RunSummary]) -> list[str]:
    """The students there are, smallest first."""
    sizes = {run.student: run.parameters or 0 for run in runs if run.student}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def _sorting(measures: dict[str, Measure]) -> tuple[str, bool]:
    """The column that rows are sorted by and the direction, from the URL; "" for the ranking's own order."""
    asked = st.query_params.get("sort", "")
    name = asked.removeprefix("-")
    return (name, asked.startswith("-")) if name in measures and name != "rank" else ("", False)


def _sort(name: str) -> None:
    """A column's head was clicked: it sorts; once more, the other way round; the rank's gives the ranking's order."""
    st.query_params.pop("page", None)
    now = st.query_params.get("sort", "")
    figure = name in ("score", "difference", "accuracy", "macro_f1")  # the large ones are looked for first
    turned = {name: f"-{name}", f"-{name}": name}.get(now, f"-{name}" if figure else name)
    if name == "rank":
        st.query_params.pop("sort", None)
    else:
        st.query_params["sort"] = turned


def _pin(name: str) -> None:
    """A row's pin was pressed: it becomes what others are compared with, or ceases to be."""
    if st.query_params.get("baseline") == name:
        del st.query_params["baseline"]
    else:
        st.query_params["baseline"] = name


def _paged(count: int) -> int:
    """The page of rows that is looked at, from 0; its buttons, where there is more than one."""
    page = url_state.turned(-(-count // PER_PAGE)) - 1
    if count > PER_PAGE:
        st.caption(f"Rows {page * PER_PAGE + 1:,} to {min((page + 1) * PER_PAGE, count):,} of {count:,}")
    return page


# -------------------------------------------------------------------------------------- what is beside it


def _downloads(rows: Sequence[Row], name: str) -> None:
    """The rows that are shown, in their order, as files."""
    st.caption(f"The {len(rows):,} rows that are shown, in this order.")
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in name)
    for label, (made, ending, mime) in FORMATS.items():
        st.download_button(
            label,
            data=lambda made=made: made(rows).encode(),
            file_name=f"{safe}.{ending}",
            mime=mime,
            on_click="ignore",
            disabled=not rows,
            width="stretch",
        )


def _notes(found: Table, rows: Sequence[Row]) -> None:
    heading = grids.parts(found.rows)[0][0]
    hidden = len(found.rows) - len(rows)
    said = [f"{heading}.", grids.legend(found.rows)]
    said += [f"{note[0].upper()}{note[1:]}." for note in grids.in_common(found.rows)]
    if hidden:
        said.insert(0, f"{len(rows):,} of {len(found.rows):,} rows are shown: filters hide {hidden:,}.")
    said += [f"{note[0].upper()}{note[1:]}." for note in grids.footnotes(found.rows) if not _of_row(note, rows)]
    st.caption("  \n".join(plain(line) for line in said))


def _of_row(note: str, rows: Sequence[Row]) -> bool:
    """Whether a note is about one row: that stands in the row itself."""
    return any(row.note and note.endswith(row.note) for row in rows)


def _broken(runs: Sequence[RunSummary]) -> None:
    """The folders without a sound record: the rest is shown all the same."""
    broken = [run for run in runs if run.status == "broken"]
    if broken:
        with st.expander(f"{len(broken)} broken: left out of everything above", icon=":material/warning:"):
            st.markdown("\n".join(f"- {plain(f'{run.run_id}: {run.problem}')}" for run in broken[:200]))
            if len(broken) > 200:
                st.markdown("The first 200; `hkdbench store ls --status broken` lists all.")
