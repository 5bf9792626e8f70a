"""One figure a row over several benchmarks, with weights that the reader chooses. A gap is never averaged over."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import streamlit as st

from dashboard.data import leaderboard
from dashboard.data.leaderboard import Shown
from dashboard.table import Cell, Column, Line, Link, table
from dashboard.widgets import url_state
from dashboard.widgets.escape import plain
from harness.leaderboard.schema import Overall, Ranking, Row
from harness.record import Interval
from harness.report import format
from harness.report.columns import has_own_unit
from harness.report.format import percent
from harness.stats.metrics import LOWER_IS_BETTER

MOST_WEIGHT = 100.0


@dataclass(frozen=True)
class Total:
    """A row over all benchmarks; `mean` is None where it `lacks` some of them."""

    label: str
    student: str
    rows: Mapping[str, Row]
    """By benchmark."""
    mean: Interval | None
    lacks: tuple[str, ...]
    kind: str


def totals(tables: Mapping[str, Sequence[Row]], weights: Mapping[str, float]) -> list[Total]:
    """Rows of several benchmarks as one, best first: the weighted mean of their figures.

    Its interval adds the benchmarks' half widths as independent errors (other images, other runs): the root of the
    summed squares, each side by itself. Benchmarks of weight 0 don't count, also not as missing.
    """
    counted = {name: weight for name, weight in weights.items() if weight > 0 and name in tables}
    by_row: dict[tuple[str, str], dict[str, Row]] = {}
    for name, rows in tables.items():
        for row in rows:
            by_row.setdefault((row.full_label, row.student), {})[name] = row
    found = []
    for (label, student), mine in by_row.items():
        lacks = tuple(name for name in counted if name not in mine or mine[name].figure is None)
        figures = [(weight, mine[name].values[mine[name].metric]) for name, weight in counted.items() if not lacks]
        kind = next(iter(mine.values())).kind
        found.append(Total(label, student, mine, _mean(figures) if figures else None, lacks, kind))
    metric = next((row.metric for rows in tables.values() for row in rows), "")
    sign = 1 if metric.rpartition(":")[2] in LOWER_IS_BETTER else -1
    return sorted(found, key=lambda t: (t.mean is None, sign * (t.mean.value if t.mean else 0), t.label, t.student))


def _mean(figures: Sequence[tuple[float, Interval]]) -> Interval:
    whole = sum(weight for weight, _ in figures)
    value = sum(weight * figure.value for weight, figure in figures) / whole
    if any(figure.low is None or figure.high is None for _, figure in figures):
        return Interval(value=value)
    below = sqrt(sum((weight * (figure.value - (figure.low or 0))) ** 2 for weight, figure in figures)) / whole
    above = sqrt(sum((weight * ((figure.high or 0) - figure.value)) ** 2 for weight, figure in figures)) / whole
    return Interval(value=value, low=value - below, high=value + above)


# ------------------------------------------------------------------------------------------ how it is shown


def show(ranking: Ranking, shown: Shown, columns_at: Any, download_at: Any) -> None:
    """The table over all benchmarks, with the weights to choose."""
    tables = named_tables(ranking)
    if not tables:
        st.info("No run fits these filters: take some of them off.", icon=":material/filter_list_off:")
        return
    with columns_at:
        st.caption("Every benchmark has its column here.")
    with st.expander("Weights of the benchmarks", icon=":material/balance:"), st.container(horizontal=True):
        weights = {
            name: url_state.number(plain(name), f"weight {name}", 1.0, MOST_WEIGHT, width=220) for name in tables
        }
    if not any(weights.values()):
        st.info("All weights are 0: give one benchmark some weight.", icon=":material/balance:")
        return
    found = [t for t in totals(tables, weights) if any(shown.fits(row) for row in t.rows.values())]
    metric = next(row.metric for rows in tables.values() for row in rows)
    ends = [e for t in found if t.mean for e in (t.mean.low, t.mean.high, t.mean.value) if e is not None]
    sign = leaderboard.unit(metric)
    columns = [
        Column("rank", "#"),
        Column("method", "method", "left"),
        Column("student", "student", "left"),
        Column(
            "mean",
            f"weighted mean of {metric}" + (f" ({sign})" if sign else ""),
            help="With a 95 % interval for these benchmarks; it says nothing of others",
            domain=(min(ends), max(ends)) if ends else None,
        ),
        *(Column(name, name, help=f"Weight {weights[name]:g}") for name in tables),
        Column("mean rank", "mean rank", help="Over all benchmarks alike, whatever the weights; 1 is best"),
        Column("iqm", "IQM", help="Mean of the middle half of figures by benchmark and seed, all alike"),
    ]
    alike = {(one.label, one.student): one for one in ranking.overall}
    lines, place = [], 0
    for one in found:
        place += one.kind == "run" and one.mean is not None
        number = str(place) if one.kind == "run" and one.mean else ""
        cells = (Cell(number), *_cells(one, tables), *_alike(alike.get((one.label, one.student)), metric))
        lines.append(Line(cells, quiet=one.kind == "control"))
    with download_at:
        st.caption(f"The {len(found):,} rows that are shown.")
        st.download_button("CSV", to_csv(found, list(tables)).encode(), "all-benchmarks.csv", "text/csv")
    if not found:
        st.info("No row fits these filters: take some of them off.", icon=":material/filter_list_off:")
        return
    table(columns, lines[:500], key="totals", caption=f"Weighted mean of {metric} over {len(tables)} benchmarks")
    st.caption(
        "Rows that lack a benchmark have no mean: a gap is never averaged over. Intervals add the benchmarks' as "
        "independent errors. Pick one benchmark for rank intervals, tiers and paired differences."
    )


def named_tables(ranking: Ranking) -> dict[str, Sequence[Row]]:
    """The rows of each table, by its benchmark; with its version where there are several."""
    names = [table.benchmark for table in ranking.tables]
    return {
        one.benchmark
        if names.count(one.benchmark) == 1
        else f"{one.benchmark} ({one.revision}, {one.fingerprint[:8]})": one.rows
        for one in ranking.tables
    }


def to_csv(found: Sequence[Total], names: Sequence[str]) -> str:
    """One line a row: the mean with its interval, and the figure on each benchmark, as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "student", "kind", "mean", "low", "high", *names])
    for one in found:
        bounds = [getattr(one.mean, name, None) for name in ("value", "low", "high")]
        writer.writerow([one.label, one.student, one.kind, *bounds, *(_figure(one, name) for name in names)])
    return out.getvalue()


def _figure(one: Total, name: str) -> float | None:
    return one.rows[name].figure if name in one.rows else None


def _cells(one: Total, tables: Mapping[str, Sequence[Row]]) -> list[Cell]:
    first = next(iter(one.rows.values()))
    head = first.name or first.method
    settings = one.label.removeprefix(head).strip()
    own = has_own_unit(first.metric)
    lacks = f"no figure on {', '.join(one.lacks)}" if one.lacks else ""
    link = Link(head, "run", {"run": first.run_ids[0]}, title=f"Open {first.run_ids[0]}")
    cells = [
        Cell(head, small=settings, below=lacks, links=(link,), chip="control" if one.kind == "control" else ""),
        Cell(one.student),
    ]
    if one.mean is None:
        cells.append(Cell("–"))
    else:
        text = percent(one.mean, bounds=False, own_unit=own)
        small = "" if own else percent(one.mean).removeprefix(text).strip()
        cells.append(Cell(text, small=small, value=one.mean.value, low=one.mean.low, high=one.mean.high))
    for name in tables:
        row = one.rows.get(name)
        cells.append(Cell(percent(row.values.get(row.metric), own_unit=own) if row else "–"))
    return cells


def _alike(one: Overall | None, metric: str) -> list[Cell]:
    """The figures over all benchmarks that weights don't touch: mean rank and interquartile mean."""
    if one is None or one.mean_rank is None or one.iqm is None:
        return [Cell("–"), Cell("–")]
    return [Cell(format.plain(one.mean_rank)), Cell(percent(one.iqm, own_unit=has_own_unit(metric)))]
