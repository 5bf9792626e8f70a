"""Born-again networks: a model teaches a fresh copy of itself, which teaches the next (arXiv 1805.04770).

The student's own rung is tuned on the labels. Then, generation after generation, the pretrained rung learns anew with
L = CE(y, p) + alpha t^2 D(p_T, p), where T is the frozen generation before; the last generation is the student.

With a teacher of its own size, whatever the student gains doesn't come from a larger model's knowledge. Every
generation sees the training data in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import From, Ladder, Role, Stage, Step
from methods.base import Distilling, check_ranges

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BornAgain(Distilling):
    """The student's rung is tuned, and teaches a fresh copy of itself."""

    name = "born_again"
    summary = "The student's own rung is tuned first and teaches a fresh copy of itself"
    source = "arXiv 1805.04770"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"3 generations": {"generations": 3}}

    generations: int = 1
    """How many generations have a teacher; the last of them is the student. Ours."""
    teacher_share: float = 1.0
    """Examples for each earlier generation, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """Weight of the distillation term relative to the cross-entropy; 1 as in arXiv 1805.04770."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, generations=(1, 20), teacher_share=(0.01, 100), alpha=(0.001, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the rung on the labels; `generation_N` teaches a copy; `distil` teaches the student."""
        roles = {"teacher": Role(student, trainable=True)}
        stages = [Stage("teacher", roles, share=self.teacher_share, seed=1, tuning=True)]
        before = From("teacher", "teacher")
        for number in range(1, self.generations):
            name = f"generation_{number}"
            roles = {"teacher": Role(before), "learner": Role(student, trainable=True)}
            stages.append(Stage(name, roles, share=self.teacher_share, data=self.learn_from, seed=1 + number))
            before = From(name, "learner")
        roles = {"teacher": Role(before), "student": Role(student, trainable=True)}
        return (*stages, Stage("distil", roles, share=1.0, data=self.learn_from))

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + alpha t^2 D for each generation that has a teacher."""
        _, learner = step.roles
        pull = self.pull(step, self.answer(step, "teacher"), learner)
        return {learner: {"ce": self.ce(step, learner), "kd": self.alpha * pull}}
