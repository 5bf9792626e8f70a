"""The verb `sweep`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    note_unused_folder,
    print_json,
    say,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.config import RunConfig
    from harness.experiments.outcome import OnTrial, SweepResult, TrialEvent
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the space and the estimated cost; train nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search methods' settings on validation, then score the best on test with fresh seeds. Resumes if stopped."""
    from harness.config import parse, read_toml
    from harness.experiments import selection, sweep
    from harness.report import sweep as report
    from harness.store import Store

    table = with_options(
        read_toml(file), workers=workers, data_dir=data_dir, skip_missing=skip_missing, plugins=plugin, set_=set_
    )
    config = parse(sweep.SweepConfig, table, str(file))
    load_plugins(config.plugins)
    note_unused_folder(config.benchmarks, config.data_dir)
    sweep.check(config)
    if dry_run:
        searches = selection.price(config)
        if as_json:
            print_json({"name": config.name, "searches": searches})
        else:
            print(report.price_to_text(config, searches))
        return
    with redirect_stdout(sys.stderr):  # the output of libraries must not mix with the result
        result = selection.run(config, Store(store), _log(config), _launch)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print(report.to_text(result))
    raise typer.Exit(1 if _troubles(result, config) else 0)


def _launch(configs: Sequence[RunConfig], store: Store, name: str) -> list[Record]:
    """The records of runs that aren't trials."""
    from harness.execution.console import RunConsole
    from harness.execution.launch import launch

    with RunConsole() as console:
        return launch(configs, store, name, console.on_event)


def _log(config: SweepConfig) -> OnTrial:
    from harness.experiments.space import format_point

    def on_trial(event: TrialEvent) -> None:
        """Print a line when a trial begins and ends, without control characters, so that a job's log is readable."""
        where = f"{event.search}  trial {event.trial}/{config.trials}" if event.trial else event.search
        if event.trial and event.state != "validated":
            score = "" if event.score is None else f"  {event.score:.4f}"
            error = f"  {event.error}" if event.error else ""
            say(f"{event.state:7}  {where}  {format_point(event.point)}{score}{error}")
        if event.note:
            say(f"note     {where}  {event.note}")

    return on_trial


def _troubles(result: SweepResult, config: SweepConfig) -> list[str]:
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
