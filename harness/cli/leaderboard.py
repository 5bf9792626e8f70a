"""Verbs that read the store: `rank`, `show`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.api import Split
from harness.cli.options import JsonOption, StoreOption, app


@app.command("rank")
def rank_(
    benchmark: str | None = None,
    task: Annotated[str | None, typer.Option(help="Only benchmarks of this task.")] = None,
    method: str | None = None,
    size: Annotated[
        str | None, typer.Option(help="A student's name, or a range of parameters: 100k..2M, ..1B, 7B..")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag count.")] = None,
    budget: Annotated[int | None, typer.Option(help="Only rows of this budget (training examples).")] = None,
    forwards: Annotated[
        float | None, typer.Option(help="Only rows that take so many forward passes an answer on test.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="accuracy, macro_f1, micro_f1, accuracy/CATEGORY, PROTOCOL:FIGURE, ece, ...")
    ] = "accuracy",
    protocol: Annotated[str | None, typer.Option(help="The metric is a figure of this scoring protocol.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="The row that the others are compared with: its label or METHOD [SETTINGS], or ...@STUDENT."),
    ] = None,
    split: Split = "test",
    columns: Annotated[
        str | None,
        typer.Option(help="More columns, with commas: cost (and its Pareto fronts), distil, power."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="distil: the teacher's row. [default: the largest rung, tuned directly]")
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option(help="Over all benchmarks, with commas: mean, rank (mean of ranks), iqm.")
    ] = None,
    store: StoreOption = None,
    format_: Annotated[
        Literal["table", "csv", "json", "markdown", "latex", "html"], typer.Option("--format")
    ] = "table",
    as_json: JsonOption = False,
) -> None:
    """Rank the methods in the store, with 95 % intervals over seeds and images, and the controls."""
    from harness.leaderboard import leaderboard
    from harness.store import Store

    filters = leaderboard.Filters(
        benchmark=benchmark,
        task=task,
        method=method,
        size=size,
        tag=tag,
        budget=budget,
        forwards=None if forwards is None else round(forwards, 2),
        metric=metric,
        protocol=protocol,
        baseline=baseline,
        split=split,
        columns=_listed(columns),
        teacher=teacher,
        aggregate=_listed(aggregate),
    )
    found = leaderboard.ranking(Store(store), filters)
    broken = [f"broken: {problem}" for problem in found.broken]
    if as_json or format_ == "json":
        print(leaderboard.to_json(found.rows, broken, found.overall))
    elif format_ == "csv":
        print(leaderboard.overall_csv(found.overall) if filters.aggregate else leaderboard.to_csv(found.rows), end="")
    else:
        shown = {
            "table": leaderboard.to_text,
            "markdown": leaderboard.to_markdown,
            "latex": leaderboard.to_latex,
            "html": leaderboard.to_html,
        }
        print(shown[format_](found.rows, broken, filters.columns, found.overall), end="")


def _listed(names: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (names or "").split(","))))


@app.command("show")
def show_(run: str, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One run: settings, stages, cost, provenance, figures by category. RUN may be shortened."""
    from harness.report import describe
    from harness.store import Store

    opened = Store(store)
    record = opened.find(run)
    print(record.model_dump_json(indent=2) if as_json else describe.record_text(record))
    if not as_json and (received := opened.received(record.run_id)):
        print(f"  received {received.time} in {received.file} (sha256 {received.sha256[:12]})")
