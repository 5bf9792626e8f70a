"""Controls of the arena itself, for suites/sanity.toml: methods whose result is known before they are run.

`wrong_teacher` must do harm, `untuned_teacher` must help less than a tuned one, `twin` must share a tier with
`offline_kd`, from which it differs in nothing but the order in which its teacher sees the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import Ladder, Role, Stage, Step
from methods.base import teacher_rung
from methods.offline_kd import OfflineKD

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WrongTeacher(OfflineKD):
    """offline_kd with the teacher's answers to other examples: each gets those of its neighbour in the batch."""

    name = "wrong_teacher"
    summary = "offline_kd with answers that belong to other examples"
    source = "a control"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def couples(self, stage: str) -> bool:
        """The answers come from the batch."""
        return True

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + alpha t^2 D, the teacher's logits moved by one example."""
        moved_bk = step.forward("teacher").roll(1, 0)
        return {"student": {"ce": self.ce(step, "student"), "kd": self.alpha * self.pull(step, moved_bk, "student")}}


@dataclass(frozen=True)
class UntunedTeacher(OfflineKD):
    """offline_kd without its first stage: the pretrained rung teaches as it is."""

    name = "untuned_teacher"
    summary = "offline_kd with a teacher that was not tuned"
    source = "a control"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`distil` alone."""
        rung = teacher_rung(self, self.teacher, ladder, student)
        roles = {"teacher": Role(rung), "student": Role(student, trainable=True)}
        return (Stage("distil", roles, share=1.0, data=self.learn_from),)


@dataclass(frozen=True)
class Twin(OfflineKD):
    """offline_kd under another name; its teacher sees the labels in another order."""

    name = "twin"
    summary = "offline_kd under another name"
    source = "a control"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """Those of offline_kd."""
        teacher, distil = super().stages(ladder, student)
        return replace(teacher, seed=1), distil
