"""Generalized distillation of responses: partly on those that the student itself writes (GKD, arXiv 2306.13649).

L_S = CE(y, p_S) + r (1/T) sum_t D_b(p_T(. | x, e_<t), p_S(. | x, e_<t)),   D_b = b KL(p_T || m) + (1 - b) KL(p_S || m),
m = b p_T + (1 - b) p_S; e is the student's own response for a share l of the examples, else the reference explanation

No gradient flows through the sampling. Eq. 1 of the source has b (its beta) and l (its lambda); the letter's
cross-entropy is ours: it is what the benchmark scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import From, Ladder, Need, Responses, Role, Stage, Step
from methods.base import Taught, check_ranges, teacher_rung
from methods.losses import reference_cross_entropy, token_jsd, token_mean

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GKD(Taught):
    """The student learns the teacher's distribution of each token, on its own responses and on references."""

    name = "gkd"
    summary = "A tuned, frozen teacher corrects responses, some of them the student's own, token by token"
    source = "arXiv 2306.13649"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "off-policy": {"on_policy": 0.0},
        "on-policy": {"on_policy": 1.0},
        "-responses": {"response_weight": 0.0},
    }

    teacher: str = ""
    """The rung of the teacher, of the student's tokenizer; empty: the largest."""
    teacher_share: float = 1.0
    """Examples for the teacher's own tuning, as a multiple of the student budget; ours."""
    on_policy: float = 0.5
    """l: the share of the examples with a response of the student's own; 0.5 is the mixed case of arXiv 2306.13649.
    An example without a reference always has one."""
    beta: float = 0.5
    """b: the teacher's weight in the mixture; 0.1, 0.5 and 0.9 in arXiv 2306.13649."""
    response_weight: float = 1.0
    """r: the weight of the divergence, a mean over tokens; ours. The teacher learns references with it."""
    temperature: float = 1.0
    """The temperature at which the student writes, and of both distributions; 1 as in arXiv 2306.13649."""
    max_tokens: int = 64
    """The largest number of tokens of a response; ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self, teacher_share=(0.01, 100), on_policy=(0, 1), beta=(0.001, 0.999), response_weight=(0, 1000),
            temperature=(0.05, 100), max_tokens=(1, 4096),
        )  # fmt: skip

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """`teacher` tunes the teacher on letters and explanations; `distil` trains the student with it, frozen.

        Raises `ConfigError` if no rung is larger than the student, or `teacher` isn't one of those.
        """
        rung = teacher_rung(self, self.teacher, ladder, student)
        learner = {"student": Role(student, trainable=True)}
        if not self.response_weight:
            return (Stage("distil", learner, share=1.0, data=self.learn_from),)
        return (
            Stage("teacher", {"teacher": Role(rung, trainable=True)}, share=self.teacher_share),
            Stage("distil", {"teacher": Role(From("teacher", "teacher")), **learner}, share=1.0, data=self.learn_from),
        )

    def needs(self, stage: str) -> frozenset[Need]:
        """Responses, and one vocabulary of teacher and student."""
        if not self.response_weight:
            return frozenset()
        return frozenset({"responses"} if stage == "teacher" else {"responses", "vocab"})

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """CE + r times the mean divergence over the response's tokens, for the stage's learner."""
        if step.stage == "teacher":
            explain = self.response_weight * reference_cross_entropy(step, "teacher")
            return {"teacher": {"ce": self.ce(step, "teacher"), "explain": explain}}
        terms = {"ce": self.ce(step, "student")}
        if self.response_weight:
            responses = self._responses(step)
            teacher, student = (step.sequence(role, responses) for role in ("teacher", "student"))
            distance = partial(token_jsd, beta=self.beta, temperature=self.temperature)
            terms["gkd"] = self.response_weight * token_mean(student.compare(teacher, distance), student.mask_bt)
        return {"student": terms}

    def _responses(self, step: Step) -> Responses:
        """Each example's response: the student's own, or the reference."""
        references = step.references("student")
        own_b = (step.draws_b < self.on_policy) | ~references.mask_bt.any(1)
        written = step.respond("student", temperature=self.temperature, max_tokens=self.max_tokens, only_b=own_b)
        return written.where(own_b, references)
