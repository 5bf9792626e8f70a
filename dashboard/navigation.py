"""The list of pages, and links between them. A page's module is imported when the page is first opened.

The state of a page is in its URL (`dashboard.widgets.url_state` keeps widgets and URL in step). So a link opens the
same view, and the browser's back and forward buttons work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import urlencode
from uuid import uuid4

import streamlit as st


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

    st.page_link(_streamlit(named(name)), label=plain(label), query_params=_texts(params))


def href(name: str, **params: str | int | list[str]) -> str:
    """A page's address relative to the dashboard's root. Works for links that open in a new tab, too."""
    query = urlencode(_texts(params), doseq=True)
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
