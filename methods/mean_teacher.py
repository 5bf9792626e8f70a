"""Mean teacher: the teacher is the moving average of the student that it teaches (arXiv 1703.01780).

L_S = CE(y, p_S(x')) + alpha w(u) t^2 D(p_T(x), p_S(x')), w(u) = exp(-5 (1 - u / r)^2) up to u = r, then 1

after each step theta_T <- m theta_T + (1 - m) theta_S. u is the progress, 0 to 1; x' is an augmented view of x.
Labelled examples and the pool are learned from together; there is no larger model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.api import Ladder, Role, Source, Stage, Step, View
from methods.base import Distilling, check_ranges

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MeanTeacher(Distilling):
    """Learns from the labels and from its own moving average."""

    name = "mean_teacher"
    summary = "The student learns from its own moving average, on labelled examples and the pool"
    source = "arXiv 1703.01780"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "student evaluated": {"evaluated": "student"},
        "-noise": {"noisy": False},
    }

    learn_from: Source = "all"
    """What the student learns from: labelled examples | the pool | both, as in arXiv 1703.01780."""
    alpha: float = 1.0
    """The largest weight of the divergence relative to the cross-entropy; ours."""
    ramp: float = 0.3
    """r: the part of the training in which the weight of the divergence rises; about that of arXiv 1703.01780."""
    decay: float = 0.99
    """m: the share of the teacher's weights that stays in each step; 0.99 in arXiv 1703.01780, later 0.999."""
    noisy: bool = True
    """The student sees the second view (another frame for the question, another image quality), the teacher the first;
    off: both see the first."""
    evaluated: Literal["average", "student"] = "average"
    """Which of the two is validated, handed on and scored; the average as in arXiv 1703.01780."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, alpha=(0.001, 1000), ramp=(0, 1), decay=(0, 0.99999))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `together`: `student` is the role that is evaluated, beside `learner` or `average`."""
        learner, average = ("learner", "student") if self.evaluated == "average" else ("student", "average")
        roles = {
            learner: Role(student, trainable=True),
            average: Role(student, average_of=learner, decay=self.decay),
        }
        return (Stage("together", roles, share=1.0, data=self.learn_from),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE, and t^2 D from the moving average with a rising weight, for the learner."""
        learner, average = step.roles
        view: View = "second" if self.noisy else "first"
        weight = self.alpha * ramped(step.progress, self.ramp)
        pull = self.pull(step, self.answer(step, average), learner, view)
        return {learner: {"ce": self.ce(step, learner, view), "kd": weight * pull}}


def ramped(progress: float, ramp: float) -> float:
    """exp(-5 (1 - progress / ramp)^2) up to `ramp`, then 1 (arXiv 1703.01780)."""
    return exp(-5 * (1 - progress / ramp) ** 2) if progress < ramp else 1.0
