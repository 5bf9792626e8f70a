"""Pseudo-labels: a tuned teacher's hard answers stand for the labels of examples that have none.

L_S = CE(y, p_S) where there is a label; a CE(argmax_k p_T(k), p_S) where there is none and max_k p_T(k) >= confidence

With `noisy` the teacher answers the plain example and the student an augmented one (noisy student, arXiv 1911.04252).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ConfigError, From, Ladder, Role, Source, Stage, Step, View
from methods.base import Taught, check_ranges, teacher_rung
from methods.losses import cross_entropy, pseudo_label

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PseudoLabel(Taught):
    """Learns from the labels, and from a tuned teacher's answers where there are none."""

    name = "pseudo_label"
    summary = "A tuned teacher's hard answers label the pool; noisy: the student sees augmented examples"
    source = "arXiv 1911.04252"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "noisy": {"noisy": True},
        "every answer": {"confidence": 0.0},
    }

    learn_from: Source = "all"
    """What the student learns from: the pool, whose labels are the teacher's | labelled examples and the pool; ours."""
    teacher: str = ""
    """The rung of the teacher; empty: the largest."""
    teacher_share: float = 1.0
    """Examples for the teacher's own tuning, as a multiple of the student budget; ours."""
    alpha: float = 1.0
    """a: weight of the teacher's answers; 1 as in arXiv 1911.04252."""
    confidence: float = 0.5
    """The smallest probability of an answer that is used as a label; 0.3 among 1000 classes in arXiv 1911.04252,
    default ours."""
    noisy: bool = False
    """The student sees the second view: another frame for the question, another image quality (arXiv 1911.04252)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, teacher_share=(0.01, 100), alpha=(0.001, 1000), confidence=(0, 1))
        if self.learn_from == "labels":
            raise ConfigError(
                f"{self.name}: learn_from = 'labels': expected 'pool' or 'all', because labelled examples need no "
                "labels from a teacher; to learn from its answers to them use the method 'offline_kd'"
            )

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the teacher; `distil` trains the student with the frozen teacher.

        Raises `ConfigError` if no rung is larger than the student, or `teacher` isn't one of those.
        """
        rung = teacher_rung(self, self.teacher, ladder, student)
        roles = {"teacher": Role(From("teacher", "teacher")), "student": Role(student, trainable=True)}
        return (
            Stage("teacher", {"teacher": Role(rung, trainable=True)}, share=self.teacher_share, tuning=True),
            Stage("distil", roles, share=1.0, data=self.learn_from),
        )

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE with labels and pseudo-labels for the student."""
        view: View = "second" if self.noisy else "first"
        labels_b = pseudo_label(step.forward("teacher"), step.options_bk, self.confidence)
        labels_b = labels_b.masked_fill(step.labelled_b, -1)
        pseudo = cross_entropy(step.forward("student", view), labels_b, step.options_bk)
        return {"student": {"ce": self.ce(step, "student", view), "pseudo": self.alpha * pseudo}}
