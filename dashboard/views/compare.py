"""The compare page: two rows, or two of their runs. Differences, errors and disagreements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import navigation
from dashboard.data import leaderboard, store
from dashboard.data.examples import together
from dashboard.table import Column, Link, TableCell, TableRow, table
from dashboard.views.examples import cards
from dashboard.widgets import url_state
from dashboard.widgets.escape import plain
from harness.errors import ConfigError
from harness.leaderboard import compare
from harness.leaderboard.compare import Comparison, Disagreement, Side
from harness.leaderboard.inference import matches
from harness.leaderboard.schema import Filters, Row
from harness.record import Interval, Record
from harness.report import tables
from harness.report.columns import BUDGET, COSTS
from harness.report.format import p_value, percent, short
from harness.stats.bootstrap import METRICS
from harness.stats.inference import Difference
from harness.stats.metrics import NO_ANSWER
from harness.store.manifest import DataKey

EVERY_SEED = "all"
"""All common seeds."""
PER_PAGE = 25
MOST_PICTURES = 5
MOST = 10_000
"""The longest list of disagreements."""


def show() -> None:
    """The page."""
    st.title("Compare", anchor=False)
    if not store.has_runs():
        return
    runs = store.runs()
    data = url_state.data_names([run for run in runs if run.status == "done"])
    if not data:
        store.empty_state("No finished run to compare yet.", "hkdbench run --help")
        return
    at = st.columns([6, 2, 3, 2], vertical_alignment="bottom")
    of_sides_at = st.columns(2)
    names = list(data)
    with at[0]:
        of_sides, drops = _of_sides(data), ("a", "b", "seed", "category", "better")
        benchmark = url_state.select("Benchmark", names, "benchmark", strict=True, given=of_sides, drops=drops)
    key = data[benchmark]
    with at[3]:
        split = url_state.select_split([run for run in runs if run.data_key == key])
    found = url_state.table_of(url_state.ranked(Filters(benchmark=key[0], split=split)), key)
    rows = [row for row in found.rows if row.seeds and row.figure is not None] if found else []
    if found is None or len(rows) < 2:
        st.info(
            "A comparison needs two finished rows on the same data, but there is only one here.",
            icon=":material/inbox:",
        )
        return
    pinned = next((k for k, row in enumerate(rows) if matches(row, st.query_params.get("baseline", ""))), None)
    usual = _usual(rows) if pinned is None else (_beside(rows, pinned), pinned)
    with of_sides_at[0]:
        a = _side("A", "a", rows, usual[0])
    with of_sides_at[1]:
        b = _side("B", "b", rows, usual[1])
    common = sorted(set(a.seeds) & set(b.seeds)) if a.kind == b.kind == "run" else []
    with at[1]:
        seeds = [EVERY_SEED, *map(str, common)]
        seed = url_state.select("Seeds", seeds, "seed", strict=True, disabled=len(common) < 2)
    with at[2]:
        metric = url_state.select("Metric", list(METRICS), "metric")
    navigation.titled(f"{leaderboard.named(a)} and {leaderboard.named(b)}", benchmark, "Compare")
    if a.run_ids == b.run_ids:
        st.info("A and B are the same row. Select another one.", icon=":material/inbox:")
        return
    sides = tuple(_as_side(row, seed) for row in (a, b))
    compared = _compared(store.listing().key, sides[0], sides[1], split, metric)
    _overall_difference(compared, a, b, _corrected(a, b, key, split, metric) if seed == EVERY_SEED else None)
    if unequal := tables.unequal([a, b]):
        st.warning(plain(f"Not on equal terms: A and B differ in {unequal}."), icon=":material/balance:")
    _costs(a, b)
    _by_category(compared)
    _errors(compared, leaderboard.named(a), leaderboard.named(b))
    _disagreements(compared, a, b)
    store.show_broken(Filters(benchmark=key[0], split=split))


# ----------------------------------------------------------------------------------- who is compared


def _of_sides(data: dict[str, DataKey]) -> str | None:
    """The dataset of the runs in the URL, or None. Raises `ConfigError` for no such run or two datasets."""
    asked = {key.upper(): st.query_params[key] for key in ("a", "b") if key in st.query_params}
    of_runs = {run.run_id: run.data_key for run in store.runs() if run.run_id in asked.values()}
    names = {of_data: name for name, of_data in data.items()}
    for side, run_id in asked.items():
        if of_runs.get(run_id) not in names:
            raise ConfigError(
                f"the address asks for {side} {run_id!r}, which isn't here or isn't finished; open Compare from the "
                "menu and choose two rows"
            )
    on = {side: names[of_runs[run_id]] for side, run_id in asked.items()}
    if len(set(on.values())) > 1:
        said = ", ".join(f"{side} {asked[side]} is on {name}" for side, name in on.items())
        raise ConfigError(f"{said}: only rows on the same data can be compared; choose two of one benchmark")
    return next(iter(on.values()), None)


def _usual(rows: Sequence[Row]) -> tuple[int, int]:
    """The best row of the smallest student that has more than direct tuning, and direct tuning; else the best two."""
    for one in tables.answers(rows):
        others = [row for row in one.rows if row is not one.direct]
        if one.direct is not None and others:
            return rows.index(others[0]), rows.index(one.direct)
    return 0, 1


def _beside(rows: Sequence[Row], pinned: int) -> int:
    """The best other row of the pinned row's student, or of any."""
    others = [k for k in range(len(rows)) if k != pinned]
    return next((k for k in others if rows[k].student == rows[pinned].student), others[0])


def _side(label: str, key: str, rows: Sequence[Row], usual: int) -> Row:
    """Choose a row. The URL names it by one of its runs."""
    asked = st.query_params.get(key)
    at = next((k for k, row in enumerate(rows) if asked in row.run_ids), min(usual, len(rows) - 1))
    st.session_state[f"side {key}"] = at

    def changed() -> None:
        st.query_params.pop("seed", None)
        st.query_params[key] = rows[st.session_state[f"side {key}"]].run_ids[0]

    chosen = st.selectbox(
        label, range(len(rows)), format_func=lambda k: leaderboard.named(rows[k]), key=f"side {key}", on_change=changed
    )
    return rows[chosen]


def _as_side(row: Row, seed: str) -> Side:
    runs = dict(zip(row.seeds, row.run_ids, strict=True))
    if seed != EVERY_SEED:
        runs = {int(seed): runs[int(seed)]}
    record = store.record(row.run_ids[0])
    options = tuple(record.data.options) if isinstance(record, Record) and record.data and record.data.options else None
    return Side(leaderboard.named(row), row.benchmark, (row.revision, row.fingerprint), runs, options)


def _compared(key: str, a: Side, b: Side, split: str, metric: str) -> Comparison:
    """The result of `hkdbench compare`. Raises `ConfigError` if the two have no common seed."""
    if len(a.runs) > 1 and len(b.runs) > 1 and not set(a.runs) & set(b.runs):
        raise ConfigError(
            f"{a.name} and {b.name} have no common seed, so they can't be compared: choose rows that share seeds"
        )
    return _cached_comparison(key, repr((a, b, split, metric)), (a, b), split, metric)


@st.cache_resource(max_entries=3, show_spinner="Comparing…")
def _cached_comparison(key: str, arguments: str, _sides: tuple[Side, Side], split: str, metric: str) -> Comparison:
    return compare.compare(store.store(), *_sides, split, metric, MOST)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- results


def _corrected(a: Row, b: Row, key: DataKey, split: str, metric: str) -> float | None:
    """Holm's p of A minus B over all pairs of the table; None if the ranking has no such pair."""
    filters = Filters(benchmark=key[0], split=split, metric=metric, pairs=True)
    found = url_state.table_of(url_state.ranked(filters), key)
    sides = {a.run_ids[0], b.run_ids[0]}
    return next((one.p_holm for one in (found.pairs if found else ()) if {one.a, one.b} == sides), None)


def _costs(a: Row, b: Row) -> None:
    """Draws what the two cost, and how many times as much A costs."""
    specs = [spec for spec in (BUDGET, *COSTS) if spec.key(a) is not None or spec.key(b) is not None]
    columns = [
        Column("side", "side", "left"),
        Column("row", "row", "left"),
        *(Column(spec.name, spec.head, help=spec.help) for spec in specs),
    ]
    lines = [
        TableRow((TableCell(side), TableCell(leaderboard.named(row)), *(TableCell(spec.text(row)) for spec in specs)))
        for side, row in (("A", a), ("B", b))
    ]
    times = [spec.key(a) / spec.key(b) if spec.key(a) and spec.key(b) else None for spec in specs]
    ratio = [TableCell("–" if one is None else f"{short(one)}×") for one in times]
    lines.append(TableRow((TableCell("A / B"), TableCell(), *ratio), quiet=True))
    st.subheader("Costs", anchor=False)
    table(columns, lines, key="costs", caption="Costs of A and B")


def _overall_difference(found: Comparison, a: Row, b: Row, p_holm: float | None) -> None:
    d = found.difference
    deciding = d.p if p_holm is None else p_holm
    verdict = "significant" if deciding is not None and deciding < 0.05 else "not significant"
    holm = "" if p_holm is None else f", Holm p {p_value(p_holm)} (over all pairs of the table)"
    seeds = "one seed" if len(d.seeds) == 1 else f"{len(d.seeds)} seeds"
    values = [percent(Interval(value=value)) for value in found.values]
    st.markdown(
        plain(
            f"A, {leaderboard.named(a)}: {values[0]} %. B, {leaderboard.named(b)}: {values[1]} %. "
            f"A − B in {found.metric}: "
            f"{_points(d)} points{_p(d.p)}{holm}: {verdict}."
        )
    )
    details = f"{found.examples:,} examples about {d.groups:,} images, {seeds}, paired by seed and example."
    if d.borrowed:
        details += " One seed: how much seeds differ is taken from all rows on these data."
    if found.mcnemar:
        m = found.mcnemar
        details += f" McNemar's exact test: only A is right on {m.only_a}, only B on {m.only_b}, p {p_value(m.p)}."
    st.caption(plain(details))


def _by_category(found: Comparison) -> None:
    st.subheader("Difference by category", anchor=False)
    parts: list[tuple[str, int, Difference, float | None]] = [("all examples", found.examples, found.difference, None)]
    parts += [(c.name, c.examples, c.difference, c.p_holm) for c in found.categories]
    reach = max(abs(end) for _, _, d, _ in parts for end in (d.value, d.low, d.high) if end is not None) or 1.0
    columns = [
        Column("category", "category", "left"),
        Column("examples", "examples"),
        Column("difference", "A − B, points", help="With its 95 % interval", domain=(-reach, reach), reference=0.0),
        Column("p", "raw p"),
        Column("holm", "Holm p", help=f"Corrected for {len(found.categories)} categories"),
        Column("verdict", "significant", "left", help="By raw p for all examples, by Holm p for categories"),
    ]
    lines = []
    for k, (name, count, d, holm) in enumerate(parts):
        head, _, interval = _points(d).partition(" ")
        p = d.p if holm is None else holm
        verdict = "" if p is None or p >= 0.05 else ("A is better" if d.value > 0 else "B is better")
        cells = (
            TableCell(name, small=f"({found.metric})" if k == 0 else "(accuracy)"),
            TableCell(f"{count:,}"),
            TableCell(head, small=interval, value=d.value, low=d.low, high=d.high, shade=abs(d.value) / reach),
            TableCell("–" if d.p is None else p_value(d.p)),
            TableCell("" if k == 0 else "–" if holm is None else p_value(holm)),
            TableCell(verdict),
        )
        lines.append(TableRow(cells, marked=k == 0))
    table(columns, lines, key="categories", caption="Difference between A and B, overall and by category")


def _errors(found: Comparison, a: str, b: str) -> None:
    st.subheader("Errors of A compared with B", anchor=False)
    e = found.errors
    parts = [
        ("inherited", "both are wrong", e.inherited),
        ("copied", "both are wrong with the same answer (counted in inherited, too)", e.copied),
        ("introduced", "A is wrong where B is right", e.introduced),
        ("fixed", "A is right where B is wrong", e.fixed),
        ("agreement", "both give the same answer, right or wrong", found.agreement),
    ]
    top = max(end for _, _, i in parts for end in (i.value, i.high) if end is not None) or 1.0
    columns = [
        Column("kind", f"A: {a}; B: {b}", "left"),
        Column("share", "% of examples", help="With its 95 % interval", domain=(0.0, top), reference=0.0),
    ]
    lines = []
    for name, means, share in parts:
        text = percent(share, bounds=False)
        small = percent(share).removeprefix(text).strip()
        lines.append(
            TableRow(
                (
                    TableCell(name, small=means),
                    TableCell(text, small=small, value=share.value, low=share.low, high=share.high),
                )
            )
        )
    table(columns, lines, key="errors", caption="Errors of A compared with B")


def _disagreements(found: Comparison, a: Row, b: Row) -> None:
    st.subheader("Disagreements", anchor=False)
    if not found.parted:
        st.markdown("None: A and B are right equally often on every example.")
        return
    left, right = st.columns([2, 6], vertical_alignment="bottom")
    with left:
        who = url_state.select("Right more often", ["either", "A", "B"], "better")
    with right:
        wanted = url_state.multiselect("Category", sorted({p.category for p in found.parted}), "category")
    selected = [p for p in found.parted if (not wanted or p.category in wanted) and who in ("either", _better(p))]
    known = "" if found.parted_in_all == len(found.parted) else f" (only the first {len(found.parted):,} can be listed)"
    st.caption(
        f"{len(selected):,} of {found.parted_in_all:,} examples on which one "
        f"of them is right more often{known}, the clearest first."
    )
    if not selected:
        return
    page = url_state.page_number(-(-len(selected) // PER_PAGE))
    columns = [
        Column("id", "example", "left", help="Opens the example with both answers"),
        Column("category", "category", "left"),
        Column("gold", "right answer", "left"),
        Column("a", "A", "left"),
        Column("b", "B", "left"),
        Column("better", "right more often", "left"),
    ]
    option = _option(found.a.options)
    seed = found.difference.seeds[0]
    both = [dict(found.a.runs).get(seed, a.run_ids[0]), dict(found.b.runs).get(seed, b.run_ids[0])]
    lines = []
    for p in selected[(page - 1) * PER_PAGE : page * PER_PAGE]:
        link = Link(p.id, "examples", {"run": both, "split": found.split, "id": p.id})
        answers = (_chosen(side, p.gold, option) for side in (p.a, p.b))
        cells = (
            TableCell(p.id, links=(link,)),
            TableCell(p.category),
            TableCell(option(p.gold)),
            *map(TableCell, answers),
            TableCell(_better(p)),
        )
        lines.append(TableRow(cells))
    _pictures(found, selected[(page - 1) * PER_PAGE :][:MOST_PICTURES], both)
    table(columns, lines, key="disagreements", caption="Examples on which A and B disagree")


def _pictures(found: Comparison, shown: Sequence[Disagreement], both: Sequence[str]) -> None:
    """Draws the first disagreements with their images, questions and the answers of one seed."""
    record = store.record(both[0])
    if not isinstance(record, Record):
        return
    frames = {run_id: store.predictions(run_id, found.split) for run_id in both}
    joined = together(frames).set_index("id", drop=False)
    names = [f"A {found.a.name}", f"B {found.b.name}"]
    cards(record, found.split, frames, joined.loc[[one.id for one in shown]], names)


def _better(p: Disagreement) -> str:
    right_a, right_b = (sum(k == p.gold for k in side) for side in (p.a, p.b))
    return "A" if right_a > right_b else "B"


def _chosen(side: Sequence[int], gold: int, option: Callable[[int], str]) -> str:
    """The answer of a side, or the number of seeds that were right."""
    return option(side[0]) if len(side) == 1 else f"{sum(k == gold for k in side)} of {len(side)} seeds right"


def _option(options: Sequence[str] | None) -> Callable[[int], str]:
    def text(k: int) -> str:
        if k == NO_ANSWER:
            return "no answer"
        return options[k] if options and k < len(options) else f"option {chr(65 + k % 26)}"

    return text


def _points(d: Difference) -> str:
    text = f"{100 * d.value:+.1f}"
    if d.low is not None and d.high is not None:
        text += f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    return text.replace("-", "−")


def _p(p: float | None) -> str:
    return "" if p is None else f", raw p {p_value(p)}"
