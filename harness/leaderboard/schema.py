"""The parts of a ranking: its rows and tables, and the filters. Plain values, quick to load."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import ConfigError
from harness.record import Interval

TUNED = "finetune"
"""Direct tuning: the method of the rows that the others are compared with, and of their teachers."""
UNTUNED = "zero_shot"
"""The rungs as they are: nobody trained them."""
SHOWN = ("accuracy", "macro_f1")
"""The metrics in every table, besides the one that it is sorted by."""


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
"""The costs that a score can be compared with, as fields of a row."""
COLUMNS = ("cost", "distil", "power")
"""Optional sets of columns."""
AGGREGATES = ("mean", "rank", "iqm")
"""Figures over all benchmarks, see `harness.stats.aggregate`."""


class _LeaderboardModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Delta(_LeaderboardModel):
    """A row minus the baseline, paired by seed and example: 95 % interval and two-sided p."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Of this difference alone (raw)."""
    p_holm: float | None = None
    """Holm's correction over the differences of the runs of its table."""
    seeds: tuple[int, ...] = ()
    """The common seeds."""


class Distilled(_LeaderboardModel):
    """What distillation did for a row, compared with its teacher and the same student tuned directly; over common
    seeds."""

    teacher: str
    baseline: str | None
    """The directly tuned student; None: there is none in the table."""
    gap_closed: Interval | None = None
    """(row - baseline) / (teacher - baseline); None if the teacher isn't significantly above the baseline."""
    gap: Interval | None = None
    """Teacher minus baseline."""
    why: str = ""
    """Why there is no `gap_closed`."""
    agreement: Interval | None = None
    """Fraction of the examples on which row and teacher choose the same option."""
    inherited: Interval | None = None
    """Fraction of the examples on which both are wrong; `copied`: with the same option."""
    copied: Interval | None = None
    introduced: Interval | None = None
    """Only the row is wrong."""
    fixed: Interval | None = None
    """Only the teacher is wrong."""


class DirectlyTuned(_LeaderboardModel):
    """The same student tuned directly, and how much better a row is."""

    label: str
    figure: float
    train_tflops: float | None
    forwards_per_answer: float | None
    difference: Delta | None = None
    """The row minus it; None: they can't be paired. Holm's correction is over the rows of the student."""


class Power(_LeaderboardModel):
    """How small a difference from another row these data can detect, and what would detect the observed one.

    At the 5 % level, with a power of 80 %. `images` and `seeds` are the totals needed, each with the other
    unchanged; None: no number is enough, or a single seed can't tell.
    """

    against: str
    difference: float
    detectable: float
    images: int | None
    seeds: int | None
    more_images: int | None
    """How many more than present; 0: there are enough."""
    more_seeds: int | None


class Row(_LeaderboardModel):
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
    """What its suite calls it; else the method with the settings that distinguish it from other rows."""
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
    """On the test split, whichever split is ranked: it is the same for all splits."""
    parameters: int | None
    run_ids: tuple[str, ...]
    chance: float | None = None
    """The accuracy of a uniform guess, if it is recorded."""
    note: str = ""
    budget: int | None = None
    """Examples that the student learned from: 0 untrained, None unknown."""
    baseline: bool = False
    """Whether it is the baseline of the other rows' `delta`."""
    delta: Delta | None = None
    """Only if a baseline was given, and it can be paired with this row."""
    direct: DirectlyTuned | None = None
    """Direct tuning of the same student, see `harness.leaderboard.extra_columns`; None: it is one, or there is none."""
    rank_low: int | None = None
    rank_high: int | None = None
    """The range of ranks compatible with the data."""
    tier: tuple[int, ...] = ()
    """From 1: rows in one tier aren't significantly different."""
    student_tflops: float | None = None
    """The student's part of `train_tflops`; `teacher_tflops` is the rest."""
    teacher_tflops: float | None = None
    student_seconds: float | None = None
    """Seconds of its forward and backward passes; `train_seconds` is all of the training time."""
    teacher_seconds: float | None = None
    cache_share: float | None = None
    """Fraction of the examples for frozen roles that needed no forward pass."""
    ms_per_example: float | None = None
    """Wall time to answer the test split, including loading and all views."""
    tokens_per_answer: float | None = Field(None, exclude_if=lambda value: value is None)
    """What its student wrote for an answer, its reasoning included; None: it wrote nothing."""
    peak_memory_mib: float | None = None
    """The maximum over its runs."""
    pareto: tuple[str, ...] = ()
    """The `COSTS` for which it is on the Pareto front: no other run has a higher figure at the same or a lower cost."""
    name: str = ""
    """What its suite calls it; "": it has no label."""
    spelled: str = ""
    """The method with the settings that its user set, and with what else distinguishes it from other rows."""
    plain: str = ""
    """The method with the settings that its user set, if no other row of its student has the same; else ""."""
    shared: tuple[str, ...] = ()
    """The settings, not by default, that all runs of the table have in common."""
    shared_by_method: tuple[str, ...] = ()
    """The settings that all rows of its method have in common, if there are several."""
    reproduced: tuple[str, ...] = ()
    """Those of `run_ids` that were trained again with the same result (the last time), see `hkdbench reproduce`."""
    refuted: tuple[str, ...] = ()
    """Those that were trained again with another result."""
    distil: Distilled | None = None
    """Only if it was requested, and there is a teacher."""
    power: Power | None = None
    """Only if it was requested, and the two can be paired."""

    @property
    def full_label(self) -> str:
        """The name that it also has in other tables: with the settings that all rows of its table have in common."""
        return self.label if self.name else self.spelled or self.label

    @property
    def figure(self) -> float | None:
        """The value that the table is sorted by."""
        return self.values[self.metric].value if self.metric in self.values else None

    @property
    def data_key(self) -> tuple[str, str, str, str]:
        """What rows must have in common to be ranked together."""
        return self.benchmark, self.revision, self.fingerprint, self.split


class BrokenRun(_LeaderboardModel):
    """A run that can't be used: its record or its predictions are damaged or can't be read."""

    run_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.run_id}: {self.message}"


class Pair(_LeaderboardModel):
    """Row `a` minus row `b`, each named by its first run: paired, 95 % interval, two-sided p.

    `p_holm`: Holm's correction over all pairs of the table, which rank intervals and tiers are made of.
    """

    a: str
    b: str
    value: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


class Table(_LeaderboardModel):
    """The ranking of all rows on the same data, best first."""

    benchmark: str
    revision: str
    fingerprint: str
    split: str
    metric: str
    rows: tuple[Row, ...]
    budgets: tuple[int, ...]
    """The budgets of its trained rows, shown if there is more than one."""
    broken: tuple[BrokenRun, ...] = ()
    """Runs that its rows are computed without, because their predictions can't be used."""
    pairs: tuple[Pair, ...] = ()
    """Only if they were requested: the differences of all pairs of rows that have rank intervals."""


class Overall(_LeaderboardModel):
    """A row over all tables of a ranking. The figures are None if it has no result in one of them, listed in
    `missing`."""

    kind: Literal["run", "control"]
    method: str
    label: str
    ladder: str
    student: str
    metric: str
    asked: tuple[str, ...]
    """Which of `AGGREGATES` are shown; all are computed."""
    mean: Interval | None
    mean_rank: Interval | None
    iqm: Interval | None
    benchmarks: tuple[str, ...]
    missing: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    """The row's figure in each table that has it, by the table's name; also where the table's weight is 0."""
    run_ids: tuple[str, ...] = ()
    """From the row in the first table that has it."""


class Ranking(_LeaderboardModel):
    """All tables of a store, the rows over all of them, and what couldn't be read."""

    tables: tuple[Table, ...]
    broken: tuple[BrokenRun, ...] = ()
    overall: tuple[Overall, ...] = ()
    """Only if it was requested."""

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]


class Filters(_LeaderboardModel):
    """What is ranked and what is shown.

    `benchmark`, `task` and `tag` say what is ranked; `method`, `size`, `budget`, `forwards` and `rows` hide rows of it.
    Controls and the baseline are always shown.
    """

    benchmark: str | None = None
    task: str | None = None
    method: str | None = None
    size: str | None = None
    """A student's name, or a range of parameters like 100k..2M, ..1B, 7B.."""
    tag: str | None = None
    """Only use runs with this tag."""
    budget: int | None = None
    """Examples that the student learned from."""
    forwards: float | None = None
    """Forward passes per answer on test, to two decimals."""
    rows: tuple[str, ...] = ()
    """Labels of rows, each with `@STUDENT`; empty: all."""
    among_shown: bool = False
    """Ranks, tiers and Holm's correction are among the rows that are shown; else among all of the table."""
    metric: str = "accuracy"
    protocol: str | None = None
    """`metric` is a figure of this protocol: `official` and `f1` is `official:f1`."""
    split: str = "test"
    baseline: str | None = None
    """The label of the row that the others are compared with, or `LABEL@STUDENT`."""
    teacher: str | None = None
    """The same for the teacher row of `distil`; default: see `harness.leaderboard.extra_columns`."""
    columns: tuple[str, ...] = ()
    """Some of `COLUMNS`."""
    pairs: bool = False
    """Also the differences of all pairs of rows."""
    aggregate: tuple[str, ...] = ()
    """Some of `AGGREGATES`."""
    weights: tuple[tuple[str, float], ...] = ()
    """The tables' weights in the mean over benchmarks, by name (see `overall.table_names`); default 1, 0 excludes a
    table."""

    @property
    def hides(self) -> bool:
        """Whether it hides rows of a table."""
        return bool(self.rows) or any(
            value is not None for value in (self.method, self.size, self.budget, self.forwards)
        )

    @property
    def figure(self) -> str:
        """The name of the figure that is ranked."""
        return f"{self.protocol}:{self.metric}" if self.protocol else self.metric

    def fits_size(self, student: str, parameters: int | None) -> bool:
        """Whether a student matches the filter. Raises `ConfigError` for an invalid range."""
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
