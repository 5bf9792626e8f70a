"""mean_teacher: a learner, and its moving average as its teacher."""

from __future__ import annotations

import math

import pytest
import torch

from harness.api import Role, Stage
from helpers.steps import d, fake, stages, terms
from methods.mean_teacher import MeanTeacher, ramped


def test_the_evaluated_role_is_the_student() -> None:
    assert stages(MeanTeacher(decay=0.9)) == {
        "together": Stage(
            "together",
            {"learner": Role("S", True), "student": Role("S", average_of="learner", decay=0.9)},
            1.0,
            data="all",
        )
    }
    other = stages(MeanTeacher(evaluated="student", learn_from="labels"))["together"]
    assert other.roles == {"student": Role("S", True), "average": Role("S", average_of="student", decay=0.99)}
    assert other.data == "labels"


def test_the_weight_rises_to_its_end() -> None:
    assert ramped(0.0, 0.5) == pytest.approx(math.exp(-5))
    assert ramped(0.25, 0.5) == pytest.approx(math.exp(-5 / 4))
    assert [ramped(u, 0.5) for u in (0.5, 0.7, 1.0)] == [1, 1, 1]
    assert ramped(0.0, 0.0) == 1


def test_the_learner_follows_its_average() -> None:
    method = MeanTeacher(evaluated="student", noisy=False, alpha=3.0, ramp=1.0, ce_weight=0.5)
    got = terms(method, "together", progress=0.5)["student"]
    torch.testing.assert_close(got["kd"], 3 * math.exp(-5 / 4) * d("average", "student"))
    assert got["ce"][0].item() == pytest.approx(math.log(3) / 2)  # the first row is uniform over three options


def test_the_learner_sees_the_second_view_and_its_average_the_first() -> None:
    for method, learner, average in (
        (MeanTeacher(), "learner", "student"),
        (MeanTeacher(evaluated="student"), "student", "average"),
    ):
        step = fake(method, stages(method)["together"])
        assert set(method.loss(step)) == {learner}
        assert step.asked == {(learner, "second"), (average, "first")}
