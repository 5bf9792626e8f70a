"""The results of a sweep: its trials and their events, the finalists, the winners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.experiments.space import Point
from harness.record import Interval


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Frozen):
    """A finished trial: `stopped` if it was behind, `failed` with the reason."""

    number: int
    point: Point
    status: Literal["done", "stopped", "failed"]
    score: float | None = None
    """The mean over its seeds; for a stopped one, the newest accuracy on validation."""
    validations: int = 0
    """How many validations it had."""
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    """The seconds of its runs, from model loading to scoring."""
    error: str | None = None


@dataclass(frozen=True)
class TrialEvent:
    """An event of a trial, or a note about the search."""

    search: str
    trial: int = 0
    """From 1; 0: the note is about the search."""
    point: Point = field(default_factory=dict)
    state: str = ""
    """`began`, `validated`, or how it ended: `done`, `stopped`, `failed`."""
    score: float | None = None
    validations: int | None = None
    seconds: float | None = None
    """The seconds of its runs."""
    wall: float | None = None
    """The seconds of the whole trial so far."""
    error: str | None = None
    note: str | None = None


OnTrial = Callable[[TrialEvent], None]


class Finalist(_Frozen):
    """One of the best trials, trained again with fresh seeds."""

    number: int
    """Its trial's."""
    point: Point
    runs: tuple[str, ...]
    score: float | None
    """The mean of the fresh seeds on validation; None if a run failed."""


class Outcome(_Frozen):
    """The result of a search."""

    method: str
    student: str
    benchmark: str
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...] = ()
    winner: Finalist | None = None
    """The best finalist on validation; its runs are the ones that are scored on all splits."""
    figures: dict[str, dict[str, Interval]] = {}
    """The winner's metric over its seeds, by split."""


class SweepResult(BaseModel):
    """The searches that have ended, by `Search.name`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    searches: dict[str, Outcome] = {}


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials, best first; of equal ones the earlier."""
    done = [trial for trial in trials if trial.status == "done" and trial.score is not None]
    return sorted(done, key=lambda trial: -(trial.score or 0.0))
