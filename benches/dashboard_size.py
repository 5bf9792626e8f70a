"""How fast is the dashboard's leaderboard over many runs, and how much memory? In Chromium, on a generated store.

    python -m benches.dashboard_size --runs 10000 --examples 1000 [--folder DIR]

The store is `benches.store_size`'s, compacted. `cold`: from the address being opened to the first row of the table
being there, with a server that was just started and no ranking kept from before, in a browser that has loaded nothing
yet. `warm`: the same in a new window of that browser; `other_browser`: in one that has loaded nothing, of a server
that has shown the page. `filter`: from Enter in the search field to the table with those rows; `columns`: from
a click on a column's head to the table in that order. `other_benchmark`: the first look at another benchmark's table.
Medians of `--repeats`, in seconds. `peak_gib` is the server's largest resident memory. `cpu_s` beside them is the
server's own CPU time, which is what to compare on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benches import store_size
from benches.common import RESULTS, header, keep

CHROMIUM = os.environ.get("HKDBENCH_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
ROW = "tbody tr"
MINUTES = 600_000.0


@contextmanager
def dashboard(store: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The dashboard on a store, in a process of its own that is up but has shown nothing: its URL, the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "harness", "dashboard", "--store", str(store), "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the dashboard ended before it was up") from None
                time.sleep(0.05)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def taken(server: psutil.Process, act: Callable[[], None]) -> dict[str, float]:
    """Wall seconds of an act, and the server's CPU seconds in it."""
    before, clock = server.cpu_times(), time.perf_counter()
    act()
    wall, after = time.perf_counter() - clock, server.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def peak(server: psutil.Process) -> float:
    """The largest resident memory that a process had, in GiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def once(browser: Any, store: Path) -> dict[str, dict[str, float]]:
    """All figures of one server."""
    shutil.rmtree(store / ".catalogue" / "cache", ignore_errors=True)
    figures: dict[str, dict[str, float]] = {}
    with dashboard(store) as (url, server):

        def fresh() -> Any:
            return browser.new_context(viewport={"width": 1280, "height": 900})

        def first_paint(context: Any) -> Any:
            page = context.new_page()
            page.set_default_timeout(MINUTES)
            page.goto(f"{url}/?benchmark=bench00")
            page.locator(ROW).first.wait_for()
            return page

        first = fresh()
        figures["cold"] = taken(server, lambda: first_paint(first))
        figures["warm"] = taken(server, lambda: first_paint(first))
        figures["other_browser"] = taken(server, lambda: first_paint(fresh()).context.close())
        page = first_paint(first)
        whole = page.locator(ROW).count()

        def search(text: str, until: Callable[[int], bool]) -> None:
            page.get_by_placeholder("method, setting or student").fill(text)
            page.keyboard.press("Enter")
            while not until(page.locator(ROW).count()):
                page.wait_for_timeout(10)

        figures["filter"] = taken(server, lambda: search("method7", lambda rows: 0 < rows < whole))
        search("", lambda rows: rows == whole)

        def sort() -> None:
            page.get_by_role("button", name="Sort by method").click()
            page.locator("th[aria-sort]", has_text="method").wait_for()

        figures["columns"] = taken(server, sort)

        def other() -> None:
            page.goto(f"{url}/?benchmark=bench01")
            page.locator(ROW).first.wait_for()

        figures["other_benchmark"] = taken(server, other)
        figures["memory"] = {"peak_gib": round(peak(server), 3)}
    return figures


def measure(store: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Medians over servers that are started one after another."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        browser.new_page().goto("about:blank")  # its own start is no part of the figures
        found = [once(browser, store) for _ in range(repeats)]
        browser.close()
    return {part: {k: statistics.median(one[part][k] for one in found) for k in found[0][part]} for part in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--benchmarks", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="A store that is there is used, else made here and left.")
    parser.add_argument("--out", type=Path, default=RESULTS / "dashboard_size.json")
    arguments = parser.parse_args()
    above = header()
    parent = Path(tempfile.mkdtemp(prefix="dashboard-size-")) if arguments.folder is None else arguments.folder
    store = parent / "store"
    try:
        if not store.exists():
            store_size.generate(store, arguments.runs, arguments.examples, arguments.benchmarks)
            store_size.timed(["store", "compact", "--store", str(store)])
        shape = {"runs": arguments.runs, "examples": arguments.examples, "benchmarks": arguments.benchmarks}
        figures = shape | measure(store, arguments.repeats)
    finally:
        if arguments.folder is None:
            shutil.rmtree(parent)
    load = {"load_after": os.getloadavg()[0]}
    keep(arguments.out, f"{arguments.runs}x{arguments.examples}", above | load | figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
