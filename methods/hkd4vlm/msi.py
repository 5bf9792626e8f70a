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
from typing import Literal

import numpy as np

from harness.api import ConfigError, Example, Method
from methods.augment import Grey, fixed_options
from methods.base import check_ranges

Shifts = Literal["cyclic", "all", "random", "none"]
Aggregate = Literal["prob", "logprob", "vote"]
Debias = Literal["none", "prior", "calibrate"]

Order = tuple[int, ...]
"""The option at each letter; an argument of `Example.reordered`."""

MOST_PERMUTED = 6
"""`all` needs n! forward passes: 720 for 6 options."""


def shifted_orders(
    options: Sequence[str], shifts: Shifts, count: int, fixed_first: bool, key: str, keep_verdicts: bool = False
) -> tuple[Order, ...]:
    """The option orders in which an example is scored, always the same for the same arguments.

    `cyclic`: all rotations. `all`: all permutations. `random`: `count` different permutations (or all, if
    there are fewer), seeded by `key`. `none`: unchanged. Raises `ConfigError` if `all` would be too many.
    """
    head = fixed_options(options, fixed_first, keep_verdicts)
    n = len(options) - head
    moved: list[Order]
    match shifts:
        case "none":
            moved = [tuple(range(n))]
        case "cyclic":
            moved = [tuple((letter - shift) % n for letter in range(n)) for shift in range(max(n, 1))]
        case "all":
            if n > MOST_PERMUTED:
                raise ConfigError(
                    f"shifts = 'all' would need {math.factorial(n)} forward passes for {n} movable options: "
                    f"expected at most {MOST_PERMUTED} options; use 'cyclic' or 'random'"
                )
            moved = list(permutations(range(n)))
        case "random":
            rng = random.Random(key)  # a string seeds by its sha512: the same on all machines
            drawn: dict[Order, None] = {}
            while len(drawn) < min(count, math.factorial(n)):
                drawn[tuple(rng.sample(range(n), n))] = None
            moved = list(drawn)
    return tuple((*range(head), *(head + k for k in order)) for order in moved)


def content_free(example: Example, fixed_first: bool, keep_verdicts: bool) -> Example:
    """The question without content: grey image, "N/A" as claim, context and movable options.

    Options that keep their letter stay: they are answers, not content. The order of the others doesn't matter.
    """
    head = fixed_options(example.options, fixed_first, keep_verdicts)
    return replace(
        example,
        image=Grey(example.image),
        claim="N/A" if example.claim else "",
        context="N/A" if example.context else "",
        options=(*example.options[:head], *["N/A"] * (len(example.options) - head)),
    )


def fuse_views(
    orders: Sequence[Order],
    scores_vk: np.ndarray,
    aggregate: Aggregate,
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
class Shifted(Method):
    """A method whose student is scored with the options at several letters (see methods.hkd4vlm.msi)."""

    msi: bool = True
    """Mapping shift-enhanced inference (the abstract); off: one view."""
    shifts: Shifts = "cyclic"
    """Rotations of the options | all permutations | `random_shifts` permutations | none; ours."""
    random_shifts: int = 2
    """Permutations per example with shifts = random; ours."""
    keep_verdicts: bool = True
    """Options that are verdicts (True, False, ...) keep their letters, in MSI and in the option shuffle: their
    order is a convention, not content; ours."""
    aggregate: Aggregate = "prob"
    """Mean probability | mean log-probability | votes over the views; ours."""
    fixed_first: bool = True
    """A leading "No hallucination" keeps its letter, in MSI and in the option shuffle; ours."""
    debias: Debias = "none"
    """prior: divide by the mean letter prior over the views (arXiv 2309.03882) | calibrate: by the answer to a
    content-free input, one more view (2102.09690); default ours."""

    def check_shifts(self) -> None:
        """Raise `ConfigError` if these settings don't go together."""
        check_ranges(self, random_shifts=(1, 720))
        if self.debias == "prior" and self.shifts == "none":
            raise ConfigError(
                f"{self.name}: debias = 'prior' with shifts = 'none': expected several views, because one "
                "can't separate a letter's prior from its content; choose shifts = 'cyclic'"
            )

    def views(self, example: Example) -> Sequence[Example]:
        """The example with its options at shifted letters, followed by the content-free input if it is needed."""
        shifted = [example.reordered(order) for order in self._orders(example)]
        if self.msi and self.debias == "calibrate":
            shifted.append(content_free(example, self.fixed_first, self.keep_verdicts))
        return shifted

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One log-probability per option (K,) from the views' (V, K)."""
        orders = self._orders(example)
        debias = self.debias if self.msi else "none"
        return fuse_views(orders, scores_vk[: len(orders)], self.aggregate, debias, scores_vk[-1])

    def _orders(self, example: Example) -> tuple[Order, ...]:
        shifts: Shifts = self.shifts if self.msi else "none"
        return shifted_orders(
            example.options, shifts, self.random_shifts, self.fixed_first, example.id, self.keep_verdicts
        )
