"""What runs report during their execution, and the signals that stop them.

The report is one typed event, from the train loop to the console and the trackers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TypedDict


class Event(TypedDict, total=False):
    """One report. The train loop sets stage, step and steps; the launcher of several runs adds the run's id.

    A run's first event has the stage `load`, its last one a `status`. A `note`, `to_run` or `images` concerns all
    runs of a launch and has no `run_id`.
    """

    run_id: str
    stage: str
    """The current stage; `load` before the first, `score SPLIT` after the last."""
    step: int
    steps: int
    """The number of steps of the stage."""
    losses: Mapping[str, float]
    """Mean losses since the last event that had any, with keys `role.term`."""
    validation: Mapping[str, float]
    """Accuracy on validation by role."""
    status: str
    """The run has ended: `done`, `failed` or `interrupted`."""
    error: str | None
    """Why it failed, if its worker could not write a record."""
    note: str
    """A line for the user."""
    images: tuple[int, int]
    """How many images were opened before the runs, and how many there are."""
    to_run: int
    """How many runs the launch is about to start."""


OnEvent = Callable[[Event], None]


def of_run(run_id: str, on_event: OnEvent) -> OnEvent:
    """`on_event` for one run: every event gets the run's id."""

    def with_id(event: Event) -> None:
        on_event({"run_id": run_id, **event})

    return with_id


# ------------------------------------------------------------------------------------ Ctrl-C and SIGTERM

ONE_REQUEST_SECONDS = 2.0
"""Signals within this time are one request to stop: `ray job stop` and shells send both, or one twice."""
_stops: list[tuple[float, int]] = []
"""When this process was asked to stop, and by which signal."""


def listen() -> None:
    """Treat SIGTERM (`ray job stop`, a batch system, a container's end) as Ctrl-C, and lose neither.

    `KeyboardInterrupt` may be raised in a destructor, where Python drops it, or in a library that makes another error
    of it: it is then raised again, see also `raise_if_stopped`. Call this in the main thread.
    """
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
        signal.signal(signal.SIGINT, _stop)
    _stops.clear()
    sys.unraisablehook = _unraisable


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    if isinstance(what.exc_value, KeyboardInterrupt):
        _stops.clear()
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()  # outside of the destructor
    else:
        sys.__unraisablehook__(what)


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _stops:
        before, first = _stops[-1]
        if signal.SIGTERM in (number, first) and now - before < ONE_REQUEST_SECONDS:
            return
    _stops.append((now, number))
    raise KeyboardInterrupt


def stopped() -> bool:
    """Whether this process was asked to stop."""
    return bool(_stops)


def raise_if_stopped() -> None:
    """Raise `KeyboardInterrupt` if the process was asked to stop: somebody has swallowed the first one."""
    if stopped():
        raise KeyboardInterrupt
