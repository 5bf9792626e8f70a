"""For `benches.faults`: the suite that suffers accidents, and what is counted after each of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.config import RunConfig
from harness.store import Store
from harness.store.maintenance import DAY, delete, garbage
from harness.suite import SuiteConfig

SUITE = {
    "name": "faults",
    "seeds": [0, 1],
    "benchmarks": ["scenes_factuality"],
    "benchmark_settings": {"scenes_factuality": {"train": 64, "validation": 8, "test": 12, "ood": 4}},
    "train": {"examples": 48, "batch_size": 8, "validations": 3},
    "evaluate": {"resamples": 100},
    "runs": [{"method": "hkd4vlm"}, {"method": "finetune"}, {"method": "offline_kd"}],
    "cluster": {"workers": 0},
}
"""Six runs; hkd4vlm's two stages have three steps each, and a checkpoint after each step."""


@dataclass
class Damage:
    """What must all stay 0."""

    lost: int = 0
    """Finished runs that are gone or have changed."""
    repeated: int = 0
    """Finished runs that were begun again."""
    broken: int = 0
    """Folders without a sound record."""
    different: int = 0
    """Runs whose answers or losses aren't those of the undisturbed suite."""
    left: int = 0
    """Working states and temporary folders that `hkdbench gc` would not delete, eight days later."""


@dataclass
class Watch:
    """Looks at a store after every accident."""

    store: Store
    begun: list[str] = field(default_factory=list)
    """Runs that were begun, since the last look."""
    done: dict[str, bytes] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)

    def look(self) -> None:
        self.damage.broken += len(self.store.problems())
        self.damage.repeated += len(set(self.begun) & set(self.done))
        self.begun.clear()
        now = {
            r.run_id: self.store.backend.read(f"{r.run_id}/record.json")
            for r in self.store.records()
            if r.status == "done"
        }
        self.damage.lost += sum(now.get(run_id) != text for run_id, text in self.done.items())
        self.done = now

    def compare(self, undisturbed: Store) -> None:
        """At the end: the same runs, answers and losses; nothing left over that would stay.

        What a writer was at when it was killed lies there until nobody can be at it any more: it is made old here.
        """
        self.look()
        expected = [r.run_id for r in undisturbed.records() if r.kind == "run"]
        self.damage.different += sum(not same(self.store, undisturbed, run_id) for run_id in expected)
        root, later = self.store.root, time.time() - 8 * DAY
        for path in root.rglob("*"):
            os.utime(path, (later, later))
        delete(self.store, garbage(self.store))
        work = [path for path in (root / ".work").glob("*") if not path.name.startswith((".ray-", ".locks"))]
        self.damage.left += len(work) + len(list(root.glob(".tmp-*")))


def same(a: Store, b: Store, run_id: str) -> bool:
    """Whether a run's predictions, history and student are the same in both stores, bit for bit."""
    if a.status(run_id) != "done":
        return False
    answers = [s.predictions(run_id).drop(columns="seconds") for s in (a, b)]
    histories = [s.history(run_id) for s in (a, b)]
    weights = [(s.root / run_id / "student" / "model.safetensors").read_bytes() for s in (a, b)]
    return answers[0].equals(answers[1]) and histories[0].equals(histories[1]) and weights[0] == weights[1]


def configs(suite: dict[str, Any]) -> list[RunConfig]:
    """The suite's runs; each keeps its student, so that weights can be compared."""
    made = SuiteConfig.model_validate(suite).run_configs()
    return [config.model_copy(update={"save_student": True}) for config in made]


def launch_in(store: Store, runs: Sequence[RunConfig], say: Callable[[str], None] = lambda _: None) -> None:
    """All runs, in this process."""
    from harness.execution.launch import launch

    def watch(event: dict[str, Any]) -> None:
        if event.get("stage") == "load":
            say(event["run_id"])

    launch(runs, store, "faults", watch)
