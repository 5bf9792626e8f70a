"""Small runs for the tests of stores and rankings: eight questions, one an image, with known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.leaderboard.seed_results import SeedResults
from harness.leaderboard.seed_spread import SeedSpread
from harness.record import Cost, Data, Provenance, Record
from harness.stats import inference, replicates
from harness.store import PredictionRow, Store, predictions_frame
from harness.store.index import row_key
from harness.versions import TRAINING

EVIL = "<script>alert(1)</script>"
"""A name that a record may have."""
GOLD = [0, 1, 0, 1, 0, 1, 0, 1]
DATA = Data(revision="1", fingerprint="a" * 64, sizes={"train": 8, "test": 8}, options=["no", "yes"])


def provenance(finished: str = "2026-01-01T00:00Z", code: str = "c0de", training: int = TRAINING) -> Provenance:
    return Provenance(package="0", code=code, training=training, started="2026-01-01T00:00Z", finished=finished)


def answers(
    right: Sequence[int] | int, order: Sequence[int] = range(8), splits: Sequence[str] = ("test",)
) -> pd.DataFrame:
    """Predictions that get the first `right` of the questions right (or those listed); two categories by halves."""
    wrong = range(right, 8) if isinstance(right, int) else set(range(8)) - set(right)
    return predictions_frame(
        PredictionRow(split, f"e{k}", f"i{k}", "object" if k < 4 else "count", gold, choice, [0.0, 0.0], 0.0)
        for split in splits
        for k in order
        for gold in [GOLD[k]]
        for choice in [1 - gold if k in wrong else gold]
    )


def yes_no(right: int | list[bool], count: int = 100) -> pd.DataFrame:
    """Answers to `count` yes/no questions, one an image; the first `right` are right, or those that are marked."""
    right_n = np.arange(count) < right if isinstance(right, int) else np.array(right)
    ids = [f"e{k}" for k in range(len(right_n))]
    return pd.DataFrame({"id": ids, "group": ids, "category": "", "gold": 0, "chosen": np.where(right_n, 0, 1)})


def row(*right: int) -> dict[int, pd.DataFrame]:
    """A row's predictions by seed: each gets the first so many of 100 right."""
    return {seed: yes_no(count) for seed, count in enumerate(right)}


def record(method: str = "finetune", seed: int = 0, frame: pd.DataFrame | None = None, **fields: Any) -> Record:
    settings, train = fields.pop("settings", {}), fields.pop("train", {})
    metrics = {}
    for split in frame["split"].unique() if frame is not None else ():
        metrics[split] = inference.summarise(frame[frame["split"] == split], DATA.options, 100)
    base: dict[str, Any] = {
        "run_id": f"{method}-{fields.get('student', 'S')}-{seed}",
        "status": "done",
        "benchmark": "toy",
        "task": "factuality",
        "method": method,
        "settings": settings,
        "student": "S",
        "ladder": "tiny",
        "parameters": 230_000,
        "budget": 4096,
        "seed": seed,
        "config": {"method": method, "settings": settings, "seed": seed, "train": train},
        "metrics": metrics,
        "data": DATA,
        "cost": Cost(train_flops=2e12, train_seconds=10, test_forwards=8),
        "provenance": provenance(),
    }
    return Record(**(base | fields))


def add(
    store: Store,
    method: str = "finetune",
    right: Sequence[int] | int = 8,
    seed: int = 0,
    order: Sequence[int] = range(8),
    splits: Sequence[str] = ("test",),
    predict: bool = True,
    **fields: Any,
) -> Path:
    """Writes a finished run (with `status` one without figures, without `predict` one whose predictions are lost)."""
    done = fields.get("status", "done") == "done"
    frame = answers(right, order, splits) if done else None
    return store.write(record(method, seed, frame, **fields), frame if predict else None)


def configured(
    store: Store,
    run_id: str,
    method: str = "offline_kd",
    right: int = 6,
    seed: int = 0,
    forwards: int = 8,
    resolved: dict[str, Any] | None = None,
    given: dict[str, Any] | None = None,
    **config: Any,
) -> None:
    """A finished run; `given` of its settings were set by the user, `resolved` are all."""
    add(
        store,
        method,
        right,
        seed,
        run_id=run_id,
        settings=resolved or given or {},
        cost=Cost(test_forwards=forwards),
        config={"method": method, "settings": given or {}, "seed": seed, **config},
    )


def results_of(
    *rows: Mapping[int, pd.DataFrame],
    labels: int | None = None,
    metrics: Sequence[str] = ("accuracy",),
    spread: SeedSpread | None = None,
) -> list[SeedResults]:
    """What a ranking would know of rows, each given as its predictions by seed; `spread`: of all rows of its store."""
    order = replicates.ExampleOrder()
    found = []
    for row in rows:
        taken = [order.take(pa.Table.from_pandas(row[seed], preserve_index=False)) for seed in sorted(row)]
        (key,) = {key for key, _ in taken}
        chosen_rn = np.stack([chosen_n for _, chosen_n in taken])
        made = replicates.replicate_all(order.sets[key], chosen_rn, labels, metrics)
        found.append(
            SeedResults(
                seeds=tuple(sorted(row)),
                groups=order.sets[key].groups,
                size=chosen_rn.shape[1],
                examples=key,
                choices=chosen_rn,
                points={name: one.points_r for name, one in made.items()},
                replicates={n: None if m.replicates_rn is None else m.replicates_rn.T for n, m in made.items()},
                spread=spread,
            )
        )
    return found


def spread_of(store: Store, split: str = "test", fingerprint: str = DATA.fingerprint) -> SeedSpread:
    """How the seeds of the rows of a store on these data differ, from its records."""
    rows: dict[str, dict[int, Record]] = {}
    for one in store.records():
        if one.status == "done" and one.kind == "run" and one.data and one.data.fingerprint == fingerprint:
            rows.setdefault(row_key(one), {})[one.seed] = one
    seeds = sorted({seed for of_row in rows.values() for seed in of_row})

    def figure(one: Record | None, metric: str) -> float:
        return one.metrics[split][metric].value if one and metric in one.metrics.get(split, {}) else float("nan")

    return SeedSpread(
        lambda metric: np.array([[figure(of_row.get(s), metric) for s in seeds] for of_row in rows.values()])
    )
