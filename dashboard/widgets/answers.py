"""The answer of a ranking at a glance: a sentence for each student, and its methods' differences to direct tuning."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.data import leaderboard
from dashboard.table import Column, Link, TableCell, TableRow, table
from dashboard.widgets.escape import plain
from harness.leaderboard.schema import Row
from harness.report import tables
from harness.report.columns import by_name, has_own_unit, ranking_columns, with_unit
from harness.report.format import p_value, percent, points
from harness.report.tables import StudentSummary

MOST_ROWS = 8
"""A picture has so many rows, the best ones; the table below has all."""
WIDTH = 300
"""Of the drawn differences, in pixels."""


def show(rows: Sequence[Row]) -> None:
    """Draws the answers of the rows that are shown."""
    found = tables.answers(rows)
    said = tables.headline(rows)
    for number, one in enumerate(found):
        st.markdown(plain(one.sentence))
        if one.direct is not None and any(row.direct and row.direct.difference for row in one.rows):
            _picture(one, number)
    if others := said[len(found) :]:
        st.markdown("  \n".join(map(plain, others)))


def _picture(one: StudentSummary, number: int) -> None:
    student = one.rows[0].student
    ahead = None
    if one.larger is not None and one.direct is not None and one.larger.figure is not None:
        ahead = one.larger.figure - (one.direct.figure or 0.0)
    drawn = list(one.rows[:MOST_ROWS])
    if one.direct is not None and one.direct not in drawn:
        drawn.append(one.direct)
    ends = [0.0, *([] if ahead is None else [ahead])]
    ends += [e for row in drawn if row.direct and (d := row.direct.difference) for e in (d.value, d.low, d.high) if e]
    room = 0.02 * (max(ends) - min(ends))
    line = (
        "" if one.larger is None or ahead is None else f"; dotted line: {tables.named(one.larger)}, {100 * ahead:+.1f}"
    )
    costs = by_name(ranking_columns(one.rows), "TFLOPs", "forwards")
    metric = one.rows[0].metric
    columns = [
        Column("method", f"student {student}", "left", help="Leads to the run of its first seed"),
        Column("score", with_unit(metric), help="Mean over seeds with its 95 % interval over seeds and images"),
        Column(
            "difference",
            "points compared with direct tuning",
            help=f"Paired by seed and example, with its 95 % interval. Dashed line: direct tuning{line}",
            domain=(min(ends) - room, max(ends) + room),
            reference=0.0,
            second=ahead,
            width=WIDTH,
        ),
        Column("p", "Holm p", help=f"Corrected for all rows of student {student}"),
        *(Column(spec.name, spec.head, help=spec.help) for spec in costs),
    ]
    lines = []
    for row in drawn:
        score = percent(row.values[metric], own_unit=has_own_unit(metric)).partition(" ")
        cells = (
            TableCell(*_name(row), links=(Link(row.label, "run", {"run": row.run_ids[0]}, title=row.spelled),)),
            TableCell(score[0], small=score[2]),
            *_difference(row, one.direct),
            *(TableCell(spec.text(row)) for spec in costs),
        )
        lines.append(TableRow(cells, marked=row is one.direct))
    table(columns, lines, f"answer {number}", f"Student {student}: differences to direct tuning{line}")
    notes = [f"The best {MOST_ROWS} of {len(one.rows)} rows of student {student}."] if len(one.rows) > MOST_ROWS else []
    notes += [f"Dotted line: {tables.named(one.larger)}, tuned directly."] if one.larger is not None else []
    if notes:
        st.caption(plain(" ".join(notes)))


def _name(row: Row) -> tuple[str, str]:
    head = row.name or row.method
    return head, row.label.removeprefix(head).strip()


def _difference(row: Row, direct: Row | None) -> tuple[TableCell, TableCell]:
    """The cells of the difference and of its p."""
    if row is direct:
        return TableCell("direct tuning", value=0.0), TableCell()
    found = row.direct.difference if row.direct else None
    if found is None or direct is None:
        return TableCell("–"), TableCell("–")
    head, _, bounds = points(found).replace("-", "−").partition(" ")
    sides = {"a": row.run_ids[0], "b": direct.run_ids[0]}
    title = f"Compare {leaderboard.named(row)} with direct tuning"
    link = Link(head, "compare", sides, title=title)
    sure = "" if found.p_holm is None else "significant" if found.p_holm < tables.SURE else "not significant"
    return (
        TableCell(head, small=bounds, value=found.value, low=found.low, high=found.high, links=(link,)),
        TableCell("–" if found.p_holm is None else p_value(found.p_holm), small=sure),
    )
