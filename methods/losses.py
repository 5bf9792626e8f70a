"""Losses, one number per example: over the answer options (or the vocabulary), hidden states and visual tokens.

Logits are (B, K): B examples, K options, in any float type; the computation is in float32 (float64
if both inputs have it). `options_bk` says which options exist: a missing one adds exactly 0 to every
loss and to every gradient. torch is only imported when a loss is computed: reading a method's settings doesn't need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, log
from typing import TYPE_CHECKING, Literal, get_args

from harness.api import ConfigError, Step, TokenScores, near

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "dkd", "logit_std", "dist"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)

ABSENT = -1e4
"""The logit of an option that doesn't exist: its probability is 0 and its logarithm finite."""

SHORTEST = 1e-3
"""Smaller norms count as this value in a cosine or a correlation: the gradient at norm 0 would be infinite."""


def cross_entropy(logits_bk: Tensor, labels_b: Tensor, options_bk: Tensor, smoothing: float = 0.0) -> Tensor:
    """-sum_k q_k log p_k, in nats, per example (B,); 0 where the label is -1. Gradient flows into `logits_bk`.

    q is 1 at the gold; with `smoothing` e it is (1 - e) there plus e / K at each of the K options that exist
    (arXiv 1512.00567).
    """
    log_p_bk = _log_softmax(logits_bk, options_bk, 1.0)
    loss_b = -log_p_bk.gather(1, labels_b.clamp(min=0)[:, None]).squeeze(1)
    if smoothing:
        uniform_b = -log_p_bk.masked_fill(~options_bk, 0.0).sum(-1) / options_bk.sum(-1)
        loss_b = (1 - smoothing) * loss_b + smoothing * uniform_b
    return loss_b.where(labels_b >= 0, 0.0)


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
    within: float = 1.0,
    across: float = 1.0,
) -> Tensor:
    """t^2 D(p_T, p_S) per example (B,), in nats but for `dist`, where p = softmax(logits / t); 0 if the two are equal.

    The teacher is a target: it is detached here, so the gradient flows only into the student.

    - `forward_kl`: KL(p_T || p_S) (arXiv 1503.02531).
    - `reverse_kl`: KL(p_S || p_T) (arXiv 2306.08543).
    - `jsd`: beta KL(p_T || r) + (1 - beta) KL(p_S || r), r = beta p_T + (1 - beta) p_S (arXiv 2306.13649).
    - `skew_kl`: KL(p_T || alpha p_T + (1 - alpha) p_S) (arXiv 2402.03898).
    - `dkd`: tckd * KL of (gold, not gold) + nckd * KL among the options that aren't gold (arXiv 2203.08679). Where the
      label is -1, the teacher's answer stands for the gold.
    - `logit_std`: KL(p_T || p_S), p = softmax(z / t), z the logits with mean 0 and standard deviation 1 over the
      example's options (arXiv 2403.01427). Of two options z says only which is larger: there is no gradient.
    - `dist`: within * (1 - r over the options of an example) + across * the mean over the options of (1 - r over the
      examples of the batch), r the Pearson correlation of p_T and p_S (arXiv 2205.10536, where the weights are beta and
      gamma). The second part is the same for all examples of a batch. The correlation over two options is 1 or -1.

    0 < beta < 1 and 0 <= alpha < 1. Raises `ConfigError` for an unknown name.
    """
    teacher_bk = teacher_bk.detach()
    if name == "logit_std":
        teacher_bk, student_bk = _standardised(teacher_bk, options_bk), _standardised(student_bk, options_bk)
    teacher = _log_softmax(teacher_bk, options_bk, temperature)
    student = _log_softmax(student_bk, options_bk, temperature)
    match name:
        case "forward_kl" | "logit_std":
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
        case "dist":
            over_options_b = _uncorrelated(teacher.exp(), student.exp(), options_bk, -1)
            over_examples_k = _uncorrelated(teacher.exp(), student.exp(), options_bk, 0)
            compared = (options_bk.sum(0) > 1).sum().clamp(min=1)  # with one example there is nothing to correlate
            value = within * over_options_b + across * over_examples_k.sum() / compared
        case _:
            raise ConfigError(f"unknown divergence {name!r}: {near(name, DIVERGENCES)}")
    return temperature**2 * value


def mean_answer(answers: Sequence[Tensor], options_bk: Tensor, temperature: float) -> Tensor:
    """Logits (B, K) whose probabilities at the temperature are the mean of those of the given logits, each (B, K)."""
    import torch

    log_p_mbk = torch.stack([_log_softmax(answer, options_bk, temperature) for answer in answers])
    return temperature * (log_p_mbk.logsumexp(0) - log(len(answers)))


def pseudo_label(teacher_bk: Tensor, options_bk: Tensor, confidence: float) -> Tensor:
    """The teacher's answers as labels, int64 (B,); -1 where it gives its answer a probability below `confidence`."""
    best_b, answers_b = _log_softmax(teacher_bk.detach(), options_bk, 1.0).exp().max(-1)
    return answers_b.where(best_b >= confidence, -1)


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


def token_mean(values_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """The mean over the tokens of each response (B,); 0 for one without tokens. `values_bt` is 0 where no token is."""
    return values_bt.sum(1) / mask_bt.sum(1).clamp(min=1)


def token_cross_entropy(read: TokenScores) -> Tensor:
    """-(1/T) sum_t log p(e_t), in nats, per response (B,); 0 for one without tokens."""
    return -token_mean(read.log_p_bt, read.mask_bt)


def reference_cross_entropy(step: Step, role: str) -> Tensor:
    """-(1/T) sum_t log p(e_t) of the role, e the example's reference response (B,); 0 for an example without one."""
    return token_cross_entropy(step.sequence(role, step.references(role)))


def token_jsd(student_nv: Tensor, teacher_nv: Tensor, beta: float, temperature: float = 1.0) -> Tensor:
    """beta KL(p_T || m) + (1 - beta) KL(p_S || m) of each token (n,), m = beta p_T + (1 - beta) p_S.

    p is taken at the temperature, over the V tokens; the teacher is detached. Eq. 1 of arXiv 2306.13649.
    """
    teacher, student = ((z / temperature).log_softmax(-1) for z in (_wide(teacher_nv.detach()), _wide(student_nv)))
    return _jsd(teacher, student, beta)


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


def _unit(x_bk: Tensor, options_bk: Tensor, dim: int) -> Tensor:
    """`x_bk` minus its mean along a dimension, with length 1 there; 0 for options that don't exist."""
    from torch.nn.functional import normalize

    x_bk = x_bk.masked_fill(~options_bk, 0.0)
    mean = x_bk.sum(dim, keepdim=True) / options_bk.sum(dim, keepdim=True).clamp(min=1)
    return normalize((x_bk - mean).masked_fill(~options_bk, 0.0), dim=dim, eps=SHORTEST)


def _standardised(logits_bk: Tensor, options_bk: Tensor) -> Tensor:
    """The logits with mean 0 and standard deviation 1 over the options of each example."""
    return _unit(_wide(logits_bk), options_bk, -1) * options_bk.sum(-1, keepdim=True).sqrt()


def _uncorrelated(p_bk: Tensor, q_bk: Tensor, options_bk: Tensor, dim: int) -> Tensor:
    """1 - Pearson correlation along a dimension, 0 to 2: half the squared distance of the standardised values."""
    return (_unit(p_bk, options_bk, dim) - _unit(q_bk, options_bk, dim)).square().sum(dim) / 2


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
