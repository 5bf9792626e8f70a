"""Progress on standard error: bars on a terminal, otherwise plain lines when a run begins, continues and ends."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.events import Event

LINE_SECONDS = 30.0
"""Without a terminal, the shortest time between two progress lines of a run."""


class RunConsole:
    """Shows the runs of one launch.

    Meanwhile the output of libraries (Ray's messages about a lost worker) also goes to standard error: standard output
    is only for the result.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._stdout = redirect_stdout(sys.stderr)
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._total: Any = None
        self._images: Any = None
        self._images_said = 0.0
        self._ended = self._count = 0

    def __enter__(self) -> Self:
        self._stdout.__enter__()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._stdout.__exit__(kind, error, trace)

    def on_event(self, event: Event) -> None:
        if "note" in event:
            self._say(event["note"])
        elif "images" in event:
            self._open(*event["images"])
        elif "to_run" in event:
            self._count = event["to_run"]
            self._say(f"{self._count} to run")
            self._total = self._bars.add_task("runs", total=self._count)
        elif "status" in event:
            self._end(event["run_id"], event["status"])
        else:
            self._show(event)

    def _open(self, done: int, count: int) -> None:
        """Show how many images are opened."""
        if self._images is None:
            self._images, self._images_said = self._bars.add_task("images", total=count), time.monotonic()
        self._bars.update(self._images, completed=done, total=count)
        if not self._console.is_terminal and time.monotonic() - self._images_said >= LINE_SECONDS:
            self._images_said = time.monotonic()
            self._say(f"opened {done:,} of {count:,} images")
        if done == count:
            self._bars.remove_task(self._images)
            self._images = None

    def _show(self, event: Event) -> None:
        """Show the progress of a run."""
        run_id = event["run_id"]
        if run_id not in self._tasks:
            self._tasks[run_id] = self._bars.add_task(run_id, total=None)
            self._started[run_id] = self._said[run_id] = time.monotonic()
            if not self._console.is_terminal:
                self._say(f"began  {run_id}")
        elif not self._console.is_terminal and time.monotonic() - self._said[run_id] >= LINE_SECONDS:
            self._said[run_id] = time.monotonic()
            self._say(f"at     {run_id}  {event['stage']}  {event['step']}/{event['steps']}")
        self._bars.update(
            self._tasks[run_id],
            description=f"{run_id}  {event['stage']}",
            completed=event["step"],
            total=event["steps"],
        )

    def _end(self, run_id: str, status: str) -> None:
        self._ended += 1
        seconds = time.monotonic() - self._started.get(run_id, time.monotonic())
        if run_id in self._tasks:
            self._bars.remove_task(self._tasks.pop(run_id))
        if self._total is not None:
            self._bars.update(self._total, completed=self._ended)
        self._say(f"{status:6} {run_id}  {seconds:.0f} s  ({self._ended}/{self._count})")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
