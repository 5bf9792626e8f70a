"""Distillation from an ensemble: several tuned teachers, whose mean answer is the target (arXiv 1503.02531).

L_S = CE(y, p_S) + alpha t^2 D(p_T, p_S), p_T = mean over the teachers j of softmax(z_j / t)

Teachers of one rung start from the same pretrained weights. What makes them differ is the order in which they see the
examples, with the augmentations and option orders that this brings (see `harness.api.Stage.seed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import ConfigError, From, Ladder, Role, Stage, Step, near
from methods.base import Distilling, check_ranges, larger_rungs
from methods.losses import mean_answer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EnsembleKD(Distilling):
    """Learns from the labels and from the mean answer of several tuned, frozen teachers."""

    name = "ensemble_kd"
    summary = "Tune several teachers (seeds or rungs), freeze them, distil their mean answer into the student"
    source = "arXiv 1503.02531"

    teachers: tuple[str, ...] = ()
    """The rungs of the teachers, like ["L", "L", "M"]: a rung that is named twice gives two. Empty: three of the
    largest; ours."""
    teacher_share: float = 1.0
    """Examples for each teacher's own tuning, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """Weight of the distillation term relative to the cross-entropy; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, teacher_share=(0.01, 100), alpha=(0.001, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher_RUNG_N` tunes the N-th teacher of a rung, `distil` trains the student with all of them, frozen.

        Raises `ConfigError` if no rung is larger than the student, or one of `teachers` isn't one of those.
        """
        above = larger_rungs(ladder, student)
        tuned: list[Stage] = []
        count: Counter[str] = Counter()
        for rung in self.teachers or above[:1] * 3:
            if rung not in above:
                raise ConfigError(
                    f"{self.name}: {rung!r} in teachers: expected rungs larger than the student {student!r}; "
                    f"{near(rung, above)}"
                )
            count[rung] += 1
            roles = {"teacher": Role(rung, trainable=True)}
            name = f"teacher_{rung}_{count[rung]}"
            tuned.append(Stage(name, roles, share=self.teacher_share, seed=count[rung] - 1, tuning=True))
        frozen = {stage.name: Role(From(stage.name, "teacher")) for stage in tuned}
        roles = {**frozen, "student": Role(student, trainable=True)}
        return (*tuned, Stage("distil", roles, share=1.0, data=self.learn_from))

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + alpha t^2 D from the mean answer for the student."""
        *teachers, learner = step.roles
        answers = [self.answer(step, teacher) for teacher in teachers]
        mean = mean_answer(answers, self.present(step, answers[0]), self.temperature)
        pull = self.pull(step, mean, learner)
        return {learner: {"ce": self.ce(step, learner), "kd": self.alpha * pull}}
