"""The forms in which training shows an example: as the method augments it, and its second view.

What is drawn depends on the seed and the position in the training order alone, so that a resumed run shows the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.api import Example
from harness.errors import StepLocation
from harness.planning.plan import Plan


def shown(plan: Plan, position: int, example: Example) -> Example:
    """The training example at a position as the method wants it shown; the same object where nothing changes."""
    return plan.method.augment(example, random.Random(f"augment/{plan.config.seed}/{position}"))


def second_view(plan: Plan, positions: Sequence[int], examples: Sequence[Example]) -> list[Example]:
    """The examples at these positions, as shown, once more in another form."""
    return [
        plan.method.second_view(example, random.Random(f"second/{plan.config.seed}/{position}"))
        for position, example in zip(positions, examples, strict=True)
    ]


def checked_second_view(
    plan: Plan, location: StepLocation, positions: Sequence[int], examples: Sequence[Example]
) -> list[Example]:
    """The same. Raises `TrainingError` where an option stands at another letter: both views' answers are compared."""
    views = second_view(plan, positions, examples)
    for example, view in zip(examples, views, strict=True):
        if view.options != example.options:
            raise location.error(
                f"second_view() gave example {example.id!r} the options {view.options}; expected "
                f"{example.options}, at the same letters: the views' answers are compared"
            )
    return views
