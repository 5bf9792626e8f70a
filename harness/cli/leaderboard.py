"""Verbs that read the store: `rank`, `show`, `compare`."""

from __future__ import annotations

import shutil
from typing import Annotated, Literal

import typer

from harness.api import Split
from harness.cli.options import JsonOption, StoreOption, app, benchmark_names, existing, method_names, run_ids, say
from harness.errors import ConfigError


@app.command("rank")
def rank_(
    benchmark: Annotated[str | None, typer.Option(help="Only this benchmark.", autocompletion=benchmark_names)] = None,
    task: Annotated[str | None, typer.Option(help="Only benchmarks of this task.")] = None,
    method: Annotated[str | None, typer.Option(help="Only rows of this method.", autocompletion=method_names)] = None,
    size: Annotated[
        str | None, typer.Option(help="A student's name, or a range of parameters: 100k..2M, ..1B, 7B..")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    budget: Annotated[int | None, typer.Option(help="Only rows of this budget (training examples).")] = None,
    forwards: Annotated[
        float | None, typer.Option(help="Only rows with this number of forward passes per answer on test.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="accuracy, macro_f1, micro_f1, accuracy/CATEGORY, PROTOCOL:FIGURE, ece, ...")
    ] = "accuracy",
    protocol: Annotated[str | None, typer.Option(help="The metric is a figure of this scoring protocol.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="The row that the others are compared with: its label or METHOD [SETTINGS], or ...@STUDENT."),
    ] = None,
    among_shown: Annotated[
        bool, typer.Option("--among-shown", help="Rank only the rows that the filters show, not all of the table.")
    ] = False,
    split: Annotated[Split, typer.Option(help="The split whose answers are ranked.")] = "test",
    columns: Annotated[
        str | None,
        typer.Option(help="More columns, separated by commas: cost (with Pareto fronts), distil, power."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="distil: the teacher's row. [default: the largest rung, tuned directly]")
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option(help="Over all benchmarks, separated by commas: mean, rank (mean of ranks), iqm.")
    ] = None,
    store: StoreOption = None,
    format_: Annotated[
        Literal["table", "csv", "json", "markdown", "latex", "html"],
        typer.Option("--format", help="The form of the output."),
    ] = "table",
    as_json: JsonOption = False,
) -> None:
    """Rank the methods in the store, with 95 % intervals over seeds and images, and the controls."""
    from harness.leaderboard import leaderboard
    from harness.leaderboard.schema import Filters
    from harness.report.html import to_html
    from harness.report.latex import to_latex
    from harness.report.text import WIDTH, overall_csv, to_csv, to_json, to_markdown, to_text

    filters = Filters(
        benchmark=benchmark,
        task=task,
        method=method,
        size=size,
        tag=tag,
        budget=budget,
        forwards=None if forwards is None else round(forwards, 2),
        among_shown=among_shown,
        metric=metric,
        protocol=protocol,
        baseline=baseline,
        split=split,
        columns=_listed(columns),
        teacher=teacher,
        aggregate=_listed(aggregate),
    )
    found = leaderboard.ranking(existing(store), filters)
    notes = [f"broken: {problem}" for problem in found.broken]
    if filters.hides:
        among = "the rows shown" if among_shown else "all rows of a table (--among-shown: the rows shown)"
        notes.insert(0, f"filters hide rows: ranks, tiers and Holm p are among {among}")
    if as_json or format_ == "json":
        if format_ not in ("table", "json"):
            raise ConfigError(f"--json with --format {format_}: two forms of one output; leave out one of them")
        print(to_json(found.rows, notes, found.overall))
    elif format_ == "csv":
        print(overall_csv(found.overall) if filters.aggregate else to_csv(found.rows), end="")
        for line in notes:
            say(line)
    elif format_ == "table":
        width = shutil.get_terminal_size((WIDTH, 0)).columns
        print(to_text(found.rows, notes, filters.columns, found.overall, width), end="")
    else:
        write = {"markdown": to_markdown, "latex": to_latex, "html": to_html}[format_]
        print(write(found.rows, notes, filters.columns, found.overall), end="")


def _listed(names: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (names or "").split(","))))


@app.command("show")
def show_(
    run: Annotated[str, typer.Argument(help="A run's id, or its beginning.", autocompletion=run_ids)],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: settings, stages, cost, provenance, figures by category. RUN may be shortened."""
    from harness.report.run import VERDICTS, command, record_text
    from harness.store import checksums

    opened = existing(store)
    record = opened.find(run)
    print(record.model_dump_json(indent=2) if as_json else record_text(record))
    if not as_json and (received := opened.received(record.run_id)):
        print(f"  received {received.time} in {received.file} (sha256 {received.sha256[:12]})")
    if as_json:
        return
    found, wrong = checksums.reproductions(record, opened.backend)
    for one in found:
        print(f"  trained again {one.provenance.finished}: {VERDICTS[one.verdict]}")
    for text in wrong:
        print(f"  {text}")
    if line := command(record):
        print(f"  again: {line}")


@app.command("compare")
def compare_(
    a: Annotated[
        str,
        typer.Argument(help="A run (its id may be shortened), or a row: its label, or 'method[@student][ key=value]'"),
    ],
    b: Annotated[str, typer.Argument(help="The run or row that it is compared with.")],
    benchmark: Annotated[str | None, typer.Option(help="The benchmark, if both have runs on several.")] = None,
    metric: Annotated[str, typer.Option(help="accuracy, macro_f1, ...: as in `rank`.")] = "accuracy",
    split: Annotated[Split, typer.Option(help="The split whose answers are compared.")] = "test",
    examples: Annotated[int, typer.Option(min=0, help="How many of the examples on which they disagree to show.")] = 10,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A minus B, paired by seed and example: overall, by category, shared errors, and disagreements."""
    from harness.leaderboard import compare
    from harness.report import comparison

    opened = existing(store)
    one, other = compare.sides(opened, a, b, split, benchmark)
    found = compare.compare(opened, one, other, split, metric, examples)
    print(comparison.to_json(found) if as_json else comparison.to_text(found))
