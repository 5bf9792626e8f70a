"""The look of the charts: colours, axes and the text for screen readers. Altair follows Streamlit's light or dark mode.

Every chart is drawn with `draw`.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#7A7A7A",
)  # fmt: skip
"""The palette of Okabe and Ito, safe for colour-blind readers. Yellow is darker and black is grey here, so that both
are readable in light and dark mode."""
PALETTE = [BLUE, ORANGE, GREEN, PINK, SKY, RED, OLIVE, GREY]


def dark() -> bool:
    """Whether the page is in dark mode."""
    return bool(st.context.theme.type == "dark")


def ink() -> str:
    """The colour of text and of lines in the foreground."""
    return "#e8eaed" if dark() else "#1b1f24"


def strong() -> str:
    """The colour of measured values."""
    return SKY if dark() else BLUE


def soft() -> str:
    """The colour of intervals that are drawn in a lighter shade than their values."""
    return "#3f8fc2" if dark() else SKY


def paper() -> str:
    """The background colour of the page."""
    return "#14171a" if dark() else "#ffffff"


def faint() -> str:
    """The colour of reference lines."""
    return "#8b929a" if dark() else "#767c83"


def draw(chart: Any, alt_text: str, key: str | None = None, **options: Any) -> Any:
    """Shows a chart at full width. `alt_text` describes it in words. Returns Streamlit's event with the selection."""
    text = ink()
    shown = (
        chart.configure_axis(labelLimit=320, titleFontWeight="normal", labelColor=text, titleColor=text)
        .configure_legend(labelColor=text, titleColor=text, labelLimit=320)
        .configure_range(category=PALETTE)
        .configure_view(stroke=None)
    )
    return st.altair_chart(shown, width="stretch", key=key, alt=alt_text, **options)


def ticks(count: int = 6) -> Any:
    """A quantitative axis with about `count` ticks."""
    return alt.Axis(tickCount=count)
