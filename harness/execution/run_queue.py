"""The runs of one launch on Ray: which are waiting, which worker group has which, and what they report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.events import Event

QueuedRun = tuple[str, dict[str, Any]]
"""A run's id and its configuration as a JSON document."""


@dataclass
class RunQueue:
    """The queue that all worker groups take their runs from. It lives in a Ray actor, and imports no ray itself."""

    waiting: list[QueuedRun]
    taken: dict[int, QueuedRun] = field(default_factory=dict)
    """The run of each worker group."""
    losses: dict[str, int] = field(default_factory=dict)
    """How often each run has lost a worker."""
    events: list[Event] = field(default_factory=list)
    group_size: int = 1
    """Ranks per worker group."""
    stopped: bool = False

    def start(self, groups: int, group_size: int) -> None:
        """The workers have started as this number of groups. The run of a group that no longer exists goes first in
        the queue."""
        self.group_size = group_size
        for group in sorted((group for group in self.taken if group >= groups), reverse=True):
            self.waiting.insert(0, self.taken.pop(group))

    def take(self, group: int) -> tuple[str, dict[str, Any], int] | None:
        """The worker group's run and how often it has lost a worker: its current run, or the next in the queue."""
        if self.stopped:
            return None
        if group not in self.taken:
            if not self.waiting:
                return None
            self.taken[group] = self.waiting.pop(0)
        run_id, config = self.taken[group]
        return run_id, config, self.losses.get(run_id, 0)

    def lose(self, ranks: list[int]) -> bool:
        """These workers are gone. It counts once for the run of their group, not for the others.

        Returns whether any run is left.
        """
        for group in sorted({rank // self.group_size for rank in ranks}):
            if group in self.taken:
                run_id, _ = self.taken[group]
                self.losses[run_id] = self.losses.get(run_id, 0) + 1
        return bool(self.waiting or self.taken)

    def finish(self, group: int, status: str, error: str | None = None) -> None:
        """The worker group's run has ended; `error` if its worker could not even write a record."""
        if group in self.taken:
            run_id, _ = self.taken.pop(group)
            self.events.append({"run_id": run_id, "status": status, "error": error})

    def report(self, event: Event) -> None:
        self.events.append(event)

    def drain(self) -> list[Event]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        self.stopped = True
