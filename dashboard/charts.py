"""How charts look: one palette, intervals drawn, axes named with their units. Altair's light and dark are Streamlit's.

Every chart is drawn with `draw`, which gives it a text for those who don't see it.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#7A7A7A",
)  # fmt: skip
"""Okabe and Ito's colours, which the colour-blind tell apart; yellow darker and grey for black, to read on both."""
PALETTE = [BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
"""Beside colour, never colour alone."""


def dark() -> bool:
    """Whether the page is shown dark."""
    return bool(st.context.theme.type == "dark")


def ink() -> str:
    """The colour of lines and text that stand out from the page."""
    return "#e8eaed" if dark() else "#1b1f24"


def strong() -> str:
    """The colour of what is measured."""
    return SKY if dark() else BLUE


def soft() -> str:
    """The colour of its interval, where it stands beside."""
    return "#3f8fc2" if dark() else SKY


def paper() -> str:
    """The colour of the page."""
    return "#14171a" if dark() else "#ffffff"


def faint() -> str:
    """The colour of a reference line."""
    return "#8b929a" if dark() else "#767c83"


def draw(chart: Any, alt_text: str, key: str | None = None, **options: Any) -> Any:
    """Shows a chart at the page's width; `alt_text` says in words what it shows. Returns Streamlit's answer."""
    text = ink()
    shown = (
        chart.configure_axis(labelLimit=320, titleFontWeight="normal", labelColor=text, titleColor=text)
        .configure_legend(labelColor=text, titleColor=text, labelLimit=320)
        .configure_view(stroke=None)
    )
    return st.altair_chart(shown, width="stretch", key=key, alt=alt_text, **options)


def forest(
    frame: pd.DataFrame,
    name: str,
    unit: str,
    of: str = "",
    reference: float | None = 0.0,
    order: list[str] | None = None,
) -> Any:
    """A forest plot: a line for each row of `frame` with columns `name`, `value`, `low`, `high` (NaN: no interval).

    `unit` names the horizontal axis, with its unit; `of` the vertical one. `reference`: a dashed line there.
    """
    y = alt.Y(f"{name}:N", title=of or None, sort=order if order is not None else frame[name].tolist())
    tips = [alt.Tooltip(f"{name}:N"), *(alt.Tooltip(f"{c}:Q", format="+.2f") for c in ("value", "low", "high"))]
    base = alt.Chart(frame).encode(y=y)
    bars = base.mark_rule(strokeWidth=2.5, color=BLUE).encode(x=alt.X("low:Q", title=unit), x2="high:Q", tooltip=tips)
    points = base.mark_point(size=70, filled=True, color=BLUE, opacity=1).encode(x="value:Q", tooltip=tips)
    layers = [bars, points]
    if reference is not None:
        line = alt.Chart(pd.DataFrame({"at": [reference]}))
        layers.insert(0, line.mark_rule(strokeDash=[4, 4], color=faint()).encode(x="at:Q"))
    return alt.layer(*layers).properties(height=max(90, 34 * len(frame) + 50))


def ticks(count: int = 6) -> Any:
    """A quantitative axis with few ticks."""
    return alt.Axis(tickCount=count)
