"""Structured logs (`track.logs`): a file of JSON lines per run, one line per event, written by the driver.

    <folder>/<run id>.jsonl     a run's events, from all its executions
    <folder>/launch.jsonl       what concerns no single run: notes, warnings, what is waited for

Each line has `time` (UTC), `level` (info, warning, error), `suite` (the launch's name), `run_id` (null in launch.jsonl)
and `event`, which says what else it has:

    began, progress     stage, step, steps
    losses              the same with `losses` by role and term, `examples`, `seconds` of these steps, `waited` for data
    validation          the same with `validation`, the accuracy by role
    ended               `status`; `error` of a failed run; `seconds`, `train_seconds`, `data_seconds`, `accuracy` of one
                        that is done
    note, to_run        `note`, `to_run`
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.events import Event, OnEvent
from harness.record import Record
from harness.store import Store

Level = Literal["info", "warning", "error"]
LAUNCH = "launch"
"""The name of the file for what concerns no single run."""


def log(folder: Path | None, suite: str, store: Store, on_note: Callable[[str], None]) -> OnEvent:
    """A callback that writes events to the folder's files; None: nothing. `on_note` is called once if it can't."""
    begun: set[str] = set()
    broken = folder is None

    def on_event(event: Event) -> None:
        nonlocal broken
        if broken or folder is None or "images" in event:
            return
        run_id = event.get("run_id")
        first = run_id is not None and run_id not in begun
        if run_id is not None:
            begun.add(run_id)
        about = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": _level(event),
            "suite": suite,
            "run_id": run_id,
            "event": _kind(event, first),
        }
        said = {name: value for name, value in event.items() if name != "run_id" and value is not None}
        line = json.dumps(about | said | _outcome(event, store), ensure_ascii=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{run_id or LAUNCH}.jsonl").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            broken = True
            on_note(f"track.logs: {folder} can't be written, and is switched off: {error.strerror or error}")

    return on_event


def _level(event: Event) -> Level:
    if event.get("status") == "failed":
        return "error"
    warns = event.get("note", "").startswith(("warning", "waiting")) or event.get("status") == "interrupted"
    return "warning" if warns else "info"


def _kind(event: Event, first: bool) -> str:
    if "status" in event:
        return "ended"
    named = next((name for name in ("losses", "validation", "note", "to_run") if name in event), None)
    return named or ("began" if first else "progress")


def _outcome(event: Event, store: Store) -> dict[str, Any]:
    """What the record says of a run that has ended."""
    record = None
    if "status" in event:
        with suppress(OSError):  # a store that can't be read now
            record = store.load(event["run_id"])
    if not isinstance(record, Record) or record.status != event["status"]:
        return {}
    if record.error is not None:
        return {"error": record.error.message}
    accuracy = {s: figures["accuracy"].value for s, figures in record.metrics.items() if "accuracy" in figures}
    seconds = {"seconds": record.cost.total_seconds, "train_seconds": record.cost.train_seconds}
    return seconds | {"data_seconds": record.cost.data_seconds, "accuracy": accuracy}
