"""The data of the run page: data frames of its record, history and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from dashboard.data.catalog import trained
from harness.record import Interval, Record, Reproduction
from harness.report.columns import has_own_unit, lower_is_better, unit
from harness.report.run import VERDICTS
from harness.stats import calibration
from harness.stats.metrics import NO_ANSWER
from harness.store.index import flat

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
UNANSWERED = "no answer"
SPLITS = ("test", "ood", "validation", "train")

# ------------------------------------------------------------------------------------- settings, costs, provenance


def splits(record: Record) -> list[str]:
    """The splits that have results, test first."""
    return [split for split in SPLITS if split in record.metrics]


def settings(record: Record) -> pd.DataFrame:
    """Every setting of the method with its value, and whether the user set it."""
    given = flat(record.config.get("settings", {}))
    rows = [(name, shown(value), "yes" if name in given else "") for name, value in flat(record.settings).items()]
    return pd.DataFrame(rows, columns=["setting", "value", "set by hand"])


def training(record: Record) -> pd.DataFrame:
    """The rest of the configuration, for training and evaluation: columns setting and value."""
    own = ("method", "settings", "benchmark", "student", "ladder", "seed", "tags", "plugins")
    rows = [(k, shown(v)) for k, v in flat({k: v for k, v in record.config.items() if k not in own}).items()]
    return pd.DataFrame([row for row in rows if row[1] not in ("", "{}", "null")], columns=["setting", "value"])


def shown(value: Any) -> str:
    """A setting's value as in TOML or on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def stages(record: Record) -> pd.DataFrame:
    """One row for each role of each stage: its initial weights, whether it is trained, its best validation accuracy."""
    rows = [
        {
            "stage": stage.name,
            "share of budget": stage.share,
            "steps": stage.steps,
            "examples": stage.examples,
            "role": name,
            "initialised from": role.weights,
            "trained": trained(role),
            "parameters": role.parameters,
            "best validation accuracy, %": 100 * stage.best[name] if name in stage.best else None,
        }
        for stage in record.stages
        for name, role in stage.roles.items()
    ]
    return pd.DataFrame(rows)


def cost(record: Record) -> pd.DataFrame:
    """The training cost of each role: stage, role, forward passes, examples trained on, TFLOP, seconds."""
    rows = []
    for key, role in record.cost.roles.items():
        stage, _, name = key.rpartition(".")
        rows.append((stage, name, role.forwards, role.trained, role.flops / 1e12, role.seconds))
    return pd.DataFrame(rows, columns=["stage", "role", "forward passes", "examples trained on", "TFLOP", "seconds"])


def provenance(record: Record) -> list[tuple[str, str]]:
    """The run's provenance: name and value of each entry that isn't empty."""
    p, data = record.provenance, record.data
    changes = " with uncommitted changes" if p.git_dirty else ""
    found = {
        "run": record.run_id,
        "package": p.package,
        "commit": f"{p.git_commit[:12]}{changes}" if p.git_commit else "",
        "training code": f"version {p.training}",
        "scoring code": f"version {p.scoring}",
        **{f"source of {name}": f"sha256 {digest[:16]}…" for name, digest in p.sources.items()},
        "code": f"sha256 {p.code[:16]}…" if p.code else "",
        "answers imported from": p.imported or "",
        "started": p.started,
        "finished": p.finished,
        "workers": str(p.workers),
        "resumed": f"{p.resumed} time{'s' if p.resumed > 1 else ''}" if p.resumed else "",
        "machine": ", ".join(f"{k} {v}" for k, v in p.machine.items()),
        "versions": ", ".join(f"{k} {v}" for k, v in p.versions.items()),
        "data revision": data.revision if data else "",
        "data fingerprint": f"sha256 {data.fingerprint[:16]}…" if data else "",
        "data sizes": ", ".join(f"{k} {v:,}" for k, v in data.sizes.items()) if data else "",
        "examples skipped, image missing or damaged": ", ".join(f"{k} {v}" for k, v in data.skipped.items())
        if data
        else "",
        "trained on": f"{record.trained_on.benchmark}, revision {record.trained_on.data.revision}"
        if record.trained_on
        else "",
        "tags": ", ".join(record.tags),
        "checksums": f"of the record and {len(record.seal.files)} files"
        if record.seal
        else "none: the record is too old",
    }
    return [(name, value) for name, value in found.items() if value]


def hashes(record: Record) -> list[tuple[str, str]]:
    """The full digests and the commit of a run, by name."""
    p, data = record.provenance, record.data
    found = {
        "commit": p.git_commit or "",
        "code": p.code,
        **{f"source of {name}": digest for name, digest in p.sources.items()},
        "data fingerprint": data.fingerprint if data else "",
        **(record.seal.files if record.seal else {}),
    }
    return [(name, value) for name, value in found.items() if value]


def citation(record: Record) -> str:
    """One line that names the run, its code and its data, to be cited."""
    p, data = record.provenance, record.data
    who = f"{record.method}, student {record.student}, seed {record.seed}" if record.student else record.method
    parts = [
        f"hkdbench run {record.run_id} ({who}), {p.finished[:10]}",
        f"{record.benchmark}, revision {data.revision}, data sha256 {data.fingerprint}" if data else record.benchmark,
        p.package + (f", commit {p.git_commit}" if p.git_commit else ""),
    ]
    return ". ".join(parts) + "."


def reproductions(found: Sequence[Reproduction]) -> pd.DataFrame:
    """One row for each split of each time that a run was trained again."""
    rows = [
        {
            "trained again": one.provenance.finished,
            "result": VERDICTS[one.verdict],
            "split": split,
            "equal answers, %": 100 * of_split.equal,
            "accuracy recorded, %": 100 * of_split.recorded,
            "again, %": 100 * of_split.again,
            "two seeds differ by up to, points": None if of_split.limit is None else 100 * of_split.limit,
            "what was different": "; ".join(one.differences),
        }
        for one in found
        for split, of_split in one.splits.items()
    ]
    return pd.DataFrame(rows)


def leaks(record: Record) -> list[str]:
    """Exact duplicates across splits: one line for each pair of splits that has some."""
    pairs = (record.data.leaks if record.data else None) or {}
    return [
        f"{pair}: " + ", ".join(f"{count} {kind}" for kind, count in shared.items() if count)
        for pair, shared in pairs.items()
        if any(shared.values())
    ]


# ------------------------------------------------------------------------------------------- curves


def curves(history: pd.DataFrame, of_stages: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """The history with the column `at`, the step counted over all stages. `of_stages`: names and steps, in order."""
    starts = dict(
        zip((name for name, _ in of_stages), np.cumsum([0, *(steps for _, steps in of_stages)]), strict=False)
    )
    frame = history[history["stage"].isin(list(starts))].copy()
    frame["at"] = frame["stage"].map(starts).astype("int64") + frame["step"]
    return frame


def terms(frame: pd.DataFrame) -> list[str]:
    """The logged terms of a history: validation metrics, then losses, each sorted by name."""
    return sorted(frame["term"].unique(), key=lambda term: (not term.startswith("validation/"), term))


def term_title(term: str) -> str:
    """The axis title of a term, with its unit."""
    kind, _, name = term.partition("/")
    if kind == "validation":
        return f"validation {name}, %" if name == "accuracy" else f"validation {name}"
    return f"loss {name}, nats" if name == "ce" else f"loss {name}" if kind == "loss" else term


def of_stages(record: Record) -> list[tuple[str, int]]:
    """The stages in the form that `curves` takes."""
    return [(stage.name, stage.steps) for stage in record.stages]


# ------------------------------------------------------------------------------------------ metrics


def figures(record: Record, split: str) -> pd.DataFrame:
    """The metrics of a split, without those by category: metric, value, low, high, unit. Fractions in per cent."""
    rows = []
    for name, found in record.metrics.get(split, {}).items():
        if not name.startswith("accuracy/"):
            rows.append((name, *scaled(found, 1 if has_own_unit(name) else 100), _unit(name)))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "unit"])


def _unit(name: str) -> str:
    if ":" in name:
        return "defined by the protocol"
    said = (unit(name) or "a plain number", "lower is better" if lower_is_better(name) else "")
    return ", ".join(filter(None, said))


def scaled(found: Interval, factor: float = 100) -> tuple[float, float | None, float | None]:
    """Value, low and high of an interval, by default in per cent."""
    bounds = (found.low, found.high)
    return factor * found.value, *(None if bound is None else factor * bound for bound in bounds)  # type: ignore[return-value]


def categories(record: Record, split: str, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """Accuracy by category: name, value, low, high in per cent, number of examples (0 without predictions)."""
    counts = predictions["category"].value_counts() if predictions is not None else pd.Series(dtype="int64")
    rows = []
    for name, found in record.metrics.get(split, {}).items():
        if name.startswith("accuracy/"):
            category = name.removeprefix("accuracy/")
            rows.append((category, *scaled(found), int(counts.get(category, 0))))
    return pd.DataFrame(rows, columns=["category", "value", "low", "high", "examples"])


def confusion(predictions: pd.DataFrame, options: Sequence[str] | None) -> pd.DataFrame:
    """The confusion matrix: gold, chosen, count, share of the examples with this gold answer, and whether it is right.

    If every example has its own options (`options` None), they are named by letter. An answer that couldn't be parsed
    is `no answer`.
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
    """The probability of each answer's best option, NaN for an answer without scores: (N,)."""
    found = np.full(len(predictions), np.nan)
    usable = [i for i, scores in enumerate(predictions["scores"]) if scores is not None and len(scores)]
    if usable:
        found[usable] = calibration.probabilities(predictions["scores"].iloc[usable]).max(1)
    return found


def calibrated(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by bin of confidence: confidence, accuracy, low, high in per cent, number of examples.

    The bins are those of the ECE. The bounds are Wilson's 95 % interval, with examples treated as independent.
    Empty if some answer has no scores.
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
    """Wilson's 95 % interval of a proportion of `count` cases (Wilson 1927)."""
    z2 = Z95**2 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 * ((share * (1 - share) + z2 / 4) / count) ** 0.5 / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def headline(record: Record) -> Iterator[tuple[str, str]]:
    """The main results at the top of the page: name and text."""
    for split in splits(record)[:2]:
        if (found := record.metrics[split].get("accuracy")) is not None:
            value, low, high = scaled(found)
            bounds = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
            yield f"{split} accuracy, %", f"{value:.1f}{bounds}"
