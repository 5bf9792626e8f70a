"""What the benches of sweeps share: a search on a cluster of its own, run in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.config import parse
from harness.experiments import ray_tune
from harness.experiments import sweep as sweeping
from harness.experiments.outcome import Trial
from harness.experiments.sweep import Search, SweepConfig
from harness.store import Store

BENCHMARK = "scenes_factuality"
SMALL = {BENCHMARK: {"train": 64, "validation": 16, "test": 8, "ood": 8}}


def config(method: str, space: dict[str, Any], **fields: Any) -> SweepConfig:
    """A sweep of one method on a small benchmark, without finalists."""
    table = {
        "name": "bench",
        "search": "grid",
        "benchmarks": [BENCHMARK],
        "benchmark_settings": SMALL,
        "methods": [{"method": method, "space": space}],
        "confirm": {"top": 0},
        "evaluate": {"resamples": 100},
    }
    found = parse(SweepConfig, table | fields, "bench")
    sweeping.check(found)
    return found


def timed(sweep: SweepConfig, note: Callable[[], float] = time.monotonic) -> tuple[list[Trial], list[dict[str, Any]]]:
    """The trials of its one search, and their news, each with what `note` said `at` that moment (seconds)."""
    news: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        search, store = Search(sweep, 0, BENCHMARK), Store(Path(folder) / "store")
        store.check_writable()
        trials = ray_tune.run(
            search, store, Path(folder) / "sweep", lambda event: news.append({**asdict(event), "at": note()})
        )
    return trials, news
