"""A plugin for the tests: a benchmark that a tiny model learns in seconds, and methods that break the contract."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from harness.api import (
    Benchmark,
    ConfigError,
    Example,
    From,
    ImageSource,
    Ladder,
    Method,
    Role,
    Source,
    Split,
    Stage,
    Step,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220)}


@dataclass(frozen=True)
class Plain:
    """A picture of one colour."""

    colour: str

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (64, 64), COLOURS[self.colour])


@dataclass(frozen=True)
class Undrawn:
    """An image whose drawing fails."""

    def __call__(self) -> Image.Image:
        raise OSError("not a picture")


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
    """A damage to the test split: empty | gold | no_gold | duplicate | options | missing | corrupt | crash."""

    def load(self, split: Split) -> Iterable[Example]:
        names = list(COLOURS)
        golds = {"gold": 7, "no_gold": None}
        if self.fault == "crash" and split == "test":
            raise KeyError("caption")
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
                image=self._image(colour, damaged),
                question="what colour is it ?",
                claim="",
                options=options[:1] if self.fault == "options" and damaged else options,
                gold=golds.get(self.fault, gold) if damaged else gold,  # type: ignore[arg-type]
                category="warm" if colour == "red" else "cold",
                source="toy",
                response=f"it is {colour}" if i % 2 else None,
            )

    def _image(self, colour: str, damaged: bool) -> ImageSource:
        if damaged and self.fault == "missing":
            return Path("nowhere/t1.png")
        return Undrawn() if damaged and self.fault == "corrupt" else Plain(colour)


@dataclass(frozen=True)
class Exam(Toy):
    """The toy's test split alone: nothing to learn from."""

    name = "exam"
    splits = ("test",)


@dataclass(frozen=True)
class Torn(Toy):
    """A picture of the test split can't be drawn, which is found only when it is asked for."""

    name = "torn"
    fault: str = "corrupt"


@dataclass(frozen=True)
class _Breaking(Method):
    summary = "breaks the contract"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0),)


@dataclass(frozen=True)
class Spy(Method):
    """Writes down what it sees of each example: label, whether labelled, gold, category, extra."""

    name = "spy"
    summary = "looks for withheld golds"
    seen: ClassVar[list[tuple[int, bool, int | None, str, Any]]] = []

    data: Source = "labels"
    weight: float = 1.0

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0, data=self.data),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        for label, labelled, e in zip(step.labels_b.tolist(), step.labelled_b.tolist(), step.examples, strict=True):
            self.seen.append((label, labelled, e.gold, e.category, e.extra))
        return {"student": {"size": self.weight * step.forward("student").square().mean(-1)}}


@dataclass(frozen=True)
class Peeks(Spy):
    """Learns from golds that it isn't given."""

    name = "peeks"
    data: Source = "pool"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        golds = [e.known_gold for e in step.examples]
        return {"student": {"ce": -step.forward("student").log_softmax(-1)[range(len(golds)), golds]}}


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
class Breach(_Breaking):
    """Breaks the contract in the way that it is told."""

    name = "breach"

    how: str = ""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"teacher": Role("L"), "student": Role(student, trainable=True)}, 1.0),)

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        from torch import nn

        return {"teacher": nn.Linear(widths["teacher"], 1)} if self.how == "adapter" else {}

    def second_view(self, example: Example, rng: random.Random) -> Example:
        return example.reordered((1, 0, 2))

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        import torch

        student = step.forward("student")
        match self.how:
            case "labels":
                step.labels_b.add_(1).remainder_(3)
            case "options":
                step.options_bk[:, 0] = False
            case "logits":
                student[:, 0] += 1.0
            case "teacher":
                step.forward("teacher").view(-1).neg_()
            case "no_gradient":
                student = student.detach()
            case "undeclared":
                step.hidden("teacher")
            case "no_adapter":
                step.adapt("student", student)
            case "no_role":
                step.forward("assistant")
            case "view":
                step.forward("student", "second")
            case "micro_batch" if len(step.labels_b) == 3:
                step.forward("teacher")
            case "rank" if torch.distributed.get_rank() == 1 and step.progress >= 0.5:
                step.forward("teacher")
            case "gradient":  # the root of 0 has an endless slope
                student = (student - student).abs().sqrt() + student
        return {"student": {"ce": student.square().sum(-1)}}


@dataclass(frozen=True)
class HalfBudget(_Breaking):
    """Spends half of the student budget."""

    name = "half_budget"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"student": Role(student, trainable=True)}, 0.5),)


@dataclass(frozen=True)
class Stages(_Breaking):
    """Lays out stages that the planner must refuse, by the name of the mistake."""

    name = "stages"

    mistake: str = ""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        learner = Role(student, trainable=True)
        whole = Stage("only", {"student": learner}, 1.0)
        first, second = Stage("one", {"student": learner}, 0.5), {"student": Role(From("one", "student"), True)}
        return {
            "": (first, Stage("two", second, 0.5)),
            "unknown_rung": (Stage("only", {"student": learner, "teacher": Role("XL")}, 1.0),),
            "unknown_stage": (first, Stage("two", {"student": Role(From("onee", "student"), True)}, 0.5)),
            "unknown_role": (first, Stage("two", {"student": Role(From("one", "pupil"), True)}, 0.5)),
            "later_stage": (Stage("two", second, 0.5), first),
            "one_name": (first, Stage("one", second, 0.5)),
            "no_share": (whole, Stage("two", {"student": Role(From("only", "student"), True)}, 0.0)),
            "all_frozen": (Stage("only", {"student": Role(student)}, 1.0),),
            "too_much": (first, Stage("two", second, 1.0)),
            "no_student": (whole, Stage("two", {"teacher": Role("L", trainable=True)}, 1.0)),
            "own_order": (first, Stage("two", second, 0.5, seed=3)),
            "other_rung": (Stage("only", {"student": Role("L", trainable=True)}, 1.0),),
            "average_of_nobody": (Stage("only", {"student": learner, "a": Role(student, average_of="pupil")}, 1.0),),
            "average_of_frozen": (
                Stage("only", {"student": learner, "t": Role(student), "a": Role(student, average_of="t")}, 1.0),
            ),
            "learning_average": (
                Stage("only", {"student": learner, "a": Role(student, True, average_of="student")}, 1.0),
            ),
            "average_of_smaller": (Stage("only", {"student": learner, "a": Role("L", average_of="student")}, 1.0),),
            "endless": (Stage("only", {"student": learner, "a": Role(student, average_of="student", decay=1.0)}, 1.0),),
        }[self.mistake]


@dataclass(frozen=True)
class _Tuned(_Breaking):
    """Plain tuning of the student."""

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        from torch.nn.functional import cross_entropy

        return {"student": {"ce": cross_entropy(step.forward("student"), step.labels_b, reduction="none")}}


@dataclass(frozen=True)
class Averaged(_Tuned):
    """A mean teacher in two stages: the learner starts again from its average, and the average is the student."""

    name = "averaged"
    student = "average"

    decay: float = 0.9
    before: bool = False
    """The learner starts from a model that another stage has tuned: half a budget too much."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        def roles(weights: str | From) -> Mapping[str, Role]:
            return {"student": Role(weights, True), "average": Role(weights, average_of="student", decay=self.decay)}

        one = Stage("one", roles(student), 0.5)
        if not self.before:
            return (one, Stage("two", roles(From("one", "average")), 0.5))
        zero = Stage("zero", {"student": Role(student, True)}, 0.5)
        learner = {**roles(student), "student": Role(From("zero", "student"), True)}
        return (zero, Stage("one", learner, 0.5), Stage("two", roles(From("one", "average")), 0.5))

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        apart_bk = step.forward("average").softmax(-1) - step.forward("student").softmax(-1)
        return {"student": {**super().loss(step)["student"], "apart": apart_bk.square().sum(-1)}}


@dataclass(frozen=True)
class Stateful(_Tuned):
    """Counts the examples of each label, and weighs its loss by the running mean of earlier ones."""

    name = "stateful"

    how: str = ""
    """Breaks the contract of the state in this way."""

    def state(self, stage: str) -> Mapping[str, Tensor]:
        import torch

        return {} if self.how == "none" else {"seen": torch.zeros(3), "mean": torch.tensor(1.0)}

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        from torch.nn.functional import one_hot

        ce_b = super().loss(step)["student"]["ce"]
        step.observe("ce", ce_b.mean() if self.how == "scalar" else ce_b)
        step.observe("ce" if self.how == "twice" else "label", one_hot(step.labels_b, 3))
        match self.how:
            case "in_place":
                step.state["mean"].add_(1)
            case "micro_batch" if len(step.examples) == 3:
                step.observe("more", ce_b)
            case "not_finite":
                step.observe("log", (step.labels_b * 0.0).log())
        seen_b = step.state.get("seen", ce_b).sum().expand(len(ce_b))
        return {"student": {"ce": ce_b * step.state.get("mean", 1.0), "seen": seen_b}}

    def update(
        self, stage: str, state: Mapping[str, Tensor], sums: Mapping[str, Tensor], count: int
    ) -> Mapping[str, Tensor]:
        if self.how == "shape":
            return {"seen": state["seen"].sum(), "mean": state["mean"]}
        mean = (state["mean"] + sums["ce"] / count) / 2
        return {"mean": mean} if self.how == "lost" else {"seen": state["seen"] + sums["label"], "mean": mean}


@dataclass(frozen=True)
class Coupled(_Tuned):
    """Takes the batch's mean off its loss."""

    name = "coupled"

    def couples(self, stage: str) -> bool:
        return True

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        ce_b = super().loss(step)["student"]["ce"]
        return {"student": {"ce": ce_b, "apart": (ce_b - ce_b.mean()).square()}}


@dataclass(frozen=True)
class Constant(_Tuned):
    """Has a state that nothing changes, or that isn't a tensor."""

    name = "constant"

    number: bool = False

    def state(self, stage: str) -> Mapping[str, Tensor]:
        import torch

        return {"mean": 0.0 if self.number else torch.zeros(3)}  # type: ignore[dict-item]


@dataclass(frozen=True)
class Accident(_Tuned):
    """Tunes the student; past 0.7 of the way a signal hits its process: once, or every time."""

    name = "accident"

    marker: str = ""
    """A file that says that it has happened. Empty: it happens every time."""
    signal: int = 9

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        if step.progress > 0.7 and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), self.signal)
        return super().loss(step)


@dataclass(frozen=True)
class Slow(_Tuned):
    """Tunes the student, but past half of the way it waits for the file `go`, and says which process waits."""

    name = "slow"

    folder: str = ""

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        folder = Path(self.folder)
        while step.progress >= 0.5 and not (folder / "go").exists():
            (folder / f"pid-{os.getpid()}").touch()
            time.sleep(0.1)
        return super().loss(step)


@dataclass(frozen=True)
class Parted(_Tuned):
    """Plain tuning with two parts that can be taken away."""

    name = "parted"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "-warmth": {"warmth": 1e-3},
        "louder": {"loud": True},
        "colder": {"warmth": -1.0},
    }

    warmth: float = 1.0
    """Weight of the loss."""
    loud: bool = False
    """Doubles it."""

    def __post_init__(self) -> None:
        if self.warmth < 0:
            raise ConfigError(f"parted: warmth = {self.warmth}: expected a number from 0")

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        ((role, terms),) = super().loss(step).items()
        return {role: {"ce": terms["ce"] * self.warmth * (1 + self.loud)}}
