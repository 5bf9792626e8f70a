"""PPOD, the coarse part of HKD4VLM: levels from large to small that learn together.

L_m = CE(y, p_m) + lambda(u) sum_j w_mj t^2 D(sg[p_j], p_m), j in N(m), w_mj = 1 / |N(m)|; for every level m
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from harness.api import From, Role, Source, Stage, Step

if TYPE_CHECKING:
    from torch import Tensor

    from methods.hkd4vlm.method import HKD4VLM

Topology = Literal["dense", "chain", "mutual", "ensemble"]
Weights = dict[str, str | From]
"""The source of each level's latest weights, largest first; the student is `student`. Stages update it."""


def stages(m: HKD4VLM, weights: Weights, share: float) -> tuple[Stage, ...]:
    """All levels jointly, or neighbouring pairs, largest pair first; larger levels frozen in advance if not online."""
    levels = tuple(weights)
    groups = [levels] if m.pyramid == "ladder" else list(pairwise(levels))
    laid_out = [] if m.online else [_tuning(groups[0][:-1], weights, share)]
    for group in groups:
        learner = group[-1]
        name = "ppod" if learner == "student" else f"ppod_{learner}"
        taking_part = group if m.online else (*teachers(m.topology, group, learner), learner)
        learns = {role: m.online or role == learner for role in taking_part}
        laid_out.append(_stage(name, learns, weights, share, m.learn_from))
    return tuple(laid_out)


def plain_stages(used: Collection[str], weights: Weights, share: float) -> tuple[Stage, ...]:
    """Instead of PPOD: these levels are tuned on the labels only."""
    return (_stage("tune", {level: True for level in weights if level in used}, weights, share),)


def loss(m: HKD4VLM, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
    """Cross-entropy for every learner, with its teachers' pull in the stages of PPOD."""
    levels = tuple(step.roles)
    learners = [level for level in levels if step.roles[level].trainable]
    if step.stage == "tune":
        return {level: {"ce": m.ce(step, level)} for level in learners}
    return {level: _terms(m, step, teachers(m.topology, levels, level), level) for level in learners}


def _terms(m: HKD4VLM, step: Step, by: Sequence[str], level: str) -> dict[str, Tensor]:
    terms = {"ce": m.ce(step, level)}
    if not by:
        return terms
    weight = m.ppod_weight * (step.progress if m.ramp == "linear" else 1.0)
    if m.topology == "ensemble":
        first, *others = (m.answer(step, teacher) for teacher in by)
        pull = m.pull(step, sum(others, first) / len(by), level)
    else:
        pull = m.mean_pull(step, by, level)
    return terms | {"kd": pull * weight}


def teachers(topology: Topology, levels: Sequence[str], level: str) -> Sequence[str]:
    """N(m) for `level` among `levels`, largest first."""
    m = levels.index(level)
    match topology:
        case "dense" | "ensemble":
            return levels[:m]
        case "chain":
            return levels[max(m - 1, 0) : m]
        case "mutual":
            return [*levels[:m], *levels[m + 1 :]]


def _tuning(levels: Sequence[str], weights: Weights, share: float) -> Stage:
    """These levels are tuned on the labels; `weights` is updated."""
    return replace(_stage("tune", dict.fromkeys(levels, True), weights, share), tuning=True)


def _stage(name: str, learns: Mapping[str, bool], weights: Weights, share: float, data: Source = "labels") -> Stage:
    """A stage of these roles, from their latest weights; a learner's latest weights become those of this stage."""
    stage = Stage(name, {role: Role(weights[role], trainable) for role, trainable in learns.items()}, share, data)
    weights.update({role: From(name, role) for role, trainable in learns.items() if trainable})
    return stage
