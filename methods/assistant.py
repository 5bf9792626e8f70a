"""Teacher assistants: the rungs between teacher and student pass the knowledge down, one after another.

The largest rung is tuned on the labels. Then each smaller one, and the student last, learns with
L_m = CE(y, p_m) + alpha mean over its teachers j of t^2 D(p_j, p_m); its teachers are then frozen:

chain  the next larger rung teaches (TAKD, arXiv 1902.03393)
dense  all larger rungs teach (DGKD, arXiv 2009.08825; without its random dropping of teachers)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ConfigError, From, Ladder, Role, Stage, Step
from methods.base import Distilling, check_ranges, larger_rungs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Assistant(Distilling):
    """Teacher, assistants and student, trained from large to small."""

    name = "assistant"
    summary = "Rungs between teacher and student are distilled in turn: a chain, or all larger ones teach (dense)"
    source = "arXiv 1902.03393, 2009.08825"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"dense": {"dense": True}}

    dense: bool = False
    """All larger rungs teach (arXiv 2009.08825), not only the next larger one (1902.03393); default ours."""
    teacher_share: float = 1.0
    """Examples for the largest rung's own tuning, as a multiple of the student budget; ours."""
    larger_share: float = 1.0
    """Examples for the training of each rung between, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """Weight of the teachers' mean relative to the cross-entropy; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, teacher_share=(0.01, 100), larger_share=(0.01, 100), alpha=(0.001, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`tune` for the largest rung, `assist_RUNG` for each between, and `distil` for the student.

        A role has its rung's name, and the student is called `student`. Raises `ConfigError` if there is no rung
        between the largest and the student.
        """
        largest, *between = larger_rungs(ladder, student)
        if not between:
            raise ConfigError(
                f"assistant: student {student!r}: expected a rung between it and {largest!r}; choose a smaller "
                "student, or the method 'offline_kd'"
            )
        stages = [Stage("tune", {largest: Role(largest, trainable=True)}, share=self.teacher_share, tuning=True)]
        trained = {largest: Role(From("tune", largest))}
        for rung in between:
            stage = f"assist_{rung}"
            roles = {**self._teachers(trained), rung: Role(rung, trainable=True)}
            stages.append(Stage(stage, roles, share=self.larger_share, data=self.learn_from))
            trained[rung] = Role(From(stage, rung))
        roles = {**self._teachers(trained), "student": Role(student, trainable=True)}
        return (*stages, Stage("distil", roles, share=1.0, data=self.learn_from))

    def _teachers(self, trained: Mapping[str, Role]) -> dict[str, Role]:
        """The roles of the larger rungs that teach the next one, largest first."""
        return dict(list(trained.items())[0 if self.dense else -1 :])

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE for the stage's learner, and its mean divergence from its teachers."""
        *teachers, learner = step.roles
        pull = self.mean_pull(step, teachers, learner)
        return {learner: {"ce": self.ce(step, learner), "kd": self.alpha * pull}}
