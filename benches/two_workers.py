"""Two workers a run against one: the same losses, and how much faster.

    python -m benches.two_workers                        kept in benches/results/two_workers.json
    python -m benches.two_workers --steps 20 --repeats 1 --out try.json

On a Ray cluster of this machine, each run by `hkdbench run`: one worker with the whole batch, two with half of it each,
and one with half a batch, which says what a worker's own part of the work takes. Seconds are the record's
`train_seconds`: steps alone, without validation, checkpoints, loading.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benches.common import RESULTS, header, keep
from benches.overhead import cluster, hkdbench, work_of
from harness.store import Store

BATCH = 32
TARGET = 1e-5
"""The largest difference of a step's loss."""


def run(environment: dict[str, str], folder: Path, method: str, workers: int, batch: int, steps: int) -> Path:
    """One run in a store of its own."""
    store = folder / f"{workers} workers, batches of {batch}, {len(list(folder.iterdir()))}"
    what = f"run --method {method} --benchmark scenes_hallucination --student S --workers {workers}"
    settings = {"examples": steps * batch, "batch_size": batch, "validations": 1, "validation_examples": 2}
    sets = [part for key, value in settings.items() for part in ("--set", f"train.{key}={value}")]
    small = ["--set", "benchmark_settings={train=400, validation=40, test=20, ood=10}"]
    hkdbench([*what.split(), "--store", str(store), *sets, *small], environment)
    return store


def losses(store: Path) -> list[float]:
    """Every step's losses, in the order of the history."""
    (record,) = work_of(str(store))
    history = Store(store).history(record.run_id)
    values: list[float] = history[history["term"].str.startswith("loss/")]["value"].tolist()
    return values


def seconds(store: Path) -> float:
    (record,) = work_of(str(store))
    return record.cost.train_seconds


def measure(environment: dict[str, str], folder: Path, method: str, steps: int, repeats: int) -> dict[str, Any]:
    """Repeats of the three runs in turn; differences of the first, medians of the seconds."""
    kinds = {"one": (1, BATCH), "two": (2, BATCH), "half": (1, BATCH // 2)}
    stores = {kind: [run(environment, folder, method, *how, steps)] for kind, how in kinds.items()}
    for _ in range(repeats - 1):
        for kind, how in kinds.items():
            stores[kind].append(run(environment, folder, method, *how, steps))
    one, two = losses(stores["one"][0]), losses(stores["two"][0])
    assert len(one) == len(two) >= steps
    apart = [abs(a - b) for a, b in zip(one, two, strict=True)]
    took = {kind: median(map(seconds, found)) for kind, found in stores.items()}
    return {
        "method": method,
        "steps": steps,
        "batch_size": BATCH,
        "losses": len(one),
        "losses_apart": max(apart),
        "first_loss_apart": apart[0],
        "train_seconds": {kind: [round(seconds(store), 2) for store in found] for kind, found in stores.items()},
        "speed_of_two": round(took["one"] / took["two"], 3),
        "at_most_by_half_batches": round(took["one"] / took["half"], 3),
        "exchange_and_waiting_share": round(1 - took["half"] / took["two"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Two workers a run against one.")
    parser.add_argument("--method", default="finetune")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "two_workers.json")
    options = parser.parse_args()
    where = header()
    with cluster(max(os.cpu_count() or 1, 2)) as environment, tempfile.TemporaryDirectory(prefix="hkd-") as folder:
        figures = measure(environment, Path(folder), options.method, options.steps, options.repeats)
    met = figures["losses_apart"] <= TARGET
    after = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    keep(options.out, options.method, {"target": TARGET, "met": met, **figures, "load_after": after, "where": where})
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
