"""The trade-off page: score against cost, with the Pareto front. Each point links to its run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard.data import leaderboard, store
from dashboard.table import Column, Link, TableCell, TableRow, table
from dashboard.widgets import charts, row_filters, url_state
from dashboard.widgets.escape import plain, visible
from harness.leaderboard.schema import Row, Table
from harness.report.columns import TRADE_OFFS, has_own_unit, with_unit
from harness.report.format import percent
from harness.stats import distillation
from harness.stats.metrics import LOWER_IS_BETTER

COSTS = {column.name: column for column in TRADE_OFFS}
MOST_NAMED = 25
LETTER, POINT = 0.0075, 0.008
"""The width of a letter of a name, and half the width of a point, as shares of the chart's width, rounded up."""
ON, OFF = "on the Pareto front", "not on the front"
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
"""Of the students, smallest first."""


@dataclass(frozen=True)
class Point:
    """A row with its cost. `front`: it is on the Pareto front of score and cost."""

    row: Row
    cost: float
    front: bool


def show() -> None:
    """The page."""
    st.title("Trade-off", anchor=False)
    if not store.has_runs():
        return
    runs = store.runs()
    data = url_state.data_names(runs)
    if not data:
        store.empty_state("No run has been scored yet.", "hkdbench run --help")
        return
    at = st.columns([5, 4, 4, 5, 3], vertical_alignment="bottom")
    with at[0]:
        name = url_state.select("Benchmark", list(data), "benchmark", strict=True)
    key = data[name]
    navigation.titled(name, "Trade-off")
    with at[4], st.popover("Filters", icon=":material/filter_list:"):
        filters, shown, _ = row_filters.choose([run for run in runs if run.data_key == key], key)
    with at[1]:
        metrics = url_state.metrics_of(store.metric_names(key, filters.split), filters.protocol)
        metric = url_state.select("Metric", metrics, "metric", strict=True)
    with at[3]:
        shown = replace(shown, search=row_filters.search())
    with at[2]:
        cost = url_state.select("Cost", list(COSTS), "cost", "TFLOPs", strict=True)
    metric = metric.removeprefix(f"{filters.protocol}:")
    asked = {"benchmark": key[0], "metric": metric, "baseline": None}
    found = url_state.table_of(url_state.ranked(filters.model_copy(update=asked)), key)
    rows = [row for row in found.rows if shown.matches(row)] if found else []
    placed = points(rows, cost)
    if found is not None and len(rows) < len(found.rows):
        st.caption(f"{len(rows):,} of {len(found.rows):,} rows match the filters; the front is among them.")
    if found is None or not placed:
        _without(cost)
        return
    st.markdown(plain(front_text(placed)))
    _chart(found, placed, cost)
    _front(found, placed, cost)


def points(rows: Sequence[Row], cost: str) -> list[Point]:
    """The rows that have a score and this cost, cheapest first, marked if they are on the Pareto front."""
    known = [
        (row, float(price))
        for row in rows
        if row.kind == "run" and row.figure is not None
        for price in [COSTS[cost].key(row)]
        if price is not None
    ]
    sign = -1 if known and known[0][0].metric.rpartition(":")[2] in LOWER_IS_BETTER else 1
    front = distillation.pareto([sign * (row.figure or 0.0) for row, _ in known], [price for _, price in known])
    made = [Point(row, price, on) for (row, price), on in zip(known, front, strict=True)]
    return sorted(made, key=lambda p: (p.cost, -sign * (p.row.figure or 0.0)))


def front_text(placed: Sequence[Point]) -> str:
    """The Pareto front in words."""
    front = [p for p in placed if p.front]
    names = ", ".join(leaderboard.named(p.row) for p in front[:6]) + (", …" if len(front) > 6 else "")
    return (
        f"{len(front)} of {len(placed)} rows are on the Pareto front, cheapest first: {names}. For every "
        "other row, one of them scores at least as much at no higher cost. The front is made of the means; rows within "
        "its band, the 95 % intervals, may belong to it."
    )


def _without(cost: str) -> None:
    st.info(plain(f"No ranked row has this cost ({cost}). Select another cost or split."), icon=":material/inbox:")


def _chart(found: Table, placed: Sequence[Point], cost: str) -> None:
    scale, floor = (1 if has_own_unit(found.metric) else 100), leaderboard.majority_score(found.rows)
    frame = pd.DataFrame(
        {
            "row": visible(leaderboard.named(p.row)),
            "run": p.row.run_ids[0],
            "cost": p.cost,
            "name_x": name_x,
            "name_y": name_y,
            "name": visible(leaderboard.short_name(p.row)),
            "value": scale * p.row.values[found.metric].value,
            "low": _scaled(p.row.values[found.metric].low, scale),
            "high": _scaled(p.row.values[found.metric].high, scale),
            "place": ON if p.front else OFF,
            "method": visible(p.row.method),
            "student": visible(p.row.student),
            "figure": percent(p.row.values[found.metric], own_unit=has_own_unit(found.metric)),
            "price": COSTS[cost].text(p.row),
            "seeds": len(p.row.seeds),
        }
        for p, (name_x, name_y) in zip(placed, _positions(placed, scale, found.metric, floor), strict=True)
    )
    title = with_unit(found.metric)

    kind = _scale_type(frame["cost"].tolist())
    scale_x = alt.Scale(type=kind, zero=False, padding=40, nice=False)

    def x_of(field: str) -> alt.X:
        return alt.X(field, title=COSTS[cost].help, scale=scale_x, axis=charts.ticks())

    x = x_of("cost:Q")
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, padding=12))
    picked = alt.selection_point(name="picked", fields=["run"])
    methods = list(dict.fromkeys(sorted(frame["method"])))
    sizes = {visible(p.row.student): p.row.parameters or 0 for p in placed}
    students = sorted(sizes, key=lambda name: (sizes[name], name))
    colours = alt.Scale(domain=methods, range=[charts.PALETTE[k % len(charts.PALETTE)] for k in range(len(methods))])
    shapes = alt.Scale(domain=students, range=[SHAPES[k % len(SHAPES)] for k in range(len(students))])
    tips = [
        alt.Tooltip("row:N", title="row"),
        alt.Tooltip("figure:N", title=title),
        alt.Tooltip("price:N", title=cost),
        alt.Tooltip("seeds:Q", title="seeds"),
        alt.Tooltip("place:N", title="Pareto front"),
    ]
    base = alt.Chart(frame)
    colour = alt.Color("method:N", scale=colours, legend=alt.Legend(title="method", orient="top", columns=6))
    shape = alt.Shape(
        "student:N",
        scale=shapes,
        legend=alt.Legend(title="student", orient="top", symbolFillColor=charts.ink(), symbolStrokeColor=charts.ink()),
    )
    on_front = base.transform_filter(alt.datum.place == ON)
    step = on_front.mark_line(interpolate="step-after", strokeWidth=1.5, color=charts.faint())
    band = on_front.mark_area(interpolate="step-after", opacity=0.15, color=charts.faint())
    names, background = _names(base, len(frame), x_of("name_x:Q"), title)
    layers = [
        band.encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q"),
        step.encode(x=x, y=y),
        background,
        base.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour, tooltip=tips
        ),
        base.mark_point(size=120, filled=True, opacity=1, cursor="pointer")
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
        .add_params(picked),
        names,
    ]
    if floor is not None:
        line = alt.Chart(pd.DataFrame({"at": [scale * floor], "says": ["majority control"]}))
        layers.insert(0, line.mark_rule(strokeDash=[4, 4], color=charts.faint()).encode(y="at:Q"))
        label = line.mark_text(align="right", baseline="top", dx=-4, dy=3, color=charts.ink())
        layers.append(label.encode(x=alt.value("width"), y="at:Q", text="says:N"))
    answer = charts.draw(
        alt.layer(*layers).properties(height=460),
        f"{title} against {COSTS[cost].help}: {front_text(placed)}",
        key="chart",
        on_select="rerun",
        selection_mode="picked",
    )
    clicked = answer.selection.get("picked") or []
    if clicked:
        navigation.go("run", run=str(clicked[0]["run"]))


def _names(base: alt.Chart, rows: int, x: alt.X, title: str) -> tuple[Any, Any]:
    """The rows' names beside their points, and the background that keeps the front's line out of them.

    If there are too many rows, only those on the front have names.
    """
    chart = base if rows <= MOST_NAMED else base.transform_filter(alt.datum.place == ON)
    chart = chart.encode(x=x, y=alt.Y("name_y:Q", title=title), text="name:N")
    place: dict[str, Any] = {"align": "left", "baseline": "bottom", "dx": 9, "dy": -3, "limit": 260}
    return chart.mark_text(**place, color=charts.ink()), chart.mark_text(
        **place, color=charts.paper(), stroke=charts.paper(), strokeWidth=4
    )


def _positions(placed: Sequence[Point], scale: int, metric: str, floor: float | None) -> list[tuple[float, float]]:
    """x and y of each point's name, so that no name covers a point or a name.

    The names of points with nearly the same cost stand to the right of these points. A name that would cover something
    moves down by a twentieth of the scores' range.
    """
    values = [scale * (p.row.figure or 0.0) for p in placed]
    low, high = leaderboard.domain([p.row for p in placed], metric, floor) or (0.0, 0.0)
    gap = scale * (high - low) / 20 or 0.01
    at, name_x, name_y = [p.cost for p in placed], [p.cost for p in placed], list(values)
    clusters: list[list[int]] = []
    for k, p in enumerate(placed):
        if clusters and p.cost <= 1.1 * placed[clusters[-1][0]].cost:
            clusters[-1].append(k)
        else:
            clusters.append([k])
    for cluster in clusters:
        for k in cluster:
            name_x[k] = max(at[other] for other in cluster)
    taken = [
        (_along_axis(x, at) - POINT, _along_axis(x, at) + POINT, value - gap / 2)
        for x, value in zip(at, values, strict=True)
    ]
    for k in sorted(range(len(placed)), key=lambda k: -values[k]):
        if len(placed) > MOST_NAMED and not placed[k].front:
            continue
        left = _along_axis(name_x[k], at) + POINT
        right = left + LETTER * len(leaderboard.short_name(placed[k].row))
        while covered := [
            y for start, end, y in taken if left < end and start < right and abs(y - name_y[k]) < 0.99 * gap
        ]:
            name_y[k] = min(covered) - gap
        taken.append((left, right, name_y[k]))
    return list(zip(name_x, name_y, strict=True))


def _along_axis(cost: float, costs: Sequence[float]) -> float:
    """Where a cost is on the axis, from 0 to 1."""
    scaled = {"log": math.log, "sqrt": math.sqrt, "linear": float}[_scale_type(costs)]
    low, high = scaled(min(costs)), scaled(max(costs))
    return (scaled(cost) - low) / (high - low or 1)


def _scale_type(costs: Sequence[float]) -> Literal["linear", "sqrt", "log"]:
    """Logarithmic if costs span more than a factor of five, or square-root if some of them are 0."""
    if max(costs) <= 5 * min(costs):
        return "linear"
    return "sqrt" if min(costs) <= 0 else "log"


def _scaled(number: float | None, scale: int) -> float | None:
    return None if number is None else scale * number


def _front(found: Table, placed: Sequence[Point], cost: str) -> None:
    """Draws the same data as a table."""
    own = has_own_unit(found.metric)
    columns = [
        Column("method", "method", "left"),
        Column("student", "student", "left"),
        Column("cost", cost, help=COSTS[cost].help),
        Column(
            "score",
            with_unit(found.metric),
            domain=leaderboard.domain([p.row for p in placed], found.metric),
        ),
        Column("front", "Pareto front", "left"),
    ]
    lines = []
    for p in placed:
        head = p.row.name or p.row.method
        settings = p.row.label.removeprefix(head).strip()
        figure = p.row.values[found.metric]
        text = percent(figure, bounds=False, own_unit=own)
        small = "" if own else percent(figure).removeprefix(text).strip()
        cells = (
            TableCell(head, small=settings, links=(Link(head, "run", {"run": p.row.run_ids[0]}),)),
            TableCell(p.row.student),
            TableCell(COSTS[cost].text(p.row)),
            TableCell(text, small=small, value=figure.value, low=figure.low, high=figure.high),
            TableCell("yes" if p.front else ""),
        )
        lines.append(TableRow(cells, quiet=False, band=int(p.front)))
    with st.expander("Table", expanded=len(placed) <= MOST_NAMED):
        table(columns, lines[:200], key="front", caption=f"Rows by {cost}, cheapest first")
