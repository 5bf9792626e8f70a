"""Distillation weighted by how sure the teacher is.

L_S = CE(y, p_S) + weight * c * KL(p_T || p_S),   c = max_k p_T[k] where that is at least `floor`, else 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ConfigError, Ladder, Method, Role, Stage, Step
from hkdbench_stripes.shares import confidence

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ConfidentKD(Method):
    """The next larger rung learns beside the student and teaches it where it is sure."""

    name: ClassVar[str] = "confident_kd"
    summary: ClassVar[str] = "Distillation weighted by the teacher's confidence"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"unsure too": {"floor": 0.0}, "-teacher": {"weight": 0.0}}

    weight: float = 1.0
    """Weight of the teacher's answers beside the labels; ours."""
    floor: float = 0.5
    """The confidence from which the teacher is heard; ours."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `together`. Raises `ConfigError` where no rung is larger than the student."""
        roles = {"student": Role(student, trainable=True)}
        if self.weight:
            larger = ladder[: ladder.index(student)]
            if not larger:
                raise ConfigError(f"confident_kd: no rung is larger than {student!r}: choose a smaller student")
            roles["teacher"] = Role(larger[-1], trainable=True)
        return [Stage("together", roles, share=1.0)]

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE for both; the student's pull to the teacher beside it."""
        from torch.nn.functional import cross_entropy

        losses = {
            role: {"ce": cross_entropy(step.forward(role), step.labels_b, reduction="none")} for role in step.roles
        }
        if self.weight:
            teacher_bk = step.forward("teacher").detach().log_softmax(-1)
            student_bk = step.forward("student").log_softmax(-1)
            apart_bk = (teacher_bk.exp() * (teacher_bk - student_bk)).masked_fill(~step.options_bk, 0.0)
            losses["student"]["kd"] = self.weight * confidence(teacher_bk.exp(), self.floor) * apart_bk.sum(-1)
        return losses
