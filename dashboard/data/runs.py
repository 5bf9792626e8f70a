"""All runs of the store as a data frame, its filters and groups, and the curves of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard.data import run as one_run
from harness.record import Record
from harness.store.index import BROKEN, RunSummary
from harness.store.manifest import DataKey

STATES = ("done", "failed", "interrupted", BROKEN)
GROUPS = ("benchmark", "method", "student", "status", "tag")
COLUMNS = ["run", "status", "method", "student", "benchmark", "seed", "accuracy, %", "TFLOP", "seconds",
           "forwards", "finished", "problem"]  # fmt: skip


@dataclass(frozen=True)
class RunFilter:
    """Selects runs. Empty: any."""

    states: tuple[str, ...] = ()
    data: tuple[str | DataKey, ...] = ()
    """Benchmarks, or data of one version."""
    methods: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Parts that the id, the label or the problem must contain, all of them."""
    row: str = ""
    """A run's id: all seeds of its row, whatever else is asked for."""

    def matches(self, one: RunSummary) -> bool:
        """Whether a run is shown."""
        asked = ((self.states, one.status), (self.methods, one.method), (self.students, one.student))
        if not all(not wanted or value in wanted for wanted, value in asked):
            return False
        if self.data and not {one.benchmark, one.data_key} & set(self.data):
            return False
        if self.tags and not set(self.tags) & set(one.tags):
            return False
        text = f"{one.run_id} {one.label} {one.name} {one.problem or ''}".lower()
        return all(word in text for word in self.words)


def sift(runs: Sequence[RunSummary], asked: RunFilter) -> list[RunSummary]:
    """The runs that match, the newest first."""
    known = next((one for one in runs if one.run_id == asked.row), None)
    found = [one for one in runs if asked.matches(one)] if known is None else seeds_of(runs, known)
    return sorted(found, key=lambda one: (one.finished, one.run_id), reverse=True)


def seeds_of(runs: Sequence[RunSummary], of: RunSummary) -> list[RunSummary]:
    """The runs that differ from this one by their seed only, itself included, also those that failed, by seed."""
    if not of.row:
        return [of]
    mine = [one for one in runs if one.row == of.row and one.benchmark == of.benchmark and one.method == of.method]
    return sorted(mine, key=lambda one: (one.seed, one.run_id))


def frame(runs: Sequence[RunSummary], accuracy: Mapping[str, float]) -> pd.DataFrame:
    """One row per run (`COLUMNS`). `accuracy`: fractions on test by id.

    `TFLOP` is the training's, teachers included; `forwards` are passes of the student per answer.
    """
    rows = [
        (
            one.run_id,
            one.status,
            one.name or one.label or one.method,
            one.student,
            one.benchmark,
            str(one.seed) if one.student else "",
            None if one.run_id not in accuracy else 100 * accuracy[one.run_id],
            None if not one.train_flops else one.train_flops / 1e12,
            one.total_seconds or None,
            one.forwards,
            one.finished,
            one.problem or "",
        )
        for one in runs
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def short_labels(labels: Sequence[str]) -> list[str]:
    """The labels without the settings that all labels of the same method share, if there are several."""
    parts = [label.split(" ") for label in labels]
    common = {
        method: set.intersection(*(set(words[1:]) for words in parts if words[0] == method))
        for method in {words[0] for words in parts}
        if len({label for label, words in zip(labels, parts, strict=True) if words[0] == method}) > 1
    }
    return [" ".join([words[0], *(w for w in words[1:] if w not in common.get(words[0], ()))]) for words in parts]


def grouped(runs: Sequence[RunSummary], by: str) -> pd.DataFrame:
    """One row per value of `by`: how many runs, how many of each status, their training TFLOP and hours in all.

    A run counts for each of its tags.
    """
    keys: dict[str, list[RunSummary]] = {}
    for one in runs:
        for key in (one.tags or ["no tag"]) if by == "tag" else [getattr(one, by) or "none"]:
            keys.setdefault(key, []).append(one)
    rows = []
    for key, mine in sorted(keys.items(), key=lambda item: (-len(item[1]), item[0])):
        counts = [sum(one.status == state for one in mine) or None for state in STATES]
        tflops = sum(one.train_flops or 0.0 for one in mine) / 1e12
        rows.append((key, len(mine), *counts, tflops, sum(one.total_seconds for one in mine) / 3600))
    columns = [by, "runs", *STATES, "TFLOP", "hours"]
    return pd.DataFrame(rows, columns=columns)


# ------------------------------------------------------------------------------------- curves of several runs


def joined_curves(records: Sequence[Record], histories: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """The students' curves of several runs: name, run, term, at (steps over all stages), value, ended.

    `ended` is empty for a finished run, else its status.
    """
    parts = []
    for record, history, name in zip(records, histories, names, strict=True):
        stages = one_run.of_stages(record) or [(stage, 0) for stage in dict.fromkeys(history["stage"])]
        found = one_run.curves(history, stages)
        own = found[found["role"] == "student"] if (found["role"] == "student").any() else found
        ended = "" if record.status == "done" else record.status
        parts.append(own[["term", "at", "value"]].assign(name=name, run=record.run_id, ended=ended))
    columns = ["name", "run", "term", "at", "value", "ended"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
