"""Does a trained student give the same answer if the same question is presented differently?

`hkdbench robustness RUN` loads the student that a run saved (`save_student = true`). The student answers the
examples of a split again, in the run's own way (its method's views and fusion), as variants:

    order_1 ...          the options in every cyclic order
        paraphrase_1 ...     the question in other words
        noise_1 ... 3        corrupted images, see `harness.data.corruptions`; blur, jpeg and occlusion likewise
    no_image             a grey image
    other_image          the image of another group

The result is a separate record (kind `robustness`) beside the run: figures by variant under `test/noise_1` and so
on, the summary under `test`, and all answers, with the original option indices, so that they can be recomputed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import provenance, registry
from harness.api import Example, Method, Split
from harness.config import RunConfig, RungConfig
from harness.data import corruptions, image_controls
from harness.data import dataset as data
from harness.errors import ConfigError, DataError, StoreError, near
from harness.evaluation.shifts import Asking
from harness.events import OnEvent
from harness.images import reading
from harness.models.distributed import SingleProcess, silent
from harness.record import Cost, Interval, Provenance, Record
from harness.stats import agreement, calibration, inference
from harness.stats.metrics import NO_ANSWER
from harness.store import PredictionRow, Store, predictions_frame

PARAPHRASES = ("Please look carefully, then answer: {question}", "{question} Pick one.", "Question: {question}")
"""Different from the forms that methods train with (harness.data.augmentation)."""
OTHER_NAMES = {"Claim": "Statement", "Caption": "Description"}
"""The label of the claim in the last paraphrase."""
CLEAN = "clean"

Figures = dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class InputVariant:
    """A variant of the examples. `orders[i][k]` is the original index of the option at letter k of example i."""

    name: str
    examples: list[Example]
    orders: list[tuple[int, ...]] | None = None
    """None: the options stay in their order."""


# ---------------------------------------------------------------------------------------- variants


def variants(examples: Sequence[Example], seed: int) -> Iterator[InputVariant]:
    """All variants, starting with the unchanged one. Examples with few options are left out of the later orders."""
    yield InputVariant(CLEAN, list(examples))
    for shift in range(1, max(len(e.options) for e in examples)):
        turned = [e for e in examples if shift < len(e.options)]
        orders = [tuple((k + shift) % len(e.options) for k in range(len(e.options))) for e in turned]
        yield InputVariant(f"order_{shift}", [e.reordered(o) for e, o in zip(turned, orders, strict=True)], orders)
    for number in range(1, len(PARAPHRASES) + 1):
        yield InputVariant(f"paraphrase_{number}", [paraphrased(e, number) for e in examples])
    for damage in corruptions.STRENGTHS:
        for level in corruptions.LEVELS:
            yield InputVariant(f"{damage}_{level}", [corruptions.damaged(e, damage, level) for e in examples])
    yield InputVariant("no_image", image_controls.without_image(examples))
    if len({e.group for e in examples}) > 1:
        yield InputVariant("other_image", image_controls.other_images(examples, f"{seed}/robustness"))


def paraphrased(example: Example, number: int) -> Example:
    """The example in other words, 1 to 3; the last one also uses another label for the claim."""
    last = number == len(PARAPHRASES)
    label = OTHER_NAMES.get(example.claim_label, example.claim_label) if last else example.claim_label
    return replace(example, question=PARAPHRASES[number - 1].format(question=example.question), claim_label=label)


# ------------------------------------------------------------------------------------------ a run


def of_run(
    store: Store,
    run: str,
    split: Split = "test",
    limit: int | None = None,
    data_dir: Path | str | None = None,
    report: OnEvent = silent,
) -> Record:
    """The robustness record of a run's student; read from the store if it is already there.

    `limit`: use only this many examples. Raises `ConfigError` for a control, `StoreError` for a run that isn't done
    or has no saved student, `DataError` if the data differ from those of the run.
    """
    record = store.find(run)
    name = _run_id(record.run_id, split, limit)
    if store.status(name) == "done":
        return store.read(name)
    folder = _student(store, record)
    examples, method, config = _questions(record, split, limit, data_dir)
    started, clock = provenance.now(), time.perf_counter()
    frames, forwards = _ask(folder, method, config, examples, report)
    labels = record.data.options if record.data else None
    made = record.model_copy(
        update={
            "run_id": name,
            "kind": "robustness",
            "tags": [*record.tags, f"of:{record.run_id}"],
            "stages": [],
            "metrics": figures(frames, labels, split, config.evaluate.resamples),
            "cost": Cost(test_forwards=forwards, total_seconds=time.perf_counter() - clock),
            "provenance": Provenance(
                **provenance.static() | {"training": record.provenance.training},
                sources=record.provenance.sources,
                started=started,
                finished=provenance.now(),
            ),
        }
    )
    answers = [f.assign(split=split if v == CLEAN else f"{split}/{v}") for v, f in frames.items()]
    store.write(made, pd.concat(answers, ignore_index=True))
    return made


def _run_id(run_id: str, split: str, limit: int | None) -> str:
    prefix = f"robustness-{split}-{f'{limit}-' if limit else ''}"
    return prefix + run_id[-(128 - len(prefix)) :]


def _student(store: Store, record: Record) -> Path:
    """The folder of the trained student."""
    if record.kind != "run":
        raise ConfigError(f"{record.run_id} is a {record.kind}, not a run: name a run that trained a student")
    if record.status != "done":
        raise StoreError(f"run {record.run_id} is {record.status}: finish it first (the same command resumes it)")
    folder = store.root / record.run_id / "student"
    if not folder.is_dir():
        raise StoreError(
            f"run {record.run_id} has no saved student: run it again in another store with --set save_student=true, "
            "or delete its folder first"
        )
    return folder


def _questions(
    record: Record, split: Split, limit: int | None, data_dir: Path | str | None
) -> tuple[list[Example], Method, RunConfig]:
    """The examples, the run's method and its configuration."""
    config = RunConfig.model_validate(record.config)
    for plugin in config.plugins:
        registry.load_plugin(plugin)
    method = registry.make_method(config.method, config.settings)
    benchmark = registry.make_benchmark(config.benchmark, config.benchmark_settings, data_dir)
    reading.allow(config.max_image_pixels)
    dataset = data.load(benchmark, skip_missing=config.skip_missing)
    if record.data is None or not dataset.recognises(record.data.fingerprint):
        raise DataError(f"the data of {config.benchmark!r} are not those of run {record.run_id}: check --data-dir")
    if split not in dataset.splits:
        raise ConfigError(f"{config.benchmark!r} has no split {split!r}; {near(split, dataset.splits)}")
    return dataset.splits[split][:limit], method, config


def _ask(
    folder: Path, method: Method, config: RunConfig, examples: Sequence[Example], report: OnEvent
) -> tuple[dict[str, pd.DataFrame], int]:
    """The student's answers by variant, with the original option indices, and the number of forward passes."""
    import torch

    from harness.evaluation.predict import evaluate
    from harness.models import encoding, loading
    from harness.models.scorer import OptionScorer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rung = RungConfig(name=config.student, model=str(folder))
    encoder = encoding.load_encoder(rung)
    precision = config.train.precision_of(config.student)
    scorer = OptionScorer(loading.load_vlm(rung), encoder.letters, precision).to(device).eval()
    io, frames, spent = SingleProcess(report, device), {}, 0
    for variant in variants(examples, config.seed):
        rows, forwards, _ = evaluate(
            (scorer, encoder),
            Asking(method, config.evaluate, config.seed),
            variant.examples,
            variant.name,
            config.evaluate.batch_size,
            io,
            config.evaluate.share_prefix,
        )
        spent += forwards
        if variant.orders is not None:
            rows = [_as_original(row, order) for row, order in zip(rows, variant.orders, strict=True)]
        frames[variant.name] = predictions_frame(PredictionRow(**row) for row in rows)
    return frames, spent


def _as_original(row: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The answer with the options in their original order."""
    scores = [0.0] * len(row["scores"])  # a single written answer has none
    for letter, score in enumerate(row["scores"]):
        scores[order[letter]] = score
    chosen = row["chosen"]
    return {
        **row, "gold": order[row["gold"]], "chosen": chosen if chosen == NO_ANSWER else order[chosen], "scores": scores
    }  # fmt: skip


# ----------------------------------------------------------------------------------------- figures


def figures(
    frames: Mapping[str, pd.DataFrame], labels: Sequence[str] | None, split: str, resamples: int = inference.RESAMPLES
) -> Figures:
    """The summary under `split`, and each variant's figures under `split/variant`.

    For a variant: accuracy, macro_f1, `change` (of accuracy from the unchanged questions, paired) and `same_answer`
    (the fraction with the same answer). The summary adds, for order and paraphrase, `*_consistency` (the fraction with
    the same answer in all forms), `*_right` (right in all forms) and `*_alpha` (Krippendorff's alpha, agreement beyond
    chance); the mean accuracy over all image corruptions; and `parse_failures`.
    """
    clean = frames[CLEAN]
    summary = inference.summarise(clean, labels, resamples) | calibration.figures(clean, labels, resamples)
    for kind in ("order", "paraphrase"):
        forms = [frame for name, frame in frames.items() if name.startswith(f"{kind}_")]
        summary |= _over_forms(kind, [clean, *forms], resamples)
    damage = [f for name, f in frames.items() if name.rpartition("_")[0] in corruptions.STRENGTHS]
    if damage:
        right_n = np.mean([_right(frame) for frame in damage], axis=0)
        summary["damaged_accuracy"] = inference.mean_intervals(right_n[:, None], clean["group"], resamples)[0]
    failures = float(np.mean([(frame["chosen"] == NO_ANSWER).mean() for frame in frames.values()]))
    summary["parse_failures"] = Interval(value=failures)
    result = {split: summary}
    for name, frame in frames.items():
        if name != CLEAN:
            result[f"{split}/{name}"] = _of_variant(frame, clean, labels, resamples)
    return result


def _right(frame: pd.DataFrame) -> np.ndarray:
    return (frame["chosen"] == frame["gold"]).to_numpy(dtype=np.float64)


def _of_variant(
    frame: pd.DataFrame, clean: pd.DataFrame, labels: Sequence[str] | None, resamples: int
) -> dict[str, Interval]:
    before = clean.set_index("id").loc[frame["id"]].reset_index()
    same_n = (frame["chosen"].to_numpy() == before["chosen"].to_numpy()).astype(np.float64)
    values_n2 = np.stack([_right(frame) - _right(before), same_n], axis=1)
    change, same = inference.mean_intervals(values_n2, frame["group"], resamples)
    whole = inference.summarise(frame, labels, resamples)
    return {"accuracy": whole["accuracy"], "macro_f1": whole["macro_f1"], "change": change, "same_answer": same}


def _over_forms(kind: str, forms: Sequence[pd.DataFrame], resamples: int) -> dict[str, Interval]:
    """How far the answers to all forms of a question agree. Examples with only one form are left out."""
    chosen = pd.concat([f.set_index("id")["chosen"] for f in forms], axis=1, keys=range(len(forms)))
    first = forms[0].set_index("id").loc[chosen.index]
    several = chosen.notna().sum(axis=1) > 1
    chosen, first = chosen[several], first[several]
    if not len(chosen):
        return {}
    same_n = chosen.nunique(axis=1) == 1
    right_n = chosen.isna() | chosen.eq(first["gold"], axis=0)
    values_n2 = np.stack([same_n, right_n.all(axis=1)], axis=1).astype(np.float64)
    same, right = inference.mean_intervals(values_n2, first["group"], resamples)
    ratings = [[None if np.isnan(x) else int(x) for x in row] for row in chosen.to_numpy(dtype=np.float64)]
    alpha = agreement.krippendorff_alpha(ratings)
    found = {f"{kind}_consistency": same, f"{kind}_right": right}
    return found | ({} if alpha is None else {f"{kind}_alpha": Interval(value=alpha)})
