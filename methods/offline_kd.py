"""Offline distillation: tune the teacher, freeze it, distil it into the student (arXiv 1503.02531).

L_S = CE(y, p_S) + alpha t^2 D(p_T, p_S), p = softmax(logits / t), over the answer options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import ConfigError, From, Ladder, Method, Role, Stage, Step, near
from methods.losses import Divergence, cross_entropy, divergence
from methods.settings import check_ranges, larger_rungs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OfflineKD(Method):
    """A tuned, frozen teacher beside the labels."""

    name = "offline_kd"
    summary = "Tune the teacher, freeze it, distil it into the student"
    source = "arXiv 1503.02531"

    teacher: str = ""
    """The rung that teaches; empty: the largest."""
    teacher_share: float = 1.0
    """Examples for the teacher's own tuning, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """Weight of the distillation term beside the cross-entropy; ours."""
    divergence: Divergence = "forward_kl"
    """D: forward_kl (arXiv 1503.02531), reverse_kl (2306.08543), jsd (2306.13649), skew_kl (2402.03898) or
    dkd (2203.08679)."""
    temperature: float = 2.0
    """t: softens both distributions; the loss is scaled by t^2. Ours, from the range of arXiv 1503.02531."""
    jsd_beta: float = 0.5
    """The teacher's share in the mixture of `jsd`; 0.5 is the symmetric one of arXiv 2306.13649."""
    skew_alpha: float = 0.1
    """The teacher's share in the mixture of `skew_kl`; 0.1 as in arXiv 2402.03898."""
    dkd_tckd: float = 1.0
    """Weight of gold against the rest in `dkd`; 1 as in arXiv 2203.08679."""
    dkd_nckd: float = 1.0
    """Weight of the order among the rest in `dkd`; arXiv 2203.08679 uses 0.5 to 8 by task. Ours."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            teacher_share=(0.01, 100),
            alpha=(0, 1000),
            temperature=(0.05, 100),
            jsd_beta=(0.001, 0.999),
            skew_alpha=(0, 0.999),
            dkd_tckd=(0, 1000),
            dkd_nckd=(0, 1000),
        )

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the teacher; `distil` gives the student the whole budget beside it, frozen.

        Raises `ConfigError` where no rung is larger than the student, or `teacher` isn't one of those.
        """
        above = larger_rungs(ladder, student)
        rung = self.teacher or above[0]
        if rung not in above:
            raise ConfigError(
                f"offline_kd: teacher = {rung!r}: expected a rung larger than the student {student!r}; "
                f"{near(rung, above)}"
            )
        return (
            Stage("teacher", {"teacher": Role(rung, trainable=True)}, share=self.teacher_share),
            Stage(
                "distil",
                {"teacher": Role(From("teacher", "teacher")), "student": Role(student, trainable=True)},
                share=1.0,
            ),
        )

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE for the teacher in its stage; CE + alpha t^2 D for the student in the other."""
        if step.stage == "teacher":
            return {"teacher": {"ce": cross_entropy(step.forward("teacher"), step.labels_b, step.options_bk)}}
        student_bk = step.forward("student")
        terms = {"ce": cross_entropy(student_bk, step.labels_b, step.options_bk)}
        if self.alpha:
            terms["kd"] = self.alpha * divergence(
                self.divergence,
                step.forward("teacher"),
                student_bk,
                step.labels_b,
                step.options_bk,
                temperature=self.temperature,
                beta=self.jsd_beta,
                alpha=self.skew_alpha,
                tckd=self.dkd_tckd,
                nckd=self.dkd_nckd,
            )
        return {"student": terms}
