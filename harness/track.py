"""Runs in a tracker's own form, beside the store: TensorBoard's event files.

The driver writes them, from the events that any worker sends: once a run, whatever the number of workers. The store
stays the record: nothing reads these files back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.record import Record
from harness.store import Store

Event = dict[str, Any]


def tracker(folder: Path | None, store: Store) -> Callable[[Event], None]:
    """What takes every event of a launch: losses by stage as they come, a finished run's figures from its record.

    A folder a run under `folder`; None: nothing is tracked. Raises `ConfigError` where tensorboardX is missing.
    """
    if folder is None:
        return lambda event: None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError("track.tensorboard needs tensorboardX, which comes with Ray Train: pip install it") from None
    writers: dict[str, Any] = {}

    def see(event: Event) -> None:
        run_id = event.get("run_id")
        if run_id is None:
            return
        if "losses" in event:
            if run_id not in writers:
                writers[run_id] = SummaryWriter(str(folder / run_id))
            for name, value in event["losses"].items():
                writers[run_id].add_scalar(f"{event['stage']}/{name}", value, event["step"])
        if "status" in event:
            loaded = store.load(run_id)
            if isinstance(loaded, Record) and loaded.status == "done":
                writer = writers.get(run_id) or SummaryWriter(str(folder / run_id))
                for split, figures in loaded.metrics.items():
                    for name, figure in figures.items():
                        writer.add_scalar(f"{split}/{name}", figure.value, 0)
                writers[run_id] = writer
            if run_id in writers:
                writers.pop(run_id).close()

    return see
