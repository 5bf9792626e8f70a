"""The ablation page: the effect and the cost of each part of a method."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard.data import ablation as ablations
from dashboard.data import store
from dashboard.widgets import charts, dataframes, url_state
from dashboard.widgets.escape import plain
from harness.errors import UserError
from harness.leaderboard import ablation as ablate
from harness.report.ablation import READING, SURE
from harness.report.format import p_value

SECTIONS = {
    "Parts switched off": ("ablation", True),
    "Variants, by the setting that they change": ("ablation", False),
    "Other methods": ("rival", None),
    "Controls": ("control", None),
}
"""By title: the kind of the lines, and whether they only switch parts off (None: it doesn't matter)."""


def show() -> None:
    """The page."""
    st.title("Ablation", anchor=False)
    store.listing()  # shows an error if the store can't be read
    names = ablations.names(store.store())
    if not names:
        store.empty_state(
            "No ablation in this store. An ablation measures the effect of each part of a method.",
            f"hkdbench ablate hkd4vlm --store {store.store().url}",
        )
        return
    left, middle, right = st.columns([2, 2, 2])
    with left:
        name = url_state.select("Ablation", names, "ablation")
    ablation = ablate.load(store.store(), name)
    tables = [benchmark for benchmark, results in ablation.tables.items() if any(r.figures for r in results)]
    if not tables:
        st.info("None of its runs has finished. Run the command again to continue:", icon=":material/inbox:")
        st.code(f"hkdbench ablate {ablation.method} --store {store.store().url}", language=None)
        return
    with middle:
        benchmark = url_state.select("Benchmark", tables, "benchmark", kept=True)
    with right:
        figure = url_state.select("Metric", ablations.figures(ablation, benchmark), "figure")
    frame = ablations.frame(ablation, benchmark, figure)
    full = frame[frame["part"] == "full"].iloc[0]
    own = "" if pd.isna(full["own"]) else ": " + _with_bounds("{:.1f}", full["own"], full["own low"], full["own high"])
    seeds = f"{int(full['seeds'])} seed{'' if full['seeds'] == 1 else 's'}"
    st.markdown(plain(f"Full method: {ablation.method}, {seeds}{own} ({figure}, %)."))
    st.markdown(f"**{plain(ablations.in_words(frame, figure))}**")
    _forest(frame, figure)
    _against(ablation, frame, benchmark, figure)
    _table(frame, figure, ablation)
    st.caption(plain(READING))
    for label, reason in ablation.left_out.items():
        st.caption(plain(f"Not run: {label}: {reason}"))
    navigation.link("about", f"About {ablation.method}", what="Methods", which=ablation.method)


def _forest(frame: pd.DataFrame, figure: str) -> None:
    """Draws the differences on the left and the costs on the right, in the same rows."""
    st.caption(
        f"Differences with 95 % intervals. Blue circles: significant (Holm p below {SURE}, written beside them). Grey "
        "diamonds: not significant."
    )
    most = frame["TFLOP"].max()
    for title, (kind, off) in SECTIONS.items():
        rows = frame[(frame["part"] == kind) & frame["value"].notna()]
        if off is not None:
            rows = rows[(rows["group"] == ablations.PARTS) == off]
        if not len(rows):
            continue
        by = ["value"] if off is not False else ["group", "value"]
        rows = rows.sort_values(by, kind="stable").copy()
        rows["p_text"] = ["" if pd.isna(p) or p >= SURE else f"p {p_value(p)}" for p in rows["holm"]]
        rows["cost_text"] = [
            "" if pd.isna(tflop) else f"{tflop:.3g} TFLOP" + ("" if pd.isna(passes) else f", {passes:.3g} fw.")
            for tflop, passes in zip(rows["TFLOP"].astype(float), rows["forwards"].astype(float), strict=True)
        ]
        st.subheader(title, anchor=False)
        order = rows["line"].tolist()
        left, right = st.columns([5, 2], gap="small")
        height = 32 * len(rows) + 75
        with left:
            charts.draw(
                _differences(rows, figure, order).properties(height=height),
                f"Difference to the full method in {figure}, points, {title}: "
                + "; ".join(
                    f"{r.line} {_with_bounds('{:+.1f}', r.value, r.low, r.high)}" for r in rows.itertuples(index=False)
                ),
            )
        with right:
            if rows["TFLOP"].notna().any():
                charts.draw(
                    _costs(rows, order, most).properties(height=height),
                    "Training TFLOP and forward passes per answer: "
                    + "; ".join(f"{r.line} {r.cost_text}" for r in rows.itertuples()),
                )


def _against(ablation: ablate.Ablation, frame: pd.DataFrame, benchmark: str, figure: str) -> None:
    """Two lines of the ablation against each other, paired by seed and example."""
    of_runs = frame[frame["part"].ne("control") & frame["own"].notna()]
    lines = of_runs["line"].tolist()
    if len(lines) < 2:
        return
    st.subheader("Two against each other", anchor=False)
    left, right = st.columns(2)
    with left:
        first = url_state.select("First", lines, "first", lines[1])
    others = [line for line in lines if line != first]
    with right:
        second = url_state.select("Second", others, "second", others[min(1, len(others) - 1)])
    try:
        found = ablations.difference(store.store(), ablation, benchmark, figure, first, second)
    except UserError as error:
        st.warning(plain(error), icon=":material/warning:")
        return
    if found is None:
        st.markdown(plain(f"{first} and {second} share no seed, so they can't be compared."))
        return
    points = [None if x is None else 100 * x for x in (found.value, found.low, found.high)]
    p = "" if found.p is None else f", raw p {p_value(found.p)}"
    st.markdown(
        plain(f"{first} minus {second}: {_with_bounds('{:+.1f}', *points)} points in {figure}{p}.").replace("\n", " ")
    )
    two = of_runs.set_index("line").loc[[first, second]].reset_index()
    rows = []
    for r in two.to_dict("records"):
        own = _with_bounds("{:.1f}", r["own"], r["own low"], r["own high"])
        rows.append((r["line"], r["changed"], own, r["TFLOP"], r["forwards"], r["seeds"]))
    heads = ["line", "changed settings", f"{figure}, %", "training TFLOP", "forward passes per answer", "seeds"]
    dataframes.show_frame(pd.DataFrame(rows, columns=heads), "two", "The two lines", {"training TFLOP": "{:.3g}"})
    runs = {line.label: next(iter(line.runs.get(benchmark, {}).values()), "") for line in ablation.lines}
    with st.container(horizontal=True):
        navigation.link("compare", "Compare them by category and example", a=runs[first], b=runs[second])
        navigation.link("runs", "Their curves", curve=[runs[first], runs[second]])


def _differences(rows: pd.DataFrame, figure: str, order: list[str]) -> Any:
    kinds = [ablations.SURELY, ablations.UNSURE, ablations.UNTESTED]
    colour = alt.Color(
        "verdict:N", scale=alt.Scale(domain=kinds, range=[charts.strong(), charts.GREY, charts.GREY]), legend=None
    )
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=kinds, range=["circle", "diamond", "cross"]), legend=None)
    low, high = float(np.nanmin(rows[["value", "low"]])), float(np.nanmax(rows[["value", "high"]]))
    room = 0.16 * (max(high, 0) - min(low, 0) or 1)
    scale = alt.Scale(domain=[min(low, 0) - room / 4, max(high, 0) + room], nice=False)
    tips: list[Any] = [
        "line:N",
        *(alt.Tooltip(f"{c}:Q", format="+.2f") for c in ("value", "low", "high")),
        alt.Tooltip("p_text:N", title="Holm"),
        "changed:N",
    ]
    base = alt.Chart(rows).encode(
        y=alt.Y("line:N", title=None, sort=order, axis=alt.Axis(labelFlush=False)), tooltip=tips
    )
    title = f"difference to the full method in {figure}, points"
    zero = alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(strokeDash=[4, 4], color=charts.faint()).encode(x="at:Q")
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q", color=colour)
    points = base.mark_point(size=85, filled=True, opacity=1).encode(x="value:Q", color=colour, shape=shape)
    texts = base.mark_text(align="right", dx=-2, color=charts.ink()).encode(x=alt.value("width"), text="p_text:N")
    return alt.layer(zero, bars, points, texts)


def _costs(rows: pd.DataFrame, order: list[str], most: float) -> Any:
    axis = alt.Axis(labels=False, ticks=False)
    base = alt.Chart(rows).encode(y=alt.Y("line:N", title=None, sort=order, axis=axis))
    x = alt.X(
        "TFLOP:Q", title="training TFLOP per run, forward passes per answer", axis=charts.ticks(4),
        scale=alt.Scale(domain=[0, max(most, 1e-9) * 1.9], nice=False),
    )  # fmt: skip
    bars = base.mark_bar(color=charts.SKY, height={"band": 0.5}).encode(
        x=x,
        tooltip=["line:N", alt.Tooltip("TFLOP:Q", format=".3f"), alt.Tooltip("TFLOP change:Q", format="+.3f"),
                 alt.Tooltip("forwards:Q", format=".2f"), alt.Tooltip("forwards change:Q", format="+.2f")],
    )  # fmt: skip
    return alt.layer(bars, base.mark_text(align="left", dx=4, color=charts.ink()).encode(x=x, text="cost_text:N"))


def _table(frame: pd.DataFrame, figure: str, ablation: ablate.Ablation) -> None:
    st.subheader("All results", anchor=False)
    rows = [
        (
            f"{r['line']} ({r['note']})" if r["note"] else r["line"],
            r["changed"],
            _with_bounds("{:.1f}", r["own"], r["own low"], r["own high"]),
            _with_bounds("{:+.1f}", r["value"], r["low"], r["high"]),
            dataframes.MISSING if pd.isna(r["p"]) else f"{p_value(r['p'])} ({p_value(r['holm'])})",
            _with_change("{:.3g}", r["TFLOP"], r["TFLOP change"]),
            _with_change("{:.2g}", r["forwards"], r["forwards change"]),
            r["seeds"],
        )
        for r in frame.to_dict("records")
    ]
    heads = ["variant", "changed settings", f"{figure}, %", "difference, points", "raw p (Holm p)",
             "training TFLOP (change)", "forward passes per answer (change)", "seeds"]  # fmt: skip
    shown = pd.DataFrame(rows, columns=heads)
    dataframes.show_frame(shown, "lines", "All results of the ablation")
    st.download_button(
        "Download as CSV", frame.to_csv(index=False), f"{ablation.name}.csv", "text/csv", icon=":material/download:"
    )


def _with_bounds(form: str, value: Any, low: Any, high: Any) -> str:
    """A number with its interval, if it has one."""
    if pd.isna(value):
        return dataframes.MISSING
    if pd.isna(low) or pd.isna(high):
        return form.format(value)
    return f"{form.format(value)}\u00a0[{form.format(low)},\u00a0{form.format(high)}]"


def _with_change(form: str, value: float, change: float) -> str:
    if pd.isna(value):
        return dataframes.MISSING
    return form.format(value) + ("" if pd.isna(change) or abs(change) < 0.005 * abs(value) else f" ({change:+.2g})")
