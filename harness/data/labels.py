"""What a run learns from: training examples with a gold, and the pool, whose golds are withheld.

A withheld gold isn't in the `Example` at all, and neither is anything else that may tell it. So no method can reach it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.api import Example, Source, Split
from harness.data import order
from harness.errors import ConfigError


@dataclass(frozen=True)
class TrainingExamples:
    """The examples to learn from. `pictured` has the same with their own images, if a control has removed these."""

    labelled: Sequence[Example]
    pool: Sequence[Example]
    pictured: TrainingExamples | None = None

    def of(self, source: Source) -> list[Example]:
        """The examples that a stage with this `data` learns from."""
        return [*(self.labelled if source != "pool" else ()), *(self.pool if source != "labels" else ())]

    def batch_at(
        self, source: Source, seed: int, position: int, size: int, labelled_share: float, together: int = 1
    ) -> list[tuple[int, Example]]:
        """The `size` examples from `position` on, each with its position.

        Labels and pool each have an order of their own (`harness.data.order.batch_at`). With `source` = all,
        `labelled_share` of the examples are labelled, evenly spread; up to `together` questions about an image stay
        adjacent.
        """
        found = []
        for at in range(position, position + size):
            labelled, index = _stream(source, at, labelled_share, together)
            own = self.labelled if labelled else self.pool
            shown = self.pictured or self
            pictured = shown.labelled if labelled else shown.pool
            ((_, example),) = order.batch_at(own, seed, index, 1, together, pictured)
            found.append((at, example))
        return found


def _stream(source: Source, position: int, labelled_share: float, together: int) -> tuple[bool, int]:
    """Whether the example at a position is a labelled one, and its position among those of its kind."""
    if source != "all":
        return source == "labels", position
    block, within = divmod(position, together)
    before = int(block * labelled_share)
    labelled = int((block + 1) * labelled_share) > before
    return labelled, (before if labelled else block - before) * together + within


def divide(splits: Mapping[Split, Sequence[Example]], labels: int | float | None, seed: int) -> TrainingExamples:
    """The training examples of which `labels` (a number or a fraction; None: all) keep their gold, and the pool.

    Raises `ConfigError` if there are fewer. Whole groups keep theirs, the last one perhaps in part.
    """
    train = splits["train"]
    count = len(train) if labels is None else labels if isinstance(labels, int) else max(round(labels * len(train)), 1)
    if count > len(train):
        raise ConfigError(
            f"train.labels = {labels}: expected at most {len(train)}, the number of training examples; lower it, or "
            "leave it out to use every label"
        )
    kept = {i for i, _ in zip(_drawn(train, seed), range(count), strict=False)}
    return TrainingExamples(
        labelled=[replace(example, extra=None) for i, example in enumerate(train) if i in kept],
        pool=[e.withheld() for e in (*(e for i, e in enumerate(train) if i not in kept), *splits.get("pool", ()))],
    )


def _drawn(examples: Sequence[Example], seed: int) -> list[int]:
    """The examples' indices in the order in which they get a label: group by group, the groups in random order."""
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(example.group, []).append(i)
    drawn = random.Random(f"labels/{seed}").sample(list(groups.values()), len(groups))
    return [i for group in drawn for i in group]
