"""The page of what goes on, in a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import Store, live
from helpers.browsing import SECONDS, Visitor, serving

pytestmark = pytest.mark.browser


def test_a_run_in_progress_is_followed_without_the_page_running_again(
    tmp_path: Path, visitor_of: Callable[..., Visitor]
) -> None:
    store = Store(tmp_path / "runs")
    work = store.work("finetune-S-toy-s0-0")
    work.mkdir(parents=True)

    def say(step: int) -> None:
        points = [["tune", k, k / 40, "student", "loss/ce", 1 / k] for k in range(1, step + 1)]
        now = {"run_id": "finetune-S-toy-s0-0", "method": "finetune", "benchmark": "toy", "student": "S", "seed": 0,
               "stages": ["tune"], "started": time.time() - 90, "updated": time.time(), "stage": "tune",
               "step": step, "steps": 40, "points": points}  # fmt: skip
        (work / "part").write_text(json.dumps(now))
        (work / "part").rename(work / live.FILE)

    say(3)
    with serving(store.root) as url:
        visitor = visitor_of(url)
        page = visitor.open("/live")
        page.get_by_text("3 of 40").wait_for()
        page.evaluate("window.still = true")
        say(12)
        page.get_by_text("12 of 40").wait_for(timeout=1000 * SECONDS)
        assert page.evaluate("window.still")  # the page wasn't loaded again
        assert page.locator("[data-testid=stVegaLiteChart]").count() == 1
        visitor.shot("live")
        (work / live.FILE).unlink()
        page.get_by_text("No run is in progress").wait_for(timeout=1000 * SECONDS)
        visitor.settle()
        visitor.close()
