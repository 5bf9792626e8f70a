"""Losses, one number per example: over the answer options (or the vocabulary), hidden states and visual tokens.

Logits are (B, K): B examples, K options, in any float type; the computation is in float32 (float64
if both inputs have it). `options_bk` says which options exist: a missing one adds exactly 0 to every
loss and to every gradient. torch is only imported when a loss is computed: reading a method's settings doesn't need it.
"""

from __future__ import annotations

from math import isqrt, log
from typing import TYPE_CHECKING, Literal

from harness.api import ConfigError, near

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "dkd"]
DIVERGENCES: tuple[Divergence, ...] = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "dkd")

ABSENT = -1e4
"""The logit of an option that doesn't exist: its probability is 0 and its logarithm finite."""

SHORTEST = 1e-3
"""Smaller norms count as this value in a cosine: the gradient at norm 0 would be infinite."""


def cross_entropy(logits_bk: Tensor, labels_b: Tensor, options_bk: Tensor) -> Tensor:
    """-log p(gold), in nats, per example (B,); 0 where the label is -1. Gradient flows into `logits_bk`."""
    log_p_bk = _log_softmax(logits_bk, options_bk, 1.0)
    nll_b = -log_p_bk.gather(1, labels_b.clamp(min=0)[:, None]).squeeze(1)
    return nll_b.where(labels_b >= 0, 0.0)


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
    """t^2 D(p_T, p_S) in nats per example (B,), where p = softmax(logits / t); 0 if the two are equal.

    The teacher is a target: it is detached here, so the gradient flows only into the student.

    - `forward_kl`: KL(p_T || p_S) (arXiv 1503.02531).
    - `reverse_kl`: KL(p_S || p_T) (arXiv 2306.08543).
    - `jsd`: beta KL(p_T || r) + (1 - beta) KL(p_S || r), r = beta p_T + (1 - beta) p_S (arXiv 2306.13649).
    - `skew_kl`: KL(p_T || alpha p_T + (1 - alpha) p_S) (arXiv 2402.03898).
    - `dkd`: tckd * KL of (gold, not gold) + nckd * KL among the options that aren't gold (arXiv 2203.08679). Where the
      label is -1, the teacher's answer stands for the gold.

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
            value = _jsd(teacher, student, beta)
        case "skew_kl":
            value = _kl(teacher, _mix(teacher, student, alpha) if alpha > 0 else student)
        case "dkd":
            labels_b = labels_b.where(labels_b >= 0, teacher.argmax(-1))
            others_bk = options_bk.scatter(1, labels_b[:, None], False)
            gold_or_not = _kl(_gold_or_not(teacher, labels_b, others_bk), _gold_or_not(student, labels_b, others_bk))
            # The temperature is already in these log-probabilities; their softmax over fewer options
            # is the softmax of the logits over fewer options.
            among_others = _kl(_log_softmax(teacher, others_bk, 1.0), _log_softmax(student, others_bk, 1.0))
            value = tckd * gold_or_not + nckd * among_others
        case _:
            raise ConfigError(f"unknown divergence {name!r}: {near(name, DIVERGENCES)}")
    return temperature**2 * value


def disagreement(one_bk: Tensor, other_bk: Tensor, options_bk: Tensor) -> Tensor:
    """JSD of two answers of one model, in nats per example (B,): 0 to ln 2. Gradient flows into both."""
    return _jsd(_log_softmax(one_bk, options_bk, 1.0), _log_softmax(other_bk, options_bk, 1.0), 0.5)


def feature_distance(teacher_bd: Tensor, student_bd: Tensor) -> Tensor:
    """1 - cos(h_S, h_T) per example (B,), or per example and layer (B, N), 0 to 2, for states of the same width.

    The teacher's are detached.
    """
    from torch.nn.functional import cosine_similarity

    return 1 - cosine_similarity(_wide(student_bd), _wide(teacher_bd.detach()), dim=-1, eps=SHORTEST)


def relation_distance(teacher_bnd: Tensor, student_bnd: Tensor, grid: int) -> Tensor:
    """||G_S - G_T||^2 per example (B,), G the cosine Gram matrix of the visual tokens on a `grid` x `grid` picture.

    The squared Frobenius norm: a sum over the grid^4 pairs (arXiv 2410.16236). Teacher and student may differ
    in number of tokens and width; the teacher's are detached.
    """
    difference = _gram(_on_grid(student_bnd, grid)) - _gram(_on_grid(teacher_bnd.detach(), grid))
    return difference.square().sum((-2, -1))


def _on_grid(tokens_bnd: Tensor, grid: int) -> Tensor:
    """The tokens averaged (or repeated) into grid^2 cells: in 2D if they form a square, otherwise in 1D."""
    from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

    tokens_bdn = _wide(tokens_bnd).transpose(1, 2)
    side = isqrt(tokens_bdn.shape[2])
    if side * side == tokens_bdn.shape[2]:
        pooled = adaptive_avg_pool2d(tokens_bdn.unflatten(2, (side, side)), grid).flatten(2)
    else:
        pooled = adaptive_avg_pool1d(tokens_bdn, grid * grid)
    return pooled.transpose(1, 2)


def _gram(tokens_bnd: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    unit_bnd = normalize(tokens_bnd, dim=-1, eps=SHORTEST)
    return unit_bnd @ unit_bnd.transpose(1, 2)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype.itemsize >= 4 else x.float()


def _log_softmax(logits_bk: Tensor, options_bk: Tensor, temperature: float) -> Tensor:
    return (_wide(logits_bk) / temperature).masked_fill(~options_bk, ABSENT).log_softmax(-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    mixed = _mix(log_p, log_q, beta)
    return beta * _kl(log_p, mixed) + (1 - beta) * _kl(log_q, mixed)


def _mix(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """log(weight p + (1 - weight) q), computed in log space."""
    return (log_p + log(weight)).logaddexp(log_q + log(1 - weight))


def _gold_or_not(log_p_bk: Tensor, labels_b: Tensor, others_bk: Tensor) -> Tensor:
    """(B, 2): the log-probabilities of the gold option and of all others together."""
    pair_b2 = log_p_bk[:, :2].clone()
    pair_b2[:, 0] = log_p_bk.gather(1, labels_b[:, None]).squeeze(1)
    pair_b2[:, 1] = log_p_bk.masked_fill(~others_bk, ABSENT).logsumexp(-1)
    return pair_b2
