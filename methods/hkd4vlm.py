"""HKD4VLM: progressive hybrid distillation, coarse to fine (arXiv 2506.13038, ACM MM 2025).

A reconstruction from the abstract: no code was published, and what the abstract doesn't fix is a setting
with our default. Four parts, each a switch: pyramid-like progressive online distillation (PPOD), then
ternary-coupled refinement distillation (TCRD); mapping shift-enhanced inference (MSI); augmentation.
With p_m = softmax(z_m / t) over the options, sg = stop-gradient and u = progress of the stage, 0 to 1:

PPOD  L_m = CE(y, p_m) + lambda(u) sum_j w_mj t^2 D(sg[p_j], p_m), j in N(m), w_mj = 1 / |N(m)|; all m
TCRD  L_S = CE + a t^2 D(T, S) + b t^2 D(A, S);   L_T = CE + c t^2 D(A, T) + d t^2 D(S, T)
      with teacher T, student S and a frozen anchor A (after arXiv 2305.15975)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.api import ConfigError, Example, From, Ladder, Method, Role, Stage, Step
from methods.augment import augment
from methods.losses import Divergence, cross_entropy, divergence
from methods.msi import Aggregate, Debias, Order, Shifts, fuse_views, shifted_orders
from methods.settings import check_ranges, larger_rungs

if TYPE_CHECKING:
    from torch import Tensor

Topology = Literal["dense", "chain", "mutual", "ensemble"]


@dataclass(frozen=True)
class HKD4VLM(Method):
    """PPOD, TCRD, MSI and augmentation, each with its switches."""

    name = "hkd4vlm"
    summary = "PPOD + TCRD + MSI + augmentation; a reconstruction from the paper's abstract"
    source = "arXiv 2506.13038 (abstract)"

    ppod: bool = True
    """The coarse part (the abstract); off: teacher and student are tuned on the labels alone in its place."""
    tcrd: bool = True
    """The fine part (the abstract); off: PPOD takes the whole budget."""
    order: Literal["ppod_tcrd", "tcrd_ppod"] = "ppod_tcrd"
    """Which of the two comes first; coarse to fine is the abstract's order."""
    ppod_share: float = 0.5
    """PPOD's part of the student budget, where TCRD takes the rest; ours."""
    topology: Topology = "dense"
    """N(m): all larger levels | the next larger | all others | one target from the mean logits of all
    larger; dense is ours, after arXiv 2009.08825 (mutual: 1706.00384)."""
    pyramid: Literal["ladder", "staged"] = "ladder"
    """All levels jointly | neighbouring pairs, largest pair first; ours."""
    online: bool = True
    """Larger levels learn beside the student (the abstract) | are tuned first, then frozen: the control."""
    ramp: Literal["linear", "constant"] = "linear"
    """lambda(u) = ppod_weight * u | ppod_weight; ours."""
    ppod_weight: float = 1.0
    """The largest lambda; ours."""
    anchor: Literal["snapshot", "middle"] = "snapshot"
    """TCRD's third model: the student as TCRD begins | the rung next above it; ours."""
    teacher_learns: bool = True
    """The teacher is refined too, from anchor and student (ours, after arXiv 2305.15975)."""
    student_from_teacher: float = 1.0
    """a; ours."""
    student_from_anchor: float = 0.5
    """b; ours."""
    teacher_from_anchor: float = 0.1
    """c; ours."""
    teacher_from_student: float = 0.1
    """d; ours."""
    divergence: Divergence = "forward_kl"
    """D: forward_kl (arXiv 1503.02531), reverse_kl (2306.08543), jsd (2306.13649), skew_kl (2402.03898), dkd
    (2203.08679); default ours."""
    temperature: float = 2.0
    """t; ours, from the range of arXiv 1503.02531."""
    jsd_beta: float = 0.5
    """The target's share in the mixture of `jsd`; 0.5 is the symmetric one of arXiv 2306.13649."""
    skew_alpha: float = 0.1
    """The target's share in the mixture of `skew_kl`; 0.1 as in arXiv 2402.03898."""
    dkd_tckd: float = 1.0
    """Weight of gold against the rest in `dkd`; 1 as in arXiv 2203.08679."""
    dkd_nckd: float = 1.0
    """Weight of the order among the rest in `dkd`; arXiv 2203.08679 uses 0.5 to 8 by task. Ours."""
    msi: bool = True
    """Mapping shift-enhanced inference (the abstract); off: one view."""
    shifts: Shifts = "cyclic"
    """Rotations of the options | all permutations | `random_shifts` permutations | none; ours."""
    random_shifts: int = 2
    """Permutations an example under shifts = random; ours."""
    keep_verdicts: bool = True
    """Options that are verdicts (True, False, ...) keep their letters, in MSI and in the option shuffle: their
    order is a custom, not content; ours."""
    aggregate: Aggregate = "prob"
    """Mean probability | mean log-probability | votes over the views; ours."""
    fixed_first: bool = True
    """A leading "No hallucination" keeps its letter, in MSI and in the option shuffle; ours."""
    debias: Debias = "none"
    """prior: divide by the mean letter prior over the views (arXiv 2309.03882); default ours."""
    augmentation: bool = True
    """The augmentations below (the abstract names no kinds: they are ours); off: none of them."""
    shuffle_options: bool = True
    """Options in random order; default ours."""
    paraphrase: bool = True
    """The question in one of four neutral frames; default ours."""
    resize: bool = True
    """Half of the images shrink by up to 6 % on their canvas; default ours."""
    degrade: bool = True
    """Three of four images get mild JPEG loss, blur or noise; default ours."""
    truncate_context: bool = False
    """Drop up to half of the context's sentences, from its end; off: it may remove what the gold needs."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            ppod_share=(0.01, 0.99),
            ppod_weight=(0, 1000),
            student_from_teacher=(0, 1000),
            student_from_anchor=(0, 1000),
            teacher_from_anchor=(0, 1000),
            teacher_from_student=(0, 1000),
            temperature=(0.05, 100),
            jsd_beta=(0.001, 0.999),
            skew_alpha=(0, 0.999),
            dkd_tckd=(0, 1000),
            dkd_nckd=(0, 1000),
            random_shifts=(1, 720),
        )
        if self.debias == "prior" and self.shifts == "none":
            raise ConfigError(
                "hkd4vlm: debias = 'prior' with shifts = 'none': expected several views, since one "
                "can't tell a letter's prior from its content; choose shifts = 'cyclic'"
            )

    # ------------------------------------------------------------------------------------------- stages

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """PPOD among the student and all larger rungs, then TCRD among largest, anchor and student.

        A PPOD role bears its rung's name, and the student `student`. Raises `ConfigError` where no rung is
        larger than the student, or the ladder has no middle one for `anchor` = `middle`.
        """
        above = larger_rungs(ladder, student)
        if self.tcrd and self.anchor == "middle" and len(above) < 2:
            raise ConfigError(
                f"hkd4vlm: anchor = 'middle' with student {student!r}: expected a rung between it "
                f"and {above[0]!r}; choose a smaller student or anchor = 'snapshot'"
            )
        weights: dict[str, str | From] = {**{rung: rung for rung in above}, "student": student}
        if not self.tcrd:
            return self._coarse(weights, 1.0)
        if self.order == "tcrd_ppod" and self.ppod:
            return (*self._fine(weights, 1 - self.ppod_share), *self._coarse(weights, self.ppod_share))
        return (*self._coarse(weights, self.ppod_share), *self._fine(weights, 1 - self.ppod_share))

    def _coarse(self, weights: dict[str, str | From], share: float) -> tuple[Stage, ...]:
        """PPOD's stages; `weights` (levels, largest first) moves on to what they leave behind."""
        levels = tuple(weights)
        if not self.ppod:  # only those that TCRD needs
            used = {levels[0], *levels[-2 if self.anchor == "middle" else -1 :]} if self.tcrd else {"student"}
            return (_stage("tune", {role: True for role in levels if role in used}, weights, share),)
        groups = [levels] if self.pyramid == "ladder" else list(pairwise(levels))
        stages = [] if self.online else [_stage("tune", dict.fromkeys(groups[0][:-1], True), weights, share)]
        for group in groups:
            name = "ppod" if group[-1] == "student" else f"ppod_{group[-1]}"
            learner = group[-1]
            taking_part = group if self.online else (*_teachers(self.topology, group, learner), learner)
            learns = {role: self.online or role == learner for role in taking_part}
            stages.append(_stage(name, learns, weights, share))
        return tuple(stages)

    def _fine(self, weights: dict[str, str | From], share: float) -> tuple[Stage, ...]:
        """TCRD's stage; `weights` moves on to what it leaves behind."""
        largest, *middle, student = weights
        roles = {"student": Role(weights[student], trainable=True)}
        if self.student_from_teacher or self.teacher_learns:
            roles["teacher"] = Role(weights[largest], trainable=self.teacher_learns)
        if self.student_from_anchor or (self.teacher_learns and self.teacher_from_anchor):
            roles["anchor"] = Role(weights[middle[-1] if self.anchor == "middle" else student])
        weights["student"] = From("tcrd", "student")
        if self.teacher_learns:
            weights[largest] = From("tcrd", "teacher")
        return (Stage("tcrd", roles, share),)

    # --------------------------------------------------------------------------------------------- loss

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """Cross-entropy for every learner, with PPOD's or TCRD's terms in their stages."""
        if step.stage == "tcrd":
            return self._tcrd(step)
        levels = tuple(step.roles)
        learners = [role for role in levels if step.roles[role].trainable]
        if step.stage == "tune":
            return {role: {"ce": self._ce(step, role)} for role in learners}
        return {role: self._ppod(step, levels, role) for role in learners}

    def _ppod(self, step: Step, levels: Sequence[str], role: str) -> dict[str, Tensor]:
        terms = {"ce": self._ce(step, role)}
        weight = self.ppod_weight * (step.progress if self.ramp == "linear" else 1.0)
        teachers = [step.forward(level) for level in _teachers(self.topology, levels, role)]
        if self.topology == "ensemble" and teachers:
            teachers = [sum(teachers[1:], teachers[0]) / len(teachers)]
        pulls = [self._distil(step, teacher_bk, role) for teacher_bk in teachers]
        if pulls:
            terms["kd"] = sum(pulls[1:], pulls[0]) * (weight / len(pulls))
        return terms

    def _tcrd(self, step: Step) -> dict[str, dict[str, Tensor]]:
        pulls = {"student": {"teacher": self.student_from_teacher, "anchor": self.student_from_anchor}}
        if self.teacher_learns:
            pulls["teacher"] = {"anchor": self.teacher_from_anchor, "student": self.teacher_from_student}
        return {
            role: {"ce": self._ce(step, role)}
            | {f"from_{by}": self._distil(step, step.forward(by), role) * w for by, w in pull.items() if w}
            for role, pull in pulls.items()
        }

    def _ce(self, step: Step, role: str) -> Tensor:
        return cross_entropy(step.forward(role), step.labels_b, step.options_bk)

    def _distil(self, step: Step, teacher_bk: Tensor, role: str) -> Tensor:
        return divergence(
            self.divergence,
            teacher_bk,
            step.forward(role),
            step.labels_b,
            step.options_bk,
            temperature=self.temperature,
            beta=self.jsd_beta,
            alpha=self.skew_alpha,
            tckd=self.dkd_tckd,
            nckd=self.dkd_nckd,
        )

    # ------------------------------------------------------------------------- augmentation and inference

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The example in another form with the same gold (see methods.augment)."""
        if not self.augmentation:
            return example
        return augment(
            example,
            rng,
            shuffle_options=self.shuffle_options,
            fixed_first=self.fixed_first,
            keep_verdicts=self.keep_verdicts,
            paraphrase=self.paraphrase,
            resize=self.resize,
            degrade=self.degrade,
            truncate_context=self.truncate_context,
        )

    def views(self, example: Example) -> Sequence[Example]:
        """The example with its options at shifted letters (see methods.msi)."""
        return tuple(example.reordered(order) for order in self._orders(example))

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One log-probability an option (K,) from the views' (V, K)."""
        return fuse_views(self._orders(example), scores_vk, self.aggregate, self.debias)

    def _orders(self, example: Example) -> tuple[Order, ...]:
        shifts: Shifts = self.shifts if self.msi else "none"
        return shifted_orders(
            example.options, shifts, self.random_shifts, self.fixed_first, example.id, self.keep_verdicts
        )


def _stage(name: str, learns: Mapping[str, bool], weights: dict[str, str | From], share: float) -> Stage:
    """A stage of these roles, from their latest weights; a learner's latest become those of this stage."""
    stage = Stage(name, {role: Role(weights[role], trainable) for role, trainable in learns.items()}, share)
    weights.update({role: From(name, role) for role, trainable in learns.items() if trainable})
    return stage


def _teachers(topology: Topology, levels: Sequence[str], role: str) -> Sequence[str]:
    """N(m) for the level `role`, among `levels`, largest first."""
    m = levels.index(role)
    match topology:
        case "dense" | "ensemble":
            return levels[:m]
        case "chain":
            return levels[max(m - 1, 0) : m]
        case "mutual":
            return [*levels[:m], *levels[m + 1 :]]
