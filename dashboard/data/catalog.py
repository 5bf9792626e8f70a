"""What there is to compete with and on: benchmarks and methods in plain frames and texts, torch not loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness import registry
from harness.api import Benchmark, From, Method
from harness.authoring.method_docs import LADDER
from harness.errors import DataError, StoreError, UserError
from harness.leaderboard import inference, seed_results
from harness.leaderboard.schema import Table
from harness.report import describe
from harness.stats import power
from harness.stats.power import Noise
from harness.store import Store
from harness.store.index import RunSummary

RECONSTRUCTION = (
    "HKD4VLM here is a reconstruction: the paper (arXiv 2506.13038) published no code, and only its abstract is "
    "available to us. What the abstract doesn't fix is a setting with a stated default. No figure here reproduces one "
    "of the paper's."
)
JOBS = {"hallucination": "detecting hallucinations", "factuality": "checking facts"}
PARTED = (0.05, 0.1, 0.2, 0.4)
"""Shares of the examples of which one row alone is right, for `by_size`."""


def benchmarks(runs: Sequence[RunSummary] = ()) -> pd.DataFrame:
    """A line a benchmark: name, job, test examples (None: generated, any number), licence, files, runs of the store."""
    rows = [
        {
            "benchmark": name,
            "what": _first_line(cls),
            "job": JOBS[cls.task],
            "test examples": cls.published.get("test"),
            "data": "published files" if cls.needs_data_dir else "generated",
            "licence": cls.licence,
            "runs here": sum(run.benchmark == name and run.kind == "run" for run in runs),
        }
        for name, cls in registry.load_all(registry.benchmarks())
    ]
    return pd.DataFrame(rows)


def methods(runs: Sequence[RunSummary] = ()) -> pd.DataFrame:
    """A line a method or preset: name, summary, source, runs of the store."""
    said = {row["name"]: row["summary"] for row in describe.listing("methods", None)}
    rows = [
        {
            "method": name,
            "what": said[name],
            "source": cls.source,
            "runs here": sum(run.method == name and run.kind == "run" for run in runs),
        }
        for name, cls in registry.load_all(registry.methods())
    ]
    return pd.DataFrame(rows)


def _first_line(cls: type[Benchmark]) -> str:
    """What it is, without how its examples are grouped."""
    return (cls.__doc__ or "").strip().partition("\n")[0].partition("; `group`")[0]


def benchmark(name: str, store: Store) -> dict[str, Any]:
    """What `hkdbench describe` says of a benchmark. Raises `ConfigError`."""
    return describe.describe(name, store)


def method(name: str) -> dict[str, Any]:
    """What `hkdbench describe` says of a method, its `presets`, its `ablations`, and its `stages`."""
    cls = registry.methods()[name].load()
    found = describe.describe(name)
    presets = [(preset, _assigned(settings)) for preset, settings in cls.presets.items()]
    ablations = [(label, _assigned(settings)) for label, settings in cls.ablations.items()]
    return found | {
        "presets": pd.DataFrame(presets, columns=["name", "settings"]),
        "ablations": pd.DataFrame(ablations, columns=["ablation", "settings that differ"]),
        "stages": stages(cls),
    }


def stages(cls: type[Method]) -> pd.DataFrame:
    """The stages of a method by its defaults, on a ladder of three; a line a role."""
    columns = ["stage", "share of budget", "role", "starts from", "learns"]
    try:
        laid_out = cls().stages(LADDER, LADDER[-1])
    except (UserError, TypeError):  # another ladder, or a setting without a default
        return pd.DataFrame(columns=columns)
    rows = []
    for stage in laid_out:
        for name, role in stage.roles.items():
            weights = role.weights
            start = f"{weights.role}, as {weights.stage} left it" if isinstance(weights, From) else f"rung {weights}"
            rows.append((stage.name, stage.share, name, start, "learns" if role.trainable else "frozen"))
    return pd.DataFrame(rows, columns=columns)


def _assigned(settings: Any) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def settings(found: dict[str, Any]) -> pd.DataFrame:
    """The settings of `describe`'s answer."""
    rows = [(s["name"], repr(s["default"]), s["type"], " ".join(s["text"].split())) for s in found["settings"]]
    return pd.DataFrame(rows, columns=["setting", "default", "type", "what it does"])


# ------------------------------------------------------------------------- what is distinguishable on it


def by_size(examples: int) -> pd.DataFrame:
    """The smallest difference that so many examples show with one seed, by the share of them that parts two rows.

    A test at 5 % finds it 4 times in 5; examples are taken as independent. Both columns in per cent.
    """
    rows = [(100 * parted, 100 * power.detectable(Noise(parted, 0.0, None, examples, 1))) for parted in PARTED]
    return pd.DataFrame(rows, columns=["parted", "difference"])


def measured(table: Table, store: Store) -> tuple[str, str, float, int, int] | None:
    """What the runs of a table show: two rows, the smallest difference between them that is found 4 times in 5 (a
    fraction), and on how many images and seeds. The two are its best that have seeds in common; None without any."""
    rows = [row for row in table.rows if row.kind == "run" and row.figure is not None]
    for k, first in enumerate(rows[:6]):
        for second in rows[k + 1 : 6]:
            seeds = sorted(set(first.seeds) & set(second.seeds))
            if not seeds:
                continue
            try:
                runs = [dict(zip(row.seeds, row.run_ids, strict=True)) for row in (first, second)]
                a, b = seed_results.of_runs(store, runs, table.split)
            except (DataError, StoreError):
                continue
            if not inference.shared_seeds([a, b], "accuracy"):
                continue
            point_s, replicates_ns = inference.paired_difference(a, b, seeds, "accuracy")
            if replicates_ns is None:
                continue
            least = power.detectable(power.noise(point_s, replicates_ns, a.groups))
            return f"{first.label} {first.student}", f"{second.label} {second.student}", least, first.groups, len(seeds)
    return None
