"""The state of a run so far, and how it is saved to a checkpoint and restored: a run is resumed here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.distributed import ProcessGroup, ShardCopy, full_tensor
from harness.models.encoding import Encoder
from harness.planning import compatibility
from harness.planning.plan import Plan
from harness.planning.stages import PlannedStage, handed_on
from harness.record import Preflight, RoleCost, RoleRecord, StageRecord
from harness.train import checkpoint
from harness.train.checkpoint import Checkpoint, part_of, under
from harness.train.learner import ChangingRole
from harness.train.role import RoleModel, State, total_by_role

OnCheckpoint = Callable[[Path], None]
"""Called with the folder of each checkpoint, on rank 0."""


@dataclass
class RunState:
    """The results of earlier stages, and the record of the current one."""

    stage: int = 0
    """The index of the stage to continue with."""
    outputs: dict[str, State] = field(default_factory=dict)
    """By `stage.role`: the weights that later stages, or the evaluation, use."""
    answers: State = field(default_factory=dict)
    """The answers of frozen models, see `harness.train.teacher_cache.Answers`."""
    method_state: State = field(default_factory=dict)
    """The method's own state in the current stage, see `harness.api.Method.state`."""
    history: list[dict[str, Any]] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    costs: dict[str, RoleCost] = field(default_factory=dict)
    """By `stage.role`, for finished stages."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    resumed: int = 0
    """How often the run was resumed."""
    preflight: Preflight | None = None

    def note(self, stage: str, step: int, steps: int, role: str, term: str, value: float) -> None:
        """Add a value to the history."""
        row = {"stage": stage, "step": step, "progress": step / steps, "role": role, "term": term, "value": value}
        self.history.append(row)


def load(work: Path) -> tuple[RunState, Checkpoint | None]:
    """The state in the newest checkpoint under `work`, and the checkpoint itself if it is from the middle of a
    stage."""
    saved = checkpoint.latest(work)
    if saved is None:
        return RunState(), None
    state, tensors = saved.state, saved.tensors
    found = RunState(
        stage=state["stage"],
        outputs={name: part_of(tensors, f"output/{name}") for name in state["outputs"]},
        answers=part_of(tensors, "answers"),
        method_state=part_of(tensors, "state"),
        history=state["history"],
        stages=[StageRecord(**stage) for stage in state["stages"]],
        costs={name: RoleCost(**cost) for name, cost in state["costs"].items()},
        seconds=defaultdict(float, state["seconds"]),
        resumed=state["resumed"] + 1,
        preflight=Preflight(**state["preflight"]) if state["preflight"] else None,
    )
    # A checkpoint at step 0 has the results of earlier stages, and nothing of this one.
    return found, saved if state["step"] > 0 else None


def restore(
    saved: Checkpoint, roles: Mapping[str, RoleModel], changing: Mapping[str, ChangingRole], ranks: ProcessGroup
) -> int:
    """Restore the models of a stage from the checkpoint. Returns the step to continue with."""
    for name, role in changing.items():
        role.restore(part_of(saved.tensors, f"role/{name}"), saved.state["best"][name])
    if ranks.rank == 0:  # the saved bill covers all ranks
        for name, cost in saved.state["role_costs"].items():
            roles[name].cost = RoleCost(**cost)
    torch.set_rng_state(saved.tensors["rng"])
    step: int = saved.state["step"]
    return step


def save(
    state: RunState, work: Path, ranks: ProcessGroup, stage: int, step: int, roles: Mapping[str, RoleModel],
    changing: Mapping[str, ChangingRole], on_checkpoint: OnCheckpoint | None,
) -> None:  # fmt: skip
    """Write a checkpoint at (stage, step). All ranks must call this: each holds a shard of sharded models."""
    costs = total_by_role(roles, ranks)
    parts: dict[str, Tensor | ShardCopy] = {}
    for name, role in changing.items():
        if role.role.sharded or ranks.rank == 0:
            parts |= under(f"role/{name}", role.save())
    gathered = ((name, full_tensor(part)) for name, part in parts.items())  # one at a time
    if ranks.rank == 0:
        document = {
            "stage": stage,
            "step": step,
            "outputs": list(state.outputs),
            "best": {name: role.best_value for name, role in changing.items()},
            "role_costs": {name: cost.model_dump() for name, cost in costs.items()},
            "history": state.history,
            "stages": [s.model_dump() for s in state.stages],
            "costs": {name: cost.model_dump() for name, cost in state.costs.items()},
            "seconds": dict(state.seconds),
            "resumed": state.resumed,
            "preflight": state.preflight.model_dump() if state.preflight else None,
        }
        folder = checkpoint.save(work, stage, step, _tensors(state, gathered), document)
        if on_checkpoint:
            on_checkpoint(folder)
    else:
        for _ in gathered:
            pass
    ranks.gather(None)  # wait until the state is written


def _tensors(state: RunState, gathered: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    yield "rng", torch.get_rng_state()
    yield from gathered
    for name, output in state.outputs.items():
        yield from under(f"output/{name}", output).items()
    yield from under("answers", state.answers).items()
    yield from under("state", state.method_state).items()


def finish_stage(
    state: RunState, plan: Plan, planned: PlannedStage, roles: Mapping[str, RoleModel],
    changing: Mapping[str, ChangingRole], encoders: Mapping[str, Encoder], ranks: ProcessGroup,
) -> None:  # fmt: skip
    """Hand on the weights that later stages, or the evaluation, use; add the stage's costs and its record."""
    stage = planned.stage
    costs = total_by_role(roles, ranks)
    taken = handed_on(plan.stages, stage, plan.method.student)
    for name, role in roles.items():
        key = f"{stage.name}.{name}"
        state.costs[key] = costs[name]
        if name in taken:
            state.outputs[key] = changing[name].final_weights() if name in changing else role.frozen_weights()
    state.stages.append(
        StageRecord(
            name=stage.name,
            share=stage.share,
            steps=planned.steps,
            examples=planned.steps * plan.config.train.batch_size,
            roles={
                name: RoleRecord(
                    weights=w if isinstance(w := stage.roles[name].weights, str) else f"{w.stage}.{w.role}",
                    trainable=role.trainable,
                    average_of=stage.roles[name].average_of,
                    parameters=role.info.parameters,
                )
                for name, role in roles.items()
            },
            best={name: role.best_value for name, role in changing.items()},
            mix=compatibility.mix(plan, planned, encoders),
        )
    )
