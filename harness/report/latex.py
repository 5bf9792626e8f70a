"""A ranking for a paper: one `table` of booktabs rules for each set of rows, to be read with `\\input`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from harness.leaderboard.schema import Overall, Row
from harness.report.columns import FRONT, Grid, grids, legend, overall_grid, parts

T = TypeVar("T")

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
    "\n": " ",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is. What isn't ASCII is left to the engine."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def to_latex(
    rows: Sequence[Row], notes: Sequence[str] = (), columns: Collection[str] = (), overall: Sequence[Overall] = ()
) -> str:
    """The tables in LaTeX; the document needs `\\usepackage{booktabs}` and `\\usepackage[T1]{fontenc}`."""
    out = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for heading, part in parts(rows):
        for grid in grids(part, columns):
            out += _table(grid, f"{heading}: {grid.title}." if grid.title else f"{heading}. {legend(part)}")
    if overall:
        together = overall_grid(overall)
        out += _table(together, f"{together.title}.")
    out += [f"% {line}" for note in ([] if rows else ["No runs."]) + list(notes) for line in note.splitlines()]
    return "\n".join(out) + "\n"


def _table(grid: Grid[T], caption: str) -> list[str]:
    if not grid.columns:
        return [f"% {caption}"]
    caption += "".join(f" {note[0].upper()}{note[1:]}." for note in grid.above)
    out = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(caption)}}}",
        r"\begin{tabular}{" + "".join("r" if column.align == "right" else "l" for column in grid.columns) + "}",
        r"\toprule",
        " & ".join(escape(column.name) for column in grid.columns) + r" \\",
        r"\midrule",
    ]
    kinds = [getattr(line, "kind", "") for line in grid.lines]
    for at, line in enumerate(grid.lines):
        if at and (kinds[at - 1], kinds[at]) == ("run", "control"):
            out += [r"\addlinespace"]
        out += [" & ".join(escape(column.cell(line)) for column in grid.columns) + r" \\"]
    out += [r"\bottomrule", r"\end{tabular}"]
    out += [r"\par\smallskip " + escape(note) + "." for note in grid.notes]
    return [*out, r"\end{table}", ""]
