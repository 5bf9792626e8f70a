"""HKD4VLM: progressive hybrid distillation, coarse to fine (arXiv 2506.13038, ACM MM 2025).

A reconstruction from the abstract: no code was published, and everything that the abstract leaves open is a setting
with our default. Four parts, each with a switch: pyramid-like progressive online distillation (PPOD,
methods.hkd4vlm.ppod), then ternary-coupled refinement distillation (TCRD, methods.hkd4vlm.tcrd); mapping
shift-enhanced inference (MSI) and augmentation, both of which the harness offers to every method. With p_m =
softmax(z_m / t) over the options, sg = stop-gradient and u = progress of the stage, 0 to 1:

PPOD  L_m = CE(y, p_m) + lambda(u) sum_j w_mj t^2 D(sg[p_j], p_m), j in N(m), w_mj = 1 / |N(m)|; all m
TCRD  L_S = CE + a t^2 D(T, S) + b t^2 D(A, S);   L_T = CE + c t^2 D(A, T) + d t^2 D(S, T)
      with teacher T, student S and a frozen anchor A (after arXiv 2305.15975)
MSI   answer argmax_k of the mean over shifts s of P(letter (k + s) mod K | x, s)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.api import Augmentation, ConfigError, From, Ladder, Need, Shifts, Stage, Step
from methods.base import Distilling, check_ranges, larger_rungs
from methods.hkd4vlm import ppod as coarse
from methods.hkd4vlm import tcrd as fine
from methods.hkd4vlm.ppod import Topology, Weights
from methods.hkd4vlm.tcrd import Ternary
from methods.losses import DIVERGENCES

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class HKD4VLM(Distilling):
    """PPOD, TCRD, MSI and augmentation, each with its switches."""

    name = "hkd4vlm"
    summary = "PPOD + TCRD + MSI + augmentation; a reconstruction from the paper's abstract"
    source = "arXiv 2506.13038 (abstract)"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "-PPOD": {"ppod": False},
        "-TCRD": {"tcrd": False},
        "-MSI": {"msi": False},
        "-augmentation": {"augmentation": False},
        "frozen": {"online": False},
        "teacher fixed": {"teacher_learns": False},
        "staged": {"pyramid": "staged"},
        "reversed": {"order": "tcrd_ppod"},
        **{f"topology={name}": {"topology": name} for name in ("chain", "mutual", "ensemble")},
        **{f"ternary={name}": {"ternary": name} for name in ("levels", "views")},
        **{f"divergence={name}": {"divergence": name} for name in DIVERGENCES if name != "forward_kl"},
    }

    ppod: bool = True
    """The coarse part (the abstract); off: teacher and student are tuned on the labels only instead."""
    tcrd: bool = True
    """The fine part (the abstract); off: PPOD gets the full budget."""
    order: Literal["ppod_tcrd", "tcrd_ppod"] = "ppod_tcrd"
    """Which of the two comes first; the abstract's order is coarse to fine."""
    ppod_share: float = 0.5
    """PPOD's share of the student budget; TCRD gets the rest; ours."""
    topology: Topology = "dense"
    """N(m): all larger levels | the next larger | all others | one target from the mean logits of all
    larger; dense is ours, after arXiv 2009.08825 (mutual: 1706.00384)."""
    pyramid: Literal["ladder", "staged"] = "ladder"
    """All levels jointly | neighbouring pairs, largest pair first; ours."""
    online: bool = True
    """Larger levels learn together with the student (the abstract) | are tuned first, then frozen: the control."""
    ramp: Literal["linear", "constant"] = "linear"
    """lambda(u) = ppod_weight * u | ppod_weight; ours."""
    ppod_weight: float = 1.0
    """The largest lambda; ours."""
    ternary: Ternary = "models"
    """What TCRD couples: teacher, student and anchor | answers, hidden states and visual tokens of teacher and
    student | the teacher's answer and the student's in two views; ours."""
    anchor: Literal["snapshot", "middle"] = "snapshot"
    """The third of `models`: the student at the start of TCRD | the next larger rung; ours."""
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
    feature_weight: float = 1.0
    """For `levels`: weight of the hidden states at the answer (see feature_kd); ours."""
    relation_weight: float = 0.02
    """For `levels`: weight of the relations among visual tokens, a sum over their pairs (see relation_kd); ours."""
    relation_grid: int = 4
    """For `levels`: cells per side of the grid on which visual tokens are compared; ours."""
    view_weight: float = 1.0
    """For `views`: weight of the disagreement with the second view, which has another wording and image quality
    whatever `augmentation` says; ours."""
    augmentation: bool = True
    """The harness's augmentations `paraphrase`, `resize` and `degrade` (the abstract doesn't list them: ours)."""
    msi: bool = True
    """Mapping shift-enhanced inference (the abstract), the harness's shifted inference; off: one view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            ppod_share=(0.01, 0.99),
            ppod_weight=(0, 1000),
            student_from_teacher=(0, 1000),
            student_from_anchor=(0, 1000),
            teacher_from_anchor=(0, 1000),
            teacher_from_student=(0, 1000),
            feature_weight=(0, 1000),
            relation_weight=(0, 1000),
            relation_grid=(2, 32),
            view_weight=(0, 1000),
        )

    # ----------------------------------------------------------------------------------------- training

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """PPOD among the student and all larger rungs, then TCRD among largest, anchor and student.

        A PPOD role has its rung's name, and the student is called `student`. Raises `ConfigError` if no rung is
        larger than the student, or if the ladder has no middle one for `anchor` = `middle`.
        """
        above = larger_rungs(ladder, student)
        middle = self.tcrd and self.anchor == "middle" and fine.has_anchor(self)
        if middle and len(above) < 2:
            raise ConfigError(
                f"hkd4vlm: anchor = 'middle' with student {student!r}: expected a rung between it "
                f"and {above[0]!r}; choose a smaller student or anchor = 'snapshot'"
            )
        weights: dict[str, str | From] = {**{rung: rung for rung in above}, "student": student}
        share = self.ppod_share if self.tcrd else 1.0
        if not self.ppod:
            teacher = above[:1] if self.tcrd and fine.has_teacher(self) else ()
            used = {"student", *teacher, *(above[-1:] if middle else ())}
            return (*coarse.plain_stages(used, weights, share), *self._fine(weights))
        if self.tcrd and self.order == "tcrd_ppod":
            return (*self._fine(weights), *coarse.stages(self, weights, share))
        return (*coarse.stages(self, weights, share), *self._fine(weights))

    def _fine(self, weights: Weights) -> tuple[Stage, ...]:
        return fine.stages(self, weights, 1 - self.ppod_share) if self.tcrd else ()

    def needs(self, stage: str) -> frozenset[Need]:
        """The vocabulary if answers are compared over it, and what `levels` compares in TCRD."""
        return super().needs(stage) | (fine.needs(self) if stage == "tcrd" else frozenset())

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        """The student's W in TCRD over `levels`."""
        return fine.adapters(self, widths) if stage == "tcrd" else {}

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """Cross-entropy for every learner, with PPOD's or TCRD's terms in their stages."""
        return fine.loss(self, step) if step.stage == "tcrd" else coarse.loss(self, step)

    def augmentations(self) -> tuple[Augmentation, ...]:
        """The harness's augmentations that are part of the method."""
        return ("paraphrase", "resize", "degrade") if self.augmentation else ()

    def shifts(self) -> Shifts:
        """MSI: all rotations of the options."""
        return "cyclic" if self.msi else "none"
