"""Whether a method's answers at test time come from the student: asked again, and asked with other scores.

`Method.views` and `Method.fuse` see no gold. These checks find methods that get their answers elsewhere, or that learn
from the examples that they are asked. They take no forward pass.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.api import Example
from harness.errors import TrainingError
from harness.evaluation.shifts import Asking

EXAMPLES = 32
"""How many examples of a split are asked again."""
DRAWS = 64
"""Of two options, one wins every one of so many random draws with probability 2^-63."""
SURE = 0.97
"""The probability of the drawn letter."""


class Answered(NamedTuple):
    """An example as it was scored."""

    example: Example
    views: Sequence[Example]
    scores_vk: np.ndarray
    """The views' log-probabilities."""
    fused_k: np.ndarray
    """The answer's scores."""


def check(asking: Asking, answered: Sequence[Answered], split: str) -> None:
    """Raise `TrainingError` if asking again gives something else, or if an answer doesn't depend on the student.

    To be called when the whole split has been scored: what a method has learned meanwhile changes its first answers.
    """
    for one in answered:
        where = f"method {asking.method.name!r}, {split} split, example {one.example.id!r}"
        prompts = [view.prompt() for view in one.views]
        if [view.prompt() for view in asking.views(one.example)] != prompts:
            raise TrainingError(
                f"{where}: views() returned other views the second time; expected the same each time, whatever was "
                "asked in between: compute them from the example alone",
                f"score {split}", 0,
            )  # fmt: skip
        again_k = asking.fuse(one.example, one.scores_vk.copy())
        if not np.array_equal(again_k, one.fused_k):
            raise TrainingError(
                f"{where}: fuse() returned {np.round(one.fused_k, 4).tolist()}, and for the same scores "
                f"{np.round(again_k, 4).tolist()} later; expected the same each time: it must not learn from the "
                "examples that it is asked",
                f"score {split}", 0,
            )  # fmt: skip
        if not _depends(asking, one):
            raise TrainingError(
                f"{where}: fuse() chooses option {int(one.fused_k.argmax())} whatever the student says (tried "
                f"{DRAWS} random scores of its {len(prompts)} views); expected an answer that depends on the scores",
                f"score {split}", 0,
            )  # fmt: skip


def _depends(asking: Asking, one: Answered) -> bool:
    """Whether some random scores of the views give another answer."""
    rng = random.Random(f"scores/{one.example.id}")
    views, k = one.scores_vk.shape
    for _ in range(DRAWS):
        share_vk = np.full((views, k), (1 - SURE) / max(k - 1, 1))
        for share_k, view in zip(share_vk, one.views, strict=True):
            share_k[rng.randrange(len(view.options))] = SURE
        if asking.fuse(one.example, np.log(share_vk)).argmax() != one.fused_k.argmax():
            return True
    return False
