"""The data of a step: this rank's share of the global batch, in micro-batches, encoded for each model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch.profiler import record_function as span  # costs nothing without a profiler: see harness.speed.profiling

from harness.api import Example, Stage, View
from harness.data import order
from harness.errors import StepLocation
from harness.models import shared_prefix
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Batch, Encoder
from harness.planning.plan import Plan
from harness.planning.stages import PlannedStage
from harness.planning.tuning import outputs_needed
from harness.record import Preflight
from harness.train.role import RoleModel
from harness.train.views import Shown, checked_second_view, shown

Form = View | Literal["plain", "explained"]
"""A view, `plain`: the first view with its options in the benchmark's order, or `explained`: the first view, to be
answered in a sentence."""


class MicroBatch:
    """The examples of one forward pass in both views, and their model inputs, which are made once per encoder."""

    def __init__(
        self,
        examples: Sequence[Shown],
        second: Callable[[], Sequence[Example]],
        device: torch.device,
        sharing: Collection[str] = (),
        ready: Mapping[tuple[str, Form], Batch] | None = None,
        seeds: Sequence[str] = (),
    ) -> None:
        """`second` makes the second view when it is needed. `sharing` has the encoders (by fingerprint) whose
        questions about one image share its pass; `ready` has inputs that are already encoded, by encoder and form;
        `seeds` are those of each example's responses."""
        self.examples = tuple(one.example for one in examples)
        self.plain = tuple(one.plain for one in examples)
        """The same with the options in the benchmark's order, as frozen models are asked."""
        self.orders = tuple(one.order for one in examples)
        """The option at each letter, as an index into the options of `plain`."""
        self.device, self.sharing, self.seeds = device, sharing, seeds
        self._second, self._ready = second, ready or {}
        self._inputs: dict[tuple[str, Form], Batch] = {}

    def inputs(self, encoder: Encoder, form: Form) -> Batch:
        """The model inputs in a form, on the device."""
        if form == "plain" and self.plain == self.examples:
            form = "first"
        key = encoder.fingerprint, form
        if key not in self._inputs:
            with span("hkdbench:data"):
                ready = self._ready.get(key)
                self._inputs[key] = self._on_device(self._encoded(encoder, form) if ready is None else ready)
        return self._inputs[key]

    def _encoded(self, encoder: Encoder, form: Form) -> Batch:
        if form == "explained":
            return encoder([example.explained() for example in self.examples])
        examples = self.plain if form == "plain" else self.examples if form == "first" else self._second()
        return self.encoded(encoder, examples)

    def inputs_of(self, encoder: Encoder, examples: Sequence[Example]) -> Batch:
        """The model inputs of some of its examples, on the device."""
        return self._on_device(self.encoded(encoder, examples))

    def explained(self, encoder: Encoder, rows: Sequence[int]) -> Batch:
        """The model inputs of some of its rows, to be answered in a sentence, on the device."""
        if len(rows) == len(self.examples):
            return self.inputs(encoder, "explained")
        return self._on_device(encoder([self.examples[row].explained() for row in rows]))

    def encoded(self, encoder: Encoder, examples: Sequence[Example]) -> Batch:
        return shared_prefix.encoded(encoder, examples, encoder.fingerprint in self.sharing)

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}


def response_seed(plan: Plan, stage: Stage, position: int) -> str:
    """What the responses to the example at a position depend on besides the role: the step is in the position."""
    return f"{plan.seed_of(stage)}/{stage.name}/{position}"


def sharing(plan: Plan, roles: Mapping[str, RoleModel], preflight: Preflight | None) -> frozenset[str]:
    """The encoders, by fingerprint, whose models all support one image pass for several questions."""
    train = plan.config.train
    alone = {
        role.encoder.fingerprint
        for role in roles.values()
        if not (train.shares and preflight is not None and preflight.rungs[role.rung].shares_image)
        or (role.trainable and train.gradient_checkpointing)
        or role.sharded  # all ranks must make the same passes, but their images differ
    }
    return frozenset(role.encoder.fingerprint for role in roles.values()) - alone


def of_stage(
    plan: Plan, planned: PlannedStage, ranks: ProcessGroup, roles: Mapping[str, RoleModel], sharing: Collection[str],
    first_step: int,
) -> Iterator[list[MicroBatch]]:  # fmt: skip
    """The micro-batches of each step of the stage from `first_step` on; the next ones are prepared in a thread."""
    size = plan.config.train.batch_size
    needs = outputs_needed(plan.method, planned.stage)
    encoders: dict[tuple[str, Form], Encoder] = {
        (role.encoder.fingerprint, "first" if role.changes or needs else "plain"): role.encoder
        for role in roles.values()
        if not role.cached_outputs
    }
    positions = [planned.position + step * size for step in range(first_step, planned.steps)]

    def make(position: int) -> list[MicroBatch]:
        step = (position - planned.position) // size
        location = StepLocation(plan.method.name, planned.stage.name, step)
        return _micro_batches(plan, planned, ranks, encoders, sharing, location, position)

    return order.Prefetcher(make, positions, partial(torch.set_num_threads, torch.get_num_threads()))


def _micro_batches(
    plan: Plan, planned: PlannedStage, ranks: ProcessGroup, encoders: Mapping[tuple[str, Form], Encoder],
    sharing: Collection[str], location: StepLocation, position: int,
) -> list[MicroBatch]:  # fmt: skip
    """This rank's share of the global batch at a position, encoded by the encoders in use."""
    train = plan.config.train
    batch = plan.batch_at(planned.stage, position, train.batch_size)
    mine = order.share_of(batch, ranks.rank, ranks.world, train.questions_per_image)
    size = train.micro_batch_size or len(mine)
    found = []
    for chunk in (mine[i : i + size] for i in range(0, len(mine), size)):
        positions = [at for at, _ in chunk]
        some = [shown(plan, at, example) for at, example in chunk]
        examples = [one.example for one in some]
        second = partial(checked_second_view, plan, location, positions, examples)
        plain = [one.plain for one in some]
        ready = {
            (of, form): shared_prefix.encoded(encoder, examples if form == "first" else plain, of in sharing)
            for (of, form), encoder in encoders.items()
            if form == "first" or plain != examples
        }
        if ranks.device.type == "cuda":  # pinned memory is copied while the device computes
            ready = {of: {name: t.pin_memory() for name, t in inputs.items()} for of, inputs in ready.items()}
        seeds = [response_seed(plan, planned.stage, at) for at in positions]
        found.append(MicroBatch(some, second, ranks.device, sharing, ready, seeds))
    return found
