"""What the page of a run shows, as plain frames of its record, history and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from harness.record import Interval, Record, StageRecord
from harness.stats import calibration
from harness.stats.metrics import NO_ANSWER
from harness.store.index import flat

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
UNANSWERED = "no answer"
OWN_UNITS = ("brier", "nll")
"""Figures of the harness that are no shares; a protocol's (`official:f1`) are in its own unit too."""
SPLITS = ("test", "ood", "validation", "train")

# ------------------------------------------------------------------------------------- what it was


def splits(record: Record) -> list[str]:
    """The splits that have figures, test first."""
    return [split for split in SPLITS if split in record.metrics]


def settings(record: Record) -> pd.DataFrame:
    """Every setting of the method with its value, and whether its user set it: columns setting, value, set."""
    given = flat(record.config.get("settings", {}))
    rows = [(name, shown(value), "yes" if name in given else "") for name, value in flat(record.settings).items()]
    return pd.DataFrame(rows, columns=["setting", "value", "set by hand"])


def training(record: Record) -> pd.DataFrame:
    """How it was trained and asked: the rest of the configuration, columns setting and value."""
    own = ("method", "settings", "benchmark", "student", "ladder", "seed", "tags", "plugins")
    rows = [(k, shown(v)) for k, v in flat({k: v for k, v in record.config.items() if k not in own}).items()]
    return pd.DataFrame([row for row in rows if row[1] not in ("", "{}", "null")], columns=["setting", "value"])


def shown(value: Any) -> str:
    """A setting's value as TOML or the command line would have it."""
    return value if isinstance(value, str) else json.dumps(value)


def stages(record: Record) -> pd.DataFrame:
    """A line for each role of each stage: where its weights come from, whether it learns, its best validation."""
    rows = [
        {
            "stage": stage.name,
            "share of budget": stage.share,
            "steps": stage.steps,
            "examples": stage.examples,
            "role": name,
            "starts from": role.weights,
            "learns": "learns" if role.trainable else "frozen",
            "parameters": role.parameters,
            "best validation accuracy, %": 100 * stage.best[name] if name in stage.best else None,
        }
        for stage in record.stages
        for name, role in stage.roles.items()
    ]
    return pd.DataFrame(rows)


def cost(record: Record) -> pd.DataFrame:
    """What each role was billed in training: stage, role, forwards, trained, TFLOP, seconds."""
    rows = []
    for key, role in record.cost.roles.items():
        stage, _, name = key.rpartition(".")
        rows.append((stage, name, role.forwards, role.trained, role.flops / 1e12, role.seconds))
    return pd.DataFrame(rows, columns=["stage", "role", "forwards", "trained on", "TFLOP", "seconds"])


def provenance(record: Record) -> list[tuple[str, str]]:
    """Where the numbers come from: name and value."""
    p, data = record.provenance, record.data
    changes = ", with changes that were not committed" if p.git_dirty else ""
    found = {
        "run": record.run_id,
        "package": p.package,
        "commit": f"{p.git_commit[:12]}{changes}" if p.git_commit else "",
        "training": f"version {p.training}",
        "scoring": f"version {p.scoring}",
        **{f"source of {name}": f"sha256 {digest[:16]}…" for name, digest in p.sources.items()},
        "code": f"sha256 {p.code[:16]}…" if p.code else "",
        "answers imported from": p.imported or "",
        "started": p.started,
        "finished": p.finished,
        "workers": str(p.workers),
        "taken up again": f"{p.resumed} times" if p.resumed else "",
        "machine": ", ".join(f"{k} {v}" for k, v in p.machine.items()),
        "versions": ", ".join(f"{k} {v}" for k, v in p.versions.items()),
        "data revision": data.revision if data else "",
        "data fingerprint": f"sha256 {data.fingerprint[:16]}…" if data else "",
        "data sizes": ", ".join(f"{k} {v:,}" for k, v in data.sizes.items()) if data else "",
        "left out, image missing": ", ".join(f"{k} {v}" for k, v in data.skipped.items()) if data else "",
        "learned from": f"{record.trained_on.benchmark}, revision {record.trained_on.data.revision}"
        if record.trained_on
        else "",
        "tags": ", ".join(record.tags),
        "sealed": f"record and {len(record.seal.files)} files" if record.seal else "no: it is older than seals",
    }
    return [(name, value) for name, value in found.items() if value]


def leaks(record: Record) -> list[str]:
    """What splits of the data share exactly, a line a pair of splits that share something."""
    pairs = (record.data.leaks if record.data else None) or {}
    return [
        f"{pair}: " + ", ".join(f"{count} {kind}" for kind, count in shared.items() if count)
        for pair, shared in pairs.items()
        if any(shared.values())
    ]


# ------------------------------------------------------------------------------------------- curves


def curves(history: pd.DataFrame, of_stages: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """The history with `at`, the step counted over all stages (name and number of steps each, in order)."""
    starts = dict(
        zip((name for name, _ in of_stages), np.cumsum([0, *(steps for _, steps in of_stages)]), strict=False)
    )
    frame = history[history["stage"].isin(list(starts))].copy()
    frame["at"] = frame["stage"].map(starts).astype("int64") + frame["step"]
    return frame


def terms(frame: pd.DataFrame) -> list[str]:
    """The terms of a history: validation figures before losses, each by name."""
    return sorted(frame["term"].unique(), key=lambda term: (not term.startswith("validation/"), term))


def term_title(term: str) -> str:
    """A term as an axis has it, with its unit."""
    kind, _, name = term.partition("/")
    if kind == "validation":
        return f"validation {name}, %" if name == "accuracy" else f"validation {name}"
    return f"loss {name}, nats" if name == "ce" else f"loss {name}" if kind == "loss" else term


def of_stages(record: Record) -> list[tuple[str, int]]:
    """The stages as `curves` takes them."""
    return [(stage.name, stage.steps) for stage in record.stages]


def kept(stages_: Sequence[StageRecord]) -> dict[tuple[str, str], float]:
    """The validation accuracy of the weights that were kept, by stage and role."""
    return {(stage.name, role): value for stage in stages_ for role, value in stage.best.items()}


# ------------------------------------------------------------------------------------------ figures


def figures(record: Record, split: str) -> pd.DataFrame:
    """The figures of a split without those of categories: figure, value, low, high, unit. Shares in per cent."""
    rows = []
    for name, found in record.metrics.get(split, {}).items():
        if not name.startswith("accuracy/"):
            own = name in OWN_UNITS or ":" in name
            rows.append((name, *scaled(found, 1 if own else 100), _unit(name)))
    return pd.DataFrame(rows, columns=["figure", "value", "low", "high", "unit"])


def _unit(name: str) -> str:
    if ":" in name:
        return "the protocol's own"
    return {"brier": "0 to 2, less is better", "nll": "nats, less is better"}.get(
        name, "%, less is better" if name in ("ece", "aurc", "parse_failures") else "%"
    )


def scaled(found: Interval, factor: float = 100) -> tuple[float, float | None, float | None]:
    """An interval's three numbers, by default in per cent."""
    bounds = (found.low, found.high)
    return factor * found.value, *(None if bound is None else factor * bound for bound in bounds)  # type: ignore[return-value]


def categories(record: Record, split: str, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """Accuracy by category: name, value, low, high in per cent, examples (where the predictions are given)."""
    counts = predictions["category"].value_counts() if predictions is not None else pd.Series(dtype="int64")
    rows = []
    for name, found in record.metrics.get(split, {}).items():
        if name.startswith("accuracy/"):
            category = name.removeprefix("accuracy/")
            rows.append((category, *scaled(found), int(counts.get(category, 0))))
    return pd.DataFrame(rows, columns=["category", "value", "low", "high", "examples"])


def confusion(predictions: pd.DataFrame, options: Sequence[str] | None) -> pd.DataFrame:
    """How often each option was chosen where each was right: gold, chosen, count, share of the gold's, in order.

    Where every example has options of its own (`options` None) they go by their letters. An answer that could
    not be read is `no answer`.
    """
    gold, chosen = predictions["gold"].to_numpy(), predictions["chosen"].to_numpy()
    size = len(options) if options else int(max(gold.max(), chosen.max())) + 1
    names = list(options) if options else list(ascii_uppercase[:size])
    answers = [*range(size), *([NO_ANSWER] if (chosen == NO_ANSWER).any() else [])]
    rows = []
    for k in range(size):
        of_gold = int((gold == k).sum())
        for c in answers:
            count = int(((gold == k) & (chosen == c)).sum())
            name = UNANSWERED if c == NO_ANSWER else names[c]
            rows.append((names[k], name, count, count / of_gold if of_gold else None, c == k))
    return pd.DataFrame(rows, columns=["gold", "chosen", "count", "share", "right"])


def confidences(predictions: pd.DataFrame) -> np.ndarray:
    """The probability of each answer's best option, NaN where an answer came without scores: (N,)."""
    found = np.full(len(predictions), np.nan)
    usable = [i for i, scores in enumerate(predictions["scores"]) if scores is not None and len(scores)]
    if usable:
        found[usable] = calibration.probabilities(predictions["scores"].iloc[usable]).max(1)
    return found


def calibrated(predictions: pd.DataFrame) -> pd.DataFrame:
    """By bin of confidence how often the answer is right: confidence, accuracy, low, high in per cent, examples.

    The bins are those of the ECE. Bounds are Wilson's 95 % interval of a share, examples taken as independent.
    None at all where an answer has no scores.
    """
    confidence = confidences(predictions)
    columns = ["confidence", "accuracy", "low", "high", "examples"]
    if not len(confidence) or not np.isfinite(confidence).all():
        return pd.DataFrame(columns=columns, dtype="float64")
    right = (predictions["gold"] == predictions["chosen"]).to_numpy()
    rows = [
        (100 * conf, 100 * hit, *(100 * bound for bound in wilson(hit, count)), count)
        for _, count, conf, hit in calibration.binned(confidence, right)
    ]
    return pd.DataFrame(rows, columns=columns)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` (Wilson 1927)."""
    z2 = Z95**2 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 * ((share * (1 - share) + z2 / 4) / count) ** 0.5 / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def headline(record: Record) -> Iterator[tuple[str, str]]:
    """The few numbers that stand on top: name and text."""
    for split in splits(record)[:2]:
        if (found := record.metrics[split].get("accuracy")) is not None:
            value, low, high = scaled(found)
            bounds = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
            yield f"{split} accuracy, %", f"{value:.1f}{bounds}"
