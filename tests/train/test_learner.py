"""A role that follows a learner: its weights are the definition's, it is never cached, and others can start from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.models import loading, lora
from harness.models.distributed import SingleProcess
from harness.planning.plan import Plan
from harness.store.tensor_cache import Cache
from harness.train import loop
from harness.train.learner import Learner
from helpers.common import ToyPlan

Weights = dict[str, Tensor]
ONE = {"validations": 1, "examples": 48}
"""Three steps of 8 a stage, and one validation at its end: what is handed on are the last weights."""


def recorded(planned: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Weights], loop.Trained]:
    """The learner's weights after each step, and the run."""
    steps: list[Weights] = []
    update = Learner.update

    def watched(learner: Learner, factor: float, clip: float) -> Tensor:
        norm = update(learner, factor, clip)
        vlm = learner.role.scorer.vlm
        found = lora.merged(vlm) if learner.role.lora else vlm.state_dict()
        steps.append({name: tensor.clone() for name, tensor in found.items()})
        return norm

    monkeypatch.setattr(Learner, "update", watched)
    torch.set_num_threads(1)
    return steps, loop.train(planned, SingleProcess(), folder)


def followed(start: Weights, steps: list[Weights], decay: float) -> Weights:
    """theta' <- m theta' + (1 - m) theta, from the definition."""
    for step in steps:
        start = {name: decay * start[name] + (1 - decay) * step[name] for name in start}
    return start


@pytest.mark.parametrize("train", [{}, {"lora": {"rank": 4}}], ids=["all weights", "adapters"])
def test_an_average_is_what_the_definition_says(
    toy_plan: ToyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any]
) -> None:
    planned = toy_plan("averaged", settings={"decay": 0.75}, train=ONE | train)
    steps, result = recorded(planned, tmp_path, monkeypatch)
    assert len(steps) == 6
    first = followed(loading.load_vlm(planned.rungs["S"]).state_dict(), steps[:3], 0.75)
    second = followed(first, steps[3:], 0.75)  # the second stage starts from the first one's average
    found = result.student.vlm.state_dict()
    assert found.keys() == second.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-5, atol=1e-7)
    moved = max(float((steps[-1][name] - found[name]).abs().max()) for name in found)
    assert moved > 1e-4  # the learner itself is elsewhere


def test_without_decay_it_is_the_learner(toy_plan: ToyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, result = recorded(toy_plan("averaged", settings={"decay": 0.0}, train=ONE), tmp_path, monkeypatch)
    for name, tensor in result.student.vlm.state_dict().items():
        torch.testing.assert_close(tensor, steps[-1][name], rtol=0, atol=0)


def test_an_average_is_validated_billed_and_recorded(toy_plan: ToyPlan, tmp_path: Path) -> None:
    result = loop.train(toy_plan("averaged"), SingleProcess(), tmp_path)
    counts = {role: (cost.forwards, cost.trained) for role, cost in result.costs.items()}
    assert counts == {f"{stage}.{role}": (48, 48 if role == "student" else 0)
                      for stage in ("one", "two") for role in ("student", "average")}  # fmt: skip
    seen = [row["value"] for row in result.history
            if (row["stage"], row["role"], row["term"]) == ("two", "average", "validation/accuracy")]  # fmt: skip
    assert len(seen) == 2
    assert result.stages[1].best["average"] == max(seen)
    role = result.stages[1].roles["average"]
    assert (role.weights, role.trainable, role.average_of) == ("one.average", False, "student")


def test_an_average_is_never_cached(toy_plan: ToyPlan, tmp_path: Path, cache: Cache) -> None:
    """A budget of 192 shows each of 48 examples four times; an average answers otherwise each time."""
    planned = toy_plan("averaged", train={"examples": 192, "cache": "auto"})
    result = loop.train(planned, SingleProcess(), tmp_path, cache)
    assert result.costs["one.average"].forwards == 96
    assert result.costs["one.average"].recalled == result.costs["one.average"].shared == 0
