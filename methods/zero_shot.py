"""The pretrained student without training: the result that training has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Ladder, Method, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ZeroShot(Method):
    """Score the pretrained rung; no training."""

    name = "zero_shot"
    summary = "The pretrained model, no training"

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """None: the rung is scored untrained."""
        return ()

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """Empty: without stages there is no step."""
        return {}
