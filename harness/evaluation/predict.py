"""Scores a trained student: its answer to every example of a split, in every view of the method."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.api import Example
from harness.data.order import by_image
from harness.evaluation import student_answers
from harness.evaluation.generation import Writer
from harness.evaluation.shifts import Asking
from harness.evaluation.student_answers import Answered
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Batch, Encoder
from harness.models.scorer import OptionScorer
from harness.models.shared_prefix import PrefixSharingScorer
from harness.stats.metrics import NO_ANSWER

ScorerAndEncoder = tuple[OptionScorer, Encoder]

SORT_WINDOW = 16
"""Number of batches among which prompts are sorted by length."""


@torch.no_grad()  # not inference_mode: sharded weights gathered here are used later
def score(scorer: OptionScorer, batch: Batch, device: torch.device) -> Tensor:
    """Log-probabilities of the options (B, K), float32, on the CPU; missing options near -1e4."""
    logits: Tensor = scorer({key: value.to(device) for key, value in batch.items()})["options"]
    return logits.log_softmax(-1).cpu()


class Scored(NamedTuple):
    """The result of `evaluate`."""

    rows: list[dict[str, Any]]
    """One per example, in the given order: id, group, category, gold, chosen, scores (one per option) and seconds; text
    and tokens of answers that were written."""
    forwards: int
    note: str
    """Why questions about one image didn't share it although they should; see `harness.models.shared_prefix`."""


def evaluate(
    model: ScorerAndEncoder,
    asking: Asking,
    examples: Sequence[Example],
    split: str,
    batch_size: int,
    io: ProcessGroup,
    share: bool = True,
) -> Scored:
    """One prediction per example, in the given order, on every rank; and the number of forward passes."""
    scorer, encoder = model
    asker = PrefixSharingScorer(scorer, encoder, io.device, share)
    batches = batches_of(examples, batch_size, io.rank, io.world)
    rows: dict[int, dict[str, Any]] = {}
    forwards = 0
    first: list[Answered] = []
    writes = asking.evaluate.answer == "generate"
    writer = Writer(scorer, encoder, asking.evaluate, asking.seed, io.device) if writes else None
    for indices in batches:
        clock, some = time.perf_counter(), [examples[i] for i in indices]
        said: Sequence[dict[str, Any]] = [{}] * len(some)
        if writer is None:
            answered = _answers(asker, asking, some, batch_size)
        else:
            answered, said = _written(writer, asking, some, split, batch_size)
        forwards += sum(len(one.views) for one in answered) * asking.evaluate.samples
        seconds = (time.perf_counter() - clock) / len(indices)
        first += answered[: student_answers.EXAMPLES - len(first)]
        for index, (example, _, _, scores), more in zip(indices, answered, said, strict=True):
            rows[index] = {
                "split": split,
                "id": example.id,
                "group": example.group,
                "category": example.category,
                "gold": example.known_gold,
                "chosen": int(scores.argmax()),
                "scores": [float(s) for s in scores],
                "seconds": seconds,
                **more,
            }
        io.report({"stage": f"score {split}", "step": len(rows), "steps": sum(map(len, batches))})
    student_answers.check(asking, first, split)
    merged: dict[int, dict[str, Any]] = {}
    total, notes = 0, []
    for part, count, note in io.gather((rows, forwards, asker.note)):
        merged |= part
        total += count
        notes.append(note)
    return Scored([merged[i] for i in range(len(examples))], total, max(notes))


def batches_of(examples: Sequence[Example], batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """This rank's examples in batches: those of one image adjacent, then prompts of similar length.

    A batch has `batch_size` examples, or a few less so that no image's examples are divided. Lengths are sorted
    within windows of 16 batches, so that images are read in about their order.
    """
    groups = [
        of_image[start : start + batch_size]
        for of_image in by_image(examples)[rank::world]
        for start in range(0, len(of_image), batch_size)
    ]
    lengths = [max(len(examples[i].prompt()) for i in group) for group in groups]
    batches: list[list[int]] = []
    for window in _filled(groups, range(len(groups)), SORT_WINDOW * batch_size):
        ordered = sorted(window, key=lambda g: lengths[g])
        batches += [[i for g in batch for i in groups[g]] for batch in _filled(groups, ordered, batch_size)]
    return batches


def _filled(groups: Sequence[Sequence[int]], order: Iterable[int], size: int) -> Iterator[list[int]]:
    """The groups of one image's examples in order; each item has as many groups as fit into `size` examples."""
    some: list[int] = []
    count = 0
    for g in order:
        if some and count + len(groups[g]) > size:
            yield some
            some, count = [], 0
        some.append(g)
        count += len(groups[g])
    if some:
        yield some


def _answers(
    asker: PrefixSharingScorer, asking: Asking, examples: Sequence[Example], batch_size: int
) -> list[Answered]:
    """Each example with its scored views and their fused scores (K,)."""
    views = [asking.views(example) for example in examples]
    logs = [log_k.numpy() for log_k in asker([view for of_one in views for view in of_one], batch_size)]
    return _fused(asking, examples, views, logs)


def _written(
    writer: Writer, asking: Asking, examples: Sequence[Example], split: str, batch_size: int
) -> tuple[list[Answered], list[dict[str, Any]]]:
    """The same where the student writes; and what a row has of the texts.

    Of several views, the text is that of the first. An answer without scores is one that a single text gives.
    """
    views = [asking.views(example) for example in examples]
    each = zip(examples, views, strict=True)
    keys = [f"{split}/{example.id}/{n}" for example, of_one in each for n in range(len(of_one))]
    written = iter(writer([view for of_one in views for view in of_one], keys, batch_size))
    of_each = [[next(written) for _ in of_one] for of_one in views]
    found = _fused(asking, examples, views, [one.scores_k for of_one in of_each for one in of_one])
    said: list[dict[str, Any]] = []
    for of_one in of_each:
        more: dict[str, Any] = {"text": of_one[0].text, "tokens": sum(one.tokens for one in of_one)}
        if all(one.chosen == NO_ANSWER for one in of_one):
            more["chosen"] = NO_ANSWER
        if len(of_one) == asking.evaluate.samples == 1:
            more["scores"] = []
        said.append(more)
    return found, said


def _fused(
    asking: Asking, examples: Sequence[Example], views: Sequence[Sequence[Example]], logs: Sequence[np.ndarray]
) -> list[Answered]:
    found, at = [], 0
    for example, of_one in zip(examples, views, strict=True):
        scores_vk = np.stack(logs[at : at + len(of_one)])
        at += len(of_one)
        scores = np.asarray(asking.fuse(example, scores_vk.copy()))
        if scores.shape != (len(example.options),) or not np.isfinite(scores).all():
            raise ValueError(
                f"method {asking.method.name!r}: fuse() returned {scores.shape} for example {example.id!r}; expected "
                f"one finite score for each of its {len(example.options)} options"
            )
        found.append(Answered(example, of_one, scores_vk, scores))
    return found
