"""The trade-off: what a score costs, and which rows nobody beats on both. A point leads to its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard.data import leaderboard, store
from dashboard.table import Cell, Column, Line, Link, table
from dashboard.widgets import charts, url_state
from dashboard.widgets.escape import plain
from harness.leaderboard.schema import Filters, Row, Table
from harness.report.columns import has_own_unit
from harness.report.format import count, percent, short
from harness.stats import distillation
from harness.stats.metrics import LOWER_IS_BETTER

COSTS: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "parameters": ("parameters of the student", lambda row: row.parameters),
    "TFLOPs": ("training, TFLOPs of a run, teachers included", lambda row: row.train_tflops),
    "train time": ("training, seconds of a run, teachers included", lambda row: row.train_seconds),
    "ms an answer": ("milliseconds an answer on the test split", lambda row: row.ms_per_example),
    "forwards": ("forwards of the student an answer", lambda row: row.forwards_per_answer),
    "memory": ("the most memory that a run's process took, MiB", lambda row: row.peak_memory_mib),
}
"""By name: the axis with its unit, and a row's cost."""
MOST_NAMED = 25
ON, OFF = "on the front", "behind it"


@dataclass(frozen=True)
class Point:
    """A row with its cost; `front`: no other row is better at the same cost or as good for less."""

    row: Row
    cost: float
    front: bool


def show() -> None:
    """The page."""
    st.title("Trade-off", anchor=False)
    if not store.any_runs():
        return
    runs = store.runs()
    data = url_state.data_names(runs)
    if not data:
        store.nothing("No run has been scored yet.", "hkdbench run --help")
        return
    at = st.columns([5, 4, 3, 4], vertical_alignment="bottom")
    with at[0]:
        key = data[url_state.one("Benchmark", list(data), "benchmark")]
    with at[2]:
        split = url_state.split_of([run for run in runs if run.data_key == key])
    with at[1]:
        metric = url_state.one("Metric", url_state.metrics_of(store.stated(key, split), None), "metric")
    with at[3]:
        cost = url_state.one("Cost", list(COSTS), "cost")
    ranking = url_state.ranked(Filters(benchmark=key[0], metric=metric, split=split))
    found = url_state.table_of(ranking, key)
    placed = points(found.rows, cost) if found else []
    if found is None or not placed:
        _without(cost)
        return
    st.markdown(plain(said(placed, cost)))
    _chart(found, placed, cost)
    _front(found, placed, cost)


def points(rows: Sequence[Row], cost: str) -> list[Point]:
    """The rows that have both a figure and this cost, cheapest first, with the Pareto front."""
    of = COSTS[cost][1]
    known = [
        (row, float(price))
        for row in rows
        if row.kind == "run" and row.figure is not None
        for price in [of(row)]
        if price is not None
    ]
    sign = -1 if known and known[0][0].metric.rpartition(":")[2] in LOWER_IS_BETTER else 1
    front = distillation.pareto([sign * (row.figure or 0.0) for row, _ in known], [price for _, price in known])
    made = [Point(row, price, on) for (row, price), on in zip(known, front, strict=True)]
    return sorted(made, key=lambda p: (p.cost, -sign * (p.row.figure or 0.0)))


def said(placed: Sequence[Point], cost: str) -> str:
    """The front in words."""
    front = [p for p in placed if p.front]
    names = ", ".join(leaderboard.named(p.row) for p in front[:6]) + (", …" if len(front) > 6 else "")
    return (
        f"{len(front)} of {len(placed)} rows are on the front, cheapest first: {names}. The others have a row that "
        "scores as much for less, or more for the same. The front goes by the points: look at the intervals too."
    )


def _without(cost: str) -> None:
    st.info(plain(f"No ranked row has this cost ({cost}): choose another, or another split."), icon=":material/inbox:")


def _chart(found: Table, placed: Sequence[Point], cost: str) -> None:
    scale, floor = (1 if has_own_unit(found.metric) else 100), leaderboard.floor_of(found)
    frame = pd.DataFrame(
        {
            "row": leaderboard.named(p.row),
            "run": p.row.run_ids[0],
            "cost": p.cost,
            "at": at,
            "named_at": named_at,
            "name": leaderboard.short_name(p.row),
            "value": scale * p.row.values[found.metric].value,
            "low": _scaled(p.row.values[found.metric].low, scale),
            "high": _scaled(p.row.values[found.metric].high, scale),
            "place": ON if p.front else OFF,
            "figure": percent(p.row.values[found.metric], own_unit=has_own_unit(found.metric)),
            "price": count(int(p.cost)) if cost == "parameters" else short(p.cost),
            "seeds": len(p.row.seeds),
        }
        for p, at, named_at in zip(placed, *_apart(placed, scale, found.metric, floor), strict=True)
    )
    unit = leaderboard.unit(found.metric)
    title = found.metric + (f", {unit}" if unit else "")
    x = alt.X("at:Q", title=COSTS[cost][0], scale=_scale(frame["cost"]), axis=charts.ticks())
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, padding=12))
    picked = alt.selection_point(name="picked", fields=["run"])
    colours = alt.Scale(domain=[ON, OFF], range=[charts.BLUE if not charts.dark() else charts.SKY, charts.faint()])
    tips = [
        alt.Tooltip("row:N", title="row"),
        alt.Tooltip("figure:N", title=title),
        alt.Tooltip("price:N", title=cost),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    base = alt.Chart(frame)
    legend = alt.Legend(title=None, orient="top")
    colour = alt.Color("place:N", scale=colours, legend=legend)
    shape = alt.Shape("place:N", scale=alt.Scale(domain=[ON, OFF], range=["circle", "diamond"]), legend=legend)
    step = base.transform_filter(alt.datum.place == ON).mark_line(interpolate="step-after", strokeWidth=1.5)
    layers = [
        step.encode(x=x, y=y, color=colour),
        base.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour, tooltip=tips
        ),
        base.mark_point(size=110, filled=True, opacity=1, cursor="pointer")
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
        .add_params(picked),
        _names(base, len(frame)).encode(x=x, y=alt.Y("named_at:Q", title=title), text="name:N"),
    ]
    if floor is not None:
        line = alt.Chart(pd.DataFrame({"at": [scale * floor], "says": ["majority answer"]}))
        layers.insert(0, line.mark_rule(strokeDash=[4, 4], color=charts.faint()).encode(y="at:Q"))
        told = line.mark_text(align="left", baseline="bottom", dx=4, dy=-2, color=charts.ink())
        layers.append(told.encode(x=alt.value(0), y="at:Q", text="says:N"))
    answer = charts.draw(
        alt.layer(*layers).properties(height=460),
        f"{title} against {COSTS[cost][0]}: {said(placed, cost)}",
        key="chart",
        on_select="rerun",
        selection_mode="picked",
    )
    clicked = answer.selection.get("picked") or []
    if clicked:
        navigation.go("run", run=str(clicked[0]["run"]))


def _names(base: alt.Chart, rows: int) -> alt.Chart:
    """The rows' names beside their points: of all where there is room, else of the front."""
    chart = base if rows <= MOST_NAMED else base.transform_filter(alt.datum.place == ON)
    return chart.mark_text(align="left", baseline="bottom", dx=9, dy=-3, limit=260, color=charts.ink())


def _apart(placed: Sequence[Point], scale: int, metric: str, floor: float | None) -> tuple[list[float], list[float]]:
    """Where points and their names are drawn: rows of nearly one cost a little beside each other, names not on another.

    Points of one cost are spread by 1.5 % of it each, names by a twentieth of the figures' range.
    """
    values = [scale * (p.row.figure or 0.0) for p in placed]
    low, high = leaderboard.domain([p.row for p in placed], metric, floor) or (0.0, 0.0)
    gap = scale * (high - low) / 20 or 0.01
    at, named_at = [p.cost for p in placed], list(values)
    clusters: list[list[int]] = []
    for k, p in enumerate(placed):
        if clusters and p.cost <= 1.1 * placed[clusters[-1][0]].cost:
            clusters[-1].append(k)
        else:
            clusters.append([k])
    for cluster in clusters:
        same = [k for k in cluster if placed[k].cost == placed[cluster[0]].cost]
        for place, k in enumerate(same):
            at[k] *= 1 + 0.015 * (place - (len(same) - 1) / 2)
        below = None
        for k in sorted(cluster, key=lambda k: -values[k]):
            named_at[k] = values[k] if below is None else min(values[k], below - gap)
            below = named_at[k]
    return at, named_at


def _scale(costs: pd.Series) -> alt.Scale:
    """Logarithmic where costs span more than a factor of five; a square root where some are 0."""
    if costs.max() <= 5 * costs.min():
        return alt.Scale(zero=False, padding=40)
    return alt.Scale(type="sqrt" if costs.min() <= 0 else "log", padding=40, nice=False)


def _scaled(number: float | None, scale: int) -> float | None:
    return None if number is None else scale * number


def _front(found: Table, placed: Sequence[Point], cost: str) -> None:
    """The same as a table, for the keyboard and for who reads rather than looks."""
    own = has_own_unit(found.metric)
    columns = [
        Column("method", "method", "left"),
        Column("student", "student", "left"),
        Column("cost", cost, help=COSTS[cost][0]),
        Column(
            "score",
            found.metric + (f" ({leaderboard.unit(found.metric)})" if leaderboard.unit(found.metric) else ""),
            domain=leaderboard.domain([p.row for p in placed], found.metric),
        ),
        Column("front", "front", "left"),
    ]
    lines = []
    for p in placed:
        head = p.row.name or p.row.method
        settings = p.row.label.removeprefix(head).strip()
        figure = p.row.values[found.metric]
        text = percent(figure, bounds=False, own_unit=own)
        small = "" if own else percent(figure).removeprefix(text).strip()
        cells = (
            Cell(head, small=settings, links=(Link(head, "run", {"run": p.row.run_ids[0]}),)),
            Cell(p.row.student),
            Cell(count(int(p.cost)) if cost == "parameters" else short(p.cost)),
            Cell(text, small=small, value=figure.value, low=figure.low, high=figure.high),
            Cell(ON if p.front else ""),
        )
        lines.append(Line(cells, quiet=False, band=int(p.front)))
    with st.expander("The same as a table", expanded=len(placed) <= MOST_NAMED):
        table(columns, lines[:200], key="front", caption=f"Rows by {cost}, cheapest first")
