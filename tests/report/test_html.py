"""A ranking as one static HTML page, in which text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from harness.leaderboard.schema import Row
from harness.record import Interval
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import to_markdown
from helpers.runs import EVIL


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
    assert r"| accuracy/\<script>alert(1)\</script>_\&\|{0} (%) |" in to_markdown(rows)


def test_html_sets_controls_and_the_baseline_apart(evil: list[Row]) -> None:
    text = to_html(evil)
    lines = [line for line in text.splitlines() if "<td" in line]
    for kind, name in (("control", "majority"), ("baseline", "finetune")):
        assert [line for line in lines if f' {kind}"' in line and f">{name}<" in line]
    numbers = re.search(r"#T_\d+ \.col0 \{\s*text-align: right", text)
    assert numbers
