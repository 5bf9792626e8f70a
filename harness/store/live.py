"""The progress of a run while it trains: `progress.json` in its work folder, replaced atomically.

The process that executes the run writes it (`progress_file`), at most once a second, and deletes it when the run
ends. After a run was killed the file remains, and its age shows that. The history up to the newest checkpoint is in
that checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import first_line
from harness.store.backend import Problem
from harness.store.schemas import HistoryRow
from harness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

FILE = "progress.json"
EVERY_SECONDS = 1.0
SILENT_SECONDS = 120.0
"""A run that wrote nothing for this time may have been killed, or has long steps."""


class Now(BaseModel):
    """The progress of a run. Times are seconds since 1970."""

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
    """One of `stages`, or what follows them: `score SPLIT`."""
    step: int
    steps: int
    points: tuple[HistoryRow, ...] = ()
    """The losses that were logged since the run was started or resumed."""

    @property
    def silent(self) -> bool:
        """Whether it wrote nothing for `SILENT_SECONDS`."""
        return time.time() - self.updated > SILENT_SECONDS


# ------------------------------------------------------------------------------------------- writing


@contextmanager
def progress_file(work: Path, about: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A context with a function that writes a run's events to `work/progress.json`. It never makes a run fail.

    `about` has the fields of `Now` that don't change: run_id, method, benchmark, student, seed, tags, stages. An
    event has stage, step and steps, and may have losses by `role.term`.
    """
    try:
        yield _writer(work, about)
    finally:
        with suppress(OSError):
            (work / FILE).unlink(missing_ok=True)
            work.rmdir()  # only if nothing else is in it


def _writer(work: Path, about: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], None]:
    started = time.time()
    written = 0.0
    points: list[HistoryRow] = []

    def write(event: Mapping[str, Any]) -> None:
        nonlocal written
        stage, step, steps = event["stage"], event["step"], event["steps"]
        for key, value in event.get("losses", {}).items():
            role, _, term = key.partition(".")
            points.append(HistoryRow(stage, step, step / steps, role, f"loss/{term}", value))
        if time.monotonic() - written < EVERY_SECONDS and written:
            return
        written = time.monotonic()
        now = {"started": started, "updated": time.time(), "stage": stage, "step": step, "steps": steps}
        with suppress(OSError):
            work.mkdir(parents=True, exist_ok=True)
            part = work / f".{FILE}-{os.getpid()}"
            part.write_text(json.dumps({**about, **now, "points": points}), encoding="utf-8")
            os.replace(part, work / FILE)

    return write


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Paused:
    """A run that was stopped and has a checkpoint to resume from."""

    run_id: str
    checkpoint: str
    age: float
    """Seconds since the checkpoint was written."""


def running(store: Store) -> list[Now | Problem]:
    """The runs with a progress file; the most recently started one first."""
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
    """The stopped runs that can be resumed; the one with the newest checkpoint first."""
    found = []
    for folder in _work_folders(store):
        checkpoints = _checkpoints(folder)
        if checkpoints and not (folder / FILE).exists():
            with suppress(OSError):
                age = time.time() - checkpoints[-1].stat().st_mtime
                found.append(Paused(folder.name, checkpoints[-1].name, age))
    return sorted(found, key=lambda one: one.age)


def history(store: Store, now: Now) -> pd.DataFrame:
    """What a run has logged so far, in the format of `Store.history`."""
    from harness.store.store import history_frame

    keys = ["stage", "step", "role", "term"]
    rows = [*_saved(store.work(now.run_id)), *now.points]
    return history_frame(rows).drop_duplicates(keys, keep="last", ignore_index=True)


def _saved(work: Path) -> list[HistoryRow]:
    """The history in the newest checkpoint; empty if there is none, or if it is being replaced."""
    for folder in reversed(_checkpoints(work)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            return [HistoryRow(**row) for row in state["history"]]
    return []


def _work_folders(store: Store) -> list[Path]:
    work = store.backend.scratch / ".work"
    with suppress(OSError):
        return sorted(folder for folder in work.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return []


def _checkpoints(work: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(work.glob("checkpoint-*"))
    return []
