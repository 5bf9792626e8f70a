"""What runs report during their execution: one typed event, from the train loop to the console and the trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
