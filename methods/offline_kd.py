"""Offline distillation: tune the teacher, freeze it, distil it into the student (arXiv 1503.02531).

L_S = CE(y, p_S) + alpha t^2 D(p_T, p_S), p = softmax(logits / t), over the answer options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import From, Ladder, Role, Stage, Step
from methods.base import Distilling, check_ranges, teacher_rung
from methods.losses import DIVERGENCES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OfflineKD(Distilling):
    """Learns from the labels and from a tuned, frozen teacher."""

    name = "offline_kd"
    summary = "Tune the teacher, freeze it, distil it into the student"
    source = "arXiv 1503.02531"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"divergence": name} for name in DIVERGENCES if name != "forward_kl"
    }
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"divergence={name}": {"divergence": name} for name in presets
    }

    teacher: str = ""
    """The rung of the teacher; empty: the largest."""
    teacher_share: float = 1.0
    """Examples for the teacher's own tuning, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """Weight of the distillation term relative to the cross-entropy; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, teacher_share=(0.01, 100), alpha=(0, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the teacher; `distil` trains the student with the full budget and the frozen teacher.

        Raises `ConfigError` if no rung is larger than the student, or `teacher` isn't one of those.
        """
        rung = teacher_rung(self, self.teacher, ladder, student)
        return (
            Stage("teacher", {"teacher": Role(rung, trainable=True)}, share=self.teacher_share, tuning=True),
            Stage(
                "distil",
                {"teacher": Role(From("teacher", "teacher")), "student": Role(student, trainable=True)},
                share=1.0,
                data=self.learn_from,
            ),
        )

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + alpha t^2 D for the student."""
        terms = {"ce": self.ce(step, "student")}
        if self.alpha:
            terms["kd"] = self.alpha * self.pull(step, self.answer(step, "teacher"), "student")
        return {"student": terms}
