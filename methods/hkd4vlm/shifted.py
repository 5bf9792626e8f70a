"""Mapping shift-enhanced inference as a part of a method: its settings, the views, and how they are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.api import ConfigError, Example, Method
from methods.hkd4vlm.msi import Aggregate, Debias, Order, Shifts, content_free, fuse_views, shifted_orders
from methods.settings import check_ranges


@dataclass(frozen=True)
class Shifted(Method):
    """A method whose student is asked with the options at other letters (see methods.hkd4vlm.msi)."""

    msi: bool = True
    """Mapping shift-enhanced inference (the abstract); off: one view."""
    shifts: Shifts = "cyclic"
    """Rotations of the options | all permutations | `random_shifts` permutations | none; ours."""
    random_shifts: int = 2
    """Permutations an example under shifts = random; ours."""
    keep_verdicts: bool = True
    """Options that are verdicts (True, False, ...) keep their letters, in MSI and in the option shuffle: their
    order is a custom, not content; ours."""
    aggregate: Aggregate = "prob"
    """Mean probability | mean log-probability | votes over the views; ours."""
    fixed_first: bool = True
    """A leading "No hallucination" keeps its letter, in MSI and in the option shuffle; ours."""
    debias: Debias = "none"
    """prior: divide by the mean letter prior over the views (arXiv 2309.03882) | calibrate: by the answer to a
    content-free input, one more view (2102.09690); default ours."""

    def check_shifts(self) -> None:
        """Raise `ConfigError` where these settings don't go together."""
        check_ranges(self, random_shifts=(1, 720))
        if self.debias == "prior" and self.shifts == "none":
            raise ConfigError(
                f"{self.name}: debias = 'prior' with shifts = 'none': expected several views, since one "
                "can't tell a letter's prior from its content; choose shifts = 'cyclic'"
            )

    def views(self, example: Example) -> Sequence[Example]:
        """The example with its options at shifted letters, and the content-free input last where it is needed."""
        shifted = [example.reordered(order) for order in self._orders(example)]
        if self.msi and self.debias == "calibrate":
            shifted.append(content_free(example, self.fixed_first, self.keep_verdicts))
        return shifted

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One log-probability an option (K,) from the views' (V, K)."""
        orders = self._orders(example)
        debias = self.debias if self.msi else "none"
        return fuse_views(orders, scores_vk[: len(orders)], self.aggregate, debias, scores_vk[-1])

    def _orders(self, example: Example) -> tuple[Order, ...]:
        shifts: Shifts = self.shifts if self.msi else "none"
        return shifted_orders(
            example.options, shifts, self.random_shifts, self.fixed_first, example.id, self.keep_verdicts
        )
