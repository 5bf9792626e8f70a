"""Caches the answers of frozen models, and the results of stages that only prepare a teacher.

Within a run, a frozen model answers an unchanged example once. With a `Cache`, the runs of a store share these
answers, and a teacher that many runs train in the same way is trained in only one of them.

Answers are computed before the stage that first needs them, in the data's order and in batches of one size. So
they depend neither on the number of workers, nor on where a run was resumed, nor on which run computed them.
They differ from those of a run without the cache only in the last bits, because batches are padded to other
lengths. Everything that may change a bit is part of a key: weights, processor, examples with their images,
precision, software, kind of device, `harness.versions.TRAINING`.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import provenance
from harness.api import Example, Need, Stage
from harness.config import BY_RUNG
from harness.data import order
from harness.images.reading import READER, encoded
from harness.models import loading, shared_prefix
from harness.models.distributed import ProcessGroup, locked
from harness.models.scorer import MASKED_LOGIT
from harness.planning.plan import Plan, for_stage
from harness.planning.stages import PlannedStage, handed_on, rung_of
from harness.planning.tuning import outputs_needed
from harness.record import RoleCost, StageRecord
from harness.store.tensor_cache import Cache, CachedTensors, Kind, key_of
from harness.train.checkpoint import part_of, under
from harness.train.role import RoleModel, State
from harness.train.run_state import RunState
from harness.train.views import shown
from harness.versions import TRAINING

Answers = dict[str, Tensor]
"""With keys `source/what`: by source of weights the option logits (N, K) of `Queries.examples` (missing options at
-1e4), and the other outputs in `Queries.needs`, on the CPU."""

SHARD_BATCHES = 16
"""Batches per shard of answers: what one process computes while others wait for it."""
LOCK_POLL_SECONDS = 60.0
CACHED: frozenset[Need] = frozenset({"hidden", "vocab"})
"""The outputs that are cached besides option logits; visual tokens would take too much space."""
VOCAB_BYTES = 64 * 2**20
"""The logits of whole vocabularies (N, V) are cached up to this size: a run has them in memory and in checkpoints."""

# ------------------------------------------------------------------------------------------- queries


def source(plan: Plan, stage: Stage, role: str) -> str:
    """The name of the weights of a frozen role: a rung, or the learner `stage.role` that trained them."""
    weights = stage.roles[role].weights
    if isinstance(weights, str):
        return weights
    earlier = next(p.stage for p in plan.stages if p.stage.name == weights.stage)
    changed = earlier.roles[weights.role].changes
    return f"{weights.stage}.{weights.role}" if changed else source(plan, earlier, weights.role)


@dataclass(frozen=True)
class Queries:
    """What frozen weights compute in a run: for which examples, and which outputs besides option logits."""

    examples: list[Example]
    needs: frozenset[Need]

    def cacheable(self, vocabulary: int) -> frozenset[Need]:
        """The outputs of `needs` that are cached, for a model with this number of tokens.

        All of the vocabulary's logits or none: the largest few would do at temperature 1, but not at high temperatures.
        """
        fits = len(self.examples) * vocabulary * 4 <= VOCAB_BYTES
        return self.needs if fits else self.needs - {"vocab"}


def queries(plan: Plan) -> dict[str, Queries]:
    """By source of frozen weights: its queries for training examples that are used unchanged.

    Stages that need more than `CACHED` don't count.
    """
    learnt, size = plan.training_examples.of("all"), plan.config.train.batch_size
    examples: dict[str, set[int]] = defaultdict(set)
    wanted: dict[str, frozenset[Need]] = defaultdict(frozenset)
    for planned in plan.stages:
        stage, needs = planned.stage, outputs_needed(plan.method, planned.stage)
        frozen = {source(plan, stage, name) for name, role in stage.roles.items() if not role.changes}
        if frozen and needs <= CACHED:
            seen = plan.batch_at(stage, planned.position, planned.steps * size)
            ready = ((example, shown(plan, at, example)) for at, example in seen)
            # Asked for options only, a frozen model sees them in the benchmark's order.
            unchanged = {id(example) for example, s in ready if (s.example if needs else s.plain) is example}
            for name in frozen:
                examples[name] |= unchanged
                wanted[name] |= needs
    if plan.config.train.shares:  # an image's questions adjacent: they are answered together
        learnt = [learnt[i] for group in order.by_image(learnt) for i in group]
    return {name: Queries([e for e in learnt if id(e) in ids], wanted[name]) for name, ids in examples.items()}


# ------------------------------------------------------------------------------------------------ answers


def fill(
    role: RoleModel, plan: Plan, planned: PlannedStage, asked: Mapping[str, Queries], known: Answers,
    ranks: ProcessGroup, cache: Cache | None, sharing: Collection[str],
) -> None:  # fmt: skip
    """Give a frozen role the cached or newly computed answers of its weights; new ones are added to `known`."""
    if role.changes or role.sharded:  # sharded: ranks with cached answers would leave the others waiting
        return
    name = source(plan, planned.stage, role.name)
    about = asked.get(name)
    if not about or not about.examples:
        return
    needs = about.cacheable(loading.vocabulary_size(role.scorer.vlm.config))
    if not outputs_needed(plan.method, planned.stage) <= needs:
        return
    if f"{name}/options" not in known:
        size, share = plan.config.evaluate.batch_size, role.encoder.fingerprint in sharing
        known |= under(name, answers(role, about.examples, needs, size, ranks, cache, share))
    rows = {what: tensor.to(ranks.device) for what, tensor in part_of(known, name).items()}
    role.cached_outputs = {
        id(example): {what: tensor[at] for what, tensor in rows.items()} for at, example in enumerate(about.examples)
    }


def answers(
    role: RoleModel,
    examples: Sequence[Example],
    needs: frozenset[Need],
    batch_size: int,
    ranks: ProcessGroup,
    cache: Cache | None = None,
    share: bool = False,
) -> dict[str, Tensor]:
    """The role's option logits (N, K) for the examples and the other outputs that it `needs`, by name.

    Shard by shard: from the cache, or computed and cached. The batches of a shard are divided among the ranks. Answers
    from the cache are counted in the role's bill. With `share`, questions about one image share its pass (see
    `harness.models.shared_prefix`).
    """
    of_model = _model(role, batch_size, ranks) | {"needs": sorted(needs), "share": share} if cache else {}
    size = SHARD_BATCHES * batch_size
    parts: list[Mapping[str, Tensor]] = []
    for start in range(0, len(examples), size):
        shard = examples[start : start + size]
        key = key_of(of_model | {"examples": [content(example) for example in shard]}) if cache else ""
        found = _cached(cache, "answers", key, ranks)
        if found is None:
            with build_lock(cache, "answers", key, ranks):
                found = _cached(cache, "answers", key, ranks)  # another process may have computed it meanwhile
                if found is None:
                    parts.append(_forwarded(role, shard, needs, batch_size, ranks, share))
                    if cache and ranks.rank == 0:
                        about = {"rung": role.rung, "precision": role.scorer.precision, "examples": len(shard)}
                        cache.put("answers", key, parts[-1], about, {})
                    continue
        role.bill_cached(0, shared=len(shard) if ranks.rank == 0 else 0)
        parts.append(found.tensors)
    return {what: _concatenated([part[what] for part in parts]) for what in ("options", *sorted(needs))}


def _forwarded(
    role: RoleModel,
    examples: Sequence[Example],
    needs: frozenset[Need],
    batch_size: int,
    ranks: ProcessGroup,
    share: bool,
) -> dict[str, Tensor]:
    """Option logits (n, k), the needed outputs, and the logsumexp of the whole vocabulary (n,), for probabilities."""
    mine = {}
    for number, start in enumerate(range(0, len(examples), batch_size)):
        if number % ranks.world == ranks.rank:
            batch = shared_prefix.encoded(role.encoder, examples[start : start + batch_size], share)
            outputs = role.forward({k: v.to(ranks.device) for k, v in batch.items()}, needs | {"vocab"})
            wanted = {what: outputs[what].cpu() for what in ("options", *sorted(needs))}
            mine[start] = wanted | {"logsumexp": outputs["vocab"].logsumexp(-1).cpu()}
    all_parts: Mapping[int, dict[str, Tensor]] = {
        start: tensors for part in ranks.gather(mine) for start, tensors in part.items()
    }
    batches = [all_parts[start] for start in sorted(all_parts)]
    return {what: _concatenated([batch[what] for batch in batches]) for what in batches[0]}


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Concatenated; rows with fewer options are filled up with missing ones."""
    if parts[0].dim() == 1:
        return torch.cat(list(parts))
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=MASKED_LOGIT) for part in parts])


# ------------------------------------------------------------------------------------------------- stages


def stage_key(
    plan: Plan, planned: PlannedStage, inputs: Mapping[str, Mapping[str, Tensor]], ranks: ProcessGroup
) -> str | None:
    """The key of the result of direct tuning. None for another stage, and if the student learns in it.

    `inputs` are the weights from earlier stages. The key has no names: a rung that several methods tune in the same way
    is tuned once.
    """
    stage, student = planned.stage, plan.method.student
    changing = {name for name, role in stage.roles.items() if role.changes}
    kept = handed_on(plan.stages, stage, student)
    if not stage.tuning or student in changing or not kept <= changing:
        return None
    plan = for_stage(plan, stage)
    roles = {}
    for name, role in stage.roles.items():
        w = role.weights
        digest = plan.infos[w].digest if isinstance(w, str) else _weights(inputs[f"{w.stage}.{w.role}"])
        roles[_shared_name(stage, name)] = digest
    config = plan.config
    validation = plan.training.splits["validation"][: config.train.validation_examples]
    seen = [*plan.training_examples.of(stage.data), *validation]
    return key_of(
        _surroundings(ranks)
        | {
            **plan.code,
            "tuning": [planned.steps, planned.position, stage.seed],
            "roles": roles,
            **_settings(plan, planned),
            "batch": config.evaluate.batch_size,
            "seed": config.seed,
            "world": ranks.world,
            "golds": [example.gold for example in seen],
            "examples": [content(example) for example in seen],
        }
    )


def _settings(plan: Plan, planned: PlannedStage) -> dict[str, object]:
    """The training settings that the result of a stage depends on: those by rung for its own rungs only. The budget and
    the number of labels are in its steps and examples."""
    train = plan.config.train
    by_role = {}
    for name in planned.stage.roles:
        rung = rung_of(plan.stages, planned.stage, name)
        lora = train.lora_of(rung)
        by_role[_shared_name(planned.stage, name)] = {
            "lr": train.lr_of(rung),
            "precision": train.precision_of(rung),
            "lora": lora and lora.model_dump(mode="json"),
        }
    elsewhere = {"examples", "labels", *(f"{setting}{by}" for setting in BY_RUNG for by in ("", "_by_rung"))}
    return {"settings": by_role, "train": train.model_dump(mode="json", exclude=elsewhere)}


def stage(cache: Cache, key: str, ranks: ProcessGroup) -> CachedTensors | None:
    """The result of a stage that another run has trained: `role/...` tensors, its record and history."""
    return _cached(cache, "stages", key, ranks)


def _shared_name(stage: Stage, role: str) -> str:
    """The name of a role in the cache: methods call the only one that they tune teacher, L, ..."""
    return "learner" if len(stage.roles) == 1 else role


def put_stage(cache: Cache, key: str, plan: Plan, stage: Stage, state: RunState, weights: Mapping[str, State]) -> None:
    """Cache the result of the stage that was just trained: the final weights of its roles that changed, by role."""
    record = state.stages[-1]
    tensors = {
        f"{_shared_name(stage, role)}/{name}": tensor
        for role, found in weights.items()
        for name, tensor in found.items()
    }
    history = [row for row in state.history if row["stage"] == record.name]
    about = {"method": plan.method.name, "stage": record.name, "seed": plan.config.seed}
    cache.put("stages", key, tensors, about, {"stage": record.model_dump(), "history": history})


def reuse_stage(state: RunState, planned: PlannedStage, found: CachedTensors) -> None:
    """Reuse a stage that another run has trained: its weights, record and history; it isn't billed."""
    stage, name = planned.stage, planned.stage.name
    for role, spec in stage.roles.items():
        state.costs[f"{name}.{role}"] = RoleCost()
        if spec.changes:
            state.outputs[f"{name}.{role}"] = part_of(found.tensors, _shared_name(stage, role))
    record = StageRecord(**found.state["stage"] | {"name": name, "share": stage.share, "taken_over": True})
    if len(stage.roles) == 1:  # the other method may have called it otherwise
        (role,) = stage.roles
        record = record.model_copy(update={
            "roles": dict(zip([role], record.roles.values(), strict=True)),
            "best": dict(zip([role], record.best.values(), strict=True)),
        })  # fmt: skip
        state.history += [row | {"stage": name, "role": role} for row in found.state["history"]]
    else:
        state.history += found.state["history"]
    state.stages.append(record)


@contextmanager
def build_lock(cache: Cache | None, kind: Kind, key: str, ranks: ProcessGroup) -> Iterator[None]:
    """Hold the lock, among all processes with this cache, for computing the entry of the key."""
    if cache is None:
        yield
        return
    with locked(ranks, lambda: cache.acquire(kind, key, LOCK_POLL_SECONDS)):
        yield


def _cached(cache: Cache | None, kind: Kind, key: str, ranks: ProcessGroup) -> CachedTensors | None:
    """The entry that rank 0 finds, on every rank: they may not see the same disk."""
    if cache is None:
        return None
    found: CachedTensors | None = ranks.gather(cache.get(kind, key) if ranks.rank == 0 else None)[0]
    return found


# ------------------------------------------------------------------------------------------------ content

_contents: dict[int, tuple[Example, str]] = {}


def content(example: Example) -> str:
    """sha256 over everything of an example that a model sees: prompt, options, images (a file's bytes, or pixels)."""
    known = _contents.get(id(example))
    if known is None or known[0] is not example:
        if len(_contents) > 1_000_000:
            _contents.clear()
        digest = hashlib.sha256(json.dumps([example.prompt(), example.options]).encode())
        for one in example.each_image():
            if isinstance(one.image, bytes):
                digest.update(b"%d" % READER + one.image)
            elif isinstance(one.image, Path) and one.image.is_file():
                digest.update(b"%d" % READER + encoded(one.image))
            else:
                image = one.load_image()
                digest.update(f"{image.size}".encode() + image.tobytes())
        known = _contents[id(example)] = example, digest.hexdigest()
    return known[1]


def _model(role: RoleModel, batch_size: int, ranks: ProcessGroup) -> dict[str, Any]:
    """What a frozen model's answers depend on besides the examples."""
    return _surroundings(ranks) | {
        "weights": role.info.digest if role.initial_weights is None else _weights(role.initial_weights),
        "kept": role.storage,
        "processor": role.encoder.fingerprint,
        "letters": role.encoder.letters,
        "attention": getattr(role.scorer.vlm.config, "_attn_implementation", None),
        "precision": role.scorer.precision,
        "batch": batch_size,
        "view": "first",
        "position": "answer",
        "training": TRAINING,
    }


def _surroundings(ranks: ProcessGroup) -> dict[str, Any]:
    """What may change the last bits: the software, the kind of device, how many threads compute a sum."""
    versions = provenance.static()["versions"]
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type
    return {
        "versions": {name: versions.get(name) for name in ("torch", "transformers", "tokenizers", "pillow")},
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _weights(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
