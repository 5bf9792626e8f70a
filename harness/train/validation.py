"""Accuracy on the validation examples, which selects a learner's best weights."""

from __future__ import annotations

from collections.abc import Collection

import torch

from harness.api import Example
from harness.evaluation.predict import batches_of, score
from harness.models import shared_prefix
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Batch, Encoder
from harness.planning.plan import Plan
from harness.train.role import RoleModel


class Validator:
    """The validation examples of a run. Each rank answers its share of them, encoded once for all validations."""

    def __init__(self, plan: Plan, ranks: ProcessGroup) -> None:
        self.ranks, self.batch_size = ranks, plan.config.evaluate.batch_size
        self.examples = (
            plan.training.splits["validation"][: plan.config.train.validation_examples] if plan.stages else []
        )
        self._batches: dict[tuple[str, bool], list[tuple[list[Example], Batch]]] = {}

    def accuracy(self, role: RoleModel, sharing: Collection[str]) -> float:
        """The fraction of correct answers of the role, over all ranks. All ranks must call this."""
        role.scorer.eval()
        right = torch.zeros(2, dtype=torch.float64)
        batches = self._encoded(role.encoder, role.encoder.fingerprint in sharing)
        if role.sharded:  # a rank with fewer batches must still take part in the others' passes
            most = max(self.ranks.gather(len(batches)))
            for _ in range(most - len(batches)):
                score(role.scorer, batches[0][1], self.ranks.device)
        for examples, batch in batches:
            chosen = score(role.scorer, batch, self.ranks.device).argmax(-1)
            gold = torch.tensor([example.gold for example in examples])
            right += torch.tensor([(chosen == gold).sum(), len(gold)], dtype=torch.float64)
        role.scorer.train(role.trainable)
        hits, count = self.ranks.sum(right).tolist()
        return float(hits / count)

    def _encoded(self, encoder: Encoder, shared: bool) -> list[tuple[list[Example], Batch]]:
        """This rank's share; with `shared`, questions about one image are adjacent."""
        key = encoder.fingerprint, shared
        if key not in self._batches:
            size, rank, world = self.batch_size, self.ranks.rank, self.ranks.world
            if shared:
                chunks = [[self.examples[i] for i in part] for part in batches_of(self.examples, size, rank, world)]
            else:
                mine = self.examples[rank::world]
                chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
            self._batches[key] = [(chunk, shared_prefix.encoded(encoder, chunk, shared)) for chunk in chunks]
        return self._batches[key]
