"""The variants of an example in training: as the method augments it, and its second view.

Random choices depend only on the seed and the position in the training order, so that a resumed run makes the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.api import Example
from harness.errors import StepLocation
from harness.planning.plan import Plan


def shown(plan: Plan, position: int, example: Example) -> Example:
    """The training example at a position after the method's `augment`; the same object if nothing changes."""
    return plan.method.augment(example, random.Random(f"augment/{plan.config.seed}/{position}"))


def second_view(plan: Plan, positions: Sequence[int], examples: Sequence[Example]) -> list[Example]:
    """The second views of the (augmented) examples at these positions."""
    return [
        plan.method.second_view(example, random.Random(f"second/{plan.config.seed}/{position}"))
        for position, example in zip(positions, examples, strict=True)
    ]


def checked_second_view(
    plan: Plan, location: StepLocation, positions: Sequence[int], examples: Sequence[Example]
) -> list[Example]:
    """The same, checked. Raises `TrainingError` if an option is at another letter, because the views are compared."""
    views = second_view(plan, positions, examples)
    for example, view in zip(examples, views, strict=True):
        if view.options != example.options:
            raise location.error(
                f"second_view() returned example {example.id!r} the options {view.options}; expected "
                f"{example.options}, at the same letters: the views' answers are compared"
            )
    return views
