"""Rows that no model stands behind: what the majority answer and a fair die would score.

`majority` always gives the option that is gold most often in training, by its place among the options;
`random` draws an option uniformly. A method that doesn't beat both has learned nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from harness import stats
from harness.api import Example, Split
from harness.errors import DataError
from harness.metrics import Floats
from harness.record import Data, Provenance, Record
from harness.store import PredictionRow, predictions_frame

CONTROLS = ("majority", "random")


def control_id(control: str, benchmark: str, data: Data) -> str:
    """The run id of a control: the same for the same data."""
    return f"control-{control}-{benchmark}-{data.fingerprint[:12]}"


def control_runs(
    benchmark: str,
    task: str,
    train_golds: Sequence[int],
    splits: Mapping[Split, Sequence[Example]],
    data: Data,
    provenance: Provenance,
    resamples: int = stats.RESAMPLES,
) -> list[tuple[Record, pd.DataFrame]]:
    """The record and the predictions of each control, scored on `splits` (any but train).

    `train_golds` (N,) are the gold options of the train split. Raises `DataError` for a split without
    examples, or without train golds.
    """
    if not train_golds:
        raise DataError(f"benchmark {benchmark!r}: the train split has no examples to take the majority of")
    runs = []
    for control in CONTROLS:
        rows = []
        for split, examples in splits.items():
            scores = _majority(train_golds, examples) if control == "majority" else _random(split, examples)
            rows += [
                PredictionRow(split, e.id, e.group, e.category, e.gold, int(s.argmax()), s, 0.0)
                for e, s in zip(examples, scores, strict=True)
            ]
        predictions = predictions_frame(rows)
        metrics = {
            str(split): stats.summarise(predictions[predictions["split"] == split], data.options, resamples)
            for split in splits
        }
        record = Record(
            run_id=control_id(control, benchmark, data),
            kind="control",
            status="done",
            benchmark=benchmark,
            task=task,
            method=control,
            parameters=0,
            budget=0,
            seed=0,
            metrics=metrics,
            data=data,
            provenance=provenance,
        )
        runs.append((record, predictions))
    return runs


def _majority(train_golds: Sequence[int], examples: Sequence[Example]) -> list[Floats]:
    """For each example (K,): the log share of each place among the train golds (one added to each count)."""
    widest = max(chain((len(e.options) for e in examples), (gold + 1 for gold in train_golds)))
    counts = np.bincount(np.asarray(train_golds), minlength=widest) + 1.0
    return [np.log(counts[: len(e.options)] / counts[: len(e.options)].sum()) for e in examples]


def _random(split: str, examples: Sequence[Example]) -> list[Floats]:
    """For each example (K,): logs of uniform draws, so that the largest is any option with equal chance."""
    rng = np.random.default_rng(list(split.encode()))
    draws = (1 - rng.random(len(e.options)) for e in examples)  # in (0, 1]: the log is finite
    return [np.log(draw / draw.sum()) for draw in draws]
