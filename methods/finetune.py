"""Direct tuning: cross-entropy at the answer position, for any rung of the ladder.

The paper's baseline (arXiv 2506.13038). Run it with the largest rung as the student to get the teacher's own
accuracy. With `label_smoothing` e (arXiv 1512.00567) it is the control for the claim that a teacher's soft answers
only regularise (1906.02629):

L = -sum_k q_k log p_k, q = (1 - e) at the gold, plus e / K at each of the K options
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Ladder, Method, Role, Stage, Step
from methods.base import check_ranges
from methods.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Finetune(Method):
    """Tune the student rung on the labels only."""

    name = "finetune"
    summary = "Cross-entropy on the labels; any rung of the ladder"
    source = "the baseline of arXiv 2506.13038"

    label_smoothing: float = 0.0
    """e: the share of the label that is spread evenly over the options; 0.1 in arXiv 1512.00567, default none."""

    def __post_init__(self) -> None:
        check_ranges(self, label_smoothing=(0, 0.99))

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `tune`, with the full budget."""
        return (Stage("tune", {"student": Role(student, trainable=True)}, share=1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE with the label, smoothed or not."""
        logits_bk = step.forward("student")
        return {"student": {"ce": cross_entropy(logits_bk, step.labels_b, step.options_bk, self.label_smoothing)}}
