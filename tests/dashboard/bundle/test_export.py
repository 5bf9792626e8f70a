"""The dashboard as a folder of files: its links, what it escapes, and that a browser opens it without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from dashboard.bundle import pages, vega
from dashboard.bundle.export import export
from dashboard.bundle.pages import StaticPage
from dashboard.bundle.render import markdown, plain_table
from dashboard.widgets.escape import plain
from harness.store import Store
from helpers.runs import EVIL, add


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four exported pages of a store with a failed run and one whose method's name is markup."""
    store = Store(tmp_path_factory.mktemp("export") / "runs")
    add(store, "a", 8)
    add(store, EVIL, 4, run_id="evil")
    add(store, "c", run_id="c", status="failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HKDBENCH_STORE", str(store.root))
        st.cache_resource.clear()
        whole = pages.planned()
        assert whole[0].file == "index.html"
        assert {dict(page.params).get("run") for page in whole} >= {"a-S-0", "evil", "c"}
        assert len({page.file for page in whole}) == len(whole)
        wanted = [("leaderboard", ()), ("trade_off", ()), ("run", (("run", "evil"),)), ("run", (("run", "c"),))]
        patch.setattr(pages, "planned", lambda: [page for page in whole if (page.view, page.params) in wanted])
        assert export(store.root.parent / "site") == 4
        st.cache_resource.clear()
    return store.root.parent / "site"


def test_a_page_has_its_tables_as_json_and_its_names_as_text(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert EVIL not in text
    tables = [json.loads(file.read_text()) for file in folder.glob("data/index-t*.json")]
    table = next(rows for rows in tables if rows and "accuracy (%)" in rows[0])
    assert [row["method"] for row in table][:2] == ["a", EVIL]
    assert table[0]["accuracy (%) value"] == 1.0
    for file in folder.glob("*.html"):
        assert "http" not in file.read_text().replace("http://www.w3.org", "").replace("https://vega.github.io", "")
    assert any("&lt;script&gt;" in file.read_text() for file in folder.glob("run*.html"))
    ranking = json.loads((folder / "data" / "ranking.json").read_text())
    assert ranking["tables"][0]["rows"][0]["method"] == "a"


def test_links_lead_to_files_of_the_folder_or_nowhere() -> None:
    known = pages.links(
        [
            StaticPage("leaderboard", (), "index.html", ""),
            StaticPage("trade_off", (("benchmark", "b"),), "trade_off.html", ""),
            StaticPage("run", (("run", "r 1"),), "run.html", ""),
        ]
    )
    assert pages.file_of("./", known) == "index.html"
    assert pages.file_of("./run?run=r+1", known) == "run.html"
    assert pages.file_of("trade-off?benchmark=b", known) == "trade_off.html"
    assert pages.file_of("trade_off", known) == "trade_off.html"
    for other in ("./run?run=r2", "./run?run=r+1&section=Cost", "javascript:alert(1)", "//elsewhere/run"):
        assert pages.file_of(other, known) == "", other


def test_markdown_is_escaped_text_without_icons_and_tables_are_plain_values() -> None:
    assert markdown(plain(f":material/check: {EVIL} *x*"), inline=True) == (
        ":material/check: &lt;script&gt;alert(1)&lt;/script&gt; *x*"
    )
    assert (
        markdown(":green-badge[:material/check: done] **a**", inline=True) == "<strong>done</strong> <strong>a</strong>"
    )
    assert markdown("<b>", inline=True) == "&lt;b&gt;"
    cells = [{"text": "a", "links": [{"text": "a"}]}, {"text": "50", "small": "[1, 2]", "value": 0.5, "low": 0.1}]
    data = {"columns": [{"name": "m", "label": ""}, {"name": "s", "label": "x"}], "lines": [{"cells": cells}]}
    assert plain_table(data) == [{"m": "a", "x": "50 [1, 2]", "x value": 0.5, "x low": 0.1}]


def test_charts_are_drawn_by_the_script_that_streamlit_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = json.loads(vega.script().removeprefix("window.hkdVega = ").rstrip(";\n"))
    names = [name for name, _ in given["modules"]]
    assert names[-1].startswith("embed.")
    for k, (_, text) in enumerate(given["modules"]):
        assert set(vega._IMPORT.findall(text)) <= set(names[:k])
    monkeypatch.setattr(vega, "_SCRIPTS", tmp_path)
    assert vega.script() == ""


def test_a_folder_that_is_there_is_left_alone(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    said = cli("dashboard", "--store", tmp_path, "--export", tmp_path)
    assert said.code == 2
    assert "expected a new or an empty folder" in said.err


@pytest.mark.browser
def test_the_folder_opens_without_a_server(folder: Path, browser: Any) -> None:
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith(("file:", "blob:", "data:")) else said.append(one.url))
    page.goto((folder / "index.html").as_uri())
    page.get_by_role("cell", name=EVIL).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Light / dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("link", name=EVIL).click()
    page.get_by_text("Cite this run").wait_for()
    page.get_by_role("link", name="Trade-off").click()
    page.locator("svg.marks").first.wait_for()
    page.get_by_role("link", name="this chart alone").first.click()
    page.locator("svg.marks").first.wait_for()
    assert not page.get_by_role("heading").first.is_visible()
    page.context.close()
    assert said == []
