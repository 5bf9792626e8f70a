"""A ranking for a paper: one `table` with booktabs rules for each set of rows, to be read with `\\input`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from harness.leaderboard.schema import Overall, Row
from harness.report.columns import FRONT
from harness.report.format import one_line, sentence
from harness.report.tables import TableSpec, legend, sections

LONG, NAME_WIDTH = 32, "4.5cm"
"""Names of more characters are set in a column of this width."""
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
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    columns: Collection[str] = (),
    overall: Sequence[Overall] = (),
    chosen: Collection[str] = (),
) -> str:
    """The tables in LaTeX, each at most as wide as the text; the document needs the packages of the first line."""
    out = [r"% needs \usepackage{array,booktabs,graphicx} and \usepackage[T1]{fontenc}"]
    for section in sections(rows, columns, overall, chosen):
        out += [f"% {one_line(said)}" for said in section.headline]
        for table in section.tables:
            if table.columns:
                explained = f". {legend(section.rows)}" if section.rows else "."
                out += _table(table, section.heading + (f": {table.title}." if table.title else explained))
            else:
                out += [f"% {one_line(f'{section.heading}: {table.title}: {note}')}" for note in table.notes]
    out += [f"% {one_line(line)}" for note in ([] if rows else ["No runs."]) + list(notes) for line in note.split("\n")]
    return "\n".join(out) + "\n"


def _side(align: str, longest: int) -> str:
    """A column: long names are broken into lines."""
    return rf">{{\raggedright\arraybackslash}}p{{{NAME_WIDTH}}}" if align == "left" and longest > LONG else align[0]


def _table(table: TableSpec[Any], caption: str) -> list[str]:
    caption += "".join(f" {sentence(note)}" for note in table.above)
    frame = table.frame()
    styled = frame.style.hide(axis="index").format(lambda cell: escape(str(cell)))
    styled.format_index(lambda name: escape(table.head(str(name))), axis="columns")
    sides = "".join(_side(column.align, max(map(len, frame[column.name]), default=0)) for column in table.columns)
    tabular = str(styled.to_latex(column_format=sides, hrules=True)).splitlines()
    first = tabular.index(r"\midrule") + 1
    for at, kinds in reversed(list(enumerate(pairwise(table.kinds()), first + 1))):
        if kinds[1] == "control" != kinds[0]:
            tabular.insert(at, r"\addlinespace")
    return [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(caption)}}}",
        r"\sbox0{%",
        *tabular,
        r"}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *(rf"\par\smallskip {escape(note)}." for note in table.notes),
        r"\end{table}",
        "",
    ]
