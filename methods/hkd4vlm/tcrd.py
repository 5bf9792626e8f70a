"""TCRD, the fine part of HKD4VLM: three things are coupled. The setting `ternary` selects them:

models  L_S = CE + a t^2 D(T, S) + b t^2 D(A, S);   L_T = CE + c t^2 D(A, T) + d t^2 D(S, T)
levels  L_S = CE + a t^2 D(T, S) + f (1 - cos(W h_S, h_T)) + g ||G_S - G_T||^2
views   L_S = CE + a t^2 D(T, S) + v JSD(p_S(x), p_S(x'))

with teacher T, student S, a frozen anchor A (after arXiv 2305.15975); hidden states h at the answer, cosine Gram
matrices G of the visual tokens; an augmented view x'. Without an anchor L_T = CE + d t^2 D(S, T).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from harness.api import From, Need, Role, Stage, Step
from methods.losses import disagreement, feature_distance, relation_distance

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.hkd4vlm.method import HKD4VLM
    from methods.hkd4vlm.ppod import Weights

Ternary = Literal["models", "levels", "views"]


def has_teacher(m: HKD4VLM) -> bool:
    """Whether anything is learned from the teacher."""
    return bool(m.teacher_learns or m.student_from_teacher or needs(m))


def has_anchor(m: HKD4VLM) -> bool:
    """Whether anything is learned from the anchor."""
    wanted = m.student_from_anchor or (m.teacher_learns and m.teacher_from_anchor)
    return m.ternary == "models" and bool(wanted)


def needs(m: HKD4VLM) -> frozenset[Need]:
    """The outputs that the terms of `levels` compare."""
    if m.ternary != "levels":
        return frozenset()
    compared: dict[Need, float] = {"hidden": m.feature_weight, "vision": m.relation_weight}
    return frozenset(need for need, weight in compared.items() if weight)


def adapters(m: HKD4VLM, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
    """W, from the student's width to the teacher's."""
    if "hidden" not in needs(m):
        return {}
    from torch import nn

    return {"student": nn.Linear(widths["student"], widths["teacher"], bias=False)}


def stages(m: HKD4VLM, weights: Weights, share: float) -> tuple[Stage, ...]:
    """The single stage, `tcrd`, with the models that are learned from; updates `weights` to its results."""
    largest, *middle, student = weights
    roles = {"student": Role(weights[student], trainable=True)}
    if has_teacher(m):
        roles["teacher"] = Role(weights[largest], trainable=m.teacher_learns)
    if has_anchor(m):
        roles["anchor"] = Role(weights[middle[-1] if m.anchor == "middle" else student])
    weights["student"] = From("tcrd", "student")
    if m.teacher_learns:
        weights[largest] = From("tcrd", "teacher")
    return (Stage("tcrd", roles, share, m.learn_from),)


def loss(m: HKD4VLM, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
    """The student's terms, and the teacher's if it learns; a term with weight 0 is not computed."""
    losses = {"student": _from_models(m, step, "student", teacher=m.student_from_teacher, anchor=m.student_from_anchor)}
    if m.teacher_learns:
        pulls = {"anchor": m.teacher_from_anchor, "student": m.teacher_from_student}
        losses["teacher"] = _from_models(m, step, "teacher", **pulls)
    student = losses["student"]
    if "hidden" in needs(m):
        mapped_bd = step.adapt("student", step.hidden("student"))
        student["feature"] = m.feature_weight * feature_distance(step.hidden("teacher"), mapped_bd)
    if "vision" in needs(m):
        distance = relation_distance(step.vision("teacher"), step.vision("student"), m.relation_grid)
        student["relation"] = m.relation_weight * distance
    if m.ternary == "views" and m.view_weight:
        one, other = m.answer(step, "student"), m.answer(step, "student", "second")
        student["views"] = m.view_weight * disagreement(one, other, m.present(step, one))
    return losses


def _from_models(m: HKD4VLM, step: Step, role: str, **pulls: float) -> dict[str, Tensor]:
    """CE, and the weighted pull of each model that takes part."""
    terms = {"ce": m.ce(step, role)}
    for by, weight in pulls.items():
        if weight and by in step.roles:
            terms[f"from_{by}"] = weight * m.pull(step, m.answer(step, by), role)
    return terms
