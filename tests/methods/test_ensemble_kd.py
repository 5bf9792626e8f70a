"""ensemble_kd: the mean answer of several teachers, which differ by the order in which they see the examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.api import ConfigError, From, Role, Stage
from harness.models.distributed import SingleProcess
from harness.train import loop
from helpers.common import ToyPlan
from helpers.steps import LADDER, LOGITS, d, stages, terms
from methods.ensemble_kd import EnsembleKD
from methods.losses import ABSENT, divergence, mean_answer


def test_the_mean_answer_by_hand() -> None:
    """(1/2, 1/2) and (9/10, 1/10) at temperature 1, and an absent third option: mean (0.7, 0.3)."""
    answers = [torch.tensor([[0.5, 0.5, 99.0]]).log(), torch.tensor([[9.0, 1.0, 0.01]]).log()]
    options = torch.tensor([[True, True, False]])
    mean = mean_answer(answers, options, 1.0).masked_fill(~options, ABSENT)
    torch.testing.assert_close(mean.softmax(-1), torch.tensor([[0.7, 0.3, 0.0]]))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_mean_answer_is_that_at_its_temperature(temperature: float) -> None:
    rng = np.random.default_rng(0)
    answers = rng.normal(0, 3, (3, 5, 4))
    p = np.exp(answers / temperature)
    want = (p / p.sum(-1, keepdims=True)).mean(0)
    got = mean_answer([torch.tensor(a) for a in answers], torch.ones(5, 4, dtype=torch.bool), temperature)
    np.testing.assert_allclose((got / temperature).softmax(-1).numpy(), want, rtol=1e-12)
    student = torch.tensor(rng.normal(0, 1, (5, 4)))
    q = (student / temperature).softmax(-1).numpy()
    kl = divergence("forward_kl", got, student, torch.zeros(5).long(), torch.ones(5, 4).bool(), temperature=temperature)
    np.testing.assert_allclose(kl.numpy(), temperature**2 * (want * np.log(want / q)).sum(-1), rtol=1e-9)


def test_teachers_of_a_rung_differ_by_their_seed() -> None:
    three = stages(EnsembleKD(teacher_share=0.5))
    assert three == {
        "teacher_L_1": Stage("teacher_L_1", {"teacher": Role("L", True)}, 0.5, tuning=True),
        "teacher_L_2": Stage("teacher_L_2", {"teacher": Role("L", True)}, 0.5, seed=1, tuning=True),
        "teacher_L_3": Stage("teacher_L_3", {"teacher": Role("L", True)}, 0.5, seed=2, tuning=True),
        "distil": Stage(
            "distil",
            {f"teacher_L_{n}": Role(From(f"teacher_L_{n}", "teacher")) for n in (1, 2, 3)}
            | {"student": Role("S", True)},
            1.0,
        ),
    }


def test_a_stages_seed_changes_the_order_and_so_the_teacher(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan("ensemble_kd", settings={"teachers": ("L", "L")}, train={"examples": 48})
    n = len(planned.training_examples.labelled)
    first, second, student = ([e.id for _, e in planned.batch_at(s.stage, 0, n)] for s in planned.stages)
    assert first == student  # the run's own order
    assert second != first
    assert sorted(second) == sorted(first)
    losses: dict[str, list[float]] = {}
    for row in loop.train(planned, SingleProcess(), tmp_path).history:
        if row["term"] == "loss/ce":
            losses.setdefault(row["stage"], []).append(row["value"])
    assert losses["teacher_L_1"] != losses["teacher_L_2"]
    assert set(losses) == {"teacher_L_1", "teacher_L_2", "distil"}


def test_a_teachers_stage_is_the_same_in_every_ensemble() -> None:
    """So that runs share it."""
    mixed, own = stages(EnsembleKD(teachers=("M", "L", "L"))), stages(EnsembleKD())
    assert list(mixed) == ["teacher_M_1", "teacher_L_1", "teacher_L_2", "distil"]
    assert all(mixed[name] == own[name] for name in ("teacher_L_1", "teacher_L_2"))


def test_the_student_learns_from_the_mean_answer() -> None:
    got = terms(EnsembleKD(teachers=("L", "M"), alpha=0.5, ce_weight=3.0), "distil")["student"]
    every = torch.ones(2, 3, dtype=torch.bool)
    mean = mean_answer([torch.tensor(LOGITS["L"]), torch.tensor(LOGITS["M"])], every, 2.0)
    torch.testing.assert_close(got["kd"], d(mean, "student") / 2)
    torch.testing.assert_close(got["ce"], 3 * terms(EnsembleKD(), "distil")["student"]["ce"])
    assert set(terms(EnsembleKD(), "teacher_L_2")["teacher"]) == {"ce"}


def test_one_teacher_is_offline_distillation() -> None:
    torch.testing.assert_close(terms(EnsembleKD(teachers=("L",)), "distil")["student"]["kd"], d("L", "student"))


def test_a_teacher_must_be_larger_than_the_student() -> None:
    with pytest.raises(ConfigError, match=r"ensemble_kd: 'S' in teachers: expected rungs larger .*known: L, M"):
        EnsembleKD(teachers=("L", "S")).stages(LADDER, "S")
