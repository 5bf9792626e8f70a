"""Checks of the models' inputs: augmentation in training, views and their fusion at test time."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.api import Example
from harness.authoring.method_checks.case import Broken, Case

DRAWS = 4
"""The seeds with which augmentation is tried."""

Fed = tuple[str, tuple[str, ...], bytes]
"""The inputs of a model: prompt, options, pixels."""


def augment(case: Case) -> None:
    """Augmentation draws only from `rng` and doesn't move the gold option."""
    for example in case.examples:
        for draw in range(DRAWS):
            shown = _augmented(case, example, draw)
            random.seed(f"global/{draw}")  # reveals a method that draws from the global generator
            np.random.seed(draw)
            if fed(_augmented(case, example, draw)) != fed(shown):
                raise Broken(
                    f"augment() returned two different examples for one state of rng (example {example.id!r}): draw "
                    "from the rng that is passed, not from random or numpy's global generator"
                )
            if fed(_again(case, shown, draw)) != fed(_again(case, shown, draw)):
                raise Broken(f"second_view() returned different examples for the same rng (example {example.id!r})")
            try:
                pickle.dumps(shown)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise Broken(
                    f"augment() returned an example that can't be pickled for another process ({error}): if its image "
                    "is drawn on demand, use a module-level class with fields, not a nested function"
                ) from None
            if shown.gold is None or not 0 <= shown.gold < len(shown.options):
                raise Broken(f"augment() returned gold {shown.gold} for {len(shown.options)} options")
            same_question = sorted(shown.options) == sorted(example.options) and shown.claim == example.claim
            if same_question and shown.options[shown.gold] != example.options[example.known_gold]:
                raise Broken(
                    f"augment() moved the options of example {example.id!r}, and its gold now points at "
                    f"{shown.options[shown.gold]!r} instead of {example.options[example.known_gold]!r}: "
                    "use example.reordered(order)"
                )


def leaks(case: Case) -> None:
    """Nothing in the model's input or in fusion depends on gold, response, category, source or extra."""
    rng = np.random.default_rng(0)
    for example in case.examples:
        for twin in _twins(example):
            for draw in range(DRAWS):
                if fed(_augmented(case, twin, draw)) != fed(_augmented(case, example, draw)):
                    raise Broken(_leak("augment()", "shows", example))
                if fed(_again(case, twin, draw)) != fed(_again(case, example, draw)):
                    raise Broken(_leak("second_view()", "shows", example))
            views, twin_views = case.method.views(example), case.method.views(twin)
            if [fed(view) for view in views] != [fed(view) for view in twin_views]:
                raise Broken(_leak("views()", "shows", example))
            if not views:
                continue  # `views` reports it
            scores_vk = np.log(rng.dirichlet(np.ones(len(views[0].options)), len(views)))
            one, other = case.method.fuse(example, scores_vk.copy()), case.method.fuse(twin, scores_vk.copy())
            if not np.array_equal(one, other):
                raise Broken(_leak("fuse()", "answers", example))


def _leak(where: str, does: str, example: Example) -> str:
    return (
        f"{where} {does} something else when only gold, response, category, source or extra of example "
        f"{example.id!r} differ: it may only read question, claim, context, options, image and id; otherwise the "
        "answer leaks"
    )


def _twins(example: Example) -> list[Example]:
    """The example with every other gold, and with other values of the fields that only scoring may read."""
    golds = [gold for gold in range(len(example.options)) if gold != example.gold]
    blank = replace(example, category="other", source="other", extra={"other": True}, response="other")
    return [blank, *(replace(example, gold=gold) for gold in golds)]


def views(case: Case) -> None:
    """The views are the same each time, and `fuse` assigns every option its own score."""
    method = case.method
    for example in case.examples:
        asked = list(method.views(example))
        where = f"example {example.id!r} with {len(example.options)} options"
        if not asked:
            raise Broken(f"views() returned none for {where}: return at least the example itself")
        if [fed(view) for view in method.views(example)] != [fed(view) for view in asked]:
            raise Broken(f"views() returned different views the second time for {where}: seed them with example.id")
        if len({len(view.options) for view in asked}) > 1:
            raise Broken(f"views() returned different numbers of options for {where}: all views must have the same")
        k = len(asked[0].options)
        uniform_vk = np.full((len(asked), k), -np.log(k))
        scores = _fused(case, example, uniform_vk, where)
        if not np.allclose(scores, scores[0], atol=1e-6):
            raise Broken(
                f"fuse() prefers option {int(scores.argmax())} of {where} although every view finds all letters "
                f"equally likely: {np.round(scores, 4).tolist()}; no option may have a built-in advantage"
            )
        _each_option_wins(case, example, asked, where)


def _each_option_wins(case: Case, example: Example, asked: Sequence[Example], where: str) -> None:
    """If a model always finds the same content, the result must be that content, whatever its letter.

    Views with other content (other options, a content-free input) get uniform answers.
    """
    k = len(asked[0].options)
    tells = [sorted(v.options) == sorted(example.options) and v.claim == example.claim for v in asked]
    if not any(tells):
        return
    for option, text in enumerate(example.options):
        share_vk = np.full((len(asked), k), 1 / k)
        for row_k, view, matches in zip(share_vk, asked, tells, strict=True):
            if matches:
                row_k[:] = 0.03 / max(k - 1, 1)
                row_k[view.options.index(text)] = 0.97
        scores = _fused(case, example, np.log(share_vk), where)
        if (chosen := int(scores.argmax())) != option:
            raise Broken(
                f"every view of {where} answers {text!r}, option {option}, and fuse() chooses option {chosen}: "
                "scores are in each view's own order; map them back to the example's options"
            )


def _fused(case: Case, example: Example, scores_vk: np.ndarray, where: str) -> np.ndarray:
    given_vk = scores_vk.copy()
    scores = np.asarray(case.method.fuse(example, given_vk))
    if scores.shape != (len(example.options),) or not np.isfinite(scores).all():
        raise Broken(
            f"fuse() returned {scores.tolist()} of shape {scores.shape} for {where}: return one finite score per option"
        )
    if not np.array_equal(given_vk, scores_vk):
        raise Broken("fuse() changed scores_vk in place: work on a copy (scores_vk.copy())")
    return scores


def fed(example: Example) -> Fed:
    """The inputs that a model gets from an example: prompt, options, pixels."""
    return example.prompt(), example.options, b"".join(one.load_image().tobytes() for one in example.each_image())


def _augmented(case: Case, example: Example, draw: int) -> Example:
    return case.method.augment(example, random.Random(f"contract/{draw}"))


def _again(case: Case, example: Example, draw: int) -> Example:
    return case.method.second_view(example, random.Random(f"contract/{draw}"))
