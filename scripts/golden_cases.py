"""What `scripts/golden.py` watches: small runs, what is computed of fixed answers, and a compacted catalogue."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from harness import registry
from harness.config import EvaluateConfig, RunConfig, parse
from harness.data.dataset import Dataset, load
from harness.evaluation import robustness, scoring
from harness.evaluation.controls import flags, write_controls
from harness.execution.launch import launch
from harness.leaderboard import compare
from harness.leaderboard.leaderboard import ranking
from harness.leaderboard.schema import Filters
from harness.record import Cost, Provenance, Record
from harness.report import comparison
from harness.store import PredictionRow, Store, predictions_frame
from harness.store.compaction import compact
from scripts import golden_benchmarks
from scripts.golden_benchmarks import Fixed, Words

SCENES = ("scenes_hallucination", "scenes_factuality")
SIZES = {"train": 24, "validation": 8, "test": 12, "ood": 4}
RESAMPLES = 200
_NO_FIGURES = {"reproduced", "refuted"}
"""What a row says of its runs apart from figures, and that no cached ranking lacks: it is empty there."""

# ------------------------------------------------------------------------------------------------ training


WAYS: dict[str, dict[str, Any]] = {
    "one question": {},
    "questions_per_image": {"questions_per_image": 2},
    "each alone": {"questions_per_image": 2, "share_prefix": False},
}
"""Trained on questions of which two are about one image."""


def training_cases() -> dict[str, dict[str, Any]]:
    """By name what is special about each small run: every built-in method and preset, and ways to train."""
    methods = sorted(name for name, entry in registry.methods().items() if entry.origin.startswith("hkdbench,"))
    cases: dict[str, dict[str, Any]] = {
        f"{m}, {b}": {"method": m, "benchmark": b, "train": {"labels": 16} if _needs_pool(m) else {}}
        for m in methods
        for b in SCENES
    }
    pool = {
        "settings": {"learn_from": "all"},
        "train": {"labels": 8, "cache": "auto"},
        "evaluate": {"shifts": "cyclic"},
    }
    cases["offline_kd, pool"] = {"method": "offline_kd", "benchmark": SCENES[0], **pool}
    for way, train in WAYS.items():
        methods = ["hkd4vlm"] if way == "each alone" else ["finetune", "offline_kd", "hkd4vlm"]
        cases |= {f"{m}, {way}": {"method": m, "benchmark": Fixed.name, "train": train} for m in methods}
    cases["assistant, cache"] = {"method": "assistant", "benchmark": SCENES[0], "train": {"cache": "auto"}}
    if find_spec("peft"):
        cases["finetune, lora"] = {"method": "finetune", "benchmark": SCENES[0], "train": {"lora": {"rank": 4}}}
    return cases


def _needs_pool(method: str) -> bool:
    name, settings = registry.resolve_preset(method, {})
    stages = registry.make_method(name, settings).stages(("L", "M", "S"), "S")
    return any(stage.data != "labels" for stage in stages)


def training(case: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions and history of a run of 4 steps, as plain values."""
    table = {
        **case,
        "benchmark_settings": SIZES if case["benchmark"] in SCENES else {},
        "plugins": [golden_benchmarks.__file__],
        "train": {"examples": 32, "batch_size": 8, "validations": 2, **case.get("train", {})},
        "evaluate": {"resamples": RESAMPLES, **case.get("evaluate", {})},
        "cluster": {"workers": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        (record,) = launch([parse(RunConfig, table, "golden")], store, "golden", lambda _: None)
        assert record.status == "done", record.error
        return {
            "predictions": _columns(store.predictions(record.run_id).drop(columns="seconds")),
            "history": _columns(store.history(record.run_id)),
        }


def prompts() -> dict[str, list[str]]:
    """What models are asked, to the letter: the tiny ladder's tokenizer doesn't see every space."""
    benchmarks = [Fixed(), Words(), *(registry.make_benchmark(name, SIZES) for name in SCENES)]
    asked = {benchmark.name: list(benchmark.load("test"))[:6] for benchmark in benchmarks}
    asked["with a context"] = [replace(example, context="a note.") for example in asked[SCENES[0]]]
    return {name: [example.prompt() for example in examples] for name, examples in asked.items()}


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {name: [plain(value) for value in frame[name]] for name in frame.columns}


def plain(value: Any) -> Any:
    """As JSON has it: arrays are lists, what isn't there is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


# ------------------------------------------------------------------------------------------------- scoring


METHODS = {"finetune": 0.6, "offline_kd": 0.75, "hkd4vlm": 0.8}
"""Made-up runs, with the share that they get right."""
SEEDS = (0, 1, 2)


def answered(store: Store) -> None:
    """Made-up answers of three methods, a large student and the controls on both fixed benchmarks."""
    for benchmark in (Fixed(), Words()):
        dataset = load(benchmark)
        data, evaluate = scoring.data_record(dataset, dataset), EvaluateConfig(resamples=RESAMPLES)
        write_controls(store, dataset, data, evaluate, _told())
        for method, student, share in (*((m, "S", s) for m, s in METHODS.items()), ("finetune", "L", 0.9)):
            for seed in SEEDS:
                frame = _answers(dataset, share, [len(method), ord(student), seed, len(benchmark.name)])
                store.write(_record(dataset, frame, method, student, seed), frame)


def _answers(dataset: Dataset, share: float, seed: list[int]) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("test", "ood"):
        for e in dataset.splits[split]:
            scores = np.log(rng.dirichlet(np.ones(len(e.options))))
            if rng.random() < share:
                best = int(scores.argmax())
                scores[[e.gold, best]] = scores[[best, e.gold]]
            rows.append(
                PredictionRow(split, e.id, e.group, e.category, e.gold, int(scores.argmax()), list(scores), 0.0)
            )
    return predictions_frame(rows)


def _record(dataset: Dataset, frame: pd.DataFrame, method: str, student: str, seed: int) -> Record:
    name = dataset.benchmark.name
    return Record(
        run_id=f"{method}-{student}-{name}-s{seed}",
        status="done",
        benchmark=name,
        task=dataset.benchmark.task,
        method=method,
        ladder="tiny",
        student=student,
        parameters={"S": 200_000, "L": 2_000_000}[student],
        budget=4096,
        seed=seed,
        config={"method": method, "benchmark": name, "seed": seed},
        metrics=scoring.figures_of(dataset, frame, RESAMPLES),
        data=scoring.data_record(dataset, dataset),
        cost=Cost(train_flops=2e12 + seed, train_seconds=10.0, test_forwards=12, test_seconds=0.5),
        provenance=_told(),
    )


def _told() -> Provenance:
    return Provenance(package="hkdbench", code="", started="2026-01-01T00:00Z", finished="2026-01-01T00:01Z")


def _controls(store: Store) -> Any:
    found = {}
    for record in store.records():
        if record.kind == "control":
            answers = _columns(store.predictions(record.run_id)[["split", "id", "chosen", "scores"]])
            found[f"{record.method}, {record.benchmark}"] = answers
    return found | {f"flags, {benchmark}": flags(store, benchmark) for benchmark in (Fixed.name, Words.name)}


def _figures(store: Store) -> Any:
    return {
        r.run_id: {s: {n: [f.value, f.low, f.high] for n, f in of.items()} for s, of in r.metrics.items()}
        for r in store.records()
        if r.seed == 0
    }


def _ranking(store: Store, **filters: Any) -> Any:
    found = ranking(store, Filters(columns=("cost", "distil", "power"), baseline="finetune@S", **filters))
    return found.model_dump(mode="json", exclude={"tables": {"__all__": {"rows": {"__all__": _NO_FIGURES}}}})


def _comparison(store: Store) -> Any:
    one, other = compare.sides(store, "hkd4vlm@S", "finetune@S", "test", Fixed.name)
    return json.loads(comparison.to_json(compare.compare(store, one, other)))


def _robustness(store: Store) -> Any:
    clean = store.predictions(f"finetune-S-{Fixed.name}-s0", "test")
    forms = (robustness.CLEAN, "order_1", "order_2", "paraphrase_1", "noise_1")
    rng = np.random.default_rng(0)
    frames = {f: clean.assign(chosen=np.where(rng.random(len(clean)) < 0.7, clean["chosen"], 0)) for f in forms}
    return {
        split: {name: [f.value, f.low, f.high] for name, f in of_split.items()}
        for split, of_split in robustness.figures(frames, None, "test", RESAMPLES).items()
    }


SCORED: dict[str, Callable[[Store], Any]] = {
    "controls": _controls,
    "figures": _figures,
    "ranking": partial(_ranking, aggregate=("mean", "rank", "iqm")),
    "ranking by macro_f1": partial(_ranking, metric="macro_f1", benchmark=Fixed.name),
    "ranking by ece": partial(_ranking, metric="ece", benchmark=Words.name, split="ood"),
    "comparison": _comparison,
    "robustness": _robustness,
}

# ------------------------------------------------------------------------------------------------- catalog


ELSEWHERE = ("stamp", "record", "training", "metrics")
"""Columns of a run's line whose values aren't the catalogue's own."""


def catalogued(store: Store) -> dict[str, Any]:
    """What `compact` writes: of each kind of file the columns with their types, and the rows."""
    compact(store)
    found: dict[str, Any] = {}
    for path in sorted((store.root / ".catalogue").glob("*.parquet")):
        kind = path.name.partition("-")[0]
        table = pq.read_table(path)
        found[f"{kind}, columns"] = {field.name: str(field.type) for field in table.schema}
        rows = table.to_pylist()
        if kind == "runs":
            found["record"] = sorted(json.loads(rows[0]["record"]))
            rows = [{k: v for k, v in row.items() if k not in ELSEWHERE} for row in rows]
        found.setdefault(kind, []).append([plain(row) for row in rows])
    return found | {kind: sorted(found[kind], key=json.dumps) for kind in ("answers", "examples")}
