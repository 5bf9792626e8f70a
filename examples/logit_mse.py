"""A method from a paper: match the teacher's logits, not its probabilities (Kim et al. 2021, arXiv 2105.08919).

L_S = (1 - alpha) CE(y, p_S) + alpha * mean over the options k of (z_S[k] - z_T[k])^2

    hkdbench check-method logit_mse --plugin examples/logit_mse.py
    python examples/logit_mse.py                                       a small run of it, and the table
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.api import ConfigError, From, Ladder, Method, Role, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LogitMSE(Method):
    """The student's option logits follow those of the largest rung, tuned before."""

    name: ClassVar[str] = "logit_mse"
    summary: ClassVar[str] = "Squared distance between the logits of student and teacher"
    source: ClassVar[str] = "arXiv 2105.08919"

    alpha: float = 0.5
    """Share of the distance in the loss, from 0 to 1; ours."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """First the teacher is tuned, then the student learns from it. Raises `ConfigError` for the largest rung."""
        if student == ladder[0]:
            raise ConfigError(f"logit_mse: no rung is larger than the student {student!r}: choose a smaller student")
        roles = {"teacher": Role(From("teacher", "teacher")), "student": Role(student, trainable=True)}
        teacher = {"teacher": Role(ladder[0], trainable=True)}
        return [Stage("teacher", teacher, share=1.0, tuning=True), Stage("distil", roles, share=1.0)]

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """Two terms of the student, each (B,)."""
        from torch.nn.functional import cross_entropy

        student_bk, teacher_bk = step.forward("student"), step.forward("teacher")
        ce_b = cross_entropy(student_bk, step.labels_b, ignore_index=-1, reduction="none")
        apart_bk = (student_bk - teacher_bk).square().masked_fill(~step.options_bk, 0.0)
        mse_b = apart_bk.sum(-1) / step.options_bk.sum(-1)
        return {"student": {"ce": (1 - self.alpha) * ce_b, "mse": self.alpha * mse_b}}


if __name__ == "__main__":
    from harness.cli import app

    SMALL = ["train.examples=64", "train.batch_size=16"]  # delete it for a run that says something
    SMALL += [f"benchmark_settings.{split}=32" for split in ("train", "validation", "test", "ood")]
    run = ["run", "--plugin", __file__, "--method", "logit_mse", "--benchmark", "scenes_factuality", "--workers", "0"]
    app([*run, *(part for one in SMALL for part in ("--set", one))], standalone_mode=False)
    app(["rank", "--benchmark", "scenes_factuality"], standalone_mode=False)
