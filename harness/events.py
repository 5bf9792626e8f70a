"""What runs report while they go on: one typed event from the train loop up to the console and the trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict


class Event(TypedDict, total=False):
    """One report. The train loop gives stage, step and steps; whoever has several runs adds which one it is.

    A run's first event has the stage `load`, its last one a `status`. A `note` or `to_run` is about all runs of a
    launch, and then there is no `run_id`.
    """

    run_id: str
    stage: str
    """The stage under way; before the first `load`, after the last `score SPLIT`."""
    step: int
    steps: int
    """Of the stage."""
    losses: Mapping[str, float]
    """Mean losses since the last event that had any, by `role.term`."""
    validation: Mapping[str, float]
    """Accuracy on validation by role."""
    status: str
    """The run has ended: `done`, `failed` or `interrupted`."""
    error: str | None
    """Why it failed, where its worker could not even write a record."""
    note: str
    """A line for the user."""
    to_run: int
    """How many runs the launch is about to begin."""


OnEvent = Callable[[Event], None]


def of_run(run_id: str, on_event: OnEvent) -> OnEvent:
    """`on_event` for one run: it gets the run's id with every event."""

    def with_id(event: Event) -> None:
        on_event({"run_id": run_id, **event})

    return with_id
