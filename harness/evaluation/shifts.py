"""Mapping shift-enhanced inference: score the options at several letters, and average per option.

Under shift s, option k is at letter (k + s) mod K, so that a model's bias for a letter
is spread over all options. A reconstruction from the abstract of arXiv 2506.13038.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from harness.api import ConfigError, Example, Method, Shifts
from harness.config import Debias, EvaluateConfig, Fusion, Moved
from harness.data.augmentation import Grey
from harness.data.options import Order, fixed_options

MOST_PERMUTED = 6
"""`all` needs n! forward passes: 720 for 6 options."""


def shifted_orders(
    options: Sequence[str], shifts: Shifts, count: int, key: str, moved: Moved = "content"
) -> tuple[Order, ...]:
    """The option orders in which an example is scored, always the same for the same arguments.

    `cyclic`: all rotations. `all`: all permutations. `random`: `count` different permutations (or all, if
    there are fewer), seeded by `key`. `none`: unchanged. Raises `ConfigError` if `all` would be too many.
    """
    head = fixed_options(options, moved)
    n = len(options) - head
    orders: list[Order]
    match shifts:
        case "none":
            orders = [tuple(range(n))]
        case "cyclic":
            orders = [tuple((letter - shift) % n for letter in range(n)) for shift in range(max(n, 1))]
        case "all":
            if n > MOST_PERMUTED:
                raise ConfigError(
                    f"shifts = 'all' would need {math.factorial(n)} forward passes for {n} movable options: "
                    f"expected at most {MOST_PERMUTED} options; use 'cyclic' or 'random'"
                )
            orders = list(permutations(range(n)))
        case "random":
            rng = random.Random(key)  # a string seeds by its sha512: the same on all machines
            drawn: dict[Order, None] = {}
            while len(drawn) < min(count, math.factorial(n)):
                drawn[tuple(rng.sample(range(n), n))] = None
            orders = list(drawn)
    return tuple((*range(head), *(head + k for k in order)) for order in orders)


def content_free(example: Example, moved: Moved = "content") -> Example:
    """The question without content: grey image, "N/A" as claim, context and movable options.

    Options that keep their letter stay: they are answers, not content. The order of the others doesn't matter.
    """
    head = fixed_options(example.options, moved)
    return replace(
        example,
        image=Grey(example.image),
        more_images=tuple(map(Grey, example.more_images)),
        claim="N/A" if example.claim else "",
        context="N/A" if example.context else "",
        options=(*example.options[:head], *["N/A"] * (len(example.options) - head)),
    )


def fuse_views(
    orders: Sequence[Order],
    scores_vk: np.ndarray,
    aggregate: Fusion,
    debias: Debias,
    content_free_k: np.ndarray | None = None,
) -> np.ndarray:
    """Log-probability of each option (K,) from the views' (V, K), each given by letter in its own order.

    `prob`: mean probability. `logprob`: mean log-probability, renormalised. `vote`: fraction of the views that
    rank the option first, ties broken by mean probability. `debias` = `prior`: each letter's probability is
    first divided by its prior, the geometric mean over the views (PriDe, arXiv 2309.03882), and the view
    renormalised; a letter with the same option in all views isn't changed, because there the prior can't
    be separated from the content. `calibrate`: it is divided by that of the same letter for a content-free input,
    `content_free_k` (arXiv 2102.09690). The sums are exactly rounded, so the result doesn't depend on the views' order.
    """
    order_vk = np.asarray(orders)
    letters_vk = _log_softmax(np.asarray(scores_vk, dtype=np.float64)[:, : order_vk.shape[1]])
    if debias == "prior":
        moves_k = (order_vk != order_vk[0]).any(axis=0)
        if moves_k.any():
            prior_k = _mean(letters_vk)[moves_k]
            letters_vk[:, moves_k] -= prior_k - math.fsum(prior_k) / len(prior_k)
            letters_vk = _log_softmax(letters_vk)
    if debias == "calibrate":
        assert content_free_k is not None
        letters_vk -= _log_softmax(np.asarray(content_free_k, dtype=np.float64)[None, : order_vk.shape[1]])
        letters_vk = _log_softmax(letters_vk)
    options_vk = np.empty_like(letters_vk)
    np.put_along_axis(options_vk, order_vk, letters_vk, axis=1)
    if aggregate == "logprob":
        mean_1k = _log_softmax(_mean(options_vk)[None])
        return mean_1k.reshape(-1)
    share_k = _mean(np.exp(options_vk))
    if aggregate == "vote":
        views, k = options_vk.shape
        votes_k = np.bincount(options_vk.argmax(axis=1), minlength=k)
        share_k = (votes_k + share_k) / (views + 1)  # share_k < 1 vote: it only breaks ties
    result: np.ndarray = np.log(np.maximum(share_k, np.finfo(np.float64).tiny))
    return result


def _log_softmax(x_vk: np.ndarray) -> np.ndarray:
    x_vk = x_vk - x_vk.max(axis=1, keepdims=True)
    total_v = np.array([math.fsum(row) for row in np.exp(x_vk)])
    result: np.ndarray = x_vk - np.log(total_v)[:, None]
    return result


def _mean(x_vk: np.ndarray) -> np.ndarray:
    return np.array([math.fsum(column) / len(column) for column in x_vk.T])


@dataclass(frozen=True)
class Asking:
    """How a trained student is asked: the method's own views, each with its options at shifted letters."""

    method: Method
    evaluate: EvaluateConfig
    seed: int = 0
    """The run's seed, for answers that are sampled."""

    @property
    def shifts(self) -> Shifts:
        """What the settings say or, if they leave it to the method, the method; none where the student writes."""
        if self.evaluate.answer == "generate":
            return "none"
        return self.method.shifts() if self.evaluate.shifts == "method" else self.evaluate.shifts

    def views(self, example: Example) -> list[Example]:
        """What is scored for an example; it has no gold."""
        example = example.withheld()
        if self.evaluate.instruction:
            example = replace(example, instruction=self.evaluate.instruction)
        asked = [view for order in self._orders(example) for view in self.method.views(example.reordered(order))]
        if self._calibrates:
            asked += self.method.views(content_free(example, self.evaluate.shifted))
        return asked

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One score per option (K,) from the views' log-probabilities (V, K), each by letter."""
        example = example.withheld()
        orders = self._orders(example)
        variants = [example.reordered(order) for order in orders]
        if self._calibrates:
            variants.append(content_free(example, self.evaluate.shifted))
        each = len(scores_vk) // len(variants)
        fused = [self.method.fuse(v, scores_vk[i * each : (i + 1) * each]) for i, v in enumerate(variants)]
        if self.shifts == "none" and not self._calibrates:
            return np.asarray(fused[0])
        fused_vk = np.stack(fused)
        debias = self.evaluate.debias
        return fuse_views(orders, fused_vk[: len(orders)], self.evaluate.aggregate, debias, fused_vk[-1])

    @property
    def _calibrates(self) -> bool:
        return self.evaluate.debias == "calibrate" and self.shifts != "none"

    def _orders(self, example: Example) -> tuple[Order, ...]:
        e = self.evaluate
        return shifted_orders(example.options, self.shifts, e.random_shifts, example.id, e.shifted)
