"""A model in a stage: its forward passes, its cached outputs, and its bill."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function as span  # costs nothing without a profiler: see harness.speed.profiling

from harness.api import Example, Need, Role, View
from harness.data.options import Order
from harness.models import loading, lora, quantization, scorer, sequences, shared_prefix
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Batch, Encoder
from harness.models.ladders import forward_flops, training_passes
from harness.models.scorer import MASKED_LOGIT, OptionScorer, Outputs
from harness.models.sequences import ReadTokens
from harness.planning.plan import Plan
from harness.record import RoleCost

if TYPE_CHECKING:
    from harness.train.batches import MicroBatch

State = dict[str, Tensor]

MOST_WRITTEN = 65_536
"""How many responses of a frozen role are kept."""


class RoleModel:
    """A rung, or a model from an earlier stage, in its role. `harness.train.learner` has the learning state."""

    def __init__(self, name: str, rung: str, plan: Plan, ranks: ProcessGroup, encoder: Encoder, weights: State | None,
                 role: Role) -> None:  # fmt: skip
        """`weights`: those from an earlier stage; None: those of the rung."""
        trainable = role.trainable
        self.name, self.rung, self.trainable, self.changes, self.encoder = name, rung, trainable, role.changes, encoder
        self.initial_weights, self.config, self.info = weights, plan.rungs[rung], plan.infos[rung]
        train, cluster = plan.config.train, plan.config.cluster
        precision = train.precision_of(rung)
        self.storage = train.storage_of(rung, role)
        """The format in which its own weights are stored."""
        vlm = quantization.load(self.config, self.storage, precision, weights)
        self.scorer = OptionScorer(vlm, encoder.letters, precision)
        self.lora = train.lora_of(rung) if trainable else None
        """The settings of its adapters; only these learn."""
        if self.lora is not None:
            lora.insert(self.scorer.vlm, self.lora, rung)
        if trainable and train.gradient_checkpointing:
            self.scorer.vlm.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        limit = cluster.shard_above
        self.sharded = ranks.world > 1 and limit is not None and self.info.parameters > limit
        """Whether its weights are sharded over the ranks: every rank must then make the same forward passes."""
        if self.sharded:
            ranks.shard(self.scorer.train(trainable).requires_grad_(trainable))
        self.offloaded = cluster.offload_frozen and not self.changes and not self.sharded
        if self.offloaded:
            quantization.offload(self.scorer, ranks.device)
        else:
            self.scorer.to(ranks.device)
        self.scorer.train(trainable)
        if self.lora is None:
            self.scorer.requires_grad_(trainable)
        self.module = ranks.wrap(self.scorer) if trainable and not self.sharded else self.scorer
        self.adapter: nn.Module | None = None
        """The method's own module on top of it, if it learns and the method defines one."""
        self.cached_outputs: dict[int, Outputs] = {}
        """The earlier outputs of a frozen role, by `id(example)`: rows of `Outputs`."""
        self._written: dict[tuple[Any, ...], tuple[Example, list[int]]] = {}
        """The responses of a frozen role at temperature 0, by example, order of options and length."""
        self.cost = RoleCost()

    def outputs(self, batch: MicroBatch, view: View, needs: Collection[Need]) -> Outputs:
        """Its outputs for a micro-batch: from the cache, and from a forward pass for the rest."""
        plain = view == "first" and not self.changes and not needs
        found = self._from_cache(batch, needs, plain) if view == "first" and self.cached_outputs else None
        if found is None:
            found = self.forward(batch.inputs(self.encoder, "plain" if plain else view), needs)
        if plain:
            found["options"] = _reordered(found["options"], batch.orders)
        if "vocab" in found:
            found["vocab"] = self.encoder.real(found["vocab"])
        return found

    def _from_cache(self, batch: MicroBatch, needs: Collection[Need], plain: bool) -> Outputs | None:
        """None if nothing of the batch is cached."""
        examples = batch.plain if plain else batch.examples
        known = [self.cached_outputs.get(id(example)) for example in examples]
        new = [example for example, row in zip(examples, known, strict=True) if row is None]
        if len(new) == len(known):
            return None
        self.bill_cached(len(known) - len(new))
        fresh: Iterator[Outputs] = iter(())
        if new:
            outputs = self.forward(batch.inputs_of(self.encoder, new), needs)
            fresh = ({what: tensor[at] for what, tensor in outputs.items()} for at in range(len(new)))
        rows = [next(fresh) if found is None else found for found in known]
        width = max(len(example.options) for example in examples)
        options_bk = torch.full((len(rows), width), MASKED_LOGIT, device=batch.device)
        for row_k, example, row in zip(options_bk, examples, rows, strict=True):
            row_k[: len(example.options)] = row["options"][: len(example.options)]
        return {"options": options_bk} | {what: torch.stack([row[what] for row in rows]) for what in needs}

    def forward(self, batch: Batch, needs: Collection[Need]) -> Outputs:
        """One forward pass, billed."""
        start = time.perf_counter()
        # Sharded weights are gathered in a pass and used later, so this isn't inference mode.
        inference = not self.trainable and not self.sharded
        with span("hkdbench:language"), torch.inference_mode(inference), torch.set_grad_enabled(self.trainable):
            outputs: Outputs = self.module(batch, needs)
        if not self.trainable:
            outputs = {what: tensor.clone() for what, tensor in outputs.items()}  # usable in a loss's backward pass
        flops = forward_flops(self.info, *scorer.token_counts(self.scorer.vlm.config, batch))
        self.bill(len(outputs["options"]), flops, time.perf_counter() - start, trained=self.trainable)
        return outputs

    def respond(
        self, batch: MicroBatch, temperature: float, top_p: float, max_tokens: int, rows: Sequence[int]
    ) -> list[list[int]]:  # fmt: skip
        """The tokens of its responses to some rows of a micro-batch; none for the others.

        A frozen role at temperature 0 answers an example only once. Billed by tokens.
        """
        fixed = not self.changes and temperature == 0
        keys = [(id(plain), order, max_tokens) for plain, order in zip(batch.plain, batch.orders, strict=True)]
        found: list[list[int]] = [[] for _ in batch.examples]
        new = []
        for row in rows:
            known = self._written.get(keys[row]) if fixed else None
            if known is not None and known[0] is batch.plain[row]:
                found[row] = known[1]
                self.bill_cached(1)
            else:
                new.append(row)
        if new:
            for row, tokens in zip(new, self._respond(batch, temperature, top_p, max_tokens, new), strict=True):
                found[row] = tokens
                if fixed and len(self._written) < MOST_WRITTEN:
                    self._written[keys[row]] = batch.plain[row], tokens
        return found

    def _respond(
        self, batch: MicroBatch, temperature: float, top_p: float, max_tokens: int, rows: Sequence[int]
    ) -> list[list[int]]:  # fmt: skip
        start, vlm = time.perf_counter(), self.scorer.vlm
        inputs = batch.explained(self.encoder, rows)
        asked, patches = scorer.token_counts(vlm.config, inputs)
        lengths = inputs["attention_mask"].sum(1).tolist()
        questions = shared_prefix.truncated(inputs, lengths, self.encoder.processor.tokenizer.pad_token_id or 0)
        seeds = [f"{batch.seeds[row]}/{self.name}" for row in rows]
        draws = [torch.rand(max_tokens, generator=sequences.generator(s), dtype=torch.float64) for s in seeds]
        self.scorer.eval()
        try:
            ids_bt, mask_bt = sequences.sampled(
                self.scorer, questions, torch.stack(draws).to(batch.device), temperature, top_p,
                sequences.ends(vlm, self.encoder), self.encoder.absent(loading.vocabulary_size(vlm.config)),
            )  # fmt: skip
        finally:
            self.scorer.train(self.trainable)
        tokens = [ids[there].tolist() for ids, there in zip(ids_bt, mask_bt, strict=True)]
        count = int(mask_bt.sum())
        self.bill(0, forward_flops(self.info, asked + count, patches), time.perf_counter() - start, trained=False)
        self._count(generated=count, wrote=len(rows))
        return tokens

    def read(self, batch: MicroBatch, tokens: Sequence[Sequence[int]]) -> ReadTokens:
        """The responses as it reads them behind the questions: a forward pass, billed."""
        start, vlm = time.perf_counter(), self.scorer.vlm
        family = str(self.scorer.vlm.config.model_type)  # type: ignore[union-attr]
        ids_bt, mask_bt = sequences.padded(tokens, batch.device)
        pad = self.encoder.processor.tokenizer.pad_token_id or 0
        questions = batch.inputs(self.encoder, "explained")
        inputs = sequences.behind_questions(questions, ids_bt, mask_bt, pad, family)
        with (
            span("hkdbench:language"),
            torch.inference_mode(not self.trainable),
            torch.set_grad_enabled(self.trainable),
        ):
            outputs = self.module(inputs)
        # Of a learner, a wrapped model waits for a gradient of all that took part in its pass.
        beside = 0.0 * outputs["last"].sum() if self.trainable else 0.0
        states_nd = outputs["states"].clone() + beside  # a copy is usable in a loss's backward pass
        flops = forward_flops(self.info, *scorer.token_counts(vlm.config, inputs))
        self.bill(len(ids_bt), flops, time.perf_counter() - start, trained=self.trainable)
        self._count(scored=int(mask_bt.sum()), read=len(ids_bt))
        return ReadTokens(
            states_nd, sequences.output_layer(vlm, self.scorer.precision), self.encoder.real, ids_bt, mask_bt,
            self.encoder.tokens, loading.vocabulary_size(vlm.config),
        )  # fmt: skip

    def adapt(self, inputs: Tensor) -> Tensor:
        """The inputs passed through the method's adapter, billed."""
        assert self.adapter is not None
        start = time.perf_counter()
        outputs: Tensor = self.adapter(inputs)
        size = sum(p.numel() for p in self.adapter.parameters())
        self.bill(0, 2.0 * size * (inputs.numel() // inputs.shape[-1]), time.perf_counter() - start, trained=True)
        return outputs

    def bill(self, examples: int, flops: float, seconds: float, trained: bool) -> None:
        """Add a forward pass to the bill; `flops` are those of the forward pass only."""
        c = self.cost
        more = {
            "forwards": c.forwards + examples,
            "trained": c.trained + (examples if trained else 0),
            "flops": c.flops + flops * (training_passes(self.lora is not None) if trained else 1),
            "seconds": c.seconds + seconds,
        }
        self.cost = c.model_copy(update=more)

    def bill_cached(self, examples: int, shared: int = 0) -> None:
        """Count examples that needed no forward pass: their answers were cached, `shared` of them by another run."""
        self._count(recalled=examples, shared=shared)

    def _count(self, **more: int) -> None:
        self.cost = self.cost.model_copy(update={name: getattr(self.cost, name) + n for name, n in more.items()})

    def weight_versions(self) -> list[tuple[int, int]]:
        """What differs after a change of its weights: torch counts a tensor's in-place changes.

        Empty if they aren't the same tensors all the time: sharded over the ranks, or moved layer by layer.
        """
        if self.sharded or self.offloaded:
            return []
        return [(id(parameter), parameter._version) for parameter in self.scorer.parameters()]

    def frozen_weights(self) -> State:
        """The weights of a role that doesn't learn."""
        return self.initial_weights or dict(loading.load_vlm(self.config).state_dict())


def _reordered(logits_bk: Tensor, orders: Sequence[Order]) -> Tensor:
    """The logits of each row's options at the letters where the step shows them; missing options stay at the end."""
    width = logits_bk.shape[1]
    index_bk = torch.tensor([[*order, *range(len(order), width)] for order in orders], device=logits_bk.device)
    return logits_bk.gather(1, index_bk)


def total(costs: Sequence[RoleCost]) -> RoleCost:
    """The sum of several bills, for example of all ranks."""
    return RoleCost(**{name: sum(getattr(cost, name) for cost in costs) for name in RoleCost.model_fields})


def total_by_role(roles: Mapping[str, RoleModel], ranks: ProcessGroup) -> dict[str, RoleCost]:
    """The cost of the roles so far, over all ranks. All ranks must call this."""
    by_rank = ranks.gather({name: role.cost for name, role in roles.items()})
    return {name: total([costs[name] for costs in by_rank]) for name in roles}


def bill_backward(learners: Collection[RoleModel], seconds: float) -> None:
    """Divide the seconds of the joint backward pass among the roles, in proportion to their size."""
    parameters = sum(role.info.parameters for role in learners)
    for role in learners:
        role.bill(0, 0.0, seconds * role.info.parameters / parameters, trained=False)
