"""A plugin for the tests: a benchmark that a tiny model learns in seconds, and methods that break the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from harness.api import Benchmark, Example, Ladder, Method, Role, Split, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220)}


@dataclass(frozen=True)
class Plain:
    """A picture of one colour."""

    colour: str

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (64, 64), COLOURS[self.colour])


@dataclass(frozen=True)
class Toy(Benchmark):
    """What colour is the picture?"""

    name = "toy"
    task = "factuality"
    splits = ("train", "validation", "test")
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"

    size: int = 48
    fault: str = ""
    """empty | gold | duplicate | options | empty: a damage to the test split, for the checks."""

    def load(self, split: Split) -> Iterable[Example]:
        names = list(COLOURS)
        if self.fault == "empty" and split == "test":
            return
        for i in range(self.size if split == "train" else self.size // 2):
            colour = names[i % 3]
            shift = i // 3 % 3  # the options turn, so that the letter alone says nothing
            options = tuple(names[shift:] + names[:shift])
            gold = options.index(colour)
            damaged = split == "test" and i == 1
            yield Example(
                id="t0" if self.fault == "duplicate" and damaged else f"t{i}",
                group=f"g{i // 2}",
                image=Plain(colour),
                question="what colour is it ?",
                claim="",
                options=options[:1] if self.fault == "options" and damaged else options,
                gold=7 if self.fault == "gold" and damaged else gold,
                category="warm" if colour == "red" else "cold",
                source="toy",
            )


@dataclass(frozen=True)
class _Breaking(Method):
    summary = "breaks the contract"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0),)


@dataclass(frozen=True)
class ScalarLoss(_Breaking):
    """Gives the mean instead of one loss an example."""

    name = "scalar_loss"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {"student": {"ce": step.forward("student").mean()}}


@dataclass(frozen=True)
class WrongRole(_Breaking):
    """Gives a loss for a role that isn't there."""

    name = "wrong_role"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {"pupil": {"ce": step.forward("student").sum(-1)}}


@dataclass(frozen=True)
class NotFinite(_Breaking):
    """Turns to NaN halfway."""

    name = "not_finite"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        factor = float("nan") if step.progress >= 0.5 else 1.0
        return {"student": {"ce": step.forward("student").square().sum(-1) * factor}}


@dataclass(frozen=True)
class HalfBudget(_Breaking):
    """Spends half of the student budget."""

    name = "half_budget"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 0.5),)
