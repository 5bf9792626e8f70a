"""Frozen models' answers, kept in memory for a run: what it shows again unchanged isn't forwarded again.

Answers are computed before the stage that first needs them, in the data's order and in batches of one size, so
that they depend neither on the number of workers nor on where a run was taken up again. They differ from those
of a run without the cache in the last bits only, as batches are padded to other lengths.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from harness import data
from harness.api import Example, Stage
from harness.io import Io
from harness.models import ABSENT
from harness.plan import Plan
from harness.step import LiveRole

Answers = dict[str, Tensor]
"""By source of weights the option logits (N, K) of `repeats`' examples, on the CPU; absent options at -1e4."""


def source(plan: Plan, stage: Stage, role: str) -> str:
    """The weights of a frozen role by name: a rung, or the learner `stage.role` that left them."""
    weights = stage.roles[role].weights
    if isinstance(weights, str):
        return weights
    earlier = next(p.stage for p in plan.stages if p.stage.name == weights.stage)
    learned = earlier.roles[weights.role].trainable
    return f"{weights.stage}.{weights.role}" if learned else source(plan, earlier, weights.role)


def repeats(plan: Plan, shown: Callable[[int, Example], Example]) -> dict[str, list[Example]]:
    """For each source of frozen weights the training examples that it is asked about more than once unchanged.

    `shown` gives the example at a position as its step shows it: the same object, where nothing changes it.
    Stages that need more than option logits don't count.
    """
    train, size = plan.training.splits["train"], plan.config.train.batch_size
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for planned in plan.stages:
        stage = planned.stage
        frozen = {source(plan, stage, name) for name, role in stage.roles.items() if not role.trainable}
        if frozen and not plan.method.needs(stage.name):
            asked = data.batch_at(train, plan.config.seed, planned.position, planned.steps * size)
            unchanged = Counter(example.id for at, example in asked if shown(at, example) is example)
            for name in frozen:
                uses[name] += unchanged
    return {name: [e for e in train if count[e.id] > 1] for name, count in uses.items()}


def answers(role: LiveRole, examples: list[Example], batch_size: int, io: Io) -> Tensor:
    """The role's option logits (N, K) for the examples, the batches shared among the ranks."""
    mine = {}
    for number, start in enumerate(range(0, len(examples), batch_size)):
        if number % io.world == io.rank:
            batch = role.encoder(examples[start : start + batch_size])
            outputs = role.forward({k: v.to(io.device) for k, v in batch.items()}, ())
            mine[start] = outputs["options"].cpu()
    whole: Mapping[int, Tensor] = {start: t for part in io.gather(mine) for start, t in part.items()}
    width = max(len(example.options) for example in examples)
    padded = torch.full((len(examples), width), ABSENT)
    for start, rows in whole.items():
        padded[start : start + len(rows), : rows.shape[1]] = rows
    return padded
