"""The training loop. It imports no ray. Read from the top: `train` a run, `_stage`, `_train`, `_step`.

A stage trains its roles together. Every optimizer step uses one global batch, divided among the ranks and, within
a rank, into micro-batches. Per-example losses are divided by the global batch size, so that this division changes
nothing but rounding. The state is saved at each validation: a restarted run continues from there and ends with
the same bits.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function as span  # costs nothing without a profiler: see harness.speed.profiling

from harness.api import From, Stage
from harness.errors import StepLocation, TrainingError, first_line
from harness.events import Event
from harness.models import loading
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Encoder, load_encoders
from harness.models.scorer import OptionScorer
from harness.planning import memory
from harness.planning.plan import Plan, for_stage
from harness.planning.stages import PlannedStage, rung_of
from harness.record import Preflight, RoleCost, StageRecord
from harness.store.tensor_cache import Cache
from harness.train import batches, preflight, run_state, teacher_cache
from harness.train.batches import MicroBatch
from harness.train.checkpoint import Checkpoint
from harness.train.learner import Average, ChangingRole, Learner
from harness.train.role import RoleModel, bill_backward
from harness.train.run_state import OnCheckpoint, RunState
from harness.train.step import ForwardPasses, StepView, Sums, check_same_forwards, initial, sums_of, updated
from harness.train.validation import Validator

__all__ = ["Trained", "TrainingError", "train"]

POINTS_A_STAGE = 40
"""How many times a stage's mean losses are written to the history."""

LossSums = dict[tuple[str, str], Tensor]
"""By role and term."""


@dataclass
class Trained:
    """The result of training: the student, and the cost."""

    student: OptionScorer
    encoder: Encoder
    stages: list[StageRecord]
    history: list[dict[str, Any]]
    costs: dict[str, RoleCost]
    seconds: dict[str, float]
    resumed: int = 0
    preflight: Preflight | None = None


@dataclass(frozen=True)
class _Run:
    """What stays the same through all stages."""

    plan: Plan
    ranks: ProcessGroup
    work: Path
    encoders: Mapping[str, Encoder]
    """By rung."""
    cache: Cache | None
    on_checkpoint: OnCheckpoint | None
    validator: Validator
    cacheable: Mapping[str, teacher_cache.Queries] = field(default_factory=dict)
    """What frozen models are asked more than once, by the source of their weights."""


def train(
    plan: Plan, ranks: ProcessGroup, work: Path, cache: Cache | None = None, on_checkpoint: OnCheckpoint | None = None
) -> Trained:
    """Run the plan's stages, from the newest checkpoint under `work` if there is one.

    With `train.cache` = auto, `cache` is where this run and others store what they can share.
    """
    encoders = load_encoders({name: plan.rungs[name] for name in plan.infos})
    state, middle = run_state.load(work)
    if state.preflight is None:
        state.preflight = preflight.check(plan, encoders, ranks)
    caches = plan.config.train.cache == "auto"
    cacheable = teacher_cache.queries(plan) if caches else {}
    validator = Validator(plan, ranks)
    run = _Run(plan, ranks, work, encoders, cache if caches else None, on_checkpoint, validator, cacheable)
    for index in range(state.stage, len(plan.stages)):
        _stage(run, state, index, middle)
        middle = None
    name = plan.config.student
    student = OptionScorer(
        loading.load_vlm(plan.rungs[name]), encoders[name].letters, plan.config.train.precision_of(name)
    )
    if plan.stages:
        student.vlm.load_state_dict(state.outputs[f"{plan.stages[-1].stage.name}.{plan.method.student}"])
    student.to(ranks.device).eval()
    return Trained(
        student, encoders[name], state.stages, state.history, state.costs, dict(state.seconds), state.resumed,
        state.preflight,
    )  # fmt: skip


def _stage(run: _Run, state: RunState, index: int, middle: Checkpoint | None) -> None:
    """Train a stage, from a checkpoint in its middle if there is one; or reuse the result of another run."""
    planned = run.plan.stages[index]
    plan = for_stage(run.plan, planned.stage)
    key = teacher_cache.stage_key(run.plan, planned, state.outputs, run.ranks) if run.cache else None
    if run.cache is None or key is None:
        _train(run, plan, state, index, middle)
    else:
        with teacher_cache.build_lock(run.cache, "stages", key, run.ranks):
            # A stage that was started here is billed here.
            found = None if middle else teacher_cache.stage(run.cache, key, run.ranks)
            if found is None:
                changing = _train(run, plan, state, index, middle)
                weights = {name: role.final_weights() for name, role in changing.items()}  # on all ranks
                if run.ranks.rank == 0:
                    teacher_cache.put_stage(run.cache, key, plan, planned.stage, state, weights)
            else:
                teacher_cache.reuse_stage(state, planned, found)
                run.ranks.report({"stage": planned.stage.name, "step": planned.steps, "steps": planned.steps})
    run_state.save(state, run.work, run.ranks, index + 1, 0, {}, {}, run.on_checkpoint)


def _train(run: _Run, plan: Plan, state: RunState, index: int, middle: Checkpoint | None) -> dict[str, ChangingRole]:
    """Train a stage to its end; returns its roles with new weights."""
    planned, train, ranks = plan.stages[index], plan.config.train, run.ranks
    stage = planned.stage
    torch.manual_seed(_seed(plan, stage))
    roles = {name: _open_role(run, plan, state, planned, name) for name in stage.roles}
    adapters = _adapters(plan, stage, roles)
    learners = {n: Learner(role, adapters.get(n), plan, ranks) for n, role in roles.items() if role.trainable}
    averages = {
        name: Average(roles[name], learners[role.average_of], role.decay)
        for name, role in stage.roles.items()
        if role.average_of is not None
    }
    changing: dict[str, ChangingRole] = {**learners, **averages}
    if any(role.sharded for role in roles.values()) and train.batch_size % ranks.world:
        raise StepLocation(plan.method.name, stage.name, 0).error(
            f"train.batch_size = {train.batch_size} over {ranks.world} workers: with cluster.shard_above every "
            "worker must have the same number of examples; choose a multiple of the workers"
        )
    sharing = batches.sharing(plan, roles, state.preflight)
    for role in roles.values():
        teacher_cache.fill(role, plan, planned, run.cacheable, state.answers, ranks, run.cache, sharing)
    if middle:
        first = run_state.restore(middle, roles, changing, ranks)
        state.method_state = {name: tensor.to(ranks.device) for name, tensor in state.method_state.items()}
    else:
        first, state.method_state = 0, initial(plan.method, stage.name, ranks.device)
    frozen = {name: role.weight_versions() for name, role in roles.items() if not role.changes}
    validations = {math.ceil(planned.steps * k / train.validations) for k in range(1, train.validations + 1)}
    log_every = max(planned.steps // POINTS_A_STAGE, 1)
    data = batches.of_stage(plan, planned, ranks, roles, sharing, first)
    sums: LossSums = {}
    summed, waited = 0, 0.0
    clock = logged = time.perf_counter()
    for step in range(first, planned.steps):
        location = StepLocation(plan.method.name, stage.name, step)
        try:
            asked = time.perf_counter()
            with span("hkdbench:data"):
                parts = next(data)
            waited += time.perf_counter() - asked
            progress = step / planned.steps
            observed = _step(plan, ranks, location, stage, progress, parts, roles, learners, state.method_state, sums)
        except RuntimeError as error:
            if memory.exhausted(error):
                raise location.error(
                    f"out of memory on {ranks.device}: {first_line(error)}; change one or more of: "
                    f"{'; '.join(memory.suggestions(plan))}"
                ) from None
            raise
        summed += 1
        factor = _lr_factor(step, planned.steps, train.warmup)
        norms = torch.stack([learner.update(factor, train.clip) for learner in learners.values()])
        if not norms.isfinite().all():
            raise location.error("a gradient is not finite though the loss is; lower train.lr or the method's weights")
        for average in averages.values():
            average.update()
        if state.method_state:
            with span("hkdbench:communication"):
                by_batch = [one for rank in ranks.gather(observed) for one in rank]
            state.method_state = updated(location, plan.method, state.method_state, by_batch, train.batch_size)
        done = step + 1
        if done % log_every == 0 or done in validations:
            state.seconds["data"] += waited
            pace: Event = {"waited": waited, "seconds": time.perf_counter() - logged}
            _log(state, ranks, stage.name, done, planned.steps, sums, summed * train.batch_size, pace)
            sums, summed, waited, logged = {}, 0, 0.0, time.perf_counter()
        if done in validations:
            state.seconds["train"] += time.perf_counter() - clock
            if learned := [name for name, versions in frozen.items() if roles[name].weight_versions() != versions]:
                raise location.error(
                    f"the weights of {', '.join(learned)} changed, and the stage says that it is frozen; make it "
                    "trainable, so that it is billed, or leave its weights alone"
                )
            _validate(run, state, stage.name, done, planned.steps, changing, sharing)
            if done < planned.steps:
                run_state.save(state, run.work, ranks, index, done, roles, changing, run.on_checkpoint)
            clock = logged = time.perf_counter()
    state.method_state = {}
    run_state.finish_stage(state, run.plan, planned, roles, changing, run.encoders, ranks)
    return changing


def _open_role(run: _Run, plan: Plan, state: RunState, planned: PlannedStage, name: str) -> RoleModel:
    spec = planned.stage.roles[name]
    weights = state.outputs[f"{spec.weights.stage}.{spec.weights.role}"] if isinstance(spec.weights, From) else None
    rung = rung_of(plan.stages, planned.stage, name)
    return RoleModel(name, rung, plan, run.ranks, run.encoders[rung], weights, spec)


def _adapters(plan: Plan, stage: Stage, roles: Mapping[str, RoleModel]) -> Mapping[str, nn.Module]:
    """The method's own modules for the stage, initialized equally on all ranks."""
    widths = {name: loading.hidden_size(role.scorer.vlm.config) for name, role in roles.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(plan, stage, "/adapters"))
        adapters = plan.method.adapters(stage.name, widths)
    if strange := [name for name in adapters if name not in roles or not roles[name].trainable]:
        learners = [name for name, role in roles.items() if role.trainable]
        raise StepLocation(plan.method.name, stage.name, 0).error(
            f"adapters() returned a module for {strange}; expected only trainable roles, of {learners}"
        )
    return adapters


def _step(
    plan: Plan, ranks: ProcessGroup, location: StepLocation, stage: Stage, progress: float,
    parts: Sequence[MicroBatch], roles: Mapping[str, RoleModel], learners: Mapping[str, Learner],
    method_state: Mapping[str, Tensor], sums: LossSums,
) -> list[Sums]:  # fmt: skip
    """Forward and backward of this rank's share of one global batch; adds its losses to `sums`.

    Returns what the method observed, by micro-batch.
    """
    needs = plan.method.needs(stage.name)
    passes: list[ForwardPasses] = []
    observed: list[Sums] = []
    for part in parts:
        view = StepView(location, stage, progress, part, roles, needs, method_state)
        last = part is parts[-1]
        with ExitStack() as stack:
            for learner in learners.values():  # gradients are exchanged once a step, with the last micro-batch
                stack.enter_context(learner.gradients(exchange=last))
            with span("hkdbench:loss"):
                terms = view.terms(plan.method.loss(view), learners)
            passes.append(view.forward_passes)
            observed.append(sums_of(view))
            if last:
                with span("hkdbench:communication"):
                    check_same_forwards(location, ranks, stage, passes)
            loss = torch.stack([term.sum() for term in terms.values()]).sum() / plan.config.train.batch_size
            if not torch.isfinite(loss):
                bad = ", ".join(f"{r}.{t}" for (r, t), v in terms.items() if not torch.isfinite(v).all())
                raise location.error(f"the loss is not finite ({bad or 'sum'}); lower train.lr or the method's weights")
            start = time.perf_counter()
            with span("hkdbench:backward"):
                (loss * ranks.world).backward()  # DDP averages over the ranks; the loss is already a global mean
            bill_backward([learner.role for learner in learners.values()], time.perf_counter() - start)
        for key, term in terms.items():
            value = term.detach().sum()
            sums[key] = sums[key] + value if key in sums else value
    return observed


def _log(
    state: RunState, ranks: ProcessGroup, stage: str, step: int, steps: int, sums: LossSums, examples: int, pace: Event
) -> None:
    """Write the mean losses since the last report to the history, and report them with the pace of these steps."""
    keys = sorted(sums)
    with span("hkdbench:communication"):
        values = ranks.sum(torch.stack([sums[key] for key in keys])) / examples
    latest = {}
    for (role, term), value in zip(keys, values.tolist(), strict=True):
        state.note(stage, step, steps, role, f"loss/{term}", value)
        latest[f"{role}.{term}"] = value
    ranks.report({"stage": stage, "step": step, "steps": steps, "losses": latest, "examples": examples, **pace})


def _validate(
    run: _Run, state: RunState, stage: str, step: int, steps: int, changing: Mapping[str, ChangingRole],
    sharing: frozenset[str],
) -> None:  # fmt: skip
    """Score learners and averages on validation, and store the weights of those that are at their best."""
    start, found = time.perf_counter(), {}
    for name, role in changing.items():
        found[name] = run.validator.accuracy(role.role, sharing)
        state.note(stage, step, steps, name, "validation/accuracy", found[name])
        role.keep_if_best(found[name])
    state.seconds["validation"] += time.perf_counter() - start
    run.ranks.report({"stage": stage, "step": step, "steps": steps, "validation": found})


def _lr_factor(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` of the steps, then half a cosine down to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _seed(plan: Plan, stage: Stage, what: str = "") -> int:
    return random.Random(f"torch/{plan.seed_of(stage)}/{'tuning' if stage.tuning else stage.name}{what}").getrandbits(
        63
    )
