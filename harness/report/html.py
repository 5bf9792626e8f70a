"""A ranking as one static HTML file: its tables, each with a plot of its intervals. No scripts, no external files.

Every text from a record goes through `html.escape`; in addition the page's policy forbids scripts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

from harness.leaderboard.schema import Overall, Row
from harness.record import Interval
from harness.report.columns import TRADE_OFFS, ColumnSpec, has_own_unit, with_unit
from harness.report.format import difference, percent
from harness.report.tables import TableSpec, legend, sections

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff }
h2 { font-size: 1.1rem; margin-top: 2.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top }
th { border-bottom: 1.5px solid #1a1a1a } td.control { color: #666 } td.baseline { font-weight: 600 }
.wide { overflow-x: auto } .notes { color: #444; font-size: .9rem }
.plots { display: flex; flex-wrap: wrap; gap: 0 1.5rem }
svg { display: block; margin: 1rem 0; max-width: 100% } svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a }
""".strip()

_LABEL, _PLOT, _LINE = 300, 560, 20
"""Widths of names and plot, height of a row, in pixels."""
_SHOWN = 60
"""The largest number of rows in a plot."""


def to_html(
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    columns: Collection[str] = (),
    overall: Sequence[Overall] = (),
    chosen: Collection[str] = (),
) -> str:
    """The tables and their plots as one page."""
    out = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        f"<title>hkdbench ranking</title><style>{_STYLE}</style></head><body>",
        "<h1>Ranking</h1>",
        f"<p>{escape(legend(rows) if rows else 'No runs.')}</p>",
    ]
    for section in sections(rows, columns, overall, chosen):
        out += [f"<h2>{escape(section.heading)}</h2>", *(f"<p>{escape(said)}</p>" for said in section.headline)]
        out += [plot(section.rows)]
        for table in section.tables:
            out += [f"<h3>{escape(table.title)}</h3>"] if table.title else []
            out += [_listed(table.above)]
            out += [_table(table, f"{len(out)}")] if table.columns else []
            out += [_listed(table.notes)]
        if "cost" in columns and section.rows:
            made = [trade_off(section.rows, cost) for cost in TRADE_OFFS]
            out += ['<div class="plots">', *made, "</div>"]
    out += [_listed(notes), "</body></html>"]
    return "\n".join(line for line in out if line) + "\n"


def _table(table: TableSpec[Any], number: str) -> str:
    """The table, rendered by pandas' Styler; `number` separates its style rules from those of the other tables."""
    import pandas as pd  # slow to load, and the other forms don't need it

    frame = table.frame()
    classes = pd.DataFrame(dict.fromkeys(frame.columns, table.kinds()), index=frame.index)
    right = ", ".join(f".col{k}" for k, column in enumerate(table.columns) if column.align == "right")
    styled = frame.style.hide(axis="index").format(lambda cell: escape(str(cell))).set_td_classes(classes)
    styled.format_index(lambda name: escape(table.head(str(name))), axis="columns")
    styled.set_table_styles([{"selector": right, "props": "text-align: right; white-space: nowrap"}])
    return f'<div class="wide">{styled.to_html(table_uuid=number)}</div>'


def _listed(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def plot(part: Sequence[Row]) -> str:
    """The figure of each row with its interval, best on top, as SVG; empty if no row has a figure."""
    known = [row for row in part if row.figure is not None]
    drawn = known[:_SHOWN]
    if not drawn:
        return ""
    metric = part[0].metric
    own_unit = has_own_unit(metric)
    bounds = [row.values[metric] for row in drawn]
    least = min(v.value if v.low is None else v.low for v in bounds)
    most = max(v.value if v.high is None else v.high for v in bounds)
    margin = 0.05 * (most - least) or 0.01
    least, most = least - margin, most + margin

    def x(value: float) -> float:
        return _LABEL + _PLOT * (value - least) / (most - least)

    def tick(value: float) -> str:
        return percent(Interval(value=value), own_unit=own_unit)

    height = _LINE * len(drawn) + 38
    title = f"{metric} with 95 % intervals"
    axis = with_unit(metric)
    out = [
        f'<svg role="img" viewBox="0 0 {_LABEL + _PLOT + 20} {height}" width="{_LABEL + _PLOT + 20}" height="{height}"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
    ]
    for step in range(6):
        value = least + (most - least) * step / 5
        out += [
            f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="0" y2="{height - 34}" stroke="#ddd"/>',
            f'<text x="{x(value):.1f}" y="{height - 22}" text-anchor="middle">{tick(value)}</text>',
        ]
    base = next((row for row in drawn if row.baseline), None)
    if base is not None and base.figure is not None:
        at = x(base.figure)
        out += [
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - 34}" stroke="#1a1a1a" stroke-dasharray="4 3"/>'
        ]
    for place, row in enumerate(drawn):
        found = row.values[metric]
        y, colour = _LINE * place + 12, "#888" if row.kind == "control" else "#1f5fa8"
        name = f"{row.label} {row.student}".strip()
        said = f"{name}: {percent(found, own_unit=own_unit)}"
        said += f"; {difference(row.delta, False)}" if row.delta else ""
        clipped = name if len(name) <= 44 else f"{name[:43]}…"
        out += [f"<g><title>{escape(said)}</title>"]
        out += [f'<text x="{_LABEL - 10}" y="{y + 4}" text-anchor="end">{escape(clipped)}</text>']
        if found.low is not None and found.high is not None:
            out += [
                f'<line x1="{x(found.low):.1f}" x2="{x(found.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}"'
                ' stroke-width="2"/>'
            ]
        out += [f'<circle cx="{x(found.value):.1f}" cy="{y}" r="4" fill="{colour}"/></g>']
    out += [f'<text x="{_LABEL + _PLOT / 2}" y="{height - 5}" text-anchor="middle">{escape(axis)}</text></svg>']
    more = len(known) - len(drawn)
    return "".join(out) + (f'<p class="notes">The plot leaves out the last {more} rows.</p>' if more else "")


def trade_off(part: Sequence[Row], cost: ColumnSpec[Row]) -> str:
    """The figures of the runs, with intervals, against a cost, as SVG; the Pareto front is connected and labelled.

    Empty if all have the same cost.
    """
    runs = [row for row in part if row.figure is not None and cost.key(row) is not None]
    prices = [float(cost.key(row)) for row in runs]
    if len(set(prices)) < 2:
        return ""
    metric, own_unit = part[0].metric, has_own_unit(part[0].metric)
    figures = [row.values[metric] for row in runs]
    lows = [found.value if found.low is None else found.low for found in figures]
    highs = [found.value if found.high is None else found.high for found in figures]
    logarithmic = min(prices) > 0 and max(prices) > 20 * min(prices)
    width, height, left, below = 560, 320, 60, 44

    def scaled(value: float, least: float, most: float) -> float:
        margin = 0.06 * (most - least) or 0.01
        return (value - least + margin) / (most - least + 2 * margin)

    def x(price: float) -> float:
        ends = (min(prices), max(prices))
        if logarithmic:
            price, ends = math.log(price), (math.log(ends[0]), math.log(ends[1]))
        return left + (width - left - 10) * scaled(price, *ends)

    def y(figure: float) -> float:
        return 20 + (height - below - 20) * (1 - scaled(figure, min(lows), max(highs)))

    axis = with_unit(metric)
    out = [
        f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{escape(f"{metric} against {cost.help}")}</title>'
        f'<path d="M{left} 16V{height - below}H{width}" fill="none" stroke="#888"/>'
    ]
    for step in range(4):
        value = min(lows) + (max(highs) - min(lows)) * step / 3
        said = percent(Interval(value=value), own_unit=own_unit)
        out += [f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{said}</text>']
    for row in (min(runs, key=cost.key), max(runs, key=cost.key)):
        out += [f'<text x="{x(cost.key(row)):.1f}" y="{height - 28}" text-anchor="middle">{cost.text(row)}</text>']
    points = list(zip(runs, prices, figures, lows, highs, strict=True))
    front = sorted((price, found.value) for row, price, found, _, _ in points if cost.field in row.pareto)
    steps = " ".join(f"{x(price):.1f},{y(figure):.1f}" for price, figure in front)
    out += [f'<polyline points="{steps}" fill="none" stroke="#b5542b" stroke-width="1.5"/>']
    for row, price, found, low, high in points:
        ours, at = cost.field in row.pareto, x(price)
        who = f"{row.label} {row.student}"
        said = f"{who}: {percent(found, own_unit=own_unit)}, {cost.text(row)}"
        colour = "#b5542b" if ours else "#1f5fa8"
        out += [
            f'<g><title>{escape(said)}</title><path d="M{at:.1f} {y(low):.1f}V{y(high):.1f}" stroke="{colour}"/>'
            f'<circle cx="{at:.1f}" cy="{y(found.value):.1f}" r="4" fill="{colour}"/>'
        ]
        if ours:
            end = at > (left + width) / 2
            clipped = who if len(who) <= 30 else f"{who[:29]}…"
            out += [
                f'<text x="{at + (-7 if end else 7):.1f}" y="{y(found.value) - 5:.1f}"'
                f' text-anchor="{"end" if end else "start"}">{escape(clipped)}</text>'
            ]
        out += ["</g>"]
    scale = ", logarithmic" if logarithmic else ""
    out += [f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">{escape(cost.help + scale)}</text>']
    out += [f'<text x="4" y="12">{escape(axis)}; a line connects the front</text></svg>']
    return "".join(out)
