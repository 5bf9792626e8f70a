"""Sequence-level distillation: the teacher's responses are the student's targets, token by token (arXiv 1606.07947).

L_S = CE(y, p_S) + alpha t^2 D(p_T, p_S) + r CE_e,   CE_e = -(1/T) sum_t log p_S(e_t | x, e_<t)

e is what the teacher wrote about x.

The teacher first learns to answer and to explain: CE(y, p_T) + r CE of the reference explanations, where the data have
some. A black-box teacher needs no more than its text: set `alpha` = 0 (default).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import From, Ladder, Need, Role, Stage, Step
from methods.base import Distilling, check_ranges, teacher_rung
from methods.losses import reference_cross_entropy, token_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SeqKD(Distilling):
    """Learns from the labels and from what a tuned, frozen teacher writes."""

    name = "seq_kd"
    summary = "The student learns the responses that a tuned, frozen teacher writes"
    source = "arXiv 1606.07947"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "+letters": {"alpha": 1.0},
        "sampled": {"response_temperature": 1.0},
    }

    teacher: str = ""
    """The rung of the teacher; empty: the largest."""
    teacher_share: float = 1.0
    """Examples for the teacher's own tuning, as a multiple of the student budget; ours."""
    alpha: float = 0.0
    """Weight of the distillation of the letters' probabilities; 0 as in arXiv 1606.07947: text alone."""
    response_weight: float = 1.0
    """r: the weight of the cross-entropy with responses, a mean over tokens, for teacher and student; ours."""
    response_temperature: float = 0.0
    """The temperature at which the teacher writes; 0: its most probable tokens, where arXiv 1606.07947 takes the most
    probable sequence of a beam search."""
    max_tokens: int = 64
    """The largest number of tokens of a response; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self, teacher_share=(0.01, 100), alpha=(0, 1000), response_weight=(0.001, 1000),
            response_temperature=(0, 10), max_tokens=(1, 4096),
        )  # fmt: skip

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the teacher on letters and explanations; `distil` trains the student with it, frozen.

        Raises `ConfigError` if no rung is larger than the student, or `teacher` isn't one of those.
        """
        rung = teacher_rung(self, self.teacher, ladder, student)
        return (
            Stage("teacher", {"teacher": Role(rung, trainable=True)}, share=self.teacher_share),
            Stage(
                "distil",
                {"teacher": Role(From("teacher", "teacher")), "student": Role(student, trainable=True)},
                share=1.0,
                data=self.learn_from,
            ),
        )

    def needs(self, stage: str) -> frozenset[Need]:
        """Responses, in both stages; the vocabulary's logits for `alpha` with `support` = vocab."""
        wanted: frozenset[Need] = super().needs(stage) if self.alpha and stage == "distil" else frozenset()
        return wanted | {"responses"}

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + r CE of the responses (+ alpha t^2 D), for the stage's learner."""
        if step.stage == "teacher":
            explain = self.response_weight * reference_cross_entropy(step, "teacher")
            return {"teacher": {"ce": self.ce(step, "teacher"), "explain": explain}}
        written = step.respond("teacher", temperature=self.response_temperature, max_tokens=self.max_tokens)
        terms = {
            "ce": self.ce(step, "student"),
            "response": self.response_weight * token_cross_entropy(step.sequence("student", written)),
        }
        if self.alpha:
            terms["kd"] = self.alpha * self.pull(step, self.answer(step, "teacher"), "student")
        return {"student": terms}
