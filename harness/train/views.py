"""The variants of an example in training: augmented, with its options shuffled, and its second view.

Random choices depend only on the seed and the position in the training order, so that a resumed run makes the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.api import Augmentation, Example, Method
from harness.data.augmentation import augment
from harness.data.options import Order, shuffled
from harness.errors import ConfigError, StepLocation
from harness.planning.plan import Plan

SECOND: tuple[Augmentation, ...] = ("paraphrase", "resize", "degrade")
"""The second view of a method that has no `second_view` of its own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An example as a step uses it."""

    plain: Example
    """Augmented, with its options in the benchmark's order; the same object as in the data if nothing changed."""
    example: Example
    """The same with its options in `order`."""
    order: Order


def as_is(example: Example) -> Shown:
    """The example unchanged."""
    return Shown(example, example, tuple(range(len(example.options))))


def shown(plan: Plan, position: int, example: Example) -> Shown:
    """The training example at a position, after the method's `augment`, the harness's augmentations and the shuffle."""
    seed = plan.config.seed
    plain = plan.method.augment(example, random.Random(f"augment/{seed}/{position}"))
    if example.gold is None and plain.gold is not None:
        raise ConfigError(
            f"method {plan.method.name!r}: augment() gave example {example.id!r} the gold {plain.gold}, which is "
            "withheld; expected None: use a model's answer in loss() instead"
        )
    if plan.augmentations:
        plain = augment(plain, random.Random(f"augmentations/{seed}/{position}"), plan.augmentations)
    order: Order = tuple(range(len(plain.options)))
    moved = plan.config.train.shuffle_options
    if moved == "none":
        return Shown(plain, plain, order)
    turned = shuffled(plain.options, moved, random.Random(f"options/{seed}/{position}"))
    return Shown(plain, plain if turned == order else plain.reordered(turned), turned)


def second_view(plan: Plan, positions: Sequence[int], examples: Sequence[Example]) -> list[Example]:
    """The second views of the (augmented) examples at these positions."""
    own = type(plan.method).second_view is not Method.second_view
    found = []
    for position, example in zip(positions, examples, strict=True):
        rng = random.Random(f"second/{plan.config.seed}/{position}")
        found.append(plan.method.second_view(example, rng) if own else augment(example, rng, SECOND))
    return found


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
