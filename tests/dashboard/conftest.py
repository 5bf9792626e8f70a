"""A store with real runs, the dashboard on it, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from helpers.browsing import CHROMIUM, FLAGS, Visitor, serving
from helpers.common import ROOT, lacking


@pytest.fixture(scope="session")
def scenes_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that the project's own results page is made of, as `hkdbench suite` wrote them. Not to be changed."""
    copy = tmp_path_factory.mktemp("dashboard") / "scenes"
    shutil.copytree(ROOT / "results" / "scenes", copy)
    return copy


@pytest.fixture(scope="session")
def served(scenes_store: Path) -> Iterator[str]:
    """The URL of the dashboard on `scenes_store`."""
    with serving(scenes_store) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium. CI must have it; elsewhere the tests that need it are skipped."""
    if not CHROMIUM.exists():
        lacking(f"{CHROMIUM} is missing: install Chromium (Debian: apt-get install chromium) or set HKDBENCH_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def visitor(browser: Any, served: str) -> Iterator[Visitor]:
    """A window on the dashboard of `scenes_store`: what its console complains of fails the test."""
    window = Visitor(browser, served)
    yield window
    window.close()


@pytest.fixture
def visitor_of(browser: Any) -> Iterator[Callable[..., Visitor]]:
    """Opens windows on other dashboards: `visitor_of(url, width=1920, scheme="dark")`."""
    windows: list[Visitor] = []

    def opened(url: str, **options: Any) -> Visitor:
        windows.append(Visitor(browser, url, **options))
        return windows[-1]

    yield opened
    for window in windows:
        window.close()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Runs a page's script on the store in `tmp_path`: `opened("leaderboard", q="x")`."""
    import streamlit as st

    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()

    def page(name: str) -> None:
        from importlib import import_module

        from dashboard.data import store

        with store.show_user_errors():
            import_module(f"dashboard.views.{name}").show()

    def run(name: str, **params: str | list[str]) -> AppTest:
        app = AppTest.from_function(page, args=(name,), default_timeout=120)
        for key, value in params.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    yield run
    st.cache_resource.clear()
    st.cache_data.clear()
