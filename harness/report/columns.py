"""The columns of a ranking, defined once for the printed tables and the dashboard's leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from harness.leaderboard.schema import SHOWN, Delta, Distilled, Overall, Power, Row
from harness.record import Interval
from harness.report.format import count, difference, forwards_apart, more, p_value, percent, plain, short
from harness.stats.metrics import LOWER_IS_BETTER, OWN_UNITS

FRONT = "†"
"""Marks rows on the Pareto front of the score against a cost."""

T = TypeVar("T")


def always(rows: Sequence[Any]) -> bool:
    """For `ColumnSpec.shown`."""
    return True


def never(rows: Sequence[Any]) -> bool:
    """For `ColumnSpec.shown`."""
    return False


@dataclass(frozen=True)
class ColumnSpec(Generic[T]):
    """A column: its name (also in the dashboard's URL), its head, and the text of a row's cell."""

    name: str
    head: str
    text: Callable[[T], str]
    key: Callable[[T], Any]
    """The sort key of a row in this column; rows with None come last."""
    help: str = ""
    """One line about the column: the tooltip of its head."""
    align: Literal["left", "right"] = "right"
    shown: Callable[[Sequence[T]], bool] = never
    """Whether a ranking of these rows has the column by default."""
    interval: Callable[[T], Interval | Delta | None] | None = None
    """The figure with its interval, for plots."""
    field: str = ""
    """The field of the row that the column shows, if it is a cost."""


# ------------------------------------------------------------------------------------- columns of a ranking


def has_own_unit(metric: str) -> bool:
    """Whether a figure isn't a fraction: a protocol's, in its original unit, or one of `OWN_UNITS`."""
    return ":" in metric or metric in OWN_UNITS


def unit(metric: str) -> str:
    """The unit in which a metric is shown; empty for a plain number and for a protocol's own."""
    return OWN_UNITS.get(metric, "" if ":" in metric else "%")


def with_unit(metric: str) -> str:
    """A metric as the head of a column or an axis, with its unit, and its direction if lower is better."""
    name = metric.replace("macro_f1", "macro-F1").replace("micro_f1", "micro-F1")
    name += f" ({unit(metric)})" if unit(metric) else ""
    return name + (", lower is better" if lower_is_better(metric) else "")


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric (also a protocol's) are better."""
    return metric.rpartition(":")[2] in LOWER_IS_BETTER


def ranking_columns(rows: Sequence[Row], every_interval: bool = False) -> list[ColumnSpec[Row]]:
    """All possible columns of one table's ranking, in order; `shown` says whether the table has them by default.

    Without `every_interval`, a table with more than two figures shows only the sorting metric's interval.
    """
    metric = rows[0].metric
    others = [name for name in SHOWN if name != metric]
    few = every_interval or (len(others) == 1 and not any(row.delta for row in rows))
    return [
        *IDENTITY[:1],
        ColumnSpec("ranks", "ranks", _ranks, lambda row: row.rank_low, "Range of ranks compatible with the data",
                   shown=_any_ranks),
        ColumnSpec("tier", "tier", _tier, lambda row: row.tier or None,
                   "Rows that share a tier are not significantly different", shown=_any_ranks),
        *IDENTITY[1:],
        _figure("score", metric, bounds=True),
        ColumnSpec(
            "difference", "difference (points)", lambda row: difference(row.delta, row.baseline),
            lambda row: row.delta.value if row.delta else None,
            "From the baseline, paired by seed and example, with its 95 % interval; * where raw p is below 0.05, "
            "** where Holm p is, too",
            shown=_any_delta, interval=lambda row: row.delta,
        ),
        ColumnSpec("raw p", "raw p", lambda row: p_value(row.delta.p) if row.delta else "",
                   lambda row: row.delta.p if row.delta else None, "Of this difference alone", shown=_any_delta),
        ColumnSpec("Holm p", "Holm p", _holm_p, lambda row: row.delta.p_holm if row.delta else None,
                   "Corrected for the differences of all ranked runs", shown=_any_delta),
        *(_figure(name, name, bounds=few) for name in others),
        ColumnSpec("seeds", "seeds", lambda row: str(len(row.seeds)), lambda row: len(row.seeds),
                   "Number of seeds that the figures are the mean of", shown=always),
        ColumnSpec("reproduced", "reproduced", _reproduced, lambda row: len(row.reproduced) or None,
                   "How many of its runs were trained again with the same result (hkdbench reproduce)",
                   shown=lambda rows: any(row.reproduced or row.refuted for row in rows)),
        BUDGET,
        *COSTS,
        ColumnSpec("ladder", "ladder", lambda row: row.ladder, lambda row: row.ladder,
                   "The ladder that the student belongs to", "left"),
    ]  # fmt: skip


def by_name(columns: Iterable[ColumnSpec[T]], *names: str) -> list[ColumnSpec[T]]:
    """The columns of these names, in this order."""
    found = {column.name: column for column in columns}
    return [found[name] for name in names]


def with_front(column: ColumnSpec[Row]) -> ColumnSpec[Row]:
    """A cost, marked if the row is on the Pareto front of the score against it."""
    return replace(column, text=lambda row: column.text(row) + (FRONT if column.field in row.pareto else ""))


def unequal_forwards(rows: Iterable[Row]) -> bool:
    """Whether runs differ in the number of forward passes per answer."""
    return bool(forwards_apart(row.forwards_per_answer for row in rows if row.kind == "run"))


def _figure(name: str, metric: str, bounds: bool) -> ColumnSpec[Row]:
    def key(row: Row) -> float | None:
        found = row.values.get(metric)
        return None if found is None else found.value

    return ColumnSpec(
        name,
        with_unit(metric),
        lambda row: percent(row.values.get(metric), bounds, has_own_unit(metric)),
        key,
        "Mean over seeds with its 95 % interval over seeds and images",
        shown=always,
        interval=lambda row: row.values.get(metric),
    )


def _of_run(
    name: str,
    head: str,
    field: str,
    write: Callable[[Any], str],
    help_: str,
    shown: Callable[[Sequence[Row]], bool] = never,
) -> ColumnSpec[Row]:
    """A field of the row, empty for controls."""
    return ColumnSpec(
        name,
        head,
        lambda row: write(getattr(row, field)) if row.kind == "run" else "",
        lambda row: getattr(row, field) if row.kind == "run" else None,
        help_,
        shown=shown,
        field=field,
    )


def _ranks(row: Row) -> str:
    if row.rank_low is None:
        return ""
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"


def _reproduced(row: Row) -> str:
    if not row.reproduced and not row.refuted:
        return ""
    not_so = f", {len(row.refuted)} NOT" if row.refuted else ""
    return f"{len(row.reproduced)}/{len(row.run_ids)}{not_so}"


def _tier(row: Row) -> str:
    return "-".join(map(str, row.tier))


def _any_delta(rows: Sequence[Row]) -> bool:
    return any(row.delta for row in rows)


def _holm_p(row: Row) -> str:
    return p_value(row.delta.p_holm) if row.delta and row.kind == "run" else ""


def _any_ranks(rows: Sequence[Row]) -> bool:
    return any(row.rank_low for row in rows)


def _unequal_budgets(rows: Sequence[Row]) -> bool:
    return len({row.budget for row in rows if row.kind == "run" and row.budget}) > 1


def _integer(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


IDENTITY: list[ColumnSpec[Row]] = [
    ColumnSpec("rank", "#", lambda row: str(row.rank or ""), lambda row: row.rank, "Rank by the score", shown=always),
    ColumnSpec("method", "method", lambda row: row.label, lambda row: row.label, "Its label, or method and settings",
               "left", always),
    ColumnSpec("student", "student", lambda row: row.student, lambda row: row.student, "The rung that was trained",
               "left", always),
]  # fmt: skip
"""The first columns of every table of rows."""

BUDGET = _of_run(
    "budget", "budget", "budget", _integer, "Examples that the student learned from, in whole steps", _unequal_budgets
)
COSTS: list[ColumnSpec[Row]] = [
    _of_run("TFLOPs", "TFLOPs", "train_tflops", short, "Training TFLOPs of a run, teachers included", always),
    _of_run("student TFLOPs", "student TFLOPs", "student_tflops", short, "The student's share of the training TFLOPs"),
    _of_run("teacher TFLOPs", "teacher TFLOPs", "teacher_tflops", short, "The teachers' share of the training TFLOPs"),
    _of_run("train time", "train s", "train_seconds", short, "Training seconds of a run, teachers included", always),
    _of_run("student time", "student s", "student_seconds", short, "Seconds of the student's passes in training"),
    _of_run("teacher time", "teacher s", "teacher_seconds", short, "Seconds of the teachers' passes in training"),
    _of_run("cached", "cached", "cache_share", _share, "Share of frozen models' outputs that came from the cache"),
    _of_run("forwards", "forwards", "forwards_per_answer", short, "Forward passes per answer", unequal_forwards),
    _of_run("tokens", "tokens / answer", "tokens_per_answer", short, "Tokens that the student wrote for an answer, its "
            "reasoning included", lambda rows: any(row.tokens_per_answer is not None for row in rows)),
    _of_run("ms", "ms / answer", "ms_per_example", short, "Milliseconds per answer on the test split"),
    _of_run("memory", "peak MiB", "peak_memory_mib", short, "Peak memory of a run's process in MiB"),
    _of_run("parameters", "params", "parameters", count, "Parameters of the student", always),
]  # fmt: skip
TRADE_OFFS = by_name(COSTS, "parameters", "TFLOPs", "train time", "ms", "forwards", "memory")
"""The costs that a score is plotted against."""


# ---------------------------------------------------------------------------- optional columns


def _distilled(name: str, of: Callable[[Distilled], Interval | None], help_: str, bounds: bool) -> ColumnSpec[Row]:
    def interval(row: Row) -> Interval | None:
        return of(row.distil) if row.distil else None

    def key(row: Row) -> float | None:
        found = interval(row)
        return None if found is None else found.value

    def text(row: Row) -> str:
        return percent(interval(row), bounds) if row.distil else ""

    return ColumnSpec(name, name, text, key, help_, interval=interval)


DISTILLATION: list[ColumnSpec[Row]] = [
    ColumnSpec("teacher", "teacher", lambda row: row.distil.teacher if row.distil else "",
               lambda row: row.distil.teacher if row.distil else None, "The row of the teacher", "left"),
    _distilled("gap closed", lambda d: d.gap_closed, "Closed part of the gap to the teacher, in per cent", True),
    _distilled("agreement", lambda d: d.agreement, "Examples with the teacher's answer, in per cent", True),
    _distilled("inherited", lambda d: d.inherited, "Examples that row and teacher get wrong, in per cent", False),
    _distilled("copied", lambda d: d.copied, "Inherited errors with the same answer, in per cent", False),
    _distilled("introduced", lambda d: d.introduced, "Examples that only the row gets wrong, in per cent", False),
    _distilled("fixed", lambda d: d.fixed, "Examples that only the teacher gets wrong, in per cent", False),
]  # fmt: skip


def _power(name: str, of: Callable[[Power], Any], write: Callable[[Any], str], help_: str) -> ColumnSpec[Row]:
    return ColumnSpec(
        name,
        name,
        lambda row: write(of(row.power)) if row.power else "",
        lambda row: of(row.power) if row.power else None,
        help_,
    )


POWER: list[ColumnSpec[Row]] = [
    _power("difference", lambda p: p.difference, lambda d: f"{100 * d:+.1f}", "From the other row, in points"),
    _power("detectable", lambda p: p.detectable, lambda d: f"{100 * d:.1f}", "Detectable difference, in points"),
    _power("more images", lambda p: p.more_images, more, "Additional images that would make the difference detectable"),
    _power("or more seeds", lambda p: p.more_seeds, more, "Additional seeds that would make the difference detectable"),
]


def against(places: dict[str, str]) -> ColumnSpec[Row]:
    """The row that `POWER` compares with, by its rank."""
    return _power("to", lambda p: places.get(p.against, "-"), str, "The row that this one is compared with")


# -------------------------------------------------------------------------------------- over all benchmarks


def overall_columns(rows: Sequence[Overall]) -> list[ColumnSpec[Overall]]:
    """The columns of the rows over all benchmarks, with the requested aggregates."""
    asked, own_unit, sign = rows[0].asked, has_own_unit(rows[0].metric), unit(rows[0].metric)
    of_unit = f" ({sign})" if sign else ""
    of_unit += ", lower is better" if lower_is_better(rows[0].metric) else ""

    def figure(name: str, head: str, of: Callable[[Overall], Interval | None], help_: str) -> ColumnSpec[Overall]:
        def key(row: Overall) -> float | None:
            found = of(row)
            return None if found is None else found.value

        def text(row: Overall) -> str:
            return plain(of(row)) if own_unit else percent(of(row))

        return ColumnSpec(name, head, text, key, help_, shown=lambda _: name in asked, interval=of)

    rank = figure("rank", "mean rank", lambda row: row.mean_rank, "Mean of the ranks on the benchmarks; 1 is best")
    columns = [
        ColumnSpec[Overall]("method", "method", lambda row: row.label, lambda row: row.label, "", "left", always),
        ColumnSpec[Overall]("student", "student", lambda row: row.student, lambda row: row.student, "", "left", always),
        figure("mean", f"mean{of_unit}", lambda row: row.mean, "Mean over the benchmarks, with equal weights"),
        replace(rank, text=lambda row: plain(row.mean_rank) if row.kind == "run" else ""),
        figure("iqm", f"IQM{of_unit}", lambda row: row.iqm, "Interquartile mean over benchmarks and seeds"),
        ColumnSpec[Overall]("missing", "missing", lambda row: ", ".join(row.missing), lambda row: len(row.missing),
                            "Benchmarks on which the row has no figure", "left",
                            lambda rows: any(row.missing for row in rows)),
    ]  # fmt: skip
    return [column for column in columns if column.shown(rows)]
