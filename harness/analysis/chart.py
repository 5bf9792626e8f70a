"""The interval plot of a ranking."""

from __future__ import annotations

import altair as alt
import pandas as pd

from harness.errors import DataError

RUN, CONTROL = "#0072B2", "#7A7A7A"
"""Blue and grey of the palette of Okabe and Ito, safe for colour-blind readers."""
STEP = 20
"""Pixels between two rows."""


def intervals(ranking: pd.DataFrame) -> alt.VConcatChart:
    """A point and a 95 % interval for each row with a figure, in the order of `Results.ranking`.

    There is a panel for each set of rows that were ranked together. Controls are grey; the dashed line is chance.
    Raises `DataError` if no row has a figure.
    """
    known = ranking[ranking["value"].notna()]
    if known.empty:
        raise DataError(
            "plot: no row has a figure on this split; expected a finished run (`runs()` shows their status)"
        )
    tables = known.groupby(["benchmark", "revision", "fingerprint", "split"], sort=False)
    return alt.vconcat(*(_panel(table) for _, table in tables))


def _panel(table: pd.DataFrame) -> alt.LayerChart | alt.FacetChart:
    first = table.iloc[0]
    columns = ["rank", "label", "student", "kind", "value", "low", "high", "examples", "chance"]
    shown = table[columns].assign(row=_names(table))
    base = alt.Chart(shown)
    row = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=400))
    title, scale = str(first["metric"]), alt.Scale(zero=False)
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["run", "control"], range=[RUN, CONTROL]), legend=None, title=None
    )
    tips = [alt.Tooltip(f"{name}:N") for name in ("rank", "label", "student")]
    tips += [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    layers: list[alt.Chart] = [
        interval.encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q", y=row, color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=alt.X("value:Q", title=title, scale=scale), y=row, color=colour, tooltip=tips
        ),
    ]
    if first["metric"] == "accuracy" and table["chance"].notna().any():
        chance = alt.Chart(table[["chance"]].dropna().head(1))
        layers.insert(0, chance.mark_rule(strokeDash=[4, 4], color=CONTROL).encode(x="chance:Q"))
    heading = f"{first['benchmark']}, {first['split']} split: {title} with 95 % intervals"
    return alt.layer(*layers).properties(title=heading, width=420, height=alt.Step(STEP))


def _names(table: pd.DataFrame) -> pd.Series[str]:
    """The name of each row, unlike those of all others; with the student's where there are several."""
    students = table.loc[table["student"] != "", "student"].nunique()
    names = table["label"].where((table["student"] == "") | (students < 2), table["label"] + " @ " + table["student"])
    return names.where(~names.duplicated(), names + " (" + table.groupby(names).cumcount().add(1).astype(str) + ")")
