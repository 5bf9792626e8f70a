"""Scoring of a trained student: its answer to every example of a split, in every view the method asks for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.api import Example, Method
from harness.io import Io
from harness.models import Batch, Encoder, OptionScorer

Scoring = tuple[OptionScorer, Encoder]


@torch.no_grad()  # not inference_mode: weights that are cut over ranks are put together in here, and used later
def score(scorer: OptionScorer, batch: Batch, device: torch.device) -> Tensor:
    """Log-probabilities of the options (B, K), float32, on the CPU; absent options near -1e4."""
    logits: Tensor = scorer({key: value.to(device) for key, value in batch.items()})["options"]
    return logits.log_softmax(-1).cpu()


def evaluate(
    model: Scoring, method: Method, examples: Sequence[Example], split: str, batch_size: int, io: Io
) -> tuple[list[dict[str, Any]], int]:
    """One prediction an example, in the order given, on every rank; and the number of forwards spent.

    A row holds id, group, category, gold, chosen, scores (one an option) and seconds.
    """
    mine = list(range(io.rank, len(examples), io.world))
    rows: dict[int, dict[str, Any]] = {}
    forwards = 0
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        clock = time.perf_counter()
        fused, asked = _answers(model, method, [examples[i] for i in indices], batch_size, io.device)
        forwards += asked
        seconds = (time.perf_counter() - clock) / len(indices)
        for index, scores in zip(indices, fused, strict=True):
            example = examples[index]
            rows[index] = {
                "split": split,
                "id": example.id,
                "group": example.group,
                "category": example.category,
                "gold": example.gold,
                "chosen": int(scores.argmax()),
                "scores": [float(s) for s in scores],
                "seconds": seconds,
            }
        io.report({"stage": f"score {split}", "step": min(start + batch_size, len(mine)), "steps": len(mine)})
    merged: dict[int, dict[str, Any]] = {}
    total = 0
    for part, count in io.gather((rows, forwards)):
        merged |= part
        total += count
    return [merged[i] for i in range(len(examples))], total


def _answers(
    model: Scoring, method: Method, examples: Sequence[Example], batch_size: int, device: torch.device
) -> tuple[list[np.ndarray], int]:
    """The fused scores (K,) of each example, and how many views were asked."""
    scorer, encoder = model
    views = [list(method.views(example)) for example in examples]
    flat = [view for of_one in views for view in of_one]
    logs: list[np.ndarray] = []
    for start in range(0, len(flat), batch_size):
        part = flat[start : start + batch_size]
        logs_bk = score(scorer, encoder(part), device).numpy()
        logs += [row[: len(view.options)] for row, view in zip(logs_bk, part, strict=True)]
    fused, at = [], 0
    for example, of_one in zip(examples, views, strict=True):
        scores_vk = np.stack(logs[at : at + len(of_one)])
        at += len(of_one)
        scores = np.asarray(method.fuse(example, scores_vk))
        if scores.shape != (len(example.options),) or not np.isfinite(scores).all():
            raise ValueError(
                f"method {method.name!r}: fuse() gave {scores.shape} for example {example.id!r}; expected one "
                f"finite score for each of its {len(example.options)} options"
            )
        fused.append(scores)
    return fused, len(flat)
