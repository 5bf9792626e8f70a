"""A method's stages, with their lengths and positions in the training order, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from harness.api import From, Method, Source, Stage
from harness.config import RunConfig, TrainConfig
from harness.errors import ConfigError, near
from harness.planning.tuning import trainer_of

MOST_SHARE = 1000
"""What a stage may learn from at most, as a multiple of the student budget."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its length. `position` is where in the training order it starts."""

    stage: Stage
    steps: int
    position: int


def steps_of_budget(train: TrainConfig) -> int:
    """The student budget in whole steps, which all methods' students learn for."""
    return -(-train.examples // train.batch_size)


def plan_stages(method: Method, rungs: list[str], config: RunConfig) -> list[PlannedStage]:
    """The method's stages with their lengths, checked. Raises `ConfigError` naming the method and stage.

    The stages in which the student learns have whole steps that add up to those of the budget: all methods learn from
    exactly the same number of examples.
    """
    stages = list(method.stages(rungs, config.student))
    _check_stages(method, rungs, stages, config)
    learnt_in = _lineage(method, stages)
    size, budget = config.train.batch_size, steps_of_budget(config.train)
    left = len(learnt_in)
    if left > budget:
        raise ConfigError(
            f"method {method.name!r}: train.examples = {config.train.examples} is {budget} steps of train.batch_size = "
            f"{size}, and the student learns in {left} stages of at least one step; raise examples or lower batch_size"
        )
    planned: list[PlannedStage] = []
    spent, first = 0.0, 0
    for stage in stages:
        if stage.name in learnt_in:
            if stage.seed:
                raise ConfigError(
                    f"method {method.name!r}, stage {stage.name!r}: seed = {stage.seed}; expected 0, because the "
                    "student learns in it, and all methods' students see the examples in one order"
                )
            spent, left = spent + stage.share, left - 1
            # Rounded sums of shares, not shares, so that no remainder is lost; one step is left for each later stage.
            last = min(max(round(spent * budget), first + 1), budget - left) if left else budget
            planned.append(PlannedStage(stage, last - first, first * size))
            first = last
        else:
            examples = max(round(stage.share * config.train.examples), 1)
            planned.append(PlannedStage(stage, -(-examples // size), 0))
    if planned and abs(spent - 1) > 1e-6:
        raise ConfigError(
            f"method {method.name!r}: the stages in which {method.student!r}, or the model that its weights come from, "
            f"learns have shares that sum to {spent:g}; the student budget is the same for all methods, so they must "
            "sum to 1"
        )
    if planned and (rung := rung_of(planned, planned[-1].stage, method.student)) != config.student:
        raise ConfigError(
            f"method {method.name!r}: its role {method.student!r} ends as rung {rung!r}, "
            f"not as the student {config.student!r}"
        )
    return planned


def _check_stages(method: Method, rungs: list[str], stages: list[Stage], config: RunConfig) -> None:
    """Raise `ConfigError` for a stage that can't be trained, and if the last one has no student."""
    earlier: dict[str, Stage] = {}
    for stage in stages:
        where = f"method {method.name!r}, stage {stage.name!r}"
        if stage.name in earlier:
            raise ConfigError(f"{where}: two stages have this name")
        if not 0 < stage.share <= MOST_SHARE:  # also false for NaN
            raise ConfigError(
                f"{where}: share = {stage.share}; expected a number above 0 and up to {MOST_SHARE}, as a multiple of "
                "the student budget"
            )
        if stage.data not in get_args(Source):
            raise ConfigError(f"{where}: data = {stage.data!r}: {near(str(stage.data), get_args(Source))}")
        if not any(role.trainable for role in stage.roles.values()):
            raise ConfigError(f"{where}: no role is trainable; leave the stage out")
        if stage.tuning and (stage.data != "labels" or not all(role.trainable for role in stage.roles.values())):
            frozen = ", ".join(name for name, role in stage.roles.items() if not role.trainable) or "none"
            raise ConfigError(
                f"{where}: tuning with data = {stage.data!r} (frozen roles: {frozen}): expected data = 'labels' and no "
                "frozen role, because it is cross-entropy on the labels"
            )
        for name, role in stage.roles.items():
            _check_weights(f"{where}, role {name!r}", role.weights, rungs, earlier)
        for name in stage.roles:
            _check_average(f"{where}, role {name!r}", stage, name, earlier)
        trainer = trainer_of(method, stage)
        _check_state(where, trainer, stage.name)
        _check_undivided(where, trainer, stage.name, config)
        earlier[stage.name] = stage
    if stages and method.student not in stages[-1].roles:
        raise ConfigError(f"method {method.name!r}: the last stage has no role {method.student!r} to evaluate")


def _lineage(method: Method, stages: list[Stage]) -> set[str]:
    """The stages in which the student learned, under whatever name: its weights are followed to their beginning.

    Those of an average come from the learner that it follows, too.
    """
    by_name = {stage.name: stage for stage in stages}
    ahead = [(stage, method.student) for stage in stages[-1:]]
    found, seen = set(), set()
    while ahead:
        stage, role = ahead.pop()
        if (stage.name, role) in seen:
            continue
        seen.add((stage.name, role))
        spec = stage.roles[role]
        if spec.changes:
            found.add(stage.name)
        if spec.average_of is not None:
            ahead.append((stage, spec.average_of))
        if isinstance(spec.weights, From):
            ahead.append((by_name[spec.weights.stage], spec.weights.role))
    return found


def rung_of(planned: list[PlannedStage], stage: Stage, role: str) -> str:
    """The rung whose architecture a stage's role has."""
    return _rung({p.stage.name: p.stage for p in planned}, stage, role)


def _rung(stages: Mapping[str, Stage], stage: Stage, role: str) -> str:
    weights = stage.roles[role].weights
    return weights if isinstance(weights, str) else _rung(stages, stages[weights.stage], weights.role)


def handed_on(planned: list[PlannedStage], stage: Stage, student: str) -> set[str]:
    """The roles of a stage whose weights are used after it: by a later stage, or as the final `student`."""
    taken = {role.weights for later in planned for role in later.stage.roles.values()}
    last = stage.name == planned[-1].stage.name
    return {name for name in stage.roles if From(stage.name, name) in taken or (last and name == student)}


def _check_average(where: str, stage: Stage, name: str, earlier: Mapping[str, Stage]) -> None:
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
    own, other = _rung(earlier, stage, name), _rung(earlier, stage, of)
    if own != other:
        raise ConfigError(
            f"{where}: has the architecture of rung {own!r}, and {of!r} that of {other!r}; expected the same rung, "
            "because their weights are averaged"
        )


def _check_state(where: str, method: Method, stage: str) -> None:
    if not (state := method.state(stage)):
        return
    if strange := [name for name, value in state.items() if not hasattr(value, "detach")]:  # without importing torch
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
