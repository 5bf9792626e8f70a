"""What a plan will do and cost, estimated without training. This loads the models' processors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.api import Example, Stage
from harness.config import ClusterConfig
from harness.data import order
from harness.models import ladders, loading, scorer, shared_prefix
from harness.models.encoding import Encoder, load_encoders
from harness.planning import compatibility, memory
from harness.planning.plan import Plan
from harness.planning.stages import rung_of


def of(plan: Plan, sample_of: Callable[[Stage], Sequence[Example]] | None = None) -> dict[str, Any]:
    """What the plan will do and cost, estimated from the first examples without training.

    `sample_of` gives examples of a stage as its steps show them, for closer FLOPs than from unchanged examples.

    FLOPs: 2 per parameter and token forward, twice that backward (once, if adapters learn). Memory: see
    `harness.planning.memory`; `memory_bytes` excludes activations, `peak_bytes` includes them. If questions about an
    image share it, the FLOPs are those of models that support sharing, and the memory is that of separate questions.
    """
    by_rung = load_encoders({name: plan.rungs[name] for name in plan.infos})
    share = bool(plan.stages) and plan.config.train.shares and not plan.config.train.gradient_checkpointing
    plain = next(iter(plan.training.splits.values()))[:8]
    sample = [example for _, example in first_step(plan, plan.stages[0].stage)] if share else plain
    padded = {}
    for name, encoder in by_rung.items():
        batch = encoder(sample[:8])
        patches = scorer.token_counts(loading.load_config(plan.rungs[name]), batch)[1]
        padded[name] = (float(batch["input_ids"].shape[1]), patches / len(sample[:8]))
    tokens = _tokens(plan, by_rung, sample, share)
    stages: list[dict[str, Any]] = []
    for planned in plan.stages:
        if sample_of is not None:
            tokens = _tokens(plan, by_rung, sample_of(planned.stage), share)
        examples = planned.steps * plan.config.train.batch_size
        roles = {}
        for name, role in planned.stage.roles.items():
            rung = rung_of(plan.stages, planned.stage, name)
            info = plan.infos[rung]
            forward = ladders.forward_flops(info, *tokens[rung])
            roles[name] = {
                "rung": rung,
                "weights": role.weights
                if isinstance(role.weights, str)
                else f"{role.weights.stage}.{role.weights.role}",
                "trainable": role.trainable,
                "average_of": role.average_of,
                "parameters": info.parameters,
                "flops": forward * examples * (ladders.training_passes(_adapts(plan, rung)) if role.trainable else 1),
                "bytes": memory.of_role(plan, planned, name),
            }
        stages.append(
            {
                "name": planned.stage.name,
                "share": planned.stage.share,
                "steps": planned.steps,
                "examples": examples,
                "roles": roles,
                "peak_bytes": memory.peak(plan, planned, padded),
                "mix": found.model_dump() if (found := compatibility.mix(plan, planned, by_rung)) else None,
            }
        )
    train_flops = float(sum(r["flops"] for s in stages for r in s["roles"].values()))
    return {
        "run_id": plan.run_id,
        "method": plan.config.method,
        "benchmark": plan.config.benchmark,
        "student": plan.config.student,
        "budget": plan.budget,
        "parameters": plan.student_parameters,
        "data": plan.dataset.sizes,
        "skipped": plan.dataset.skipped,
        "trained_on": {"benchmark": plan.training.benchmark.name, "data": plan.training.sizes}
        if plan.training is not plan.dataset
        else None,
        "stages": stages,
        "train_flops": train_flops,
        **in_hours(plan.config.cluster, train_flops),
        "memory_bytes": memory.most_held(plan),
        "peak_bytes": (most := max((s["peak_bytes"] for s in stages), default=plan.student_parameters * memory.FROZEN)),
        "warnings": [*plan.warnings, *memory.too_large(plan, most)],
    }


def in_hours(cluster: ClusterConfig, train_flops: float) -> dict[str, float | None]:
    """Estimated hours of workers for the training alone, and their price; None where a setting for it is missing."""
    speed, each = cluster.tflops_per_worker, cluster.price_per_hour
    hours = None if speed is None else train_flops / (speed * 1e12) / 3600
    return {"worker_hours": hours, "price": None if hours is None or each is None else hours * each}


def first_step(plan: Plan, stage: Stage) -> Sequence[tuple[int, Example]]:
    """The examples of one worker's first forward pass, before any method changes them, with their positions."""
    train, workers = plan.config.train, max(plan.config.cluster.workers, 1)
    mine = order.share_of(plan.batch_at(stage, 0, train.batch_size), 0, workers, train.questions_per_image)
    return mine[: train.micro_batch_size or len(mine)]


def _tokens(
    plan: Plan, by_rung: Mapping[str, Encoder], sample: Sequence[Example], share: bool
) -> dict[str, tuple[float, float]]:
    """Text tokens and image patches of an example, by rung: the mean over the sample."""
    found = {}
    for name, encoder in by_rung.items():
        batch = shared_prefix.encoded(encoder, sample, share)
        text, patches = scorer.token_counts(loading.load_config(plan.rungs[name]), batch)
        found[name] = (text / len(sample), patches / len(sample))
    return found


def _adapts(plan: Plan, rung: str) -> bool:
    return plan.config.train.lora_of(rung) is not None
