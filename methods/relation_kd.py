"""Relation distillation: `offline_kd` with the teacher's similarities between visual tokens (arXiv 2410.16236).

L_S = CE + alpha t^2 D(p_T, p_S) + g ||G_S - G_T||^2

G has the cosines between all pairs of visual tokens, after both models' tokens are averaged into the cells of
one grid: neither widths nor numbers of tokens need to be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import Need, Step
from methods.base import check_ranges
from methods.losses import relation_distance
from methods.offline_kd import OfflineKD

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RelationKD(OfflineKD):
    """Learns from the labels and from a tuned, frozen teacher's answers and visual token relations."""

    name = "relation_kd"
    summary = "offline_kd, and the student's visual tokens relate to each other as the teacher's do"
    source = "arXiv 2410.16236"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "-relations": {"relation_weight": 0.0},
        "relations alone": {"alpha": 0.0},
    }

    relation_weight: float = 0.02
    """g: weight of the relation term, a sum over grid^4 pairs of tokens; ours."""
    relation_grid: int = 4
    """Cells per side of the grid on which visual tokens are compared; 4 gives the tiny ladder's 16 tokens. Ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, relation_weight=(0, 1000), relation_grid=(2, 32))

    def needs(self, stage: str) -> frozenset[Need]:
        """Visual tokens, if the term is on."""
        relations = stage == "distil" and self.relation_weight
        return super().needs(stage) | (frozenset({"vision"}) if relations else frozenset())

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """The loss of `offline_kd`, and `relation` for the student."""
        losses = super().loss(step)
        if "vision" not in self.needs(step.stage):
            return losses
        distance = relation_distance(step.vision("teacher"), step.vision("student"), self.relation_grid)
        return {"student": {**losses["student"], "relation": self.relation_weight * distance}}
