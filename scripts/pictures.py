"""Takes the pictures of README.md from the dashboard: the leaderboard, and the answers of one run.

    python -m scripts.pictures [STORE]        writes docs/pictures/*.png (of results/arena.tar.xz, if no store is given)

It needs Chromium (`/usr/bin/chromium`, or `HKDBENCH_CHROMIUM`). Pictures have few colours, so that they stay small.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
CHROMIUM = os.environ.get("HKDBENCH_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SECONDS = 120
"""How long the dashboard may take to answer."""
BYTES = 150_000
"""The largest size of a picture."""
PAGES = {
    "leaderboard": ("/?benchmark=scenes_factuality", 780),
    "examples": ("/examples?data=scenes_hallucination", 825),
}
"""By file name: the page's address, and how many pixels of it are shown from the top."""


def main(store: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with serving(store) as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, (address, height) in PAGES.items():
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.goto(url + address)
            settle(page)
            save(page.screenshot(), OUT / f"{name}.png")
        browser.close()


@contextmanager
def serving(store: str) -> Iterator[str]:
    """The dashboard on a store, in a process of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "harness", "dashboard", "--store", store, "--port", str(port), "--no-browser"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    try:
        wait(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait(url: str) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def settle(page: Page) -> None:
    """Wait until the page's script has ended, and its tables and charts are drawn."""
    page.set_default_timeout(1000 * SECONDS)
    page.wait_for_timeout(500)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_function("!document.querySelector('[data-stale=true], [data-testid=stSkeleton]')")
    page.wait_for_timeout(1500)


def save(png: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    size = path.stat().st_size
    if size > BYTES:
        sys.exit(f"{path}: {size:,} bytes, expected at most {BYTES:,}: show less of the page")
    print(f"wrote {path.relative_to(ROOT)}, {size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "results" / "arena.tar.xz"))
