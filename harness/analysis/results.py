"""A store's results as pandas frames: one row per run, figure, answer or line of the ranking.

Every statistic comes from the functions behind `hkdbench rank` and `hkdbench compare`, so the numbers are the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.api import Split
from harness.errors import ConfigError
from harness.leaderboard import compare as comparing
from harness.leaderboard import leaderboard, query
from harness.leaderboard.schema import Filters, Ranking
from harness.report.text import ranking_cells
from harness.stats.inference import Difference
from harness.store import Store, index
from harness.store.catalog import View
from harness.store.schemas import PREDICTIONS

if TYPE_CHECKING:
    import altair as alt

RUN = (
    "run_id", "status", "problem", "kind", "benchmark", "task", "revision", "fingerprint", "method", "label",
    "settings", "ladder", "student", "parameters", "budget", "seed", "tags", "splits", "started", "finished",
    "train_flops", "train_seconds", "student_flops", "teacher_flops", "test_examples", "test_seconds",
    "test_forwards", "peak_memory_bytes", "chance",
)  # fmt: skip
"""The columns of `Results.runs`."""
NAMES = ("run_id", "benchmark", "method", "label", "student", "seed")
"""What the rows of `Results.metrics` and `Results.predictions` say about their run."""
ALL = "all"
"""The `part` of a comparison that is about all examples."""


@dataclass(frozen=True)
class Results:
    """What a store holds, see `harness.open_store`. Each call reads the store anew.

    Filters mean the same everywhere, and the same as for `hkdbench rank`: `benchmark`, `method`, `tag`, `seed`, and
    `size`, which is a student's name or a range of parameters like "100k..2M" or "..1B". A name that no run has
    raises `ConfigError`.
    """

    store: Store

    def __repr__(self) -> str:
        return f"<results in {self.store.url}>"

    def runs(
        self,
        benchmark: str | None = None,
        *,
        method: str | None = None,
        size: str | None = None,
        seed: int | None = None,
        tag: str | None = None,
    ) -> pd.DataFrame:
        """One row per run, also of controls and of failed and broken runs: see `status`, `kind` and `problem`.

        `settings` is a dict of those that its user set; `train_flops` are floating-point operations, times are seconds.
        """
        lines = self._lines(index.LIGHT, benchmark, method, size, seed, tag)
        settings = [json.loads(given) for given in lines["given"].to_pylist()]
        frame: pd.DataFrame = lines.to_pandas().assign(settings=pd.Series(settings, dtype=object))
        return frame[list(RUN)]

    def metrics(
        self,
        benchmark: str | None = None,
        *,
        method: str | None = None,
        size: str | None = None,
        seed: int | None = None,
        tag: str | None = None,
        split: str | None = None,
    ) -> pd.DataFrame:
        """One row per run, split and figure: `metric`, `value`, and the 95 % interval `low` to `high` over images.

        They are the figures in the runs' records, among them those of protocols (`official:f1`) and of categories
        (`accuracy/object`). Shares are fractions.
        """
        lines = self._lines([*index.LIGHT, "metrics"], benchmark, method, size, seed, tag)
        figures = lines["metrics"].combine_chunks()
        of_run = lines.select(NAMES).take(pc.list_parent_indices(figures))
        flat = pa.Table.from_struct_array(pc.list_flatten(figures))
        for name in flat.column_names:
            of_run = of_run.append_column(name, flat[name])
        found = of_run if split is None else of_run.filter(pc.equal(of_run["split"], split))
        frame: pd.DataFrame = found.to_pandas()
        return frame

    def predictions(
        self,
        run: str | Sequence[str] | None = None,
        *,
        benchmark: str | None = None,
        method: str | None = None,
        size: str | None = None,
        seed: int | None = None,
        tag: str | None = None,
        split: Split | None = None,
    ) -> pd.DataFrame:
        """One row per run and answered example: `gold`, `chosen` (-1: none), `correct`, `scores` (K,), `text`.

        `run` is a run's id or its beginning, or several; otherwise the filters select finished runs, and at least one
        must be given, because all answers of a store may not fit into memory. `gold` and `chosen` are indices into the
        example's options; `id` is the same for all runs on the same data. Raises `StoreError` for an id that no run
        has, and for a named run without predictions.
        """
        filtered = any(value is not None for value in (benchmark, method, size, seed, tag))
        if run is not None and filtered:
            raise ConfigError("predictions: a run and filters; give one or the other")
        if run is None and not filtered:
            raise ConfigError("predictions: of which runs? Give a run's id, or a filter like benchmark='...'")
        lines = self._lines(index.LIGHT, benchmark, method, size, seed, tag)
        if run is not None:
            ids = [self.store.match(one) for one in ([run] if isinstance(run, str) else run)]
        else:
            table = lines.filter(pc.and_(pc.equal(lines["status"], "done"), pc.not_equal(lines["kind"], "robustness")))
            ids = table["run_id"].to_pylist()
        about = {line["run_id"]: line for line in lines.select(NAMES).to_pylist()}
        frames = [self._answers(run_id, about[run_id], split) for run_id in ids]
        if not frames:
            return pd.DataFrame(columns=[*NAMES, *PREDICTIONS.names, "correct"])
        return pd.concat(frames, ignore_index=True)

    def history(self, run: str) -> pd.DataFrame:
        """The logged values of a run: `stage`, `step`, `progress` (0-1), `role`, `term`, `value`.

        `run` is its id, or the beginning of it. Raises `StoreError` for an id that no run has.
        """
        return self.store.history(self.store.match(run))

    def ranking(
        self,
        benchmark: str | None = None,
        *,
        metric: str = "accuracy",
        split: Split = "test",
        method: str | None = None,
        size: str | None = None,
        tag: str | None = None,
        budget: int | None = None,
        baseline: str | None = None,
    ) -> pd.DataFrame:
        """The rows of `hkdbench rank`, best first: `rank`, `label`, `student`, `value`, `low` to `high`, and the rest.

        `value` is the metric, mean over seeds, with its 95 % interval over seeds and images. `baseline` names a row
        that the others are compared with: `delta`, `delta_p`, `delta_p_holm`. Without `benchmark` the tables of all
        benchmarks follow each other. Controls have no rank. A run that can't be read is named in a warning.
        """
        filters = Filters(
            benchmark=benchmark,
            metric=metric,
            split=split,
            method=method,
            size=size,
            tag=tag,
            budget=budget,
            baseline=baseline,
        )
        return _ranking_frame(leaderboard.ranking(self.store, filters))

    def compare(
        self, a: str, b: str, *, benchmark: str | None = None, metric: str = "accuracy", split: Split = "test"
    ) -> pd.DataFrame:
        """A minus B, paired by seed and example, as `hkdbench compare`: over all examples, and by category.

        `a` and `b` are run ids (or their beginnings) or rows: a label, or "method@student key=value". The first row
        (`part` is "all") has the metric of both sides, `a` and `b`; those of categories are differences in accuracy.
        `p` is two-sided, `p_holm` corrected over the categories.
        """
        one, other = comparing.sides(self.store, a, b, split, benchmark)
        found = comparing.compare(self.store, one, other, split, metric, examples=0)
        of_all = {"a": found.values[0], "b": found.values[1]} | _difference(found.difference)
        lines: list[dict[str, Any]] = [{"part": ALL, "metric": metric, "examples": found.examples, **of_all}]
        for part in found.categories:
            said = {"part": part.name, "metric": "accuracy", "examples": part.examples}
            lines.append(said | _difference(part.difference) | {"p_holm": part.p_holm})
        columns = ["part", "metric", "examples", "a", "b", "difference", "low", "high", "p", "p_holm", "seeds"]
        return _numeric(pd.DataFrame(lines, columns=columns))

    def plot(
        self,
        benchmark: str | None = None,
        *,
        metric: str = "accuracy",
        split: Split = "test",
        method: str | None = None,
        size: str | None = None,
        tag: str | None = None,
        budget: int | None = None,
    ) -> alt.VConcatChart:
        """The ranking as points with 95 % intervals: an Altair chart, one panel for each table.

        A notebook shows it; `save("ranking.html")` or `save("ranking.json")` writes it. PNG, SVG and PDF need
        `pip install vl-convert-python`.
        """
        from harness.analysis.chart import intervals

        frame = self.ranking(benchmark, metric=metric, split=split, method=method, size=size, tag=tag, budget=budget)
        return intervals(frame)

    def _lines(
        self,
        columns: Sequence[str],
        benchmark: str | None,
        method: str | None,
        size: str | None,
        seed: int | None,
        tag: str | None,
    ) -> pa.Table:
        """The lines of the runs that the filters select, by id, see `index.RUNS`."""
        lines = View(self.store, columns).lines(columns)
        found = index.from_arrow(lines)
        filters = Filters(benchmark=benchmark, method=method, size=size, tag=tag)
        query.check_names(found, filters)
        if seed is not None and all(one.seed != seed for one in found):
            known = ", ".join(map(str, sorted({one.seed for one in found})))
            raise ConfigError(f"no run of seed {seed} in the store; known: {known}")
        wanted = [
            benchmark in (None, one.benchmark)
            and method in (None, one.method)
            and seed in (None, one.seed)
            and (tag is None or tag in one.tags)
            and filters.fits_size(one.student, one.parameters)
            for one in found
        ]
        return lines.filter(pa.array(wanted, pa.bool_()))

    def _answers(self, run_id: str, about: dict[str, Any], split: Split | None) -> pd.DataFrame:
        answers = self.store.predictions(run_id, split)
        return answers.assign(**about, correct=answers["gold"] == answers["chosen"])[
            [*NAMES, *PREDICTIONS.names, "correct"]
        ]


def _ranking_frame(found: Ranking) -> pd.DataFrame:
    for problem in found.broken:
        warnings.warn(f"left out of the ranking, because it can't be read: {problem}", stacklevel=3)
    columns, lines = ranking_cells(found.rows)
    columns = [name for name in columns if not name.startswith(("distil_", "power_"))]  # of columns not asked for
    for row, line in zip(found.rows, lines, strict=True):
        interval = row.values.get(row.metric)
        line["metric"] = row.metric
        line |= {name: getattr(interval, name, None) for name in ("value", "low", "high")}
    first = ["rank", "label", "student", "metric", "value", "low", "high"]
    return _numeric(pd.DataFrame(lines, columns=[*first, *(name for name in columns if name not in first)]))


def _difference(found: Difference) -> dict[str, Any]:
    return {"difference": found.value, "low": found.low, "high": found.high, "p": found.p, "seeds": found.seeds}


def _numeric(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with NaN, not None, in columns that have nothing else."""
    empty = [name for name in frame.columns if frame[name].isna().all()]
    return frame.astype(dict.fromkeys(empty, "float64"))
