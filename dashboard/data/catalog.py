"""The known benchmarks and methods as data frames and texts. Doesn't load torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness import registry
from harness.api import Benchmark, From, Method, Role
from harness.authoring.method_docs import LADDER
from harness.errors import DataError, StoreError, UserError
from harness.leaderboard import inference, seed_results
from harness.leaderboard.schema import Table
from harness.record import RoleRecord
from harness.report import describe
from harness.stats import power
from harness.stats.power import Noise
from harness.store import Store
from harness.store.index import RunSummary

RECONSTRUCTION = (
    "HKD4VLM here is a reconstruction: the paper (arXiv 2506.13038) published no code, and only its abstract is "
    "available to us. What the abstract leaves open is a setting with a documented default. No result here reproduces "
    "a result of the paper."
)
TASKS = {"hallucination": "hallucination detection", "factuality": "fact checking"}
DISCORDANT = (0.05, 0.1, 0.2, 0.4)
"""For `by_size`: shares of the examples that exactly one of two rows answers correctly."""


def benchmarks(runs: Sequence[RunSummary] = ()) -> pd.DataFrame:
    """One row per benchmark: name, summary, task, test examples (None: generated, any number), data, licence, runs."""
    rows = [
        {
            "benchmark": name,
            "summary": _first_line(cls),
            "task": TASKS[cls.task],
            "test examples": cls.published.get("test"),
            "data": "published files" if cls.needs_data_dir else "generated",
            "licence": cls.licence,
            "runs in this store": sum(run.benchmark == name and run.kind == "run" for run in runs),
        }
        for name, cls in registry.load_all(registry.benchmarks())
    ]
    return pd.DataFrame(rows)


def methods(runs: Sequence[RunSummary] = ()) -> pd.DataFrame:
    """One row per method or preset: name, summary, source, runs in the store."""
    summaries = {row["name"]: row["summary"] for row in describe.listing("methods", None)}
    rows = [
        {
            "method": name,
            "summary": summaries[name],
            "source": cls.source,
            "runs in this store": sum(run.method == name and run.kind == "run" for run in runs),
        }
        for name, cls in registry.load_all(registry.methods())
    ]
    return pd.DataFrame(rows)


def _first_line(cls: type[Benchmark]) -> str:
    """The first line of a benchmark's docstring, without the part about groups."""
    return (cls.__doc__ or "").strip().partition("\n")[0].partition("; `group`")[0]


def benchmark(name: str, store: Store) -> dict[str, Any]:
    """The description of a benchmark, as in `hkdbench describe`. Raises `ConfigError`."""
    return describe.describe(name, store)


def method(name: str) -> dict[str, Any]:
    """The description of a method, as in `hkdbench describe`. `presets`, `ablations` and `stages` are frames."""
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
    """The stages of a method with default settings, on a ladder of three rungs: one row per role."""
    columns = ["stage", "share of budget", "role", "initialised from", "trained"]
    try:
        planned = cls().stages(LADDER, LADDER[-1])
    except (UserError, TypeError):  # it needs another ladder, or has a setting without a default
        return pd.DataFrame(columns=columns)
    rows = []
    for stage in planned:
        for name, role in stage.roles.items():
            weights = role.weights
            start = f"{weights.role} after {weights.stage}" if isinstance(weights, From) else f"rung {weights}"
            rows.append((stage.name, stage.share, name, start, trained(role)))
    return pd.DataFrame(rows, columns=columns)


def trained(role: Role | RoleRecord) -> str:
    """Whether a role is trained, as a cell."""
    return "yes" if role.trainable else f"average of {role.average_of}" if role.average_of else "no (frozen)"


def _assigned(settings: Any) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def settings(found: dict[str, Any]) -> pd.DataFrame:
    """The settings of a method or benchmark, from its description."""
    rows = [(s["name"], repr(s["default"]), s["type"], " ".join(s["text"].split())) for s in found["settings"]]
    return pd.DataFrame(rows, columns=["setting", "default", "type", "description"])


# ------------------------------------------------------------------------- which differences are detectable


def by_size(examples: int) -> pd.DataFrame:
    """The smallest detectable difference for a number of test examples and one seed.

    Detectable: a test at the 5 % level finds it with 80 % power. It depends on the discordant examples, those that
    exactly one of two rows answers correctly. Examples are treated as independent. Both columns in per cent.
    """
    rows = [(100 * share, 100 * power.detectable(Noise(share, 0.0, None, examples, 1))) for share in DISCORDANT]
    return pd.DataFrame(rows, columns=["discordant", "difference"])


def measured(table: Table, store: Store) -> tuple[str, str, float, int, int] | None:
    """The smallest detectable difference between two rows of a table: their names, the difference (a fraction), and the
    numbers of images and seeds. They are the best two rows that share a seed; None if no two do."""
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
            if (noise := inference.noise(a, b, seeds, "accuracy")) is None:
                continue
            least = power.detectable(noise)
            return f"{first.label} {first.student}", f"{second.label} {second.student}", least, first.groups, len(seeds)
    return None
