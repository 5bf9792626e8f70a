"""How much memory a run needs, and how much is available.

Weights, gradients and optimizer states are counted. What a forward pass stores for the backward pass is estimated
from the shapes in a model's configuration, for the layers of nearly all of today's models: attention without a
tokens-by-tokens matrix, a gated MLP in the language model and a plain one in the vision tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import psutil

from harness.api import Role
from harness.config import LoraSettings, RungConfig, Storage
from harness.planning.plan import Plan
from harness.planning.stages import PlannedStage, rung_of
from harness.planning.tuning import trainer_of

if TYPE_CHECKING:
    import torch

FROZEN, LEARNING = 4, 16
"""Bytes per weight: float32; if it learns, also its gradient and AdamW's two moments."""
BEST = 4
"""Bytes per weight that changes of the best copy so far, which is in the machine's memory, not a GPU's."""
BYTES: dict[Storage, float] = {"fp32": FROZEN, "bf16": 2, "nf4": 0.5 + 1 / 64}
"""Bytes per weight that doesn't learn; four bits need an additional byte of scale per 64 weights."""

# ------------------------------------------------------------------------------------------- weights


def held(plan: Plan, planned: PlannedStage) -> int:
    """Bytes of the stage's weights and optimizers on each worker, without activations."""
    return sum(of_role(plan, planned, name) for name in planned.stage.roles)


def of_role(plan: Plan, planned: PlannedStage, role: str) -> int:
    """Bytes of a role's weights and optimizer."""
    rung = rung_of(plan.stages, planned.stage, role)
    spec, train, cluster = planned.stage.roles[role], plan.config.train, plan.config.cluster
    if not spec.changes and cluster.offload_frozen and cluster.gpus_per_worker:
        return int(layers(plan.rungs[rung]).largest * BYTES[train.frozen_weights])
    lora = train.lora_of(rung) if spec.trainable else None
    best = 0 if cluster.gpus_per_worker else BEST
    learning = LEARNING + best
    if spec.changes and lora is None:
        return plan.infos[rung].parameters * (learning if spec.trainable else FROZEN + best)
    own = stored(plan, rung, train.storage_of(rung, spec))
    return own if lora is None else own + adapter_weights(plan.rungs[rung], lora) * learning


def stored(plan: Plan, rung: str, storage_format: Storage) -> int:
    """Bytes of a rung's own weights if they don't learn."""
    weights = plan.infos[rung].parameters
    if storage_format != "nf4":
        return int(weights * BYTES[storage_format])
    narrow = layers(plan.rungs[rung]).narrowed
    return int(narrow * BYTES["nf4"]) + (weights - narrow) * FROZEN


def roles_of(plan: Plan, rung: str) -> list[Role]:
    """The roles of all stages that have the rung's architecture."""
    return [
        role
        for planned in plan.stages
        for name, role in planned.stage.roles.items()
        if rung_of(plan.stages, planned.stage, name) == rung
    ]


def storage(plan: Plan, rung: str) -> Storage:
    """How the rung's own weights are stored in the role that stores them most precisely."""
    formats = {plan.config.train.storage_of(rung, role) for role in roles_of(plan, rung)}
    return next((one for one in get_args(Storage) if one in formats), "fp32")


def most_held(plan: Plan) -> int:
    """`held` of the stage that needs most; of the student alone if nothing is trained."""
    return max((held(plan, planned) for planned in plan.stages), default=plan.student_parameters * FROZEN)


@dataclass(frozen=True)
class Layers:
    """Sizes of a model, without its weights."""

    linear: list[tuple[str, int, int]]
    """For each linear layer except the output layer: the last part of its name, its inputs and outputs."""
    largest: int
    """Weights of the largest layer."""
    narrowed: int
    """Weights that can be stored in four bits."""


@lru_cache(maxsize=64)
def layers(rung: RungConfig) -> Layers:
    """The layers of the rung's model."""
    import torch
    from transformers import AutoModelForImageTextToText

    from harness.models.loading import load_config
    from harness.models.quantization import linears, narrows

    with torch.device("meta"):
        vlm = AutoModelForImageTextToText.from_config(load_config(rung))
    linear = linears(vlm)
    return Layers(
        linear=[(n.rpartition(".")[2], m.in_features, m.out_features) for n, m in linear.items()],
        largest=max(sum(p.numel() for p in m.parameters(recurse=False)) for m in vlm.modules()),
        narrowed=sum(m.weight.numel() for m in linear.values() if narrows(m)),
    )


def adapter_weights(rung: RungConfig, lora: LoraSettings) -> int:
    """How many weights the adapters of a rung have: (in + out) x rank for each layer that gets one."""
    return sum(
        (inputs + outputs) * lora.rank
        for name, inputs, outputs in layers(rung).linear
        if lora.targets == ("all",) or name in lora.targets
    )


# --------------------------------------------------------------------------------------- activations


@dataclass(frozen=True)
class Shape:
    """Sizes of a model from its configuration: number of layers, and numbers per token."""

    layers: int
    saved: int
    """What a layer stores per token for the backward pass."""
    through: int
    """The input of a layer."""


def shapes(config: Any) -> tuple[Shape, Shape]:
    """The shapes of the language model and of the vision tower."""
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    wide, inner = text.hidden_size, text.intermediate_size
    heads = text.num_attention_heads
    attended = heads * (getattr(text, "head_dim", None) or wide // heads)
    language = Shape(text.num_hidden_layers, 6 * wide + 5 * attended + 4 * inner, wide)
    if vision is None:
        return language, Shape(0, 0, 0)
    seen: int = getattr(vision, "embed_dim", None) or vision.hidden_size
    hidden: int = getattr(vision, "intermediate_size", None) or int(seen * getattr(vision, "mlp_ratio", 4))
    layers: int = getattr(vision, "depth", None) or vision.num_hidden_layers
    return language, Shape(layers, 8 * seen + 2 * hidden, seen)


def activations(
    config: Any, tokens: float, patches: float, examples: int, learns: bool, checkpointing: bool, width: int = 4
) -> int:
    """Bytes that a forward pass of `examples` stores, with `tokens` and `patches` each.

    A frozen model stores no more than one layer's. With checkpointing only the input of each layer is stored, and
    all of one layer, which is computed again. `width`: bytes per number.
    """
    numbers = 0.0
    for shape, count in zip(shapes(config), (tokens, patches), strict=True):
        if not shape.layers:
            continue
        saved = shape.saved if not learns or checkpointing else shape.saved * shape.layers
        numbers += count * (saved + (shape.through * shape.layers if learns and checkpointing else 0))
    logits = 3 * config.get_text_config().vocab_size if learns else config.get_text_config().vocab_size
    return int(examples * (width * numbers + 4 * logits))


def peak(plan: Plan, planned: PlannedStage, tokens: Mapping[str, tuple[float, float]]) -> int:
    """Bytes that a stage needs on each worker at its peak, excluding the libraries' own.

    `tokens`: the tokens and patches of an example, by rung. The learners' activations are all in memory until the
    backward pass, in which gradients take their place; a frozen model's are freed before the next one's. In bf16
    activations take half, and float32 weights that are multiplied have a copy in bfloat16.
    """
    from harness.models.loading import load_config

    train, workers = plan.config.train, max(plan.config.cluster.workers, 1)
    size = train.micro_batch_size or -(-train.batch_size // workers)
    learning = passing = gradients = 0
    for name, role in planned.stage.roles.items():
        rung = rung_of(plan.stages, planned.stage, name)
        config = load_config(plan.rungs[rung])
        narrow = train.precision_of(rung) == "bf16"
        own = activations(config, *tokens[rung], size, role.trainable, train.gradient_checkpointing, 2 if narrow else 4)
        if narrow and train.storage_of(rung, role) == "fp32":
            own += 2 * plan.infos[rung].parameters
        if role.trainable:
            learning += own
            lora = train.lora_of(rung)
            gradients += 4 * (adapter_weights(plan.rungs[rung], lora) if lora else plan.infos[rung].parameters)
        else:
            passing = max(passing, own)
    return max(held(plan, planned) - gradients + max(gradients, learning + passing), handed_on(plan, planned))


def handed_on(plan: Plan, planned: PlannedStage) -> int:
    """Bytes in the machine's memory at a stage's end.

    Frozen weights as they were; of a role that changed its final weights, and those of the next model.
    """
    return sum(
        plan.infos[rung_of(plan.stages, planned.stage, name)].parameters * FROZEN * (3 if role.changes else 1)
        for name, role in planned.stage.roles.items()
    )


def too_large(plan: Plan, needed: int) -> list[str]:
    """A warning if `needed` bytes per worker are more than this machine has, with what to change; else none."""
    import torch

    gpu = plan.config.cluster.gpus_per_worker > 0 and torch.cuda.is_available()
    workers = 1 if gpu else max(plan.config.cluster.workers, 1)
    room = free(torch.device("cuda" if gpu else "cpu")) // workers
    if needed <= room:
        return []
    return [
        f"it needs some {needed / 2**30:.1f} GiB per worker, and {room / 2**30:.1f} GiB are free here; change one or "
        f"more of: {'; '.join(suggestions(plan))}"
    ]


def suggestions(plan: Plan) -> list[str]:
    """Settings that would reduce the memory of a run and aren't used yet."""
    train, found = plan.config.train, []
    divisible = not any(trainer_of(plan.method, p.stage).couples(p.stage.name) for p in plan.stages)
    if divisible and (train.micro_batch_size == 0 or train.micro_batch_size > 1):
        found.append("train.micro_batch_size = 1 (or a few), the same numbers in more passes")
    if not train.gradient_checkpointing:
        found.append("train.gradient_checkpointing = true, a third more work")
    if train.lora is None and not train.lora_by_rung:
        found.append("train.lora = {rank = 16}, adapters instead of all weights")
    if train.frozen_weights == "fp32" and any(not role.changes for p in plan.stages for role in p.stage.roles.values()):
        found.append("train.frozen_weights = 'nf4' (or 'bf16'), frozen models in a seventh (half) of their memory")
    if plan.config.cluster.shard_above is None and train.lora is None:
        found.append("cluster.shard_above, models sharded over the workers")
    return [*found, "smaller rungs"]


def exhausted(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out. torch has an error class only for a GPU's memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free(device: torch.device) -> int:
    """Free bytes on the device."""
    if device.type == "cuda":
        import torch

        available, _ = torch.cuda.mem_get_info(device)
        return int(available)
    return int(psutil.virtual_memory().available)
