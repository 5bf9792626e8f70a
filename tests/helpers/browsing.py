"""Driving the dashboard in a real browser: it is started as a user starts it, and watched for errors."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.common import ROOT

ARTEFACTS = ROOT / "tests" / ".artefacts"
"""Screenshots are kept here."""
CHROMIUM = Path(os.environ.get("HKDBENCH_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 90
"""How long anything may take on a busy machine."""
_PROBE = re.compile(r"/_stcore/|/index\.html|manifest\.json")
"""What Streamlit's own page asks for below a page's path before it finds the root: refused, as it expects."""


_DRAWN = """() => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')].every(
    (e) => [e, ...e.querySelectorAll('*')].some((one) => one.shadowRoot?.querySelector('.hkd-root')))"""


def scenes_run(start: str, **settings: Any) -> str:
    """The id of the committed run of `results/scenes` that starts so and has these settings."""
    records = (json.loads(path.read_text()) for path in (ROOT / "results" / "scenes").glob(f"{start}-*/record.json"))
    (found,) = (record["run_id"] for record in records if settings.items() <= record["settings"].items())
    assert isinstance(found, str)
    return found


@contextmanager
def serving(store: Path | str, *options: str) -> Iterator[str]:
    """`hkdbench dashboard` on a store, in a process of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "harness", "dashboard", "--store", str(store), "--port", str(port), "--no-browser"]
    process = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def _wait(url: str, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the dashboard ended: {process.stderr.read() if process.stderr else ''}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the dashboard didn't answer within {SECONDS} s")


class Visitor:
    """A browser window on the dashboard. `errors` gathers what the browser's console and network complain of."""

    def __init__(self, browser: Any, url: str, width: int = 1280, scheme: str = "light") -> None:
        self.url = url
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.context.set_default_timeout(1000 * SECONDS)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        self.page.on("requestfailed", self._failed)

    def _said(self, message: Any) -> None:
        at = (message.location or {}).get("url", "")
        if message.type == "error" and not _PROBE.search(at):
            self.errors.append(f"console: {message.text} ({at})")

    def _failed(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self.errors.append(f"asked for {request.url}: the dashboard needs no network")

    def open(self, path: str = "/") -> Any:
        """Opens a page by its address below the root, waits until it stands still, and returns Playwright's page."""
        self.page.goto(self.url + path)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Waits until the page's script has run and nothing of it is stale; an error box fails the test."""
        app = self.page.locator("[data-testid=stApp]")
        app.wait_for()
        self.page.wait_for_timeout(150)  # a click is on its way to the server
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        self.page.wait_for_function("!document.querySelector('[data-stale=true], [data-testid=stSkeleton]')")
        self.page.wait_for_function(_DRAWN)
        assert not self.page.locator("[data-testid=stException]").count(), self.page.inner_text("body")

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds: a page answers a click after a while."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"not so within {SECONDS} s:\n{self.text()}"
            self.page.wait_for_timeout(50)

    def says(self, *parts: str) -> None:
        """Waits until the page says all of this."""
        self.until(lambda: all(part in self.text() for part in parts))

    def shot(self, name: str) -> Path:
        """Keeps a picture of the whole page among the artefacts."""
        ARTEFACTS.mkdir(exist_ok=True)
        file = ARTEFACTS / f"{name}.png"
        size = self.page.viewport_size
        tall = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], min(tall, 4000))})
        self.page.screenshot(path=file)
        self.page.set_viewport_size(size)
        return file

    def text(self) -> str:
        """All text that is shown, that of tables last."""
        tables = self.page.locator(".hkd-root")
        return "\n".join([self.page.inner_text("body"), *tables.all_inner_texts()]).replace("\u2060", "")

    def close(self) -> None:
        """Closes the window, before its server ends; what was complained of fails the test."""
        self.context.close()
        assert not self.errors, "\n".join(self.errors)
