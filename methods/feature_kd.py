"""Feature distillation: `offline_kd` with the teacher's hidden state at the answer as a hint (arXiv 1412.6550).

L_S = CE + alpha t^2 D(p_T, p_S) + b (1 - cos(W h_S, h_T))

h is the input of the output layer at the answer position. W, linear and without bias, maps the student's width
to the teacher's and learns with the student. FitNets use the squared distance; the cosine is our choice, because
the norms of hidden states differ between models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import Need, Step
from methods.base import check_ranges
from methods.losses import feature_distance
from methods.offline_kd import OfflineKD

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureKD(OfflineKD):
    """Learns from the labels and from a tuned, frozen teacher's answers and hidden states."""

    name = "feature_kd"
    summary = "offline_kd, and the student's hidden state at the answer follows the teacher's"
    source = "arXiv 1412.6550"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "-features": {"feature_weight": 0.0},
        "features alone": {"alpha": 0.0},
    }

    feature_weight: float = 1.0
    """b: weight of the feature term; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, feature_weight=(0, 1000))

    def needs(self, stage: str) -> frozenset[Need]:
        """Hidden states, if the term is on."""
        features = stage == "distil" and self.feature_weight
        return super().needs(stage) | (frozenset({"hidden"}) if features else frozenset())

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        """W, from the student's width to the teacher's."""
        if "hidden" not in self.needs(stage):
            return {}
        from torch import nn

        return {"student": nn.Linear(widths["student"], widths["teacher"], bias=False)}

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """The loss of `offline_kd`, and `feature` for the student."""
        losses = super().loss(step)
        if "hidden" not in self.needs(step.stage):
            return losses
        mapped_bd = step.adapt("student", step.hidden("student"))
        feature = self.feature_weight * feature_distance(step.hidden("teacher"), mapped_bd)
        return {"student": {**losses["student"], "feature": feature}}
