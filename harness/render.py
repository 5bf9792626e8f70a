"""How a ranking is shown: plain text, Markdown, JSON, CSV; and the columns that every table shares."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Any, Literal

from harness.record import Interval
from harness.rows import SHOWN, Delta, Row

WIDTH = 110
LEGEND = (
    "Means over n seeds, in per cent, with 95 % intervals by bootstrap over seeds and images. "
    "Training cost is a run's, teachers included."
)
_FLEXIBLE = ("method", "student")
"""Columns that may break their lines."""
_METHOD = 22
"""What is left to the method's column in plain text; costs are left out where there is less."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, its side, and what stands in it."""

    name: str
    align: Literal["left", "right"]
    cell: Callable[[Row], str]


def columns(part: Sequence[Row]) -> list[Column]:
    """The columns of one table. Budgets, places and differences have one only where there is something to say."""
    metric = part[0].metric
    shown = list(SHOWN if metric in SHOWN else (metric, *SHOWN))
    delta = any(row.delta for row in part)
    budgets = {row.budget for row in part if row.kind == "run" and row.budget}
    # More figures leave no room for all intervals: then only the one that sorts has its own.
    bounds = {name: name == metric or (len(shown) == 2 and not delta) for name in shown}

    def figure(name: str) -> Column:
        return Column(
            name.replace("macro_f1", "macro-F1"),
            "right",
            lambda row: percent(row.values.get(name), bounds[name], has_own_unit(name)),
        )

    found = [Column("#", "right", lambda row: str(row.rank or ""))]
    if any(row.rank_low for row in part):
        found += [Column("ranks", "right", _ranks), Column("tier", "right", lambda row: "-".join(map(str, row.tier)))]
    found += [
        Column("method", "left", lambda row: row.label),
        Column("student", "left", lambda row: row.student),
        Column("n", "right", lambda row: str(len(row.seeds))),
        *map(figure, shown),
    ]
    if delta:
        found += [Column("difference", "right", lambda row: difference(row.delta, row.baseline))]
    if len(budgets) > 1:
        found += [Column("budget", "right", lambda row: "-" if row.budget is None else f"{row.budget:,}")]
    return [
        *found,
        Column("TFLOPs", "right", _of_run(lambda row: short(row.train_tflops))),
        Column("train s", "right", _of_run(lambda row: short(row.train_seconds))),
        Column("params", "right", _of_run(lambda row: count(row.parameters))),
    ]


def has_own_unit(metric: str) -> bool:
    """Whether a figure is a protocol's, in the unit of its original: the others are fractions."""
    return ":" in metric


def legend(rows: Sequence[Row]) -> str:
    """What the figures are, below all tables."""
    protocol = next((row.metric for row in rows if has_own_unit(row.metric)), None)
    return LEGEND + (f" {protocol} is in the protocol's own unit." if protocol else "")


def _of_run(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: cell(row) if row.kind == "run" else ""


def _ranks(row: Row) -> str:
    return "" if row.rank_low is None else f"{row.rank_low}-{row.rank_high}"


def parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by table, each with its heading."""
    found = [(key, list(part)) for key, part in groupby(rows, key=lambda row: row.data_key)]
    versions = Counter((benchmark, split) for (benchmark, _, _, split), _ in found)
    result = []
    for (benchmark, revision, fingerprint, split), part in found:
        largest = max(part, key=lambda row: row.examples)
        heading = f"{benchmark}, {split} split: {largest.examples} examples about {largest.groups} images"
        if fingerprint:
            heading += f" (revision {revision}, data {fingerprint[:12]})"
        if (number := versions[benchmark, split]) > 1:
            heading += f"\nThe store has runs on {number} versions of these data, ranked apart."
        result.append((heading, part))
    return result


def footnotes(part: Sequence[Row]) -> list[str]:
    """What has to be said about rows of one table."""
    base = next((row for row in part if row.baseline), None)
    said = []
    if base is not None:
        said += [f"difference: to {_name(base)}, paired by seed and example; * where p is below 0.05"]
    if any(row.tier for row in part):
        said += ["rows that share a tier aren't told apart: paired, Holm over all pairs of the table"]
    budgets = sorted({row.budget for row in part if row.kind == "run" and row.budget})
    if len(budgets) > 1:
        said += [f"rows of {len(budgets)} budgets (training examples), which are not equal terms: {_listed(budgets)}"]
    return said + [f"{_name(row)}: {row.note}" for row in part if row.note]


def _name(row: Row) -> str:
    return f"{row.label}{f', {row.student}' if row.student else ''}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


# --------------------------------------------------------------------------------------- plain formats


def to_text(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The tables as plain text, at most 110 columns wide."""
    out: list[str] = []
    for heading, part in parts(rows):
        out += [heading, "", *_grid(_fitting(columns(part), part), part), ""]
        out += [line for note in footnotes(part) for line in wrap(note, WIDTH)]
        out += [""]
    for note in ([legend(rows)] if rows else ["No runs."]) + list(notes):
        out += wrap(note, WIDTH)
    return "\n".join(line.rstrip() for line in out) + "\n"


def _grid(shown: Sequence[Column], part: Sequence[Row]) -> list[str]:
    """A table's lines: names and students that are too long for the width go on in the next line."""
    cells = [[column.cell(row) for column in shown] for row in part]
    widths = [max(map(len, column)) for column in zip([c.name for c in shown], *cells, strict=True)]
    for flexible in _FLEXIBLE:
        at = next(k for k, column in enumerate(shown) if column.name == flexible)
        over = sum(widths) + 2 * (len(widths) - 1) - WIDTH
        widths[at] = max(min(widths[at], 8), widths[at] - max(over, 0))
    lines = []
    for line in [[column.name for column in shown], *cells]:
        folded = [wrap(text, width) or [""] for text, width in zip(line, widths, strict=True)]
        for k in range(max(map(len, folded))):
            pieces = (
                f"{part[k] if k < len(part) else '':{'>' if column.align == 'right' else '<'}{width}}"
                for column, part, width in zip(shown, folded, widths, strict=True)
            )
            lines.append("  ".join(pieces))
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines


def _fitting(shown: list[Column], part: Sequence[Row]) -> list[Column]:
    """The columns without as many of the costs as must go for the width of plain text."""
    widths = {c.name: 2 + max(len(c.name), *(len(c.cell(row)) for row in part)) for c in shown if c.name != "method"}
    for name in ("train s", "params", "TFLOPs"):
        if sum(widths.values()) > WIDTH - _METHOD:
            widths.pop(name)
    return [column for column in shown if column.name in widths or column.name == "method"]


def to_markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The tables in Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    out: list[str] = []
    for heading, part in parts(rows):
        shown = columns(part)
        out += [f"**{heading}**", "", line(column.name for column in shown)]
        out += ["|" + "|".join("---:" if column.align == "right" else "---" for column in shown) + "|"]
        out += [*(line(column.cell(row) for column in shown) for row in part), ""]
        out += [f"- {note}" for note in footnotes(part)]
        out += [""] if footnotes(part) else []
    out += [legend(rows) if rows else "No runs.", *(f"- {note}" for note in notes)]
    return "\n".join(out) + "\n"


def to_json(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """One JSON document: `rows`, each with all its fields (fractions, not per cent), and `notes`."""
    return json.dumps({"rows": [row.model_dump(mode="json") for row in rows], "notes": list(notes)}, indent=1)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row, with a header; figures are fractions; lists are separated by spaces."""
    metrics = dict.fromkeys([*SHOWN, *(name for row in rows for name in row.values)])
    plain = [name for name in Row.model_fields if name not in ("values", "metric", "delta")]
    bounds = [(name, bound) for name in metrics for bound in ("value", "low", "high")]
    of_delta = ("value", "low", "high", "p")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *plain,
            *(name if bound == "value" else f"{name}_{bound}" for name, bound in bounds),
            *("delta" if bound == "value" else f"delta_{bound}" for bound in of_delta),
        ]
    )
    for row in rows:
        cells: list[Any] = [getattr(row, name) for name in plain]
        cells = [" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells]
        cells += [getattr(row.values.get(name), bound, None) for name, bound in bounds]
        writer.writerow(cells + [getattr(row.delta, bound, None) for bound in of_delta])
    return out.getvalue()


# -------------------------------------------------------------------------------------------- numbers


def percent(value: Interval | None, bounds: bool = True, own_unit: bool = False) -> str:
    """A fraction in per cent, with its interval where it has one and that is wanted; `own_unit`: as it is."""
    if value is None:
        return "-"
    if own_unit:
        return f"{value.value:.4f}"
    text = f"{100 * value.value:.1f}"
    if value.low is None or value.high is None or not bounds:
        return text
    return f"{text} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def difference(delta: Delta | None, baseline: bool) -> str:
    """A difference in points, with its interval, and a star where p is below 0.05."""
    if delta is None:
        return "baseline" if baseline else "-"
    text = f"{100 * delta.value:+.1f}"
    if delta.low is not None and delta.high is not None:
        text += f" [{100 * delta.low:+.1f}, {100 * delta.high:+.1f}]"
    return text + ("*" if delta.p is not None and delta.p < 0.05 else "")


def short(number: float | None) -> str:
    """Three significant digits, without an exponent from 1 to a million."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:.3g}"


def count(number: int | None) -> str:
    """A number of parameters, as people say it."""
    if number is None:
        return "-"
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
