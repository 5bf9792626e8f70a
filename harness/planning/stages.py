"""A method's stages, with their lengths and positions in the training order, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields

from harness.api import From, Method, Stage
from harness.config import RunConfig
from harness.errors import ConfigError, near


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its length. `position` is where in the training order it starts."""

    stage: Stage
    steps: int
    position: int


def plan_stages(method: Method, rungs: list[str], config: RunConfig) -> list[PlannedStage]:
    """The method's stages with their lengths, checked. Raises `ConfigError` naming the method and stage."""
    planned: list[PlannedStage] = []
    spent = 0.0
    for stage in method.stages(rungs, config.student):
        where = f"method {method.name!r}, stage {stage.name!r}"
        earlier = {p.stage.name: p.stage for p in planned}
        if stage.name in earlier:
            raise ConfigError(f"{where}: two stages have this name")
        if not stage.share > 0:
            raise ConfigError(f"{where}: share = {stage.share}; expected a number above 0")
        if not any(role.trainable for role in stage.roles.values()):
            raise ConfigError(f"{where}: no role is trainable; leave the stage out")
        known = [field.name for field in fields(method)]
        for name in method.stage_settings(stage.name) or ():
            if name not in known:
                raise ConfigError(f"{where}: stage_settings() names {name!r} (not a setting): {near(name, known)}")
        for name, role in stage.roles.items():
            _check_weights(f"{where}, role {name!r}", role.weights, rungs, earlier)
        for name in stage.roles:
            _check_average(f"{where}, role {name!r}", stage, name, planned)
        _check_state(where, method, stage.name)
        _check_undivided(where, method, stage.name, config)
        learns = method.student in stage.roles and stage.roles[method.student].changes
        examples = max(round(stage.share * config.train.examples), 1)
        position = round(spent * config.train.examples) if learns else 0
        planned.append(PlannedStage(stage, -(-examples // config.train.batch_size), position))
        spent += stage.share if learns else 0
    if planned and abs(spent - 1) > 1e-6:
        raise ConfigError(
            f"method {method.name!r}: the stages in which {method.student!r} learns have shares that sum to "
            f"{spent:g}; the student budget is the same for all methods, so they must sum to 1"
        )
    if planned and method.student not in planned[-1].stage.roles:
        raise ConfigError(f"method {method.name!r}: the last stage has no role {method.student!r} to evaluate")
    if planned and (rung := rung_of(planned, planned[-1].stage, method.student)) != config.student:
        raise ConfigError(
            f"method {method.name!r}: its role {method.student!r} ends as rung {rung!r}, "
            f"not as the student {config.student!r}"
        )
    return planned


def rung_of(planned: list[PlannedStage], stage: Stage, role: str) -> str:
    """The rung whose architecture a stage's role has."""
    weights = stage.roles[role].weights
    if isinstance(weights, str):
        return weights
    earlier = next(p.stage for p in planned if p.stage.name == weights.stage)
    return rung_of(planned, earlier, weights.role)


def handed_on(planned: list[PlannedStage], stage: Stage, student: str) -> set[str]:
    """The roles of a stage whose weights are used after it: by a later stage, or as the final `student`."""
    taken = {role.weights for later in planned for role in later.stage.roles.values()}
    last = stage.name == planned[-1].stage.name
    return {name for name in stage.roles if From(stage.name, name) in taken or (last and name == student)}


def _check_average(where: str, stage: Stage, name: str, planned: list[PlannedStage]) -> None:
    role, of = stage.roles[name], stage.roles[name].average_of
    if of is None:
        return
    learners = [name for name, other in stage.roles.items() if other.trainable]
    if role.trainable:
        raise ConfigError(
            f"{where}: trainable, and the average of {of!r}: expected one of the two; remove trainable or average_of"
        )
    if of not in learners:
        raise ConfigError(
            f"{where}: average_of = {of!r}, expected a trainable role of this stage: {near(of, learners)}"
        )
    if not 0 <= role.decay < 1:  # also false for NaN
        raise ConfigError(f"{where}: decay = {role.decay}; expected a number from 0 to below 1, like 0.99")
    own, other = rung_of(planned, stage, name), rung_of(planned, stage, of)
    if own != other:
        raise ConfigError(
            f"{where}: has the architecture of rung {own!r}, and {of!r} that of {other!r}; expected the same rung, "
            "because their weights are averaged"
        )


def _check_state(where: str, method: Method, stage: str) -> None:
    if not (state := method.state(stage)):
        return
    from torch import Tensor

    if strange := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ConfigError(
            f"{where}: state() returned {type(state[strange[0]]).__name__} {strange[0]!r}; expected tensors"
        )
    if type(method).update is Method.update:
        raise ConfigError(
            f"{where}: state() returned {', '.join(state)}, which nothing changes; override update() too, or make it a "
            "setting"
        )


def _check_undivided(where: str, method: Method, stage: str, config: RunConfig) -> None:
    size, workers = config.train.micro_batch_size, config.cluster.workers
    if method.couples(stage) and (0 < size < config.train.batch_size or workers > 1):
        raise ConfigError(
            f"{where}: an example's loss depends on the other examples of its batch, which can't be divided, but "
            f"train.micro_batch_size = {size} and cluster.workers = {workers}; set micro_batch_size to 0, and workers "
            "to 1 or 0"
        )


def _check_weights(where: str, weights: str | From, rungs: list[str], earlier: dict[str, Stage]) -> None:
    if isinstance(weights, str):
        if weights not in rungs:
            raise ConfigError(f"{where}: unknown rung {weights!r}: {near(weights, rungs)}")
    elif weights.stage not in earlier:
        raise ConfigError(f"{where}: takes weights from stage {weights.stage!r}: {near(weights.stage, earlier)}")
    elif weights.role not in earlier[weights.stage].roles:
        raise ConfigError(
            f"{where}: stage {weights.stage!r} has no role {weights.role!r}: "
            f"{near(weights.role, earlier[weights.stage].roles)}"
        )
