"""The dashboard as a whole: how it starts, what it loads, that it writes nothing, and that text stays text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dashboard import navigation
from dashboard.navigation import PAGES
from harness.store import Store
from harness.store.compaction import compact
from helpers.browsing import Visitor, serving
from helpers.common import ROOT
from helpers.runs import add

SCRIPT, LINK = "<script>window.hacked=1</script>", "[x](javascript:window.hacked=1)"
HOSTILE = (SCRIPT, LINK, "<img src=x onerror=window.hacked=1>", ":red[x] :material/home: $x$ **b** https://example.org")


def test_no_page_loads_torch_or_ray() -> None:
    code = (
        "import sys, importlib, pkgutil, dashboard.views\n"
        "names = [m.name for m in pkgutil.iter_modules(dashboard.views.__path__)]\n"
        "for name in names: assert importlib.import_module(f'dashboard.views.{name}').show\n"
        "from dashboard import navigation as pages, options, table\n"
        "from dashboard.data import catalog, leaderboard, run, store, sweep\n"
        "from dashboard.widgets import charts, escape, overall, url_state\n"
        "assert {page.name for page in pages.PAGES} == set(names), names\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_addresses_say_what_a_page_shows() -> None:
    assert navigation.href("leaderboard") == "./"
    assert navigation.href("run", run="a b&c") == "./run?run=a+b%26c"
    assert navigation.href("examples", run=["a", "b"]) == "./examples?run=a&run=b"
    assert navigation.named("trade_off").path == "trade-off"


def test_a_port_that_is_taken_is_told_in_words(cli: Callable[..., object], tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = cli("dashboard", "--store", tmp_path, "--port", taken.getsockname()[1], "--no-browser")
    assert said.code == 2  # type: ignore[attr-defined]
    assert "choose others with --address and --port" in said.err  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------ in a browser


_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, under) => [0, 1, 2].map((k) => top[3] * top[k] + (1 - top[3]) * under[k]);
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255 <= 0.03928 ? v / 255 / 12.92
    : ((v / 255 + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = [];
  const parent = (e) => e.parentElement ?? e.getRootNode().host;
  const visit = (node) => {
    for (const e of node.querySelectorAll('*')) {
      if (e.shadowRoot) visit(e.shadowRoot);
      const text = [...e.childNodes].some((n) => n.nodeType === 3 && /[^\\s…]/.test(n.textContent));
      if (!text || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const box = e.getBoundingClientRect();
      if (box.width < 2 || box.height < 2) continue;
      if (e.closest('[disabled], [aria-disabled=true], svg, style, script, [data-testid=stIconMaterial]')) continue;
      if (e.closest('[data-testid=stSliderThumbValue]')) continue;  // drawn above its parent, not on it
      let under = [255, 255, 255], chain = [], opacity = 1;
      for (let at = e; at; at = parent(at)) {
        chain.push(getComputedStyle(at).backgroundColor); opacity *= getComputedStyle(at).opacity; }
      for (const colour of chain.reverse()) under = over(rgba(colour), under);
      const own = rgba(getComputedStyle(e).color);
      const top = over([own[0], own[1], own[2], own[3] * opacity], under);
      const [a, b] = [light(top), light(under)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05), style = getComputedStyle(e);
      const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${e.textContent.trim().slice(0, 40)}`);
    }
  };
  visit(document);
  return found;
}"""


_WIDE = "document.querySelector('[data-testid=stMain]').scrollWidth"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1920, "dark")])
def test_every_page_opens_and_is_readable(
    visitor_of: Callable[..., Visitor], served: str, width: int, scheme: str
) -> None:
    """WCAG's contrast AA of all text, nothing serious for axe, no sideways scrolling, on a telephone neither."""
    from axe_playwright_python.sync_playwright import Axe

    visitor = visitor_of(served, width=width, scheme=scheme)
    for of in PAGES:
        query = "?benchmark=scenes_hallucination&baseline=finetune@S" if of.name == "leaderboard" else ""
        page = visitor.open(f"/{of.path}{query}")
        assert of.title in visitor.text()
        assert page.evaluate(_CONTRAST) == [], of.name
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"]) for one in found if one["impact"] in ("serious", "critical")] == [], of.name
        for narrow in (width, 390):
            page.set_viewport_size({"width": narrow, "height": 900})
            page.wait_for_function(f"{_WIDE} <= {narrow}", timeout=20_000)  # charts are drawn again
        page.set_viewport_size({"width": width, "height": 900})
        visitor.shot(f"{of.name}_{width}_{scheme}")


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs whose method, tags and options are markup, a broken record, and a compacted catalogue."""
    root = tmp_path_factory.mktemp("odd") / "runs"
    store = Store(root)
    for k, name in enumerate(HOSTILE):
        for seed in (0, 1):
            add(store, name, 8 - k, seed, run_id=f"odd-{k}-{seed}", tags=[name], student="S")
    add(store, "majority", 4, kind="control", student="")
    (root / "broken-1").mkdir()
    (root / "broken-1" / "record.json").write_text("{")
    compact(store)
    return root


def fetched(url: str, path: str) -> bytes:
    """What the server answers to a path as it is, which a browser would tidy first."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", path)
    return connection.getresponse().read()


@pytest.mark.browser
def test_names_that_are_markup_do_nothing(odd_store: Path, visitor_of: Callable[..., Visitor]) -> None:
    before = {file: file.stat().st_mtime_ns for file in sorted(odd_store.rglob("*"))}
    with serving(odd_store) as url:
        visitor = visitor_of(url)
        page = visitor.open("/")
        for name in HOSTILE:
            assert name in visitor.text().replace("\u2060", ""), name
        assert "1 broken" in visitor.text()
        page.get_by_text("1 broken").click()
        page.get_by_text("record.json is damaged").wait_for()
        visitor.shot("hostile")
        page.get_by_role("button", name="Filters").click()
        page.get_by_label("Tag").wait_for()
        for path in (
            "/trade-off",
            "/compare?a=odd-0-0&b=odd-1-0",
            "/?baseline=" + LINK + "@S",
            "/?q=<b>&sort=<b>&page=x",
        ):
            visitor.open(path)
        visitor.open("/run?run=../../../../etc/passwd")
        assert "root:" not in visitor.text()
        for name in (
            "/../../../../etc/passwd",
            "/run?run=%2Fetc%2Fpasswd",
            "/..%2f..%2fetc%2fpasswd",
            "/static/../../app.py",
        ):
            assert b"root:" not in fetched(url, name)
            assert b"import streamlit" not in fetched(url, name)
        assert page.evaluate("window.hacked") is None
        assert not page.locator("a[href^=javascript]").count()
        visitor.close()
    assert {file: file.stat().st_mtime_ns for file in sorted(odd_store.rglob("*"))} == before


@pytest.mark.browser
def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, visitor_of: Callable[..., Visitor]) -> None:
    """What every page says of it: test_page_logic.py."""
    with serving(tmp_path / "none") as url:
        visitor = visitor_of(url)
        visitor.open("/")
        assert re.search(r"hkdbench demo\b.* --store", visitor.text())
        visitor.shot("empty")
        visitor.close()
    assert not (tmp_path / "none").exists()
