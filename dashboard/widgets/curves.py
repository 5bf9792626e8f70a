"""Curves of training: one run's metrics and losses over its stages, or several runs' over each other."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.data import run
from dashboard.widgets import charts

MOST_COLOURS = len(charts.PALETTE)
"""With more runs than colours, all curves but the marked ones are grey."""


def draw_all(history: pd.DataFrame, of_stages: list[tuple[str, int]]) -> None:
    """A chart for each validation metric and each loss term, over the steps of all stages."""
    frame = run.curves(history, of_stages)
    roles = list(dict.fromkeys(frame["role"]))
    terms = run.terms(frame)
    st.caption("Training stages from left to right. Each loss is the mean over the steps since the previous point.")
    for start in range(0, len(terms), 2):
        for column, term in zip(st.columns(2, gap="large"), terms[start : start + 2], strict=False):
            with column:
                _curve(frame[frame["term"] == term], term, roles, of_stages)


def _curve(frame: pd.DataFrame, term: str, roles: list[str], of_stages: list[tuple[str, int]]) -> None:
    title = run.term_title(term)
    percent = title.endswith("%")
    frame = frame.assign(value=frame["value"] * (100 if percent else 1))
    end = sum(steps for _, steps in of_stages)
    x = alt.X("at:Q", title="optimizer steps", scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(tickCount=6))
    here = [role for role in roles if (frame["role"] == role).any()]
    scale = alt.Scale(domain=roles, range=charts.PALETTE[: len(roles)])
    legend = alt.Legend(orient="bottom", values=here, symbolType="stroke", symbolSize=300, symbolStrokeWidth=3)
    colour = alt.Color("role:N", title=None, scale=scale, legend=legend)
    base = alt.Chart(frame).encode(
        x=x,
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=colour,
        detail="stage:N",
        tooltip=["stage:N", "role:N", "step:Q", alt.Tooltip("value:Q", format=".4g")],
    )
    dash = alt.StrokeDash("role:N", scale=alt.Scale(domain=roles), title=None, legend=legend)
    lines = [base.mark_line(strokeWidth=2).encode(strokeDash=dash)]
    if term.startswith("validation/"):
        lines.append(base.mark_point(size=45, filled=True))
    borders = pd.DataFrame(
        [
            (sum(s for _, s in of_stages[:k]), sum(s for _, s in of_stages[: k + 1]), name)
            for k, (name, _) in enumerate(of_stages)
        ],
        columns=["from", "to", "stage"],
    )
    borders["middle"] = (borders["from"] + borders["to"]) / 2
    rules = alt.Chart(borders[1:]).mark_rule(color=charts.faint(), strokeDash=[2, 3]).encode(x="from:Q")
    names = alt.Chart(borders).mark_text(baseline="bottom", dy=-3, color=charts.faint())
    named = names.encode(x="middle:Q", y=alt.value(0), text="stage:N")
    chart = alt.layer(rules, *lines, named).properties(height=270)
    last = frame.sort_values("at").drop_duplicates(["stage", "role"], keep="last")
    summary = "; ".join(f"{r.role} in {r.stage} ends at {r.value:.3g}" for r in last.itertuples(index=False))
    charts.draw(chart, f"{title} over the steps of training: {summary}")


def over_each_other(
    frame: pd.DataFrame, term: str, marked: Mapping[str, str] | None = None, along: str = "optimizer steps"
) -> None:
    """One term's curves of several runs in one chart. `frame`: columns name, at, value, and `ended` with a word for
    runs that didn't finish. `marked`: colours by name; without it each run has a colour, or all are grey if there are
    too many."""
    title = run.term_title(term)
    frame = frame.assign(value=frame["value"] * (100 if title.endswith("%") else 1))
    names = list(dict.fromkeys(frame["name"]))
    if marked is None:
        marked = dict(zip(names, charts.PALETTE, strict=False)) if len(names) <= MOST_COLOURS else {}
    shown = [name for name in names if name in marked]
    scale = alt.Scale(domain=names, range=[marked.get(name, charts.GREY) for name in names])
    legend = alt.Legend(orient="bottom", columns=1, values=shown, symbolType="stroke", symbolStrokeWidth=3)
    base = alt.Chart(frame).encode(
        x=alt.X("at:Q", title=along, axis=alt.Axis(tickCount=6, tickMinStep=1)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("name:N", title=None, scale=scale, legend=legend if shown else None),
        detail="name:N",
        tooltip=["name:N", "at:Q", alt.Tooltip("value:Q", format=".4g"), "ended:N"],
    )
    known = alt.FieldOneOfPredicate(field="name", oneOf=shown)
    bright = alt.condition(known, alt.value(1), alt.value(0.4)) if shown else alt.value(0.6)
    lines = base.mark_line(strokeWidth=2).encode(opacity=bright)
    ends = frame.sort_values("at").drop_duplicates("name", keep="last")
    stopped = base.mark_point(shape="cross", size=90, filled=True).properties(data=ends[ends["ended"] != ""])
    points = base.mark_point(size=28, filled=True).encode(opacity=bright)
    label = "; ".join(f"{r.name} ends at {r.value:.3g}" for r in ends[["name", "value"]].itertuples(index=False))
    chart = alt.layer(lines, points, *([stopped] if (ends["ended"] != "").any() else [])).properties(height=320)
    charts.draw(chart, f"{title} over the steps of training, {len(names)} runs: {label}")
