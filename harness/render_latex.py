"""A ranking for a paper: one `table` of booktabs rules for each set of rows, to be read with `\\input`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.render import columns, footnotes, legend, parts
from harness.rows import Row

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
    "\n": " ",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is. What isn't ASCII is left to the engine."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def to_latex(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The tables in LaTeX; the document needs `\\usepackage{booktabs}` and `\\usepackage[T1]{fontenc}`."""
    out = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for heading, part in parts(rows):
        shown = columns(part)
        out += [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape(f'{heading}. {legend(part)}')}}}",
            r"\begin{tabular}{" + "".join("r" if column.align == "right" else "l" for column in shown) + "}",
            r"\toprule",
            " & ".join(escape(column.name) for column in shown) + r" \\",
            r"\midrule",
        ]
        for at, row in enumerate(part):
            if row.kind == "control" and (at and part[at - 1].kind == "run"):
                out += [r"\addlinespace"]
            out += [" & ".join(escape(column.cell(row)) for column in shown) + r" \\"]
        out += [r"\bottomrule", r"\end{tabular}"]
        out += [r"\par\smallskip " + escape(note) + "." for note in footnotes(part)]
        out += [r"\end{table}", ""]
    out += [f"% {line}" for note in ([] if rows else ["No runs."]) + list(notes) for line in note.splitlines()]
    return "\n".join(out) + "\n"
