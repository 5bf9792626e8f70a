"""A sweep: run `sweep.toml` on Ray, then show its trials as a table.

python examples/sweep.py [--dry-run]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from harness import open_store

FILE = Path(__file__).with_name("sweep.toml")


def trials() -> pd.DataFrame:
    """A row per trial: its settings, and its accuracy on validation, best first."""
    results = open_store()
    runs = results.runs(tag="sweep:example")
    runs = runs[["trial" in tags for tags in runs["tags"]]]
    figures = results.metrics(tag="sweep:example", split="validation").query("metric == 'accuracy'")
    table = runs[["run_id", "label", "train_seconds"]].merge(figures[["run_id", "value", "low", "high"]], on="run_id")
    return table.sort_values("value", ascending=False, ignore_index=True)


if __name__ == "__main__":
    from harness.cli import app

    options = sys.argv[1:]
    if app(["sweep", str(FILE), *options], standalone_mode=False) == 0 and "--dry-run" not in options:
        print(trials().to_string())
