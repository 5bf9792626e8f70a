"""What all distillation methods share: what they learn from, the divergence between teacher and student, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from harness.api import ConfigError, Ladder, Method, Need, Source, Step, View, near
from methods.losses import Divergence, cross_entropy, divergence

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Taught(Method):
    """A method whose student learns from another model, on the examples that it chooses."""

    learn_from: Source = "labels"
    """What the student is distilled on: training examples with a gold | the pool, which has none | both; ours."""
    ce_weight: float = 1.0
    """Weight of the student's cross-entropy with the golds; 0 is distillation alone. Ours."""

    def __post_init__(self) -> None:
        check_ranges(self, ce_weight=(0, 1000))

    def ce(self, step: Step, role: str, view: View = "first") -> Tensor:
        """-log p(gold) of the role, per example (B,); 0 without a gold.

        Weighted by `ce_weight` for the student, also if the role that learns in its place is called `learner`.
        """
        value = cross_entropy(step.forward(role, view), step.labels_b, step.options_bk)
        return self.ce_weight * value if role in (self.student, "learner") else value


@dataclass(frozen=True)
class Distilling(Taught):
    """A method in which models learn from each other's answers: t^2 D(sg[p_T], p_S), p = softmax(z / t)."""

    divergence: Divergence = "forward_kl"
    """D: forward_kl (arXiv 1503.02531), reverse_kl (2306.08543), jsd (2306.13649), skew_kl (2402.03898),
    dkd (2203.08679), logit_std (2403.01427) or dist (2205.10536); default ours."""
    support: Literal["options", "vocab"] = "options"
    """What p is a distribution over: the answer options | the whole vocabulary at the answer position, for models that
    share one; ours."""
    temperature: float = 2.0
    """t: softens both distributions; the loss is scaled by t^2. Ours, from the range of arXiv 1503.02531, and the base
    temperature of `logit_std` in arXiv 2403.01427."""
    jsd_beta: float = 0.5
    """The teacher's weight in the mixture of `jsd`; 0.5 is the symmetric case of arXiv 2306.13649."""
    skew_alpha: float = 0.1
    """The teacher's weight in the mixture of `skew_kl`; 0.1 as in arXiv 2402.03898."""
    dkd_tckd: float = 1.0
    """Weight of the term for gold against the rest in `dkd`; 1 as in arXiv 2203.08679."""
    dkd_nckd: float = 1.0
    """Weight of the term for the distribution among the rest in `dkd`; arXiv 2203.08679 uses 0.5 to 8 by task. Ours."""
    dist_within: float = 1.0
    """Weight of the correlation over the options of an example in `dist`; beta = 1 as in arXiv 2205.10536."""
    dist_across: float = 1.0
    """Weight of the correlation over the examples of a batch in `dist`, for each option; gamma = 1 as in
    arXiv 2205.10536. With 0, workers and micro-batches may divide the batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            temperature=(0.05, 100),
            jsd_beta=(0.001, 0.999),
            skew_alpha=(0, 0.999),
            dkd_tckd=(0, 1000),
            dkd_nckd=(0, 1000),
            dist_within=(0, 1000),
            dist_across=(0, 1000),
        )
        if self.support == "vocab" and self.divergence == "dkd":
            raise ConfigError(
                f"{self.name}: divergence = 'dkd' with support = 'vocab': expected support = 'options', because gold "
                "and not gold are options, not tokens; change one of the two"
            )

    def needs(self, stage: str) -> frozenset[Need]:
        """The vocabulary's logits, if the divergence is over them."""
        return frozenset({"vocab"}) if self.support == "vocab" else frozenset()

    def couples(self, stage: str) -> bool:
        """Whether a loss depends on the other examples of the batch: the correlations over examples of `dist`."""
        return self.divergence == "dist" and self.dist_across > 0

    def answer(self, step: Step, role: str, view: View = "first") -> Tensor:
        """The logits that are compared, (B, K) or (B, V)."""
        return step.vocab(role, view) if self.support == "vocab" else step.forward(role, view)

    def present(self, step: Step, answer: Tensor) -> Tensor:
        """bool, the shape of `answer`: the options that exist, or all tokens."""
        return step.options_bk if self.support == "options" else step.options_bk.new_ones(answer.shape)

    def pull(self, step: Step, teacher: Tensor, role: str, view: View = "first") -> Tensor:
        """t^2 D of the role from the teacher's logits, per example (B,); gradient flows into the role only."""
        student = self.answer(step, role, view)
        return divergence(
            self.divergence,
            teacher,
            student,
            step.labels_b,
            self.present(step, student),
            temperature=self.temperature,
            beta=self.jsd_beta,
            alpha=self.skew_alpha,
            tckd=self.dkd_tckd,
            nckd=self.dkd_nckd,
            within=self.dist_within,
            across=self.dist_across,
        )

    def mean_pull(self, step: Step, teachers: Sequence[str], role: str) -> Tensor:
        """The mean of the role's `pull`s from several teachers (at least one)."""
        first, *others = (self.pull(step, self.answer(step, teacher), role) for teacher in teachers)
        return sum(others, first) / (1 + len(others))


def larger_rungs(ladder: Ladder, student: str) -> tuple[str, ...]:
    """The rungs above the student, largest first. Raises `ConfigError` if there is none."""
    if student not in ladder:
        raise ConfigError(f"student {student!r} is not a rung of the ladder: {near(student, ladder)}")
    above = tuple(ladder[: ladder.index(student)])
    if not above:
        raise ConfigError(
            f"student {student!r} is the largest rung of {' > '.join(ladder)}: expected a smaller one, because a "
            "larger rung has to teach it; choose another student, or the method 'finetune'"
        )
    if "student" in above:
        raise ConfigError(
            "a rung larger than the student is called 'student': expected another name, because the "
            "student's role has this name; rename the rung in the ladder"
        )
    return above


def teacher_rung(method: Method, teacher: str, ladder: Ladder, student: str) -> str:
    """The rung called `teacher`, or the largest if it is empty. Raises `ConfigError` if it isn't above the student."""
    above = larger_rungs(ladder, student)
    rung = teacher or above[0]
    if rung not in above:
        raise ConfigError(
            f"{method.name}: teacher = {rung!r}: expected a rung larger than the student {student!r}; "
            f"{near(rung, above)}"
        )
    return rung


def check_ranges(method: Method, **ranges: tuple[float, float]) -> None:
    """Raise `ConfigError` for the first setting of `method` that is outside its range (ends included)."""
    defaults = {field.name: field.default for field in fields(method)}
    for name, (low, high) in ranges.items():
        value = getattr(method, name)
        if not low <= value <= high:  # also false for NaN
            raise ConfigError(
                f"{method.name}: {name} = {value!r}: expected a number from {low:g} to {high:g}; "
                f"the default is {defaults[name]}"
            )
