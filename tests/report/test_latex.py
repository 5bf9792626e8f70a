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
    for made in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in made[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(made[0])}
    plain = re.sub(r"\\[\\{}%$#&_]", "", "\n".join(body))
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
            r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}\begin{document}",
            text,
            r"\end{document}",
        ]
    )
    (tmp_path / "page.tex").write_text(document)
    halt = ["-interaction=nonstopmode", "-halt-on-error"] if engine == "pdflatex" else []
    subprocess.run([engine, *halt, "page.tex"], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    assert (tmp_path / "page.pdf").stat().st_size > 0
