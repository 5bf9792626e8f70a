"""Deep mutual learning: peers train together, each learns from the labels and from the others (arXiv 1706.00384).

L_m = CE(y, p_m) + alpha mean over the other peers j of t^2 D(sg[p_j], p_m)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.api import Ladder, Role, Stage, Step
from methods.base import Distilling, check_ranges, larger_rungs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mutual(Distilling):
    """The student and larger peers teach each other from the first step on."""

    name = "mutual"
    summary = "The student and larger peers learn side by side and teach each other (DML)"
    source = "arXiv 1706.00384"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"all peers": {"peers": "all"}}

    peers: Literal["largest", "all"] = "largest"
    """The student's peers: the largest rung | all larger rungs; default ours (the paper's cohorts
    start at two networks)."""
    alpha: float = 1.0
    """Weight of the peers' mean relative to the cross-entropy; 1 as in arXiv 1706.00384."""
    temperature: float = 1.0
    """t: softens both distributions; the loss is scaled by t^2. 1 as in arXiv 1706.00384."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, alpha=(0, 1000))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `together`: peers have their rung's name. Without `alpha` the student is alone.

        Raises `ConfigError` if no rung is larger than the student.
        """
        above = larger_rungs(ladder, student)
        peers = above if self.peers == "all" else above[:1]
        roles = {rung: Role(rung, trainable=True) for rung in peers if self.alpha}
        return (
            Stage("together", {**roles, "student": Role(student, trainable=True)}, share=1.0, data=self.learn_from),
        )

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE for every peer, and its mean divergence from the others."""
        losses: dict[str, dict[str, Tensor]] = {}
        for role in step.roles:
            losses[role] = {"ce": self.ce(step, role)}
            if others := [other for other in step.roles if other != role]:
                losses[role]["kd"] = self.alpha * self.mean_pull(step, others, role)
        return losses
