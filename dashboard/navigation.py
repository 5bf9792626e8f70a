"""The list of pages, and links between them. A page's module is imported when the page is first opened.

The state of a page is in its URL (`dashboard.widgets.url_state` keeps widgets and URL in step). So a link opens the
same view, and the browser's back and forward buttons work. The parts of it in `PLACE` go along to other pages, with the
menu and with every link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import urlencode
from uuid import uuid4

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

PLACE = (
    "benchmark", "metric", "split", "baseline", "size", "method", "budget", "forwards", "q", "controls", "tag",
    "protocol", "among",
)  # fmt: skip
"""The URL parameters that every page keeps: what is ranked, the filters and the pinned row."""


@dataclass(frozen=True)
class Page:
    """A page: the name of its module in `dashboard.views`, which has a function `show`, its title and its icon."""

    name: str
    title: str
    icon: str

    @property
    def path(self) -> str:
        """The page's path below the dashboard's URL. The first page is at the root."""
        return "" if self is PAGES[0] else self.name.replace("_", "-")


PAGES = (
    Page("leaderboard", "Leaderboard", ":material/leaderboard:"),
    Page("trade_off", "Trade-off", ":material/scatter_plot:"),
    Page("compare", "Compare", ":material/compare_arrows:"),
    Page("runs", "Runs", ":material/list:"),
    Page("run", "Run", ":material/description:"),
    Page("examples", "Examples", ":material/image_search:"),
    Page("ablation", "Ablation", ":material/rule:"),
    Page("sweep", "Sweep", ":material/tune:"),
    Page("about", "Benchmarks & methods", ":material/menu_book:"),
    Page("live", "Live", ":material/sensors:"),
)


def navigate() -> Any:
    """The page that the URL names. Also draws the menu of all pages."""
    return st.navigation([_streamlit(page) for page in PAGES], position="top")


_KEEP = """
export default function ({ data, parentElement }) {
  const drawn = document.createElement("span");
  drawn.className = "hkd-root";
  parentElement.replaceChildren(drawn);
  if (window.hkdbenchPlace) return;
  window.hkdbenchPlace = true;
  const link = (event) => {
    const a = event.composedPath().find((e) => e.tagName === "A");
    if (!a || a.target === "_blank" || a.origin !== location.origin || a.dataset.focus) return null;
    const last = new URL(a.href).pathname.split("/").pop();
    if (!data.pages.includes(last)) return null;
    const url = new URL(a.href);
    if (url.search && !a.dataset.bare) return null;
    a.dataset.bare = "true";
    const kept = [...new URLSearchParams(location.search)].filter(([key]) => data.place.includes(key));
    url.search = new URLSearchParams(kept).toString();
    a.href = url.href;
    return a;
  };
  for (const kind of ["pointerdown", "focusin", "pointerover"]) document.addEventListener(kind, link, true);
  document.addEventListener("click", (event) => {
    const a = link(event);
    if (!a || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    event.stopPropagation();
    history.pushState({}, "", a.href);
    dispatchEvent(new PopStateEvent("popstate"));
  }, true);
  const app = document.querySelector("[data-testid=stApp]");
  let before = app.dataset.testConnectionState;
  new MutationObserver(() => {  // a restarted server must run the page once: the first click would be lost
    const now = app.dataset.testConnectionState;
    if (now === "CONNECTED" && before !== now) dispatchEvent(new PopStateEvent("popstate"));
    before = now;
  }).observe(app, { attributes: true, attributeFilter: ["data-test-connection-state"] });
}
"""


def keep_place() -> None:
    """Makes the menu's links keep the place, and the page run again when the server is back after a restart.

    The links are Streamlit's own, which open a page without parameters.
    """
    data = {"place": list(PLACE), "pages": [page.path for page in PAGES]}
    st.components.v2.component("hkdbench_place", js=_KEEP)(key="place", data=data)


def place() -> dict[str, list[str]]:
    """The parameters of the present address that go along to other pages."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return {}
    return {key: found for key in PLACE if (found := st.query_params.get_all(key))}


def titled(*parts: str) -> None:
    """Names what the page shows in the browser's tab and history."""
    st.set_page_config(page_title=" · ".join([*parts, "hkdbench"]))


_GO = """
export default function ({ data, parentElement }) {
  const host = parentElement.host ?? parentElement;
  if (host.dataset.went === data.once) return;
  host.dataset.went = data.once;
  history.pushState({}, "", data.href);
  dispatchEvent(new PopStateEvent("popstate"));
}
"""


def go(name: str, **params: str | int | list[str]) -> NoReturn:
    """Opens a page as if its link had been clicked. `params` are its URL parameters: `go("run", run=run_id)`.

    The browser does it, because `st.switch_page` with parameters adds two entries to the history: "back" would need
    two clicks.
    """
    st.components.v2.component("hkdbench_go", js=_GO)(data={"href": href(name, **params), "once": uuid4().hex})
    st.stop()
    raise AssertionError("st.stop returned")


def link(name: str, label: str, **params: str | int | list[str]) -> None:
    """A link to a page. The label is escaped."""
    from dashboard.widgets.escape import plain

    st.page_link(_streamlit(named(name)), label=plain(label), query_params=_texts({**place(), **params}))


def href(name: str, **params: str | int | list[str]) -> str:
    """A page's address relative to the dashboard's root, with the place. It also works in a new tab."""
    query = urlencode(_texts({**place(), **params}), doseq=True)
    return f"./{named(name).path}" + (f"?{query}" if query else "")


def named(name: str) -> Page:
    """The page of this name."""
    return next(page for page in PAGES if page.name == name)


def _streamlit(page: Page) -> Any:
    return st.Page(_show(page.name), title=page.title, icon=page.icon, url_path=page.path, default=page is PAGES[0])


def _show(name: str) -> Callable[[], None]:
    def show() -> None:
        import_module(f"dashboard.views.{name}").show()

    return show


def _texts(params: dict[str, str | int | list[str]]) -> dict[str, str | list[str]]:
    return {key: value if isinstance(value, list) else str(value) for key, value in params.items()}
