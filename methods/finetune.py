"""Direct tuning: cross-entropy at the answer position, for any rung of the ladder.

The paper's baseline (arXiv 2506.13038). Run it with the largest rung as the student to get the teacher's own
accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Ladder, Method, Role, Stage, Step
from methods.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Finetune(Method):
    """Tune the student rung on the labels only."""

    name = "finetune"
    summary = "Cross-entropy on the labels; any rung of the ladder"
    source = "the baseline of arXiv 2506.13038"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """One stage, `tune`, with the full budget."""
        return (Stage("tune", {"student": Role(student, trainable=True)}, share=1.0),)

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """L = CE(y, p_S)."""
        return {"student": {"ce": cross_entropy(step.forward("student"), step.labels_b, step.options_bk)}}
