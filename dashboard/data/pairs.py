"""Every row against every other: who wins, the ranks that the data allow, and accuracy by category."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard.data import leaderboard, store
from dashboard.table import Column, Link, TableCell, TableRow
from harness.leaderboard.schema import Filters, Pair, Row
from harness.report.columns import lower_is_better
from harness.report.format import p_value, percent
from harness.report.tables import SURE
from harness.store.manifest import DataKey

MOST = 25
"""The win matrix and the categories show so many rows, the best ones."""
MOST_CATEGORIES = 24


def wins(rows: Sequence[Row], pairs: Sequence[Pair]) -> tuple[list[Column], list[TableRow]]:
    """The win matrix: in each cell the row minus the column, in points, with a word where Holm p is below 0.05."""
    known = {(one.a, one.b): one for one in pairs}
    shown = [row for row in rows if any(row.run_ids[0] in pair for pair in known)][:MOST]
    columns = [
        Column("method", "row minus column, points", "left"),
        Column("wins", "wins", help="Rows that this one is significantly better than (Holm p over all pairs)"),
        Column("losses", "losses", help="Rows that are significantly better than this one"),
        *(Column(str(k), f"#{row.rank}", help=leaderboard.named(row)) for k, row in enumerate(shown)),
    ]
    lines = []
    for row in shown:
        cells, won, lost = [], 0, 0
        for other in shown:
            cell, result = _pair(row, other, known)
            cells.append(cell)
            won += result > 0
            lost += result < 0
        name = TableCell(f"#{row.rank} {row.name or row.method}", small=_settings(row), below=f"student {row.student}")
        lines.append(TableRow((name, TableCell(str(won)), TableCell(str(lost)), *cells)))
    return columns, lines


def _pair(row: Row, other: Row, known: dict[tuple[str, str], Pair]) -> tuple[TableCell, int]:
    """A cell of the win matrix, and 1 for a win, -1 for a loss, 0 for neither."""
    if row is other:
        return TableCell("·"), 0
    a, b = row.run_ids[0], other.run_ids[0]
    one, sign = (known.get((a, b)), 1) if (a, b) in known else (known.get((b, a)), -1)
    if one is None:
        return TableCell("–"), 0
    text = f"{100 * sign * one.value:+.1f}".replace("-", "−")
    better = (one.value * sign < 0) if lower_is_better(row.metric) else (one.value * sign > 0)
    result = 0 if one.p_holm is None or one.p_holm >= SURE or not one.value else 1 if better else -1
    p = "" if one.p is None or one.p_holm is None else f": raw p {p_value(one.p)}, Holm p {p_value(one.p_holm)}"
    title = f"{leaderboard.named(row)} minus {leaderboard.named(other)}{p}"
    link = Link(text, "compare", {"a": a, "b": b}, title=title)
    return TableCell(text, links=(link,), small=("", "wins", "loses")[result], title=title), result


def ranks(rows: Sequence[Row]) -> tuple[list[Column], list[TableRow]]:
    """The rank diagram: each row's rank with the ranks that the data allow. Rows of one tier have one background."""
    ranked = [row for row in rows if row.rank_low is not None and row.rank_high is not None and row.rank is not None]
    last = max((row.rank_high or 0 for row in ranked), default=1)
    columns = [
        Column("method", "method", "left"),
        Column("student", "student", "left"),
        Column(
            "rank",
            "rank",
            help="The range has all ranks that are compatible with the data, at 95 % for all rows together",
            domain=(1.0, float(max(last, 2))),
            width=420,
        ),
        Column("tier", "tier", help="Rows that share a tier are not significantly different"),
    ]
    lines = []
    for row in ranked:
        span = f"[{row.rank_low}, {row.rank_high}]"
        low, high = float(row.rank_low or 0), float(row.rank_high or 0)
        drawn = TableCell(str(row.rank), small=span, value=float(row.rank or 0), low=low, high=high)
        name = TableCell(row.name or row.method, small=_settings(row))
        cells = (name, TableCell(row.student), drawn, TableCell("-".join(map(str, row.tier))))
        lines.append(TableRow(cells, band=row.tier[0] if row.tier else 0))
    return columns, lines


def categories(rows: Sequence[Row], key: DataKey, filters: Filters) -> tuple[list[Column], list[TableRow]]:
    """Accuracy by category: a row for each method, a column for each category, shaded from the least to the most."""
    names = [n for n in store.metric_names(key, filters.split) if n.startswith("accuracy/")][:MOST_CATEGORIES]
    shown = [row for row in rows if row.figure is not None][:MOST]
    values = store.row_values(filters.model_copy(update={"protocol": None, "baseline": None}), names)
    mine = {row.run_ids for row in shown}
    figures = [one.value for found in values.values() for runs, one in found.items() if runs in mine]
    low, high = (min(figures), max(figures)) if figures else (0.0, 1.0)
    columns = [
        Column("method", "accuracy (%)", "left"),
        Column("student", "student", "left"),
        *(Column(name, name.removeprefix("accuracy/"), help="With its 95 % interval over seeds and images")
          for name in names),
    ]  # fmt: skip
    lines = []
    for row in shown:
        cells = [TableCell(row.name or row.method, small=_settings(row)), TableCell(row.student)]
        for name in names:
            value = values[name].get(row.run_ids)
            if value is None:
                cells.append(TableCell("–"))
                continue
            text, _, bounds = percent(value).partition(" ")
            shade = (value.value - low) / ((high - low) or 1)
            cells.append(TableCell(text, title=bounds, shade=round(shade, 3)))
        lines.append(TableRow(tuple(cells), quiet=row.kind == "control"))
    return columns, lines


def _settings(row: Row) -> str:
    return row.label.removeprefix(row.name or row.method).strip()
