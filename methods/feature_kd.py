"""Feature distillation: `offline_kd` with the teacher's hidden states at the answer as hints (arXiv 1412.6550).

L_S = CE + alpha t^2 D(p_T, p_S) + b mean over depths f of (1 - cos(W h_S(f), h_T(f)))

h(f) is the state at the answer position after the fraction f of a model's layers; h(1) is the input of the output
layer. W, linear and without bias, maps the student's width to the teacher's and learns with the student; all depths
share it, as in TinyBERT (arXiv 1909.10351). FitNets use the squared distance; the cosine is our choice, because the
norms of hidden states differ between models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import ConfigError, Need, Step
from methods.base import check_ranges
from methods.losses import feature_distance
from methods.offline_kd import OfflineKD

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureKD(OfflineKD):
    """Learns from the labels and from a tuned, frozen teacher's answers and hidden states."""

    name = "feature_kd"
    summary = "offline_kd, and the student's hidden states at the answer follow the teacher's"
    source = "arXiv 1412.6550, 1909.10351"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "-features": {"feature_weight": 0.0},
        "features alone": {"alpha": 0.0},
    }

    feature_weight: float = 1.0
    """b: weight of the feature term; ours."""
    depths: tuple[float, ...] = (1.0,)
    """The fractions f of the layers after which states are compared; the last layer by default, ours. arXiv 1909.10351
    compares every layer of the student."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, feature_weight=(0, 1000))
        if not self.depths or not all(0 < depth <= 1 for depth in self.depths):
            raise ConfigError(
                f"feature_kd: depths = {self.depths}: expected one or more fractions above 0, to 1 for the last layer; "
                "the default is (1.0,)"
            )

    def needs(self, stage: str) -> frozenset[Need]:
        """Hidden states, if the term is on: of the last layer alone, or of all."""
        states: frozenset[Need] = frozenset({"hidden"} if self.depths == (1.0,) else {"layers"})
        return super().needs(stage) | (states if self._compares(stage) else frozenset())

    def _compares(self, stage: str) -> bool:
        return stage == "distil" and self.feature_weight > 0

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        """W, from the student's width to the teacher's."""
        if not self._compares(stage):
            return {}
        from torch import nn

        return {"student": nn.Linear(widths["student"], widths["teacher"], bias=False)}

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """The loss of `offline_kd`, and `feature` for the student."""
        losses = super().loss(step)
        if not self._compares(step.stage):
            return losses
        if self.depths == (1.0,):
            distance_b = feature_distance(step.hidden("teacher"), step.adapt("student", step.hidden("student")))
        else:
            teacher_bfd, student_bfd = (at_depths(step.layers(role), self.depths) for role in ("teacher", "student"))
            distance_b = feature_distance(teacher_bfd, step.adapt("student", student_bfd)).mean(-1)
        return {"student": {**losses["student"], "feature": self.feature_weight * distance_b}}


def at_depths(states_bnd: Tensor, depths: Sequence[float]) -> Tensor:
    """The states (B, F, d) after the fractions `depths` of the N layers: after layer f N, rounded, or the first."""
    layers = states_bnd.shape[1]
    return states_bnd[:, [max(floor(depth * layers + 0.5), 1) - 1 for depth in depths]]
