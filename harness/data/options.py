"""Which options may change their letter, and their order in training."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.config import Moved

Order = tuple[int, ...]
"""The option at each letter; an argument of `Example.reordered`."""

VERDICTS = frozenset(("true", "false", "partially true", "not verifiable", "yes", "no"))
"""Options that are answers in themselves: every example has them, in one customary order."""


def fixed_options(options: Sequence[str], moved: Moved) -> int:
    """How many leading options keep their letter: all of a list of verdicts, 1 for a leading "No hallucination"."""
    if moved == "all":
        return 0
    said = [option.strip().casefold() for option in options]
    return len(options) if VERDICTS.issuperset(said) else int(said[0] == "no hallucination")


def shuffled(options: Sequence[str], moved: Moved, rng: random.Random) -> Order:
    """A random order of the options that may change their letter."""
    head = fixed_options(options, moved)
    rest = list(range(head, len(options)))
    rng.shuffle(rest)
    return (*range(head), *rest)
