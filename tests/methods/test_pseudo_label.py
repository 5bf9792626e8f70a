"""pseudo_label: a teacher's confident answers as labels of the examples that have none."""

from __future__ import annotations

import math

import pytest
import torch

from harness.api import ConfigError, From, Role, Stage
from helpers.steps import LADDER, fake, stages, terms
from methods.losses import pseudo_label
from methods.pseudo_label import PseudoLabel


def test_confident_answers_by_hand() -> None:
    """p = (0.6, 0.4), (0.5, 0.3, 0.2), and (0.2, 0.8) beside an absent option with the largest logit."""
    logits = torch.tensor([[6.0, 4.0, 1e-9], [5.0, 3.0, 2.0], [2.0, 8.0, 99.0]]).log()
    options = torch.tensor([[True, True, False], [True, True, True], [True, True, False]])
    assert pseudo_label(logits, options, 0.55).tolist() == [0, -1, 1]
    assert pseudo_label(logits, options, 0.0).tolist() == [0, 0, 1]
    assert pseudo_label(logits, options, 0.9).tolist() == [-1, -1, -1]


def test_a_teacher_is_tuned_and_labels_the_pool() -> None:
    assert stages(PseudoLabel(teacher_share=2.0)) == {
        "teacher": Stage("teacher", {"teacher": Role("L", True)}, 2.0, tuning=True),
        "distil": Stage(
            "distil", {"teacher": Role(From("teacher", "teacher")), "student": Role("S", True)}, 1.0, data="all"
        ),
    }
    assert stages(PseudoLabel(teacher="M", learn_from="pool"))["distil"].data == "pool"
    with pytest.raises(ConfigError, match=r"pseudo_label: teacher = 'S'.*known: L, M"):
        PseudoLabel(teacher="S").stages(LADDER, "S")
    with pytest.raises(ConfigError, match=r"learn_from = 'labels': expected 'pool' or 'all'.*'offline_kd'"):
        PseudoLabel(learn_from="labels")


def test_labels_where_there_are_some_and_the_teachers_answers_elsewhere() -> None:
    """The teacher's p of the second example is softmax(0, 1, 0): 0.576 for option 1; the student's is 0.090 there."""
    method = PseudoLabel(alpha=2.0, ce_weight=0.5)
    step = fake(method, stages(method)["distil"])
    step.labels_b = torch.tensor([0, -1])
    got = method.loss(step)["student"]
    torch.testing.assert_close(got["ce"], torch.tensor([0.5 * math.log(3), 0.0]))
    pseudo = -float(torch.tensor([1.0, -1.0, 0.0]).log_softmax(0)[1])
    torch.testing.assert_close(got["pseudo"], torch.tensor([0.0, 2 * pseudo]))
    strict = PseudoLabel(confidence=0.6)
    step = fake(strict, stages(strict)["distil"])
    step.labels_b = torch.tensor([-1, -1])
    unsure = strict.loss(step)["student"]["pseudo"]
    assert unsure[0] > 0
    assert unsure[1] == 0


def test_the_noisy_student_sees_the_second_view_alone() -> None:
    method = PseudoLabel(noisy=True)
    step = fake(method, stages(method)["distil"])
    method.loss(step)
    assert step.asked == {("teacher", "first"), ("student", "second")}
    assert set(terms(method, "teacher")["teacher"]) == {"ce"}
