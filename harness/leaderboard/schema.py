"""What a ranking is made of: its rows and tables, and what can be asked of it. Plain values, quick to load."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.errors import ConfigError
from harness.record import Interval

SHOWN = ("accuracy", "macro_f1")
"""The metrics that every table shows, beside the one that it is sorted by."""


COSTS = (
    "student_tflops",
    "teacher_tflops",
    "train_tflops",
    "train_seconds",
    "parameters",
    "forwards_per_answer",
    "ms_per_example",
    "peak_memory_mib",
)
"""What a score is held against, as the fields of a row."""
COLUMNS = ("cost", "distil", "power")
"""Sets of columns that are there when asked for."""
AGGREGATES = ("mean", "rank", "iqm")
"""Figures over all benchmarks, see `harness.stats.aggregate`."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Delta(_Model):
    """A row minus the baseline, paired by seed and example: 95 % interval and two-sided p."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    seeds: tuple[int, ...] = ()
    """The seeds that both have."""


class Distilled(_Model):
    """What distillation did for a row: beside its teacher, and the same student tuned directly. Over common seeds."""

    teacher: str
    baseline: str | None
    """The directly tuned student; None: there is none in the table."""
    gap_closed: Interval | None = None
    """(row - baseline) / (teacher - baseline); None where the teacher isn't surely above the baseline."""
    gap: Interval | None = None
    """Teacher minus baseline."""
    why: str = ""
    """Why there is no `gap_closed`."""
    agreement: Interval | None = None
    """Share of the examples on which row and teacher choose the same option."""
    inherited: Interval | None = None
    """Share of the examples on which both are wrong; `copied`: with the same option."""
    copied: Interval | None = None
    introduced: Interval | None = None
    """The row alone is wrong."""
    fixed: Interval | None = None
    """The teacher alone is wrong."""


class Power(_Model):
    """How small a difference to another row these data would show, and what would show the one that was seen.

    At the 5 % level, four times in five. `images` and `seeds` are how many it would take in all, each with the other
    as it is; None: no number would do, or a single seed can't tell.
    """

    against: str
    difference: float
    detectable: float
    images: int | None
    seeds: int | None
    more_images: int | None
    """Beyond those there are; 0: there are enough."""
    more_seeds: int | None


class Row(_Model):
    """A line of the ranking. Figures are means over the seeds; `values` are fractions by metric."""

    rank: int | None = None
    """From 1 within its table; None for controls and for rows without a figure."""
    benchmark: str
    revision: str
    fingerprint: str
    split: str
    kind: Literal["run", "control"]
    method: str
    label: str
    """What its suite calls it; else the method with the settings that tell it from its neighbours."""
    ladder: str
    student: str
    seeds: tuple[int, ...]
    examples: int
    groups: int
    metric: str
    """The metric that the table is sorted by."""
    values: dict[str, Interval]
    train_tflops: float | None
    """TFLOPs of a run's training, teachers included."""
    train_seconds: float | None
    forwards_per_answer: float | None
    """On the test split, whichever is ranked: a method asks alike on all."""
    parameters: int | None
    run_ids: tuple[str, ...]
    chance: float | None = None
    """The accuracy of a uniform guess, where the records state it."""
    note: str = ""
    budget: int | None = None
    """Examples that the student learned from: 0 untrained, None unknown."""
    baseline: bool = False
    """Whether the other rows' `delta` counts from this one."""
    delta: Delta | None = None
    """Only where a baseline was asked for, and can be paired with this row."""
    rank_low: int | None = None
    rank_high: int | None = None
    """The ranks that the data allow."""
    tier: tuple[int, ...] = ()
    """From 1: rows that the data don't tell apart share a tier."""
    student_tflops: float | None = None
    """Of `train_tflops` what the student itself took; `teacher_tflops` is the rest."""
    teacher_tflops: float | None = None
    student_seconds: float | None = None
    """Of its forward and backward passes; `train_seconds` holds all that training does."""
    teacher_seconds: float | None = None
    cache_share: float | None = None
    """Of the examples that frozen roles were shown, those that took no forward pass."""
    ms_per_example: float | None = None
    """Of wall time to answer the test split, loading and all views included."""
    peak_memory_mib: float | None = None
    """The most that any of its runs took."""
    pareto: tuple[str, ...] = ()
    """The `COSTS` at which no other run has a higher figure for as little, or the same figure for less."""
    name: str = ""
    """What its suite calls it, "" for nothing."""
    spelled: str = ""
    """The method with the settings that its user set, and what else tells it from its neighbours."""
    plain: str = ""
    """The method with the settings that its user set, where no other row of its student has the same; else ""."""
    shared: tuple[str, ...] = ()
    """What its configuration has in common with all runs of the table, and isn't by default."""
    shared_by_method: tuple[str, ...] = ()
    """The settings that it has in common with all rows of its method, where there are several."""
    distil: Distilled | None = None
    """Only where it was asked for, and there is a teacher."""
    power: Power | None = None
    """Only where it was asked for, and the two can be paired."""

    @property
    def full_label(self) -> str:
        """Its label with what it shares with other rows of its table."""
        return self.label if self.name else self.spelled or self.label

    @property
    def figure(self) -> float | None:
        """The value that the table is sorted by."""
        return self.values[self.metric].value if self.metric in self.values else None

    @property
    def data_key(self) -> tuple[str, str, str, str]:
        """What rows must share to be ranked together."""
        return self.benchmark, self.revision, self.fingerprint, self.split


class Table(_Model):
    """The ranking of all that saw the same data, best first."""

    benchmark: str
    revision: str
    fingerprint: str
    split: str
    metric: str
    rows: tuple[Row, ...]
    budgets: tuple[int, ...]
    """The budgets of its trained rows: they are shown where there is more than one."""


class Broken(_Model):
    """A run's folder without a sound record."""

    run_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.run_id}: {self.message}"


class Overall(_Model):
    """A row over all tables of a ranking. The figures are None where it lacks one of them: `missing` says which."""

    kind: Literal["run", "control"]
    method: str
    label: str
    ladder: str
    student: str
    metric: str
    asked: tuple[str, ...]
    """Which of `AGGREGATES` are to be shown; all are computed."""
    mean: Interval | None
    mean_rank: Interval | None
    iqm: Interval | None
    benchmarks: tuple[str, ...]
    missing: tuple[str, ...] = ()


class Ranking(_Model):
    """All tables of a store, what they say together, and what couldn't be read."""

    tables: tuple[Table, ...]
    broken: tuple[Broken, ...] = ()
    overall: tuple[Overall, ...] = ()
    """Only where it was asked for."""

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]


class Filters(_Model):
    """What is to be ranked. Controls and the baseline stay in whatever the other rows are restricted to."""

    benchmark: str | None = None
    task: str | None = None
    method: str | None = None
    size: str | None = None
    """A student's name, or a range of parameters like 100k..2M, ..1B, 7B.."""
    tag: str | None = None
    """Only runs with this tag count."""
    budget: int | None = None
    """Examples that the student learned from."""
    forwards: float | None = None
    """Forward passes an answer on test, to two decimals."""
    metric: str = "accuracy"
    protocol: str | None = None
    """`metric` is a figure of this protocol: `official` and `f1` is `official:f1`."""
    split: str = "test"
    baseline: str | None = None
    """The label of the row that the others are compared with, or `LABEL@STUDENT`."""
    teacher: str | None = None
    """The same of the row that `distil` takes for the teacher; default: see `harness.leaderboard.extra_columns`."""
    columns: tuple[str, ...] = ()
    """Some of `COLUMNS`."""
    aggregate: tuple[str, ...] = ()
    """Some of `AGGREGATES`."""

    @property
    def figure(self) -> str:
        """The name of the figure that is ranked."""
        return f"{self.protocol}:{self.metric}" if self.protocol else self.metric

    def fits_size(self, student: str, parameters: int | None) -> bool:
        """Whether a student is one that was asked for. Raises `ConfigError` for a range that can't be read."""
        if self.size is None:
            return True
        if ".." not in self.size:
            return student == self.size
        low, _, high = self.size.partition("..")
        if parameters is None:
            return False
        return parameters >= _count(low, 0.0, self.size) and parameters <= _count(high, float("inf"), self.size)


_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


def _count(text: str, empty: float, whole: str) -> float:
    if not text:
        return empty
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    if found is None:
        raise ConfigError(f"--size {whole!r}: expected a student's name or a range like 100k..2M, ..1B or 7B..")
    return float(found[1]) * _UNITS[found[2]]
