"""A ranking as LaTeX that compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from harness.leaderboard.schema import Row
from harness.report.latex import to_latex
from helpers.common import lacking


def test_latex_is_sound(evil: list[Row], tmp_path: Path) -> None:
    text = to_latex(evil, ["a\nnote"])
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == text.count(r"\begin{tabular}") == 2
    wide = re.escape(r">{\raggedright\arraybackslash}p{4.5cm}")
    for made in re.findall(rf"\\begin\{{tabular\}}\{{((?:[lr]|{wide})+)\}}(.*?)\\end\{{tabular\}}", text, re.DOTALL):
        lines = [line for line in made[1].splitlines() if line.endswith(r"\\")]
        columns = len(re.sub(wide, "p", made[0]))
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    plain = re.sub(rf"{wide}|\\wd0>|\\[\\{{}}%$#&_]", "", "\n".join(body))
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert not set(plain) & set('#~"|<>')
    engine = next((name for name in ("pdflatex", "tectonic") if shutil.which(name)), None)
    if engine is None:
        lacking("the structure is checked; no pdflatex (Debian: texlive-latex-recommended) or tectonic to compile it")
    document = "\n".join(
        [
            r"\documentclass{article}\usepackage{array,booktabs,graphicx}\usepackage[T1]{fontenc}\begin{document}",
            text,
            r"\end{document}",
        ]
    )
    (tmp_path / "page.tex").write_text(document)
    halt = ["-interaction=nonstopmode", "-halt-on-error"] if engine == "pdflatex" else []
    subprocess.run([engine, *halt, "page.tex"], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    assert (tmp_path / "page.pdf").stat().st_size > 0
    if engine == "pdflatex":  # no table is wider than the text
        assert "Overfull" not in (tmp_path / "page.log").read_text(errors="replace")
