"""What can be asked of a ranking, and its printed forms: differences, budgets, LaTeX, HTML."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.leaderboard import inference
from harness.leaderboard.leaderboard import table, tables
from harness.leaderboard.schema import Filters, Row
from harness.record import Interval
from harness.report.format import difference, percent
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import to_json, to_markdown, to_text
from harness.store import Store
from helpers.common import Cli, lacking
from helpers.runs import DATA, add, results_of

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def store(store: Store) -> Store:
    for seed in range(2):
        add(store, "finetune", 4 + seed, seed)
        add(store, "hkd4vlm", 7 + seed, seed, tags=["good"], settings={"alpha": 2})
        add(store, "finetune", 6, seed, student="L", parameters=1_200_000, train={"examples": 100}, budget=100)
    add(store, "majority", 4, kind="control", student="", parameters=0, budget=0)
    other = DATA.model_copy(update={"fingerprint": "c" * 64})
    add(store, "other", 8, benchmark="toy2", task="hallucination", data=other)
    return store


def methods(store: Store, **asked: Any) -> list[str]:
    return [f"{row.method}@{row.student}" for found in tables(store, Filters(**asked)) for row in found.rows]


# --------------------------------------------------------------------------------------------------- filters


def test_filters(store: Store) -> None:
    everything = ["hkd4vlm@S", "finetune@L", "finetune@S", "majority@", "other@S"]
    assert methods(store) == everything
    assert methods(store, benchmark="toy2") == methods(store, task="hallucination") == everything[-1:]
    assert methods(store, method="finetune") == ["finetune@L", "finetune@S", "majority@"]
    assert methods(store, tag="good") == ["hkd4vlm@S", "majority@"]
    assert methods(store, size="L") == methods(store, size="1M..") == ["finetune@L", "majority@"]
    assert methods(store, size="100k..0.5M", benchmark="toy") == ["hkd4vlm@S", "finetune@S", "majority@"]
    assert methods(store, size="..100k") == []
    assert methods(store, budget=100) == ["finetune@L", "majority@"]
    first, second = tables(store)
    assert (first.benchmark, first.budgets, second.budgets) == ("toy", (100, 4096), (4096,))


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (
            {"task": "fact"},
            "no run of task 'fact' in the store; did you mean 'factuality'? known: factuality, hallucination",
        ),
        ({"method": "hkd4vml"}, "no run of method 'hkd4vml' in the store; did you mean 'hkd4vlm'"),
        ({"size": "XL"}, "no run of student 'XL' in the store; did you mean 'L'? known: L, S"),
        ({"size": "1..x"}, "--size '1..x': expected a student's name or a range like 100k..2M"),
        ({"tag": "goad"}, "no run of tag 'goad' in the store; did you mean 'good'"),
        ({"budget": 5}, "no run of budget 5 in the store; known: 100, 4096"),
        ({"baseline": "finetune@M"}, "no row 'finetune@M' to be the baseline; did you mean 'finetune'"),
        ({"protocol": "official"}, "no run has metric 'official:accuracy' on split 'test'; did you mean 'accuracy'"),
    ],
)
def test_names_that_no_run_has(store: Store, asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        tables(store, Filters(**asked))


def test_a_protocols_figure_and_an_error_that_is_better_small(store: Store) -> None:
    for method, value in (("one", 0.4), ("two", 0.1)):
        figures = {"official:f1": Interval(value=value), "ece": Interval(value=value)}
        add(store, method, metrics={"test": figures})
    found = tables(store, Filters(protocol="official", metric="f1"))[0].rows
    assert [row.method for row in found if row.figure is not None] == ["one", "two"]
    found = tables(store, Filters(metric="ece"))[0].rows
    assert [(row.method, row.rank) for row in found if row.figure is not None] == [("two", 1), ("one", 2)]


# -------------------------------------------------------------------------------------------------- baseline


def test_differences_to_a_baseline_are_paired(store: Store) -> None:
    found = tables(store, Filters(baseline="finetune@S", method="hkd4vlm"))[0]
    rows = {f"{row.method}@{row.student}": row for row in found.rows}
    assert rows.keys() == {"hkd4vlm@S", "finetune@S", "majority@"}
    assert (rows["finetune@S"].baseline, rows["finetune@S"].delta) == (True, None)
    delta = rows["hkd4vlm@S"].delta
    assert delta is not None
    assert delta.value == pytest.approx(3 / 8)
    a, b = ({s: store.predictions(f"{m}-S-{s}") for s in (0, 1)} for m in ("hkd4vlm", "finetune"))
    wanted = inference.difference(*results_of(a, b, labels=2), "accuracy")
    assert wanted is not None
    assert (delta.low, delta.high, delta.p, delta.seeds) == (wanted.low, wanted.high, wanted.p, (0, 1))
    control = rows["majority@"].delta  # 4 of 8 whatever the seed, to 4 and 5
    assert control is not None
    assert (control.value, control.seeds) == (-1 / 16, (0, 1))
    assert tables(store, Filters(baseline="finetune@S"))[1].rows[0].delta is None
    assert [Row(**row) for row in json.loads(to_json(found.rows))["rows"]] == list(found.rows)


def test_the_baseline_is_said(store: Store, cli: Cli) -> None:
    said = cli("rank", "--store", store.url, "--baseline", "finetune@S", "--benchmark", "toy").out
    assert "difference: to finetune (S), paired by seed and example" in said
    line = next(line for line in said.splitlines() if "hkd4vlm alpha=2" in line)
    assert "+37.5 [" in line
    assert max(map(len, said.splitlines())) <= 110


def test_budgets_are_never_mixed_unseen(store: Store) -> None:
    text = to_text(table(store, "toy"))
    assert "budget" in text.splitlines()[2]
    assert "rows of 2 budgets (training examples), which can't be compared on equal terms: 100, 4,096" in text
    assert "budget" not in to_text(table(store, "toy2"))


# --------------------------------------------------------------------------------------------- printed forms


@pytest.fixture
def evil(store: Store) -> list[Row]:
    add(store, EVIL, 8, run_id="evil-0", settings={"note": 'a_b & 5% $x$ #1 {y} ~ ^ \\ "q" |*'})
    add(store, EVIL, seed=1, status="failed", run_id="evil-1", settings={"note": 'a_b & 5% $x$ #1 {y} ~ ^ \\ "q" |*'})
    return [row for found in tables(store, Filters(baseline="finetune@S")) for row in found.rows]


def test_a_narrow_table_folds_and_says_what_it_leaves_out(store: Store) -> None:
    rows = [row for found in tables(store, Filters(baseline="finetune@S")) for row in found.rows]
    text = to_text(rows, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"left out at this width: .*TFLOPs, train s", text)
    for width in (80, 20):  # no terminal is so narrow that a figure is cut
        text = to_text(rows, width=width)
        for row in rows:
            for bounds in re.findall(r"\[.*?\]\*?", percent(row.values["accuracy"]) + difference(row.delta, False)):
                assert bounds in text


def test_names_from_records_cannot_break_text_or_markdown(store: Store) -> None:
    add(store, "a\x1b[31m\nb<i>[x](javascript:y)|", 8, run_id="evil-0", tags=["evil"])
    rows = tables(store, Filters(tag="evil"))[0].rows
    assert "\x1b" not in to_text(rows, ["\x1b[2J"])
    text = to_markdown(rows, ["<script>"])
    assert "| a [31m b\\<i>[x]\\(javascript:y)\\| |" in text
    assert not re.search(r"(?<!\\)<|\]\(|\x1b", text)
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(bars) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_another_encoding_gets_a_plain_table(
    store: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    add(store, "größer", 8, run_id="other-0")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert cli("rank", "--store", store.url, "--columns", "cost").code == 0
    out.seek(0)
    text = out.read()
    rule, name = ("─" if encoding == "utf-8" else "-"), (r"gr\u00f6\u00dfer" if encoding == "ascii" else "größer")
    assert re.search(f"^{rule}{{60,}}$", text, re.MULTILINE)
    assert name in text
    assert ("+ on the Pareto front" if encoding == "ascii" else "† on the Pareto front") in text


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_one_static_page(evil: list[Row]) -> None:
    text = to_html(evil, [f"broken: {EVIL}"])
    page = Page()
    page.feed(text)
    assert page.open == []
    assert "script" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on") or name in ("src", "href")}
    assert page.tags.count("svg") == page.tags.count("table") == 2
    assert page.tags.count("circle") == len([row for row in evil if row.figure is not None])
    assert any(EVIL in part for part in page.text)  # it is shown, as text
    assert "default-src 'none'" in text
    assert to_html([]).count("No runs.") == 1


def test_a_metric_from_a_record_is_escaped_in_heads(evil: list[Row]) -> None:
    metric = f"accuracy/{EVIL}_&|{{0}}"
    rows = [row.model_copy(update={"metric": metric, "values": {metric: Interval(value=0.5)}}) for row in evil]
    page = Page()
    page.feed(to_html(rows))
    assert "script" not in page.tags
    assert any(part == f"{metric} (%)" for part in page.text)
    assert (
        r"accuracy/\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}\_\&\textbar{}\{0\} (\%) &"
        in (to_latex(rows))
    )
    assert r"| accuracy/\<script>alert(1)\</script>_&\|{0} (%) |" in to_markdown(rows)


def test_html_sets_controls_and_the_baseline_apart(evil: list[Row]) -> None:
    text = to_html(evil)
    lines = [line for line in text.splitlines() if "<td" in line]
    for kind, name in (("control", "majority"), ("baseline", "finetune")):
        assert [line for line in lines if f' {kind}"' in line and f">{name}<" in line]
    numbers = re.search(r"#T_\d+ \.col0 \{\s*text-align: right", text)
    assert numbers


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


@pytest.mark.parametrize("form", ["latex", "html", "csv", "markdown", "json"])
def test_the_command_prints_every_form(store: Store, cli: Cli, form: str) -> None:
    said = cli("rank", "--store", store.url, "--format", form)
    assert said.code == 0
    start = {"latex": "% needs", "html": "<!doctype html>", "csv": "rank,benchmark", "markdown": "**toy,", "json": "{"}
    assert said.out.startswith(start[form])
