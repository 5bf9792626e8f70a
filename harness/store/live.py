"""What a run says of itself while it trains: `progress.json` in its work folder, always whole.

The runner writes it (`telling`), at most once a second, and takes it away as the run ends. Of a run that was killed
it stays behind, and its age tells. The history up to the newest checkpoint is in that checkpoint. This module
imports neither torch nor ray.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import first_line
from harness.events import Event, OnEvent
from harness.store.schemas import HistoryRow
from harness.store.store import Problem, Store

if TYPE_CHECKING:
    import pandas as pd

    from harness.models.distributed import Io
    from harness.planning.plan import Plan

FILE = "progress.json"
EVERY_SECONDS = 1.0
SILENT_SECONDS = 120.0
"""A run that said nothing for so long may have been killed, or has long steps."""


class Now(BaseModel):
    """Where a run is. Times are seconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    method: str
    benchmark: str
    student: str
    seed: int
    tags: tuple[str, ...] = ()
    stages: tuple[str, ...]
    """All stages of training, in order."""
    started: float
    updated: float
    stage: str
    """One of `stages`, or what comes after them: `score SPLIT`."""
    step: int
    steps: int
    points: tuple[HistoryRow, ...] = ()
    """The losses that were logged since the run was started, or taken up again."""

    @property
    def silent(self) -> bool:
        """Whether it said nothing for a while."""
        return time.time() - self.updated > SILENT_SECONDS


# ------------------------------------------------------------------------------------------- writing


@contextmanager
def telling(plan: Plan, io: Io, work: Path) -> Iterator[None]:
    """While it lasts, what rank 0 reports also stands in the work folder. It never makes a run fail."""
    if io.rank != 0:
        yield
        return
    report = io.report
    config = plan.config
    about = {
        "run_id": plan.run_id,
        "method": config.method,
        "benchmark": config.benchmark,
        "student": config.student,
        "seed": config.seed,
        "tags": config.tags,
        "stages": [planned.stage.name for planned in plan.stages],
    }
    io.report = _teller(report, work, about)
    try:
        yield
    finally:
        io.report = report
        with suppress(OSError):
            (work / FILE).unlink(missing_ok=True)
            work.rmdir()  # only where nothing else is in it


def _teller(report: OnEvent, work: Path, about: dict[str, Any]) -> OnEvent:
    started = time.time()
    told = 0.0
    points: list[HistoryRow] = []

    def tell(event: Event) -> None:
        nonlocal told
        report(event)
        stage, step, steps = event["stage"], event["step"], event["steps"]
        for key, value in event.get("losses", {}).items():
            role, _, term = key.partition(".")
            points.append(HistoryRow(stage, step, step / steps, role, f"loss/{term}", value))
        if time.monotonic() - told < EVERY_SECONDS and told:
            return
        told = time.monotonic()
        now = {"started": started, "updated": time.time(), "stage": stage, "step": step, "steps": steps}
        with suppress(OSError):
            work.mkdir(parents=True, exist_ok=True)
            part = work / f".{FILE}-{os.getpid()}"
            part.write_text(json.dumps(about | now | {"points": points}), encoding="utf-8")
            os.replace(part, work / FILE)

    return tell


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Paused:
    """A run that isn't under way and has a checkpoint to go on from."""

    run_id: str
    checkpoint: str
    age: float
    """Seconds since the checkpoint was written."""


def running(store: Store) -> list[Now | Problem]:
    """The runs that say something of themselves, the one that began last first. A done run is none."""
    found: list[Now | Problem] = []
    for folder in _work_folders(store):
        try:
            found.append(Now.model_validate_json((folder / FILE).read_bytes()))
        except FileNotFoundError:
            continue
        except (OSError, ValidationError) as error:
            found.append(Problem(folder.name, f"{FILE} can't be read: {first_line(error)}"))
    return sorted(found, key=lambda one: -one.started if isinstance(one, Now) else 0.0)


def paused(store: Store) -> list[Paused]:
    """The runs that were stopped and can go on, the youngest first."""
    found = []
    for folder in _work_folders(store):
        checkpoints = _checkpoints(folder)
        if checkpoints and not (folder / FILE).exists():
            with suppress(OSError):
                age = time.time() - checkpoints[-1].stat().st_mtime
                found.append(Paused(folder.name, checkpoints[-1].name, age))
    return sorted(found, key=lambda one: one.age)


def history(store: Store, now: Now) -> pd.DataFrame:
    """What a run has logged so far, as `Store.history` gives it of a finished one."""
    from harness.store.store import history_frame

    keys = ["stage", "step", "role", "term"]
    rows = [*_saved(store.work(now.run_id)), *now.points]
    return history_frame(rows).drop_duplicates(keys, keep="last", ignore_index=True)


def _saved(work: Path) -> list[HistoryRow]:
    """The history in the newest checkpoint; none where there is none, or it is being replaced."""
    for folder in reversed(_checkpoints(work)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            return [HistoryRow(**row) for row in state["history"]]
    return []


def _work_folders(store: Store) -> list[Path]:
    work = store.place.scratch / ".work"
    with suppress(OSError):
        return sorted(folder for folder in work.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return []


def _checkpoints(work: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(work.glob("checkpoint-*"))
    return []
