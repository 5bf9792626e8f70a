"""Direct tuning, the part of the training that all methods share: cross-entropy on the labels.

A stage with `tuning` is trained by the harness itself (`harness.api.Stage`), so it depends on no method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Ladder, Method, Need, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DirectTuning(Method):
    """What trains the stages with `tuning`."""

    name = "tuning"
    summary = "Cross-entropy on the labels, for every role"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """It has none of its own."""
        return ()

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """-log p(gold) of each role, in nats, per example (B,)."""
        gold_b1 = step.labels_b[:, None]
        log_p = {role: step.forward(role).log_softmax(-1) for role in step.roles}
        return {role: {"ce": -log_p_bk.gather(1, gold_b1).squeeze(1)} for role, log_p_bk in log_p.items()}


def trainer_of(method: Method, stage: Stage) -> Method:
    """What computes the losses of a stage: the method, or direct tuning."""
    return DirectTuning() if stage.tuning else method


def outputs_needed(method: Method, stage: Stage) -> frozenset[Need]:
    """What a forward pass at the answer position must give besides option logits; responses have their own passes."""
    return method.needs(stage.name) - {"responses"}
