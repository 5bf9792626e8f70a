"""Methods that break the contract, one way each; and one that keeps it, from which they are cut."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.api import Example, From, Ladder, Method, Role, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Kept(Method):
    """A teacher beside the student, both learning; the teacher's answer is a target."""

    name = "kept"
    summary = "keeps the contract"

    weight: float = 1.0
    """Of the teacher's answer; ours."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("both", {"teacher": Role(ladder[-1], True), "student": Role(student, True)}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {role: {"ce": ce(step, role)} | self.pull(step, role) for role in ("teacher", "student")}

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        if role == "teacher":
            return {}
        apart_bk = (step.forward("teacher").detach().softmax(-1) - step.forward(role).softmax(-1)).square()
        return {"kd": self.weight * apart_bk.sum(-1)}


def ce(step: Step, role: str) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(step.forward(role), step.labels_b, reduction="none")


# ------------------------------------------------------------------------------------------ settings


@dataclass(frozen=True)
class Undocumented(Kept):
    name = "undocumented"

    extra: float = 1.0


@dataclass(frozen=True)
class Unwritten(Kept):
    name = "unwritten"

    names: frozenset[str] = frozenset({"a"})
    """A set is not JSON."""


@dataclass(frozen=True)
class Changing(Kept):
    name = "changing"

    scale: float = 1.0
    """It grows whenever it is read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", self.scale * 2)


@dataclass(frozen=True)
class IdleAblation(Kept):
    name = "idle_ablation"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"-weight": {"weight": 1.0}}


@dataclass(frozen=True)
class WrongAblation(Kept):
    name = "wrong_ablation"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"-weight": {"wieght": 0.0}}


# ------------------------------------------------------------------------------------------ stages


@dataclass(frozen=True)
class HalfBudget(Kept):
    name = "half_budget"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (replace(super().stages(ladder, student)[0], share=0.5),)


@dataclass(frozen=True)
class NeedsThree(Kept):
    name = "needs_three"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("both", {"teacher": Role(ladder[1], True), "student": Role(student, True)}, 1.0),)


@dataclass(frozen=True)
class Whimsical(Kept):
    name = "whimsical"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        stage = super().stages(ladder, student)[0]
        return (replace(stage, name=f"both{random.random()}"),)


# ------------------------------------------------------------------------------------- what is shown


@dataclass(frozen=True)
class LostGold(Kept):
    name = "lost_gold"

    def augment(self, example: Example, rng: random.Random) -> Example:
        return replace(example, options=example.options[::-1])


@dataclass(frozen=True)
class GlobalDraws(Kept):
    name = "global_draws"

    def augment(self, example: Example, rng: random.Random) -> Example:
        return replace(example, question=random.choice(("look: ", "see: ")) + example.question)


@dataclass(frozen=True)
class Unhandy(Kept):
    """Its images are closures, which no other process can be given."""

    name = "unhandy"

    def augment(self, example: Example, rng: random.Random) -> Example:
        return replace(example, image=lambda: example.load_image())


@dataclass(frozen=True)
class Prompter(Kept):
    name = "prompter"

    def augment(self, example: Example, rng: random.Random) -> Example:
        return replace(example, question=f"{example.question} Hint: {example.options[example.gold]}")


@dataclass(frozen=True)
class Peeper(Kept):
    name = "peeper"

    def views(self, example: Example) -> Sequence[Example]:
        return (replace(example, claim=f"{example.claim} {example.category}"),)


@dataclass(frozen=True)
class Cheat(Kept):
    name = "cheat"

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        scores = scores_vk[0].copy()
        scores[example.gold] += 1
        return scores


@dataclass(frozen=True)
class Unfused(Kept):
    name = "unfused"

    def views(self, example: Example) -> Sequence[Example]:
        return (example.reordered(range(len(example.options))[::-1]),)  # and fuse() takes it for the order as given


@dataclass(frozen=True)
class FirstWins(Kept):
    name = "first_wins"

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        return scores_vk[0] + np.arange(scores_vk.shape[1])[::-1] * 0.1


@dataclass(frozen=True)
class NoViews(Kept):
    name = "no_views"

    def views(self, example: Example) -> Sequence[Example]:
        return ()


# --------------------------------------------------------------------------------------------- loss


@dataclass(frozen=True)
class Scalar(Kept):
    name = "scalar"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        return {"kd": step.forward(role).mean()}


@dataclass(frozen=True)
class Infinite(Kept):
    """-1e4 of an absent option, exponentiated away and taken the log of."""

    name = "infinite"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        return {"entropy": step.forward(role).softmax(-1).log().mean(-1)}


@dataclass(frozen=True)
class InPlace(Kept):
    name = "in_place"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        return {"kd": step.forward(role).sub_(1.0).square().masked_fill(~step.options_bk, 0).sum(-1)}


@dataclass(frozen=True)
class Centred(Kept):
    """Takes the batch's mean off."""

    name = "centred"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        own_b = ce(step, role)
        return {"kd": own_b - own_b.mean()}


@dataclass(frozen=True)
class Smoothed(Kept):
    """Shares its smoothing among the K of the batch, absent options included."""

    name = "smoothed"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        share = 1 / step.options_bk.shape[1]
        return {"kd": -share * step.forward(role).log_softmax(-1).masked_fill(~step.options_bk, 0).sum(-1)}


@dataclass(frozen=True)
class KeptCoupled(Centred):
    """The same, but it says so."""

    name = "kept_coupled"

    def couples(self, stage: str) -> bool:
        return True


@dataclass(frozen=True)
class Uncoupled(Kept):
    """Says that its examples are coupled, and they aren't."""

    name = "uncoupled"

    def couples(self, stage: str) -> bool:
        return True


@dataclass(frozen=True)
class OrderedCoupled(KeptCoupled):
    """Compares each example with the first one."""

    name = "ordered_coupled"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        own_b = ce(step, role)
        return {"kd": own_b - own_b[0]}


@dataclass(frozen=True)
class SomeTerms(Kept):
    name = "some_terms"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        return {"kd": ce(step, role)} if len(step.examples) % 2 == 0 else {}


@dataclass(frozen=True)
class NotStopped(Kept):
    """The student's loss pulls the teacher too."""

    name = "not_stopped"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        apart_bk = (step.forward("teacher").softmax(-1) - step.forward("student").softmax(-1)).square()
        return {"kd": apart_bk.sum(-1)} if role == "student" else {}


@dataclass(frozen=True)
class Deaf(Kept):
    """The student's loss is made of the teacher's logits."""

    name = "deaf"

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        step.forward("student")
        return {"teacher": {"ce": ce(step, "teacher")}, "student": {"ce": ce(step, "teacher")}}


@dataclass(frozen=True)
class SometimesAsked(Kept):
    """Asks the teacher about four-choice questions only."""

    name = "sometimes_asked"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("both", {"teacher": Role(ladder[-1]), "student": Role(student, True)}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        terms = {"ce": ce(step, "student")}
        if any(len(example.options) == 4 for example in step.examples):
            terms["kd"] = ce(step, "teacher")
        return {"student": terms}


@dataclass(frozen=True)
class Idler(Kept):
    name = "idler"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("only", {"teacher": Role(ladder[-1]), "student": Role(student, True)}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {"student": {"ce": ce(step, "student")}}


@dataclass(frozen=True)
class KeptAverage(Kept):
    """Keeps the contract: its average learns nothing and answers nothing until it is the student."""

    name = "kept_average"
    student = "average"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        average = Role(student, average_of="student", decay=0.5)
        return (Stage("only", {"average": average, "student": Role(student, True)}, 1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {"student": {"ce": ce(step, "student")}}


@dataclass(frozen=True)
class IdleAverage(KeptAverage):
    """Nobody asks its average, and it isn't the student."""

    name = "idle_average"
    student = "student"


@dataclass(frozen=True)
class StrangeAverage(KeptAverage):
    name = "strange_average"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        average = Role(student, average_of="pupil")
        return (Stage("only", {"average": average, "student": Role(student, True)}, 1.0),)


@dataclass(frozen=True)
class Unbilled(Kept):
    """Reaches behind the step for a second, unbilled forward pass of the student."""

    name = "unbilled"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        live = step._models[role]  # type: ignore[attr-defined]
        again = live.scorer(step._batch.inputs(live.encoder, "first"))["options"]  # type: ignore[attr-defined]
        return {"kd": again.softmax(-1).square().sum(-1)}


@dataclass(frozen=True)
class HalfAsked(Kept):
    """Forwards the student twice a step where it can, behind the step but on the bill."""

    name = "half_asked"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        live = step._models[role]  # type: ignore[attr-defined]
        if not hasattr(live, "scorer"):  # the preflight's, which answers without a model
            return super().pull(step, role)
        outputs = live.forward(step._batch.inputs(live.encoder, "first"), frozenset())  # type: ignore[attr-defined]
        outputs = live.forward(step._batch.inputs(live.encoder, "first"), frozenset())  # type: ignore[attr-defined]
        return {"kd": outputs["options"].softmax(-1).square().sum(-1)}


# --------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Remembers(Kept):
    """Keeps a running mean of its own loss, which no checkpoint holds."""

    name = "remembers"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", [0.0])

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        own_b = ce(step, role)
        mean: list[float] = self.mean  # type: ignore[attr-defined]
        mean[0] = 0.5 * mean[0] + 0.5 * float(own_b.detach().mean())
        return {"kd": own_b * mean[0]}


@dataclass(frozen=True)
class KeptState(Kept):
    """The same running mean where it belongs."""

    name = "kept_state"

    def state(self, stage: str) -> Mapping[str, Tensor]:
        import torch

        return {"mean": torch.zeros(())}

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        own_b = ce(step, role)
        if role == "student":
            self.see(step, own_b)
        return {"kd": own_b * step.state["mean"]}

    def see(self, step: Step, own_b: Tensor) -> None:
        step.observe("ce", own_b)

    def update(
        self, stage: str, state: Mapping[str, Tensor], sums: Mapping[str, Tensor], count: int
    ) -> Mapping[str, Tensor]:
        return {"mean": 0.5 * state["mean"] + 0.5 * sums["ce"] / count}


@dataclass(frozen=True)
class BatchState(KeptState):
    """Observes what it makes of the whole batch."""

    name = "batch_state"

    def see(self, step: Step, own_b: Tensor) -> None:
        step.observe("ce", own_b - own_b.mean())


@dataclass(frozen=True)
class SometimesState(KeptState):
    name = "sometimes_state"

    def see(self, step: Step, own_b: Tensor) -> None:
        step.observe("ce", own_b)
        if len(own_b) > 1:
            step.observe("more", own_b)


@dataclass(frozen=True)
class MoodyState(KeptState):
    name = "moody_state"

    def update(
        self, stage: str, state: Mapping[str, Tensor], sums: Mapping[str, Tensor], count: int
    ) -> Mapping[str, Tensor]:
        return {"mean": state["mean"] + random.random()}


@dataclass(frozen=True)
class InPlaceState(KeptState):
    name = "in_place_state"

    def update(
        self, stage: str, state: Mapping[str, Tensor], sums: Mapping[str, Tensor], count: int
    ) -> Mapping[str, Tensor]:
        return {"mean": state["mean"].add_(1)}


@dataclass(frozen=True)
class CountsExamples(Kept):
    """Weighs its loss by the size of the batch that it happens to see."""

    name = "counts_examples"

    def pull(self, step: Step, role: str) -> dict[str, Tensor]:
        return {"kd": ce(step, role) * len(step.examples)}


@dataclass(frozen=True)
class Crashes(Kept):
    name = "crashes"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        return (Stage("both", {"teacher": Role(ladder[-1]), "student": Role(student, True)}, 0.5),
                Stage("then", {"student": Role(From("both", "student"), True)}, 0.5))  # fmt: skip

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        return {"student": {"ce": ce(step, "student") + ce(step, "teacher")}}
