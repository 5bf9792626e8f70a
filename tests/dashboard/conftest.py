"""A store with real runs, the dashboard on it, and a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from harness.record import Failure
from harness.store import Store, checksums
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


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory, toy: str, toy_ladder: str) -> Path:
    """`hkdbench ablate` of a toy method with two values more of its one setting: six runs, and one that failed."""
    folder = tmp_path_factory.mktemp("ablated")
    (folder / "trial.toml").write_text(
        f"""
name = "trial"
seeds = [0]
benchmarks = ["toy"]
ladder = "{toy_ladder}"
plugins = ["{toy}"]
cluster = {{ workers = 0 }}
evaluate = {{ resamples = 100 }}
train = {{ examples = 16, batch_size = 8, validations = 1, lr = 0.003 }}
runs = [
    {{ method = "parted" }}, {{ method = "finetune" }},
    {{ method = "parted", settings = {{ warmth = 0.3 }} }}, {{ method = "parted", settings = {{ warmth = 4.0 }} }},
]
"""
    )
    command = [sys.executable, "-m", "harness", "ablate", "parted", str(folder / "trial.toml"), "--store",
               str(folder / "runs")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    store = Store(folder / "runs")
    for run_id in (one for one in store.ids() if one.startswith("parted-")):  # the trials of a sweep, too
        tagged = (record := store.read(run_id)).model_copy(update={"tags": [*record.tags, "sweep:trial"]})
        (store.root / run_id / "record.json").write_bytes(checksums.with_checksums(tagged, store.root / run_id))
    tuned = store.read(next(one for one in store.ids() if one.startswith("finetune-")))
    error = Failure(type="TrainingError", message="the loss is not finite: lower train.lr", stage="tune", step=7)
    failed = tuned.model_copy(
        update={"run_id": "finetune-failed", "seed": 1, "status": "failed", "error": error, "metrics": {}}
    )
    store.write(failed)
    return folder / "runs"


@pytest.fixture(scope="session")
def toy_served(toy_store: Path, toy: str) -> Iterator[str]:
    with serving(toy_store, "--plugin", toy) as url:
        yield url


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
