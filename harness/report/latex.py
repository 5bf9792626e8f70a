"""A ranking for a paper: one `table` with booktabs rules for each set of rows, to be read with `\\input`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from harness.leaderboard.schema import Overall, Row
from harness.report.columns import FRONT
from harness.report.format import one_line, sentence
from harness.report.tables import TableSpec, legend, sections

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "*": r"$^{*}$",
    FRONT: r"\textdagger{}",
}


def escape(text: str) -> str:
    """Text, escaped for LaTeX, on one line. Characters that aren't ASCII are left to the engine.

    Pandas' own `escape="latex"` doesn't escape line breaks, quotes, and the characters that need T1, so it isn't used.
    """
    return "".join(_SPECIAL.get(sign, sign) for sign in one_line(text))


def to_latex(
    rows: Sequence[Row], notes: Sequence[str] = (), columns: Collection[str] = (), overall: Sequence[Overall] = ()
) -> str:
    """The tables in LaTeX; the document needs `\\usepackage{booktabs}` and `\\usepackage[T1]{fontenc}`."""
    out = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for section in sections(rows, columns, overall):
        for table in section.tables:
            if table.columns:
                explained = f". {legend(section.rows)}" if section.rows else "."
                out += _table(table, section.heading + (f": {table.title}." if table.title else explained))
            else:
                out += [f"% {one_line(f'{section.heading}: {table.title}: {note}')}" for note in table.notes]
    out += [f"% {one_line(line)}" for note in ([] if rows else ["No runs."]) + list(notes) for line in note.split("\n")]
    return "\n".join(out) + "\n"


def _table(table: TableSpec[Any], caption: str) -> list[str]:
    caption += "".join(f" {sentence(note)}" for note in table.above)
    styled = table.frame().style.hide(axis="index").format(lambda cell: escape(str(cell)))
    styled.format_index(lambda name: escape(table.head(str(name))), axis="columns")
    sides = "".join(column.align[0] for column in table.columns)
    tabular = str(styled.to_latex(column_format=sides, hrules=True)).splitlines()
    first = tabular.index(r"\midrule") + 1
    for at, kinds in reversed(list(enumerate(pairwise(table.kinds()), first + 1))):
        if kinds[1] == "control" != kinds[0]:
            tabular.insert(at, r"\addlinespace")
    return [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(caption)}}}",
        *tabular,
        *(rf"\par\smallskip {escape(note)}." for note in table.notes),
        r"\end{table}",
        "",
    ]
