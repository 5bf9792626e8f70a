"""A module of the package's own, which the method imports: it is part of the method's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def confidence(probabilities_bk: Tensor, floor: float) -> Tensor:
    """The largest probability of each row (B,), 0 where it is below `floor`."""
    largest_b = probabilities_bk.amax(-1)
    return largest_b.where(largest_b >= floor, largest_b.new_zeros(()))
