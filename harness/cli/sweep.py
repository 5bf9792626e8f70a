"""The verb `sweep`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    SetOption,
    SkipMissingOption,
    StoreOption,
    WorkersOption,
    app,
    load_plugins,
    print_json,
    say,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.config import RunConfig
    from harness.experiments.selection import Result
    from harness.experiments.sweep import SweepConfig
    from harness.record import Record
    from harness.store import Store


@app.command("sweep")
def sweep_(
    file: Annotated[Path, typer.Argument(help="SWEEP.toml")],
    workers: WorkersOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    skip_missing: SkipMissingOption = False,
    plugin: PluginOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the space and its price; train nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search methods' settings on validation; the best meets test from fresh seeds. Continues where it was stopped."""
    from harness.config import parse, read_toml
    from harness.experiments import selection, sweep
    from harness.store import Store

    table = with_options(
        read_toml(file), workers=workers, data_dir=data_dir, skip_missing=skip_missing, plugins=plugin, set_=set_
    )
    config = parse(sweep.SweepConfig, table, str(file))
    load_plugins(config.plugins)
    sweep.check(config)
    if dry_run:
        _dry_run(config, as_json)
        return
    with redirect_stdout(sys.stderr):  # what libraries print meanwhile goes beside the answer
        result = selection.run(config, Store(store), _watcher(config), _launch)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print(selection.to_text(result))
    raise typer.Exit(1 if _troubles(result, config) else 0)


def _launch(configs: Sequence[RunConfig], store: Store, name: str) -> list[Record]:
    """The records of runs beside the trials."""
    from harness.execution.console import RunConsole
    from harness.execution.launch import launch

    with RunConsole() as console:
        return launch(configs, store, name, console.on_event)


def _watcher(config: SweepConfig) -> Any:
    from harness.experiments.sweep import told

    def watch(news: dict[str, Any]) -> None:
        """A line as a trial begins and ends: no control characters, so that a job's log reads well."""
        if "trial" not in news:
            say(f"note     {news['search']}  {news['note']}")
            return
        if news["state"] == "validated":
            return
        score = "" if news.get("score") is None else f"  {news['score']:.4f}"
        trouble = f"  {news['error']}" if news.get("error") else ""
        place = f"{news['search']}  trial {news['trial']}/{config.trials}"
        say(f"{news['state']:7}  {place}  {told(news['point'])}{score}{trouble}")
        if news.get("note"):
            say(f"note     {place}  {news['note']}")

    return watch


def _troubles(result: Result, config: SweepConfig) -> list[str]:
    """A line for each search with failed trials, or without the winner that it should have."""
    lines = []
    for name, found in result.searches.items():
        failed = [trial for trial in found.trials if trial.status == "failed"]
        if failed:
            lines.append(f"{name}: {len(failed)} of {len(found.trials)} trials failed: {failed[0].error}")
        if config.confirm.top and (found.winner is None or found.winner.score is None):
            lines.append(f"{name}: the best trials could not be confirmed")
    for line in lines:
        say(line)
    return lines


def _dry_run(config: SweepConfig, as_json: bool) -> None:

    from harness.experiments import selection

    rows = selection.price(config)
    if as_json:
        print_json({"name": config.name, "searches": rows})
        return
    for row in rows:
        print(f"{row['method']} {row['student']} on {row['benchmark']}: {row['trials']} trials ({config.search})")
        for name, dimension in row["space"].items():
            print("  " + _told(name, dimension))
        least = f", {row['least_flops'] / 1e12:.2f} with the teacher cache" if config.train.cache == "auto" else ""
        print(f"  {row['runs']} runs, {row['train_flops'] / 1e12:.2f} TFLOP{least}")
    total, least = sum(row["train_flops"] for row in rows), sum(row["least_flops"] for row in rows)
    runs = sum(row["runs"] for row in rows)
    cached = f"; {least / 1e12:.2f} where trials share their teachers" if config.train.cache == "auto" else ""
    print(f"{runs} runs, {total / 1e12:.2f} TFLOP of training (estimated){cached}")


def _told(name: str, dimension: dict[str, Any]) -> str:
    """A line of the space: `settings.alpha  uniform 0 to 3, when settings.divergence=jsd`."""
    when = ", ".join(f"{other}={value}" for other, value in dimension.get("when", {}).items())
    steps = f" in {dimension['steps']} steps" if "steps" in dimension else ""
    if "choice" in dimension:
        text = "one of " + ", ".join(map(str, dimension["choice"]))
    else:
        kind = next(k for k in ("uniform", "log_uniform", "integer") if k in dimension)
        low, high = dimension[kind]
        text = f"{kind} {low:g} to {high:g}{steps}"
    return f"{name:28} {text}" + (f", when {when}" if when else "")
