"""The built-in methods: their stages as data, their losses on fixed logits, their settings' ranges."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
import torch

from harness import registry
from harness.api import ConfigError, From, Method, Role, Stage
from harness.planning.tuning import trainer_of
from harness.report.describe import field_docs
from helpers.steps import LADDER, WIDTHS, d, fake, learners, stages, terms
from methods.assistant import Assistant
from methods.born_again import BornAgain
from methods.ensemble_kd import EnsembleKD
from methods.feature_kd import FeatureKD
from methods.finetune import Finetune
from methods.hkd4vlm.method import HKD4VLM
from methods.losses import relation_distance
from methods.mean_teacher import MeanTeacher
from methods.mutual import Mutual
from methods.offline_kd import OfflineKD
from methods.pseudo_label import PseudoLabel
from methods.relation_kd import RelationKD
from methods.zero_shot import ZeroShot

NEEDS_A_LARGER: list[type[Method]] = [
    OfflineKD, Mutual, Assistant, FeatureKD, RelationKD, EnsembleKD, PseudoLabel, HKD4VLM,
]  # fmt: skip
ALL: list[type[Method]] = [Finetune, BornAgain, MeanTeacher, *NEEDS_A_LARGER]
ABLATIONS = [(make, name) for make in ALL for name in make.ablations]
VARIANTS: list[Method] = [
    *(make() for make in ALL),
    Finetune(label_smoothing=0.1),
    *(make(**make.ablations[name]) for make, name in ABLATIONS),
    OfflineKD(divergence="dkd", teacher="M"),
    OfflineKD(support="vocab", divergence="jsd"),
    OfflineKD(learn_from="pool", ce_weight=0.0),
    BornAgain(generations=2, learn_from="pool", ce_weight=0.0),
    EnsembleKD(teachers=("L", "M"), support="vocab", learn_from="all", ce_weight=0.0),
    PseudoLabel(noisy=True, learn_from="pool", ce_weight=0.0),
    FeatureKD(feature_weight=0.0),
    FeatureKD(depths=(0.5, 1.0)),
    RelationKD(support="vocab"),
    HKD4VLM(pyramid="staged", online=False),
    HKD4VLM(topology="chain", online=False),
    HKD4VLM(topology="ensemble", support="vocab", ternary="views"),
    HKD4VLM(student_from_teacher=0, teacher_learns=False),
    HKD4VLM(ternary="levels", teacher_learns=False, feature_weight=0),
    HKD4VLM(ternary="levels", teacher_learns=False, relation_weight=0, student_from_teacher=0),
    HKD4VLM(ternary="levels", teacher_learns=False, relation_weight=0, feature_weight=0, student_from_teacher=0),
    HKD4VLM(ternary="views", view_weight=0),
    HKD4VLM(ppod=False, tcrd=False),
    HKD4VLM(ppod=False, anchor="middle"),
    HKD4VLM(ppod=False, anchor="middle", ternary="views"),
    HKD4VLM(anchor="middle", teacher_learns=False),
    HKD4VLM(divergence="jsd", ramp="constant"),
]


@pytest.mark.parametrize("method", VARIANTS, ids=lambda m: f"{m.name} {non_defaults(m)}")
def test_stages_and_losses_keep_the_contract(method: Method) -> None:
    """The student's shares sum to 1; weights come from earlier stages; gradient reaches learners only."""
    laid_out = method.stages(LADDER, "S")
    trained: set[From] = set()
    for stage in laid_out:
        for role in stage.roles.values():
            assert role.weights in trained or role.weights in LADDER
        trained |= {From(stage.name, name) for name, role in stage.roles.items() if role.changes}
        step = fake(method, stage)
        assert set(step.adapters) <= set(learners(stage))
        loss = trainer_of(method, stage).loss(step)
        assert set(loss) == set(learners(stage))
        assert {role for role, _ in step.asked} == set(stage.roles)  # nobody is loaded for nothing
        assert step.needs <= {what for _, _, what in step.given}  # nothing is kept for nothing
        for learner in loss:
            for tensor in (*step.given.values(), *(p for m in step.adapters.values() for p in m.parameters())):
                tensor.grad = None
            torch.stack(list(loss[learner].values())).sum().backward(retain_graph=True)
            reached = {key for key, z in step.given.items() if z.grad is not None and z.grad.any()}
            assert {role for role, _, _ in reached} == {learner}
            if learner in step.adapters:
                assert all(p.grad is not None and p.grad.any() for p in step.adapters[learner].parameters())
    assert sum(s.share for s in laid_out if changes_student(s)) == pytest.approx(1.0)
    assert len({s.name for s in laid_out}) == len(laid_out)
    assert changes_student(laid_out[-1])


def changes_student(stage: Stage) -> bool:
    return "student" in stage.roles and stage.roles["student"].changes


def non_defaults(method: Method) -> dict[str, Any]:
    return {f.name: v for f in fields(method) if (v := getattr(method, f.name)) != f.default}


@pytest.mark.parametrize(("make", "name"), ABLATIONS)
def test_ablations_differ_from_the_whole_by_what_they_say(make: type[Method], name: str) -> None:
    assert registry.make_method(make.name, make.ablations[name]) != make()
    assert non_defaults(make(**make.ablations[name])) == make.ablations[name]


def test_zero_shot_has_no_stages() -> None:
    assert ZeroShot().stages(LADDER, "L") == ()


def test_finetune_tunes_any_rung_on_the_labels() -> None:
    for rung in LADDER:
        assert stages(Finetune(), student=rung) == {"tune": Stage("tune", {"student": Role(rung, True)}, 1.0)}
    ce = terms(Finetune(), "tune")["student"]["ce"]
    assert ce[0].item() == pytest.approx(math.log(3))  # the first row is uniform over three options
    smooth = terms(Finetune(label_smoothing=0.3), "tune")["student"]["ce"]
    p = torch.tensor([1.0, -1.0, 0.0]).softmax(0).log()
    assert smooth[1].item() == pytest.approx(-float(p @ torch.tensor([0.1, 0.1, 0.8])))  # gold 2


def test_offline_kd_tunes_freezes_and_distils() -> None:
    assert stages(OfflineKD(teacher_share=2.0)) == {
        "teacher": Stage("teacher", {"teacher": Role("L", True)}, 2.0, tuning=True),
        "distil": Stage("distil", {"teacher": Role(From("teacher", "teacher")), "student": Role("S", True)}, 1.0),
    }
    assert stages(OfflineKD(teacher="M"))["teacher"].roles["teacher"].weights == "M"
    student = terms(OfflineKD(alpha=0.25), "distil")["student"]
    torch.testing.assert_close(student["kd"], 0.25 * d("teacher", "student"))
    assert set(student) == {"ce", "kd"}
    assert set(terms(OfflineKD(), "teacher")["teacher"]) == {"ce"}


def test_dist_couples_the_examples_where_a_teacher_is() -> None:
    for method in (OfflineKD(divergence="dist"), HKD4VLM(divergence="dist", online=False)):
        laid_out = method.stages(LADDER, "S")
        assert [trainer_of(method, s).couples(s.name) for s in laid_out] == [not s.tuning for s in laid_out]
    assert not OfflineKD(divergence="dist", dist_across=0.0).couples("distil")
    assert not OfflineKD().couples("distil")
    only_within = terms(OfflineKD(divergence="dist", dist_across=0.0, dist_within=3.0), "distil")["student"]["kd"]
    both = terms(OfflineKD(divergence="dist", dist_within=3.0), "distil")["student"]["kd"]
    assert (both > only_within).all()


def test_feature_kd_by_hand() -> None:
    """2 (1 - cos(W h_S, h_T)), W a matrix from 3 to 6."""
    method = FeatureKD(feature_weight=2.0)
    stage = stages(method)["distil"]
    step = fake(method, stage)
    weight = step.adapters["student"].weight
    assert weight.shape == (6, 3)
    got = method.loss(step)["student"]
    assert set(got) == {"ce", "kd", "feature"}
    for i in range(2):
        mapped, target = weight @ step.hidden("student")[i], step.hidden("teacher")[i]
        cosine = mapped @ target / (mapped.norm() * target.norm())
        torch.testing.assert_close(got["feature"][i], 2 * (1 - cosine))
    assert set(terms(method, "teacher")["teacher"]) == {"ce"}


def test_feature_kd_at_several_depths_by_hand() -> None:
    """Of 6 and of 2 layers: after a third layers 2 and 1, after two thirds 4 and 1, at the end 6 and 2."""
    method = FeatureKD(depths=(1 / 3, 2 / 3, 1.0))
    step = fake(method, stages(method)["distil"])
    got = method.loss(step)["student"]["feature"]
    teacher_bnd, student_bnd = step.layers("teacher"), step.layers("student")
    weights = step.adapters["student"].weight
    pairs = [(1, 0), (3, 0), (5, 1)]
    for i in range(2):
        cosines = [torch.cosine_similarity(weights @ student_bnd[i, s], teacher_bnd[i, t], dim=0) for t, s in pairs]
        torch.testing.assert_close(got[i], 1 - torch.stack(cosines).mean())
    assert method.needs("distil") == {"layers"}
    assert FeatureKD().needs("distil") == {"hidden"}  # as one need of all cached ones


@pytest.mark.parametrize("depths", [(), (0.0,), (0.5, 1.5)])
def test_depths_are_fractions(depths: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"feature_kd: depths = .*: expected one or more fractions above 0"):
        FeatureKD(depths=depths)


def test_feature_and_relation_terms_without_weight_ask_for_nothing() -> None:
    for method in (FeatureKD(feature_weight=0.0), RelationKD(relation_weight=0.0)):
        assert method.needs("distil") == frozenset()
        assert method.adapters("distil", WIDTHS) == {}
        assert set(terms(method, "distil")["student"]) == {"ce", "kd"}
    assert FeatureKD().needs("teacher") == RelationKD().needs("teacher") == frozenset()


def test_relation_kd_adds_its_term() -> None:
    method = RelationKD(relation_weight=3.0)
    step = fake(method, stages(method)["distil"])
    got = method.loss(step)["student"]
    want = relation_distance(step.vision("teacher"), step.vision("student"), 4)
    torch.testing.assert_close(got["relation"], 3 * want)


def test_mutual_peers_teach_each_other() -> None:
    assert stages(Mutual()) == {"together": Stage("together", {"L": Role("L", True), "student": Role("S", True)}, 1.0)}
    got = terms(Mutual(alpha=2.0), "together")
    torch.testing.assert_close(got["L"]["kd"], 2 * d("student", "L", 1))
    torch.testing.assert_close(got["student"]["kd"], 2 * d("L", "student", 1))
    three = terms(Mutual(peers="all"), "together")
    torch.testing.assert_close(three["M"]["kd"], (d("L", "M", 1) + d("student", "M", 1)) / 2)
    assert set(stages(Mutual(alpha=0.0))["together"].roles) == {"student"}


def test_assistant_chain_and_dense() -> None:
    chain = stages(Assistant(teacher_share=3.0, larger_share=2.0))
    assert chain == {
        "tune": Stage("tune", {"L": Role("L", True)}, 3.0, tuning=True),
        "assist_M": Stage("assist_M", {"L": Role(From("tune", "L")), "M": Role("M", True)}, 2.0),
        "distil": Stage("distil", {"M": Role(From("assist_M", "M")), "student": Role("S", True)}, 1.0),
    }
    torch.testing.assert_close(terms(Assistant(), "assist_M")["M"]["kd"], d("L", "M"))
    torch.testing.assert_close(terms(Assistant(), "distil")["student"]["kd"], d("M", "student"))
    assert list(stages(Assistant(dense=True))["distil"].roles) == ["L", "M", "student"]
    dense = terms(Assistant(dense=True, alpha=3.0), "distil")
    torch.testing.assert_close(dense["student"]["kd"], 3 * (d("L", "student") + d("M", "student")) / 2)
    with pytest.raises(ConfigError, match=r"student 'M': expected a rung between it and 'L'.*'offline_kd'"):
        Assistant().stages(LADDER, "M")


def test_over_the_vocabulary_all_tokens_count() -> None:
    method = OfflineKD(support="vocab")
    step = fake(method, stages(method)["distil"])
    t, s = step.vocab("teacher") / 2, step.vocab("student") / 2
    want = 4 * (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(method.loss(step)["student"]["kd"], want)
    with pytest.raises(ConfigError, match=r"'dkd' with support = 'vocab': expected support = 'options'"):
        OfflineKD(support="vocab", divergence="dkd")


@pytest.mark.parametrize("method", [make() for make in NEEDS_A_LARGER], ids=lambda m: m.name)
def test_a_student_without_a_larger_rung_is_refused(method: Method) -> None:
    with pytest.raises(ConfigError, match=r"'L' is the largest rung.*finetune"):
        method.stages(LADDER, "L")
    with pytest.raises(ConfigError, match=r"'XS' is not a rung.*known: L, M, S"):
        method.stages(LADDER, "XS")
    with pytest.raises(ConfigError, match="another name"):
        method.stages(("student", "S"), "S")


def test_a_teacher_must_be_larger_than_the_student() -> None:
    with pytest.raises(ConfigError, match=r"teacher = 'S'.*known: L, M"):
        OfflineKD(teacher="S").stages(LADDER, "S")


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (OfflineKD, {"temperature": 0.0}),
        (OfflineKD, {"alpha": -1.0}),
        (OfflineKD, {"jsd_beta": 1.0}),
        (OfflineKD, {"temperature": math.nan}),
        (OfflineKD, {"dist_across": -1.0}),
        (Finetune, {"label_smoothing": 1.0}),
        (PseudoLabel, {"confidence": 1.5}),
        (MeanTeacher, {"decay": 1.0}),
        (HKD4VLM, {"ppod_share": 0.0}),
        (HKD4VLM, {"ppod_share": 1.0}),
        (HKD4VLM, {"ce_weight": -1.0}),
    ],
)
def test_settings_out_of_range_say_what_is_expected(make: type[Method], settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=rf"{make.name}: {name} = {value}: expected .* from .* default is"):
        make(**settings)


@pytest.mark.parametrize("make", [ZeroShot, *ALL])
def test_methods_describe_themselves(make: type[Method]) -> None:
    """A name and a summary, and for each setting a type that can be checked at run time and a docstring."""
    assert make.name
    assert make.summary
    hints, docs = get_type_hints(make), field_docs(make)
    for setting in fields(make):
        assert hints[setting.name] in (float, int, bool, str) or hints[setting.name].__args__
        assert docs[setting.name]
