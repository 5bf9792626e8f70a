"""The built-in methods: their stages as data, their losses on fixed logits, their settings' ranges."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.api import ConfigError, Example, From, Method, Role, Stage
from harness.report.describe import field_docs
from methods.assistant import Assistant
from methods.feature_kd import FeatureKD
from methods.finetune import Finetune
from methods.hkd4vlm.method import HKD4VLM
from methods.losses import divergence, relation_distance
from methods.mutual import Mutual
from methods.offline_kd import OfflineKD
from methods.relation_kd import RelationKD
from methods.zero_shot import ZeroShot

LADDER = ("L", "M", "S")
LOGITS = {
    "L": [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    "M": [[1.0, 0.5, 0.0], [0.3, 0.0, 2.0]],
    "student": [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]],
    "teacher": [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    "anchor": [[0.5, 0.0, 0.0], [0.0, 0.0, 1.0]],
}
LABELS = torch.tensor([0, 2])
OPTIONS = torch.tensor([[True, True, True], [True, True, True]])


WIDTHS = {"L": 6, "M": 5, "student": 3, "teacher": 6, "anchor": 3}


@dataclass
class FakeStep:
    """A step of two examples with fixed outputs; it counts the passes that were asked for."""

    stage_spec: Stage
    progress: float = 0.5
    needs: frozenset[str] = frozenset()
    adapters: Mapping[str, torch.nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.roles: Mapping[str, Role] = self.stage_spec.roles
        self.stage = self.stage_spec.name
        self.examples: Sequence[Example] = ()
        self.labels_b, self.options_bk = LABELS, OPTIONS
        self.given: dict[tuple[str, str, str], Tensor] = {}
        self.asked: set[tuple[str, str]] = set()

    def _give(self, what: str, role: str, view: str, value: Tensor) -> Tensor:
        assert what == "options" or what in self.needs
        self.asked.add((role, view))
        return self.given.setdefault((role, view, what), value.requires_grad_(self.roles[role].trainable))

    def _random(self, what: str, role: str, view: str, *shape: int) -> Tensor:
        seed = zlib.crc32(f"{what} {role} {view}".encode())
        return self._give(what, role, view, torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, role: str, view: str = "first") -> Tensor:
        shift = 0.0 if view == "first" else 0.3
        return self._give("options", role, view, torch.tensor(LOGITS[role]) + torch.tensor([shift, 0.0, 0.0]))

    def hidden(self, role: str, view: str = "first") -> Tensor:
        return self._random("hidden", role, view, WIDTHS[role])

    def vision(self, role: str, view: str = "first") -> Tensor:
        return self._random("vision", role, view, 16 if role == "student" else 7, WIDTHS[role])

    def vocab(self, role: str, view: str = "first") -> Tensor:
        return self._random("vocab", role, view, 9)

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        output: Tensor = self.adapters[role](inputs)
        return output


def fake(method: Method, stage: Stage, progress: float = 0.5) -> FakeStep:
    torch.manual_seed(0)
    widths = {role: WIDTHS[role] for role in stage.roles}
    return FakeStep(stage, progress, method.needs(stage.name), method.adapters(stage.name, widths))


def stages(method: Method, ladder: Sequence[str] = LADDER, student: str = "S") -> dict[str, Stage]:
    return {stage.name: stage for stage in method.stages(ladder, student)}


def terms(method: Method, stage: str, progress: float = 0.5) -> dict[str, dict[str, Tensor]]:
    """The loss terms of the stage, after a check that each is one number an example for a learner."""
    step = fake(method, stages(method)[stage], progress)
    loss = method.loss(step)
    assert set(loss) == {name for name, role in step.roles.items() if role.trainable}
    for named in loss.values():
        for term in named.values():
            assert term.shape == (2,)
            assert term.isfinite().all()
    return {role: dict(named) for role, named in loss.items()}


def d(teacher: str | Tensor, student: str, temperature: float = 2.0) -> Tensor:
    target = teacher if isinstance(teacher, Tensor) else torch.tensor(LOGITS[teacher])
    return divergence("forward_kl", target, torch.tensor(LOGITS[student]), LABELS, OPTIONS, temperature=temperature)


def learners(stage: Stage) -> list[str]:
    return [name for name, role in stage.roles.items() if role.trainable]


ALL: list[type[Method]] = [Finetune, OfflineKD, Mutual, Assistant, FeatureKD, RelationKD, HKD4VLM]
ABLATIONS = [(make, name) for make in ALL for name in make.ablations]
VARIANTS: list[Method] = [
    *(make() for make in ALL),
    *(make(**make.ablations[name]) for make, name in ABLATIONS),
    OfflineKD(divergence="dkd", teacher="M"),
    OfflineKD(support="vocab", divergence="jsd"),
    FeatureKD(feature_weight=0.0),
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
        trained |= {From(stage.name, name) for name in learners(stage)}
        step = fake(method, stage)
        assert set(step.adapters) <= set(learners(stage))
        loss = method.loss(step)
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
    assert sum(s.share for s in laid_out if "student" in learners(s)) == pytest.approx(1.0)
    assert len({s.name for s in laid_out}) == len(laid_out)
    assert "student" in learners(laid_out[-1])


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


def test_offline_kd_tunes_freezes_and_distils() -> None:
    assert stages(OfflineKD(teacher_share=2.0)) == {
        "teacher": Stage("teacher", {"teacher": Role("L", True)}, 2.0),
        "distil": Stage("distil", {"teacher": Role(From("teacher", "teacher")), "student": Role("S", True)}, 1.0),
    }
    assert stages(OfflineKD(teacher="M"))["teacher"].roles["teacher"].weights == "M"
    student = terms(OfflineKD(alpha=0.25), "distil")["student"]
    torch.testing.assert_close(student["kd"], 0.25 * d("teacher", "student"))
    assert set(student) == {"ce", "kd"}
    assert set(terms(OfflineKD(), "teacher")["teacher"]) == {"ce"}


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
    chain = stages(Assistant(larger_share=2.0))
    assert chain == {
        "tune": Stage("tune", {"L": Role("L", True)}, 2.0),
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


@pytest.mark.parametrize("method", [make() for make in ALL[1:]], ids=lambda m: m.name)
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
        (HKD4VLM, {"ppod_share": 0.0}),
        (HKD4VLM, {"ppod_share": 1.0}),
        (HKD4VLM, {"random_shifts": 0}),
    ],
)
def test_settings_out_of_range_say_what_is_expected(make: type[Method], settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=rf"{make.name}: {name} = {value}: expected .* from .* default is"):
        make(**settings)


def test_prior_debias_needs_views() -> None:
    with pytest.raises(ConfigError, match="several views"):
        HKD4VLM(debias="prior", shifts="none")


@pytest.mark.parametrize("make", [ZeroShot, *ALL])
def test_methods_describe_themselves(make: type[Method]) -> None:
    """A name and a summary, and for each setting a type that can be checked at run time and a docstring."""
    assert make.name
    assert make.summary
    hints, docs = get_type_hints(make), field_docs(make)
    for setting in fields(make):
        assert hints[setting.name] in (float, int, bool, str) or hints[setting.name].__args__
        assert docs[setting.name]
