"""Answer and explanation as two tasks of one model (arXiv 2305.02301).

L_S = CE(y, p_S) + r CE_e,   CE_e = -(1/T) sum_t log p_S(e_t | x, e_<t), e the example's reference explanation

At test time the model only answers: an explanation costs nothing there. The source has a large model write the
explanations; here they are those of the data, and `seq_kd` lets the teacher write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import Ladder, Need, Role, Stage, Step
from methods.base import Taught, check_ranges
from methods.losses import reference_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rationale(Taught):
    """Tune the student rung on the labels, and on the reference explanations."""

    name = "rationale"
    summary = "Cross-entropy on the labels and, as a second task, on explanations"
    source = "arXiv 2305.02301"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"-explanations": {"response_weight": 0.0}}

    response_weight: float = 1.0
    """r: the weight of the explanation's cross-entropy, a mean over its tokens; 1 as in arXiv 2305.02301."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, response_weight=(0, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `tune`, with the full budget."""
        return (Stage("tune", {"student": Role(student, trainable=True)}, share=1.0, data=self.learn_from),)

    def needs(self, stage: str) -> frozenset[Need]:
        """Responses, unless their weight is 0."""
        return frozenset({"responses"}) if self.response_weight else frozenset()

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE of the letter + r CE of the explanation; 0 for an example without one."""
        terms = {"ce": self.ce(step, "student")}
        if self.response_weight:
            terms["explain"] = self.response_weight * reference_cross_entropy(step, "student")
        return {"student": terms}
