"""born_again: a chain of copies of the student's rung."""

from __future__ import annotations

import pytest
import torch

from harness.api import ConfigError, From, Role, Stage
from helpers.steps import d, stages, terms
from methods.born_again import BornAgain


def test_a_tuned_rung_teaches_a_fresh_copy() -> None:
    assert stages(BornAgain(teacher_share=2.0)) == {
        "teacher": Stage("teacher", {"teacher": Role("S", True)}, 2.0, seed=1, tuning=True),
        "distil": Stage("distil", {"teacher": Role(From("teacher", "teacher")), "student": Role("S", True)}, 1.0),
    }
    assert stages(BornAgain(), student="L")["distil"].roles["student"] == Role("L", True)  # needs no larger rung


def test_each_generation_learns_from_the_one_before_in_its_own_order() -> None:
    three = stages(BornAgain(generations=3, learn_from="pool"))
    assert list(three) == ["teacher", "generation_1", "generation_2", "distil"]
    assert [stage.seed for stage in three.values()] == [1, 2, 3, 0]
    assert [stage.data for stage in three.values()] == ["labels", "pool", "pool", "pool"]
    assert three["generation_1"].roles == {"teacher": Role(From("teacher", "teacher")), "learner": Role("S", True)}
    assert three["distil"].roles["teacher"].weights == From("generation_2", "learner")


def test_losses() -> None:
    assert set(terms(BornAgain(), "teacher")["teacher"]) == {"ce"}
    for stage, learner in (("generation_1", "learner"), ("distil", "student")):
        plain = terms(BornAgain(generations=2), stage)[learner]
        torch.testing.assert_close(plain["kd"], d("teacher", "student"))
        half = terms(BornAgain(generations=2, alpha=0.5, ce_weight=0.25), stage)[learner]
        torch.testing.assert_close(half["kd"], plain["kd"] / 2)
        torch.testing.assert_close(half["ce"], plain["ce"] / 4)
    tuned = terms(BornAgain(ce_weight=0.0), "teacher")["teacher"]["ce"]
    assert (tuned > 0).all()  # the first generation has nothing but labels


def test_there_is_at_least_one_generation() -> None:
    with pytest.raises(ConfigError, match="generations = 0: expected a number from 1 to 20"):
        BornAgain(generations=0)
