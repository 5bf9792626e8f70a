"""Results without a model, and what a control says about its benchmark.

`majority` always gives the option position that is correct most often in the train split. Without a train
split it uses the scored split itself, and is called `majority_of_split`. `random` picks an option
uniformly. If every question has two options, each constant answer has a row: `always_yes` and `always_no`
(the options' own words, if they are the same throughout), else `always_first` and `always_second`.
A method that doesn't beat all of them has learned nothing. Controls with a model are runs, see
`harness.data.image_controls`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, get_args

import numpy as np

from harness.api import Example, Split
from harness.config import EvaluateConfig
from harness.data.dataset import Dataset, settings_of
from harness.data.image_controls import Control
from harness.errors import DataError, StoreError
from harness.evaluation.scoring import by_letter, figures_of
from harness.record import Data, Interval, Provenance, Record
from harness.stats import inference
from harness.stats.metrics import Floats
from harness.store import PredictionRow, Store, predictions_frame

if TYPE_CHECKING:
    import pandas as pd

Splits = Mapping[Split, Sequence[Example]]
Figures = dict[str, dict[str, Interval]]
"""By split and metric, as in `Record.metrics`."""

PREFIX = "control-"
"""The prefix of the run ids of all controls, including runs without images."""
CERTAIN = float(np.log(2.0**-52))
"""The log-probability of the options that a constant answer excludes."""


def control_id(control: str, benchmark: str, data: Data) -> str:
    """The run id of a model-free control: the same for the same data."""
    return f"{PREFIX}{control}-{benchmark}-{data.fingerprint[:12]}"


def control_names(splits: Splits, data: Data, train_golds: Sequence[int] | None) -> list[str]:
    """The model-free controls of a benchmark."""
    names = ["majority" if train_golds is not None else "majority_of_split", "random"]
    if all(len(e.options) == 2 for examples in splits.values() for e in examples):
        names += _constants(data.options)
    return names


def _constants(options: Sequence[str] | None) -> list[str]:
    """The names of the two constant answers."""
    words = ["_".join(re.findall(r"[a-z0-9]+", option.lower())) for option in options or ()]
    if not all(words) or len(set(words)) < 2 or max(map(len, words)) > 20:
        words = ["first", "second"]
    return [f"always_{word}" for word in words]


def control_answers(
    benchmark: str, train_golds: Sequence[int] | None, splits: Splits, data: Data
) -> dict[str, pd.DataFrame]:
    """The predictions of each model-free control on `splits` (all but train), by its name.

    `train_golds` (N,) are the gold options of the train split, None if there is none. Raises `DataError` for
    a split without examples.
    """
    if train_golds is not None and not train_golds:
        raise DataError(f"benchmark {benchmark!r}: the train split has no examples to take the majority of")
    if empty := [split for split, examples in splits.items() if not examples]:
        raise DataError(f"benchmark {benchmark!r}: no predictions, the {empty[0]} split has no examples")
    found = {}
    for number, control in enumerate(control_names(splits, data, train_golds)):
        rows = []
        for split, examples in splits.items():
            match number:
                case 0:
                    golds = [e.known_gold for e in examples] if train_golds is None else train_golds
                    scores = _majority(golds, examples)
                case 1:
                    scores = _random(split, examples)
                case _:
                    scores = [np.where(np.arange(2) == number - 2, 0.0, CERTAIN) for _ in examples]
            rows += [
                PredictionRow(split, e.id, e.group, e.category, e.known_gold, int(s.argmax()), s, 0.0)
                for e, s in zip(examples, scores, strict=True)
            ]
        found[control] = predictions_frame(rows)
    return found


def control_runs(
    benchmark: str,
    task: str,
    train_golds: Sequence[int] | None,
    splits: Splits,
    data: Data,
    provenance: Provenance,
    figures: Callable[[pd.DataFrame], Figures] | None = None,
) -> list[tuple[Record, pd.DataFrame]]:
    """The record and the predictions of each of `control_answers`.

    `figures` scores the predictions of all splits; default: `stats.summarise` for each split.
    """

    def summary(frame: pd.DataFrame) -> Figures:
        return {str(s): inference.summarise(frame[frame["split"] == s], data.options) for s in splits}

    return [
        (
            Record(
                run_id=control_id(control, benchmark, data),
                kind="control",
                status="done",
                benchmark=benchmark,
                task=task,
                method=control,
                parameters=0,
                budget=0,
                seed=0,
                metrics=(figures or summary)(frame),
                data=data,
                provenance=provenance,
            ),
            frame,
        )
        for control, frame in control_answers(benchmark, train_golds, splits, data).items()
    ]


def write_controls(store: Store, dataset: Dataset, data: Data, evaluate: EvaluateConfig, made_by: Provenance) -> None:
    """Write the model-free rows of a dataset unless the store has them; `data` is the result of `data_record`."""
    benchmark, everything = dataset.benchmark, dataset.splits
    splits: dict[Split, list[Example]] = {s: e for s, e in everything.items() if s in evaluate.splits}
    train_golds = [example.known_gold for example in everything["train"]] if "train" in everything else None
    names = control_names(splits, data, train_golds)
    if all(store.status(control_id(name, benchmark.name, data)) == "done" for name in names):
        return
    for record, frame in control_runs(
        benchmark=benchmark.name,
        task=benchmark.task,
        train_golds=train_golds,
        splits=splits,
        data=data,
        provenance=made_by,
        figures=lambda frame: {
            split: some | by_letter(some) for split, some in figures_of(dataset, frame, evaluate.resamples).items()
        },
    ):
        config = {
            "benchmark": benchmark.name,
            "benchmark_settings": settings_of(benchmark),
            "skip_missing": bool(dataset.skipped),
            "evaluate": evaluate.model_dump(mode="json"),
        }
        if store.finished(record.run_id) is not None:
            continue
        try:
            store.write(record.model_copy(update={"config": config}), frame)
        except StoreError:
            if store.finished(record.run_id) is None:  # else a run on the same data wrote it at the same time
                raise


def _majority(golds: Sequence[int], examples: Sequence[Example]) -> list[Floats]:
    """For each example (K,): the log frequency of each position among the golds (with one added to each count)."""
    widest = max(chain((len(e.options) for e in examples), (gold + 1 for gold in golds)), default=0)
    counts = np.bincount(np.asarray(golds, dtype=np.int64), minlength=widest) + 1.0
    return [np.log(counts[: len(e.options)] / counts[: len(e.options)].sum()) for e in examples]


def _random(split: str, examples: Sequence[Example]) -> list[Floats]:
    """For each example (K,): logs of uniform samples, so that each option is equally likely to be the largest."""
    rng = np.random.default_rng(list(split.encode()))
    draws = (1 - rng.random(len(e.options)) for e in examples)  # in (0, 1]: the log is finite
    return [np.log(draw / draw.sum()) for draw in draws]


# -------------------------------------------------------------------------- what a control says


ROUNDING = 1e-9
"""By how much equal shares may differ: a third of 54 examples isn't quite the mean of 54 thirds."""


def flag(control: str, accuracy: Interval, chance: float, constant: float | None) -> str:
    """What it means if a control's whole interval is above chance; empty if it isn't.

    `control` is the record's method; one with a model has a "/" in it. `constant` is the accuracy of the best
    constant answer, None if it isn't known. `random` is never flagged: above chance it is luck.
    """
    if accuracy.low is None or accuracy.low <= chance + ROUNDING or control == "random":
        return ""
    above = f"above chance ({100 * chance:.1f})"
    if "/" not in control:
        return f"{above}: the golds are not balanced"
    if constant is not None and accuracy.low <= constant + ROUNDING:
        return f"{above}, but not above the best constant answer ({100 * constant:.1f}): unbalanced golds explain it"
    more = "" if constant is None else f" and the best constant answer ({100 * constant:.1f})"
    return f"{above}{more} without the image: the benchmark leaks through language"


def flags(store: Store, benchmark: str) -> list[str]:
    """The flags of all controls of the benchmark in the store, one line each, by data and split."""
    lines = []
    records = [store.read(id_) for id_ in store.ids() if id_.startswith(PREFIX) and store.status(id_) == "done"]
    records = [r for r in records if r.benchmark == benchmark and r.kind == "control" and r.data]
    for record in records:
        for split, figures in record.metrics.items():
            if not {"accuracy", "chance"} <= figures.keys():
                continue
            rivals = [r.metrics[split]["accuracy"].value for r in records if _constant_beside(r, record, split)]
            said = flag(record.method, figures["accuracy"], figures["chance"].value, max(rivals, default=None))
            if said:
                who = f"{record.method}, {record.student}, seed {record.seed}" if record.student else record.method
                lines.append(f"{who} ({split}, {100 * figures['accuracy'].value:.1f}): {said}")
    return lines


def _constant_beside(other: Record, record: Record, split: str) -> bool:
    """Whether `other` is a constant answer on the same data."""
    same = other.data is not None and record.data is not None and other.data.fingerprint == record.data.fingerprint
    return same and split in other.metrics and is_constant(other.method)


def is_control_name(name: str) -> bool:
    """Whether tables show a control under this name: other rows may not have it."""
    of_images = name.rpartition("/")[2] in get_args(Control)
    return is_constant(name) or name.startswith(PREFIX) or name in ("random", "control") or of_images


def is_constant(control: str) -> bool:
    """Whether a control always gives the same answer."""
    return control.startswith(("majority", "always_"))
