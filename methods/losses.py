"""Losses over the answer options, one number an example.

Logits are (B, K): B examples, K options, in any float type; the arithmetic is done in float32 (float64
where both inputs have it). `options_bk` says which options exist: an absent one adds exactly 0 to every
loss and to every gradient. Only tensor methods are used, so that reading a method's settings loads no torch.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Literal

from harness.api import ConfigError, near

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "dkd"]
DIVERGENCES: tuple[Divergence, ...] = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "dkd")

ABSENT = -1e4
"""The logit of an option that doesn't exist: its probability is 0 and its logarithm finite."""


def cross_entropy(logits_bk: Tensor, labels_b: Tensor, options_bk: Tensor) -> Tensor:
    """-log p(gold), in nats, per example (B,). Gradient flows into `logits_bk`."""
    log_p_bk = _log_softmax(logits_bk, options_bk, 1.0)
    return -log_p_bk.gather(1, labels_b[:, None]).squeeze(1)


def divergence(
    name: Divergence,
    teacher_bk: Tensor,
    student_bk: Tensor,
    labels_b: Tensor,
    options_bk: Tensor,
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    alpha: float = 0.1,
    tckd: float = 1.0,
    nckd: float = 1.0,
) -> Tensor:
    """t^2 D(p_T, p_S) in nats per example (B,), where p = softmax(logits / t); 0 where the two agree.

    The teacher is a target: it is detached here, so gradient flows into the student only.

    - `forward_kl`: KL(p_T || p_S) (arXiv 1503.02531).
    - `reverse_kl`: KL(p_S || p_T) (arXiv 2306.08543).
    - `jsd`: beta KL(p_T || r) + (1 - beta) KL(p_S || r), r = beta p_T + (1 - beta) p_S (arXiv 2306.13649).
    - `skew_kl`: KL(p_T || alpha p_T + (1 - alpha) p_S) (arXiv 2402.03898).
    - `dkd`: tckd * KL of (gold, not gold) + nckd * KL among the options that aren't gold (arXiv 2203.08679).

    0 < beta < 1 and 0 <= alpha < 1. Raises `ConfigError` for an unknown name.
    """
    teacher = _log_softmax(teacher_bk.detach(), options_bk, temperature)
    student = _log_softmax(student_bk, options_bk, temperature)
    match name:
        case "forward_kl":
            value = _kl(teacher, student)
        case "reverse_kl":
            value = _kl(student, teacher)
        case "jsd":
            mixed = _mix(teacher, student, beta)
            value = beta * _kl(teacher, mixed) + (1 - beta) * _kl(student, mixed)
        case "skew_kl":
            value = _kl(teacher, _mix(teacher, student, alpha) if alpha > 0 else student)
        case "dkd":
            others_bk = options_bk.scatter(1, labels_b[:, None], False)
            gold_or_not = _kl(_gold_or_not(teacher, labels_b, others_bk), _gold_or_not(student, labels_b, others_bk))
            # The temperature is in these log-probabilities already; a softmax of them over fewer options
            # is the softmax of the logits over fewer options.
            among_others = _kl(_log_softmax(teacher, others_bk, 1.0), _log_softmax(student, others_bk, 1.0))
            value = tckd * gold_or_not + nckd * among_others
        case _:
            raise ConfigError(f"unknown divergence {name!r}: {near(name, DIVERGENCES)}")
    return temperature**2 * value


def _log_softmax(logits_bk: Tensor, options_bk: Tensor, temperature: float) -> Tensor:
    wide = logits_bk if logits_bk.dtype.itemsize >= 4 else logits_bk.float()
    return (wide / temperature).masked_fill(~options_bk, ABSENT).log_softmax(-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _mix(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """log(weight p + (1 - weight) q), without leaving the logarithms."""
    return (log_p + log(weight)).logaddexp(log_q + log(1 - weight))


def _gold_or_not(log_p_bk: Tensor, labels_b: Tensor, others_bk: Tensor) -> Tensor:
    """(B, 2): the log-probabilities of the gold option and of all others together."""
    pair_b2 = log_p_bk[:, :2].clone()
    pair_b2[:, 0] = log_p_bk.gather(1, labels_b[:, None]).squeeze(1)
    pair_b2[:, 1] = log_p_bk.masked_fill(~others_bk, ABSENT).logsumexp(-1)
    return pair_b2
