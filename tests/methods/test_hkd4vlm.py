"""HKD4VLM: the stages of PPOD and TCRD as data, and their losses by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.api import ConfigError, From, Role, Stage
from helpers.steps import LADDER, LOGITS, d, fake, learners, stages, terms
from methods.hkd4vlm.method import HKD4VLM
from methods.losses import relation_distance


def test_hkd4vlm_runs_ppod_then_tcrd() -> None:
    assert list(HKD4VLM().stages(LADDER, "S")) == [
        Stage("ppod", {"L": Role("L", True), "M": Role("M", True), "student": Role("S", True)}, 0.5),
        Stage(
            "tcrd",
            {
                "teacher": Role(From("ppod", "L"), True),
                "student": Role(From("ppod", "student"), True),
                "anchor": Role(From("ppod", "student")),
            },
            0.5,
        ),
    ]
    assert list(stages(HKD4VLM(), student="M")["ppod"].roles) == ["L", "student"]


def test_hkd4vlm_reversed_order_starts_ppod_from_tcrd() -> None:
    reversed_order = stages(HKD4VLM(order="tcrd_ppod"))
    assert list(reversed_order) == ["tcrd", "ppod"]
    assert reversed_order["tcrd"].roles["anchor"] == Role("S")
    assert reversed_order["ppod"].roles == {
        "L": Role(From("tcrd", "teacher"), True),
        "M": Role("M", True),
        "student": Role(From("tcrd", "student"), True),
    }


def test_hkd4vlm_without_ppod_tunes_on_the_labels_instead() -> None:
    plain = stages(HKD4VLM(ppod=False))
    assert plain["tune"] == Stage("tune", {"L": Role("L", True), "student": Role("S", True)}, 0.5)
    assert plain["tcrd"].roles["teacher"].weights == From("tune", "L")
    assert set(terms(HKD4VLM(ppod=False), "tune")["student"]) == {"ce"}
    assert stages(HKD4VLM(ppod=False, tcrd=False)) == {"tune": Stage("tune", {"student": Role("S", True)}, 1.0)}


def test_hkd4vlm_frozen_control_and_staged_pyramid() -> None:
    frozen = stages(HKD4VLM(online=False, tcrd=False))
    assert learners(frozen["tune"]) == ["L", "M"]
    assert learners(frozen["ppod"]) == ["student"]
    assert frozen["ppod"].roles["M"] == Role(From("tune", "M"))
    staged = stages(HKD4VLM(pyramid="staged", tcrd=False))
    assert list(staged["ppod_M"].roles) == ["L", "M"]
    assert staged["ppod"].roles == {"M": Role(From("ppod_M", "M"), True), "student": Role("S", True)}


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_ppod_dense_by_hand(progress: float, ramp: float) -> None:
    """lambda(u) = 3u; L has no teacher, M learns from L, the student from the mean of both (w = 1/2)."""
    got = terms(HKD4VLM(ppod_weight=3.0), "ppod", progress)
    assert set(got["L"]) == {"ce"}
    torch.testing.assert_close(got["M"]["kd"], 3 * ramp * d("L", "M"))
    torch.testing.assert_close(got["student"]["kd"], 3 * ramp * (d("L", "student") + d("M", "student")) / 2)


def test_ppod_constant_ramp_ignores_progress() -> None:
    got = terms(HKD4VLM(ramp="constant"), "ppod", progress=0.0)
    torch.testing.assert_close(got["M"]["kd"], d("L", "M"))


def test_ppod_topologies_by_hand() -> None:
    chain = terms(HKD4VLM(topology="chain"), "ppod", 1.0)
    torch.testing.assert_close(chain["student"]["kd"], d("M", "student"))
    mutual = terms(HKD4VLM(topology="mutual"), "ppod", 1.0)
    torch.testing.assert_close(mutual["L"]["kd"], (d("M", "L") + d("student", "L")) / 2)
    ensemble = terms(HKD4VLM(topology="ensemble"), "ppod", 1.0)
    pooled = (torch.tensor(LOGITS["L"]) + torch.tensor(LOGITS["M"])) / 2
    torch.testing.assert_close(ensemble["student"]["kd"], d(pooled, "student"))


def test_tcrd_by_hand() -> None:
    """L_S = CE + 2 D(T, S) + 3 D(A, S); L_T = CE + 4 D(A, T) + 5 D(S, T), at t = 1."""
    method = HKD4VLM(
        student_from_teacher=2,
        student_from_anchor=3,
        teacher_from_anchor=4,
        teacher_from_student=5,
        temperature=1,
    )
    got = terms(method, "tcrd")
    torch.testing.assert_close(got["student"]["from_teacher"], 2 * d("teacher", "student", 1))
    torch.testing.assert_close(got["student"]["from_anchor"], 3 * d("anchor", "student", 1))
    torch.testing.assert_close(got["teacher"]["from_anchor"], 4 * d("anchor", "teacher", 1))
    torch.testing.assert_close(got["teacher"]["from_student"], 5 * d("student", "teacher", 1))


def test_tcrd_over_levels_by_hand() -> None:
    """L_S = CE + 2 D(T, S) + 3 (1 - cos(W h_S, h_T)) + 4 ||G_S - G_T||^2; L_T = CE + 5 D(S, T)."""
    weights = {"student_from_teacher": 2, "feature_weight": 3, "relation_weight": 4, "teacher_from_student": 5}
    method = HKD4VLM(ternary="levels", **weights)
    assert set(stages(method)["tcrd"].roles) == {"teacher", "student"}
    assert method.needs("ppod") == frozenset()
    step = fake(method, stages(method)["tcrd"])
    got = method.loss(step)
    assert set(got["student"]) == {"ce", "from_teacher", "feature", "relation"}
    torch.testing.assert_close(got["student"]["from_teacher"], 2 * d("teacher", "student"))
    mapped = step.adapters["student"](step.hidden("student"))
    cosine = torch.cosine_similarity(mapped, step.hidden("teacher"))
    torch.testing.assert_close(got["student"]["feature"], 3 * (1 - cosine))
    relation = relation_distance(step.vision("teacher"), step.vision("student"), 4)
    torch.testing.assert_close(got["student"]["relation"], 4 * relation)
    assert set(got["teacher"]) == {"ce", "from_student"}
    torch.testing.assert_close(got["teacher"]["from_student"], 5 * d("student", "teacher"))


def test_tcrd_over_views_by_hand() -> None:
    """L_S = CE + D(T, S) + 2 JSD(p_S(x), p_S(x')); only the student sees x'."""
    method = HKD4VLM(ternary="views", view_weight=2)
    step = fake(method, stages(method)["tcrd"])
    got = method.loss(step)
    assert step.asked == {("teacher", "first"), ("student", "first"), ("student", "second")}
    p, q = step.forward("student").softmax(-1), step.forward("student", "second").softmax(-1)
    r = (p + q) / 2
    want = ((p * (p / r).log()).sum(-1) + (q * (q / r).log()).sum(-1)) / 2
    torch.testing.assert_close(got["student"]["views"], 2 * want)
    assert set(got["student"]) == {"ce", "from_teacher", "views"}


def test_a_teacher_without_weight_is_not_tuned() -> None:
    off = HKD4VLM(ppod=False, teacher_learns=False, student_from_teacher=0)
    assert set(stages(off)["tune"].roles) == {"student"}
    assert set(stages(off)["tcrd"].roles) == {"anchor", "student"}


def test_tcrd_teacher_that_does_not_learn_is_frozen() -> None:
    assert stages(HKD4VLM(teacher_learns=False))["tcrd"].roles["teacher"] == Role(From("ppod", "L"))
    assert set(terms(HKD4VLM(teacher_learns=False), "tcrd")) == {"student"}


def test_tcrd_anchor_without_weight_is_not_loaded() -> None:
    off = HKD4VLM(student_from_anchor=0, teacher_from_anchor=0)
    assert set(stages(off)["tcrd"].roles) == {"teacher", "student"}
    assert set(terms(off, "tcrd")["student"]) == {"ce", "from_teacher"}


def test_tcrd_middle_anchor_is_the_rung_above_the_student() -> None:
    assert stages(HKD4VLM(anchor="middle"))["tcrd"].roles["anchor"] == Role(From("ppod", "M"))
    with pytest.raises(ConfigError, match="between it and 'L'"):
        HKD4VLM(anchor="middle").stages(("L", "S"), "S")


def test_msi_and_augmentation_are_the_harnesss() -> None:
    assert (HKD4VLM().shifts(), HKD4VLM(msi=False).shifts()) == ("cyclic", "none")
    assert HKD4VLM().augmentations() == ("paraphrase", "resize", "degrade")
    assert HKD4VLM(augmentation=False).augmentations() == ()


@pytest.mark.parametrize("settings", [{}, {"tcrd": False}, {"pyramid": "staged"}, {"online": False}], ids=str)
def test_distillation_can_learn_from_the_pool_and_tuning_does_not(settings: dict[str, Any]) -> None:
    data = {name: stage.data for name, stage in stages(HKD4VLM(learn_from="all", **settings)).items()}
    assert data == {name: "labels" if name == "tune" else "all" for name in data}
