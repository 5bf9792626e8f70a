"""A plugin whose methods cheat, one way each, and the benchmarks that they cheat on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from harness.api import Benchmark, Example, From, Ladder, Method, Role, Split, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220)}
SIZES = {"train": 48, "validation": 12, "test": 24, "pool": 24}


@dataclass(frozen=True)
class Dotted:
    """A picture of one colour with a dot, by which no two are equal."""

    colour: str
    row: int
    column: int

    def __call__(self) -> Image.Image:
        image = Image.new("RGB", (64, 64), COLOURS[self.colour])
        image.putpixel((self.column, self.row), (255, 255, 255))
        return image


@dataclass(frozen=True)
class Telling(Benchmark):
    """What colour is the picture? `category`, `source` and `extra` tell, as in many published files."""

    name = "telling"
    task = "factuality"
    splits = ("train", "validation", "test", "pool")
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"

    def load(self, split: Split) -> Iterable[Example]:
        names = list(COLOURS)
        for i in range(SIZES[split]):
            colour, shift = names[i % 3], i // 3 % 3
            options = tuple(names[shift:] + names[:shift])
            gold = options.index(colour)
            image = Dotted(colour, list(SIZES).index(split), i)
            yield Example(
                f"{split}{i}", f"{split}{i}", image, "what colour is it ?", "", options, gold, colour, colour,
                extra={"answer": gold},
            )  # fmt: skip


@dataclass(frozen=True)
class Borrowed(Telling):
    """Offers another benchmark's test split to learn from."""

    name = "borrowed"
    splits = ("train", "validation")

    def load(self, split: Split) -> Iterable[Example]:
        return super().load("test")


@cache
def looked_up() -> Mapping[str, int]:
    """The golds of a benchmark that the method makes itself."""
    return {e.id: e.known_gold for split in ("test", "validation", "pool") for e in Telling().load(split)}


# ------------------------------------------------------------------------------------------ at scoring


@dataclass(frozen=True)
class Untrained(Method):
    """The rung as it is: whatever it knows more, it has from cheating."""

    name = "untrained"
    summary = "doesn't cheat"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return ()


@dataclass(frozen=True)
class Peeks(Untrained):
    """Reads the answer off the example that it is asked about."""

    name = "peeks_at_scoring"
    summary = "looks for the gold in views and fuse"

    where: str = "fuse"
    door: str = "gold"

    def answer(self, example: Example) -> int | None:
        match self.door:
            case "gold":
                return example.gold
            case "category" | "source":
                told = getattr(example, self.door)
                return example.options.index(told) if told in example.options else None
        return None if example.extra is None else int(example.extra["answer"])

    def views(self, example: Example) -> Sequence[Example]:
        k = self.answer(example) if self.where == "views" else None
        return (example if k is None else replace(example, options=(example.options[k],) * len(example.options)),)

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        return _lifted(scores_vk, self.answer(example) if self.where == "fuse" else None)


@dataclass(frozen=True)
class LooksUp(Untrained):
    """Makes the benchmark itself, and finds the example there."""

    name = "looks_up"
    summary = "a closure over a benchmark"

    lift: float = 1000.0
    """How much the gold's score gains."""

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        return _lifted(scores_vk, looked_up()[example.id], self.lift)


@dataclass(frozen=True)
class ReadsTheStore(Untrained):
    """Takes the golds from the predictions of other runs."""

    name = "reads_the_store"
    summary = "reads predictions.parquet"
    folder: ClassVar[Path]

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        import pyarrow.parquet as pq

        (file, *_) = self.folder.glob("untrained-*/predictions.parquet")
        golds = {row["id"]: row["gold"] for row in pq.read_table(file).to_pylist()}
        return _lifted(scores_vk, golds[example.id])


@dataclass(frozen=True)
class LearnsWhenAsked(Untrained):
    """Counts what it is asked, and answers otherwise the more it has seen."""

    name = "learns_when_asked"
    summary = "learns in views or fuse"
    seen: ClassVar[list[int]] = []

    where: str = "fuse"

    def views(self, example: Example) -> Sequence[Example]:
        if self.where == "views":
            self.seen.append(1)
            return (replace(example, claim=f"{len(self.seen)} pictures so far"),)
        return (example,)

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        if self.where == "fuse":
            self.seen.append(int(scores_vk[0].argmax()))
            usual_k = np.bincount(self.seen, minlength=scores_vk.shape[1]) / len(self.seen)
            return np.asarray(scores_vk[0] - np.log(usual_k + 0.01))
        return np.asarray(scores_vk[0])


def _lifted(scores_vk: np.ndarray, gold: int | None, lift: float = 1000.0) -> np.ndarray:
    scores_k: np.ndarray = scores_vk[0].copy()
    if gold is not None:
        scores_k[gold] += lift
    return scores_k


# ------------------------------------------------------------------------------------------ in training


@dataclass(frozen=True)
class Tunes(Method):
    """Direct tuning."""

    name = "tunes"
    summary = "doesn't cheat"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        from torch.nn.functional import cross_entropy

        learners = [name for name, role in step.roles.items() if role.trainable]
        return {name: {"ce": cross_entropy(step.forward(name), step.labels_b, reduction="none")} for name in learners}


@dataclass(frozen=True)
class LabelsThePool(Tunes):
    """Gives examples of the pool their golds back."""

    name = "labels_the_pool"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0, data="pool"),)

    def augment(self, example: Example, rng: random.Random) -> Example:
        return example if example.gold is not None else replace(example, gold=looked_up()[example.id])

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        from torch.nn.functional import cross_entropy

        logits_bk = step.forward("student")
        ce_b = cross_entropy(logits_bk, step.labels_b, reduction="none", ignore_index=-1)
        return {"student": {"ce": ce_b, "size": logits_bk.square().mean(-1)}}


@dataclass(frozen=True)
class OtherName(Tunes):
    """Trains the student's rung for 20 budgets as a helper, and goes on from its weights as the student."""

    name = "other_name"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (
            Stage("warm", {"helper": Role(student, trainable=True)}, 20.0),
            Stage("last", {"student": Role(From("warm", "helper"), trainable=True)}, 1.0),
        )


@dataclass(frozen=True)
class FreeBudget(Tunes):
    """A stage of the student that counts for nothing, or no stage at all."""

    name = "free_budget"

    none: bool = False

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        (only,) = super().stages(ladder, student)
        again = Stage("more", {"student": Role(From("only", "student"), trainable=True)}, 0.0)
        return () if self.none else (only, again)


@dataclass(frozen=True)
class FrozenLearns(Tunes):
    """Changes a teacher that it calls frozen."""

    name = "frozen_learns"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True), "teacher": Role("L")}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        import torch

        step.forward("teacher")
        if models := getattr(step, "_models", None):
            scorer = getattr(models["teacher"], "scorer", None)
            with torch.no_grad():
                for weight in scorer.parameters() if scorer else ():
                    weight.mul_(0.99)
        return super().loss(step)


@dataclass(frozen=True)
class PaysNothing(Tunes):
    """Sets its bill back after every step."""

    name = "pays_nothing"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        losses = super().loss(step)
        if hasattr(model := getattr(step, "_models", {})["student"], "cost"):
            model.cost = type(model.cost)()
        return losses
