"""How charts look: one palette, intervals drawn, axes named with their units. Altair's light and dark are Streamlit's.

Every chart is drawn with `draw`, which gives it a text for those who don't see it.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#7A7A7A",
)  # fmt: skip
"""Okabe and Ito's colours, which the colour-blind tell apart; yellow darker and grey for black, to read on both."""
PALETTE = [BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY]


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
        .configure_range(category=PALETTE)
        .configure_view(stroke=None)
    )
    return st.altair_chart(shown, width="stretch", key=key, alt=alt_text, **options)


def ticks(count: int = 6) -> Any:
    """A quantitative axis with few ticks."""
    return alt.Axis(tickCount=count)
