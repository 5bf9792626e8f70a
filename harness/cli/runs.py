"""Verbs that train: `plan`, `run`, `suite`, `demo`, `profile`, `tune-speed`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    RunOptions,
    SetOption,
    SkipMissingOption,
    StoreOption,
    WorkersOption,
    app,
    failures,
    load_plugins,
    note_unused_folder,
    print_json,
    run_verb,
    say,
    with_options,
)
from harness.errors import ConfigError

SUITES = Path(__file__).resolve().parents[2] / "suites"
"""Beside this package, in a checkout and in an installation."""

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.config import RunConfig
    from harness.leaderboard.schema import Row
    from harness.record import Record
    from harness.store import Store


@run_verb("plan")
def plan_(options: RunOptions, as_json: JsonOption = False) -> None:
    """Check a run and print its stages, roles, sizes and cost. Trains nothing."""
    from harness.planning import cost, plan
    from harness.report.plan import to_text

    priced = cost.of(plan.make(options.config()))
    if as_json:
        print_json(priced)
    else:
        print(to_text(priced))


@run_verb("run")
def run_(options: RunOptions, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Train and score one method on one benchmark, with one seed. A finished run isn't repeated."""
    config = options.config()
    from harness.execution.console import RunConsole
    from harness.execution.launch import launch
    from harness.store import Store

    with RunConsole() as console:
        (record,) = launch([config], Store(store), config.method, console.on_event)
    if as_json:
        print(record.model_dump_json(indent=2))
    else:
        from harness.report.run import record_text

        print(record_text(record))
    raise typer.Exit(0 if record.status == "done" else 1)


@app.command("suite")
def suite_(
    file: Annotated[Path, typer.Argument(help="SUITE.toml")],
    workers: WorkersOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    skip_missing: SkipMissingOption = False,
    plugin: PluginOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their cost; train nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run methods x benchmarks x seeds; runs that are already in the store are skipped."""
    configs, name = _suite_configs(file, workers, data_dir, skip_missing, plugin, set_)
    if dry_run:
        _dry_run(configs, as_json)
        return
    raise typer.Exit(_run_suite(configs, name, store, as_json))


@app.command("demo")
def demo_(
    store: StoreOption = None,
    workers: WorkersOption = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Open the dashboard at once on a sample of real runs, and train beside it."),
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="With --quick: don't open a browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run HKD4VLM and its baselines on both embedded benchmarks, and rank them. Resumes if it was stopped."""
    if no_browser and not quick:
        raise ConfigError("--no-browser goes with --quick, which opens one: add --quick, or leave both out")
    configs, name = _suite_configs(SUITES / "demo.toml", workers, None, False, None, None)
    if not quick:
        raise typer.Exit(_run_suite(configs, name, store, as_json))
    if as_json:
        raise ConfigError("--json with --quick: dashboards stay open after the result; leave out one of them")
    from harness.cli.dashboard import sample_and_own
    from harness.store import Store

    own = Store(store)
    own.check_writable()
    with sample_and_own(str(SUITES / "sample.tar.xz"), own.url, no_browser) as (url, dashboard):
        code = _run_suite(configs, name, store, as_json)
        say(f"the demo is done; {url} and the dashboard of its runs stay open until Ctrl-C")
        with suppress(KeyboardInterrupt):
            dashboard.wait()
    raise typer.Exit(code)


@run_verb("profile", leave_out=("seed", "workers"))
def profile_(
    options: RunOptions,
    steps: Annotated[int, typer.Option(min=1, max=30, help="Measured steps per stage.")] = 10,
    warm: Annotated[int, typer.Option(min=1, max=10, help="Warm-up steps before them.")] = 3,
    trace: Annotated[Path | None, typer.Option(help="Folder for a trace of each stage, for Perfetto.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the time of a training step: data, vision, language, loss, backward, ... Stores nothing."""
    config = replace(options, workers=0).config()
    from harness.speed import profiling

    found = profiling.measure(config, steps, warm, trace)
    if as_json:
        print_json(found)
    else:
        print(profiling.to_text(found))


@run_verb("tune-speed", leave_out=("seed", "workers"))
def tune_speed_(
    options: RunOptions,
    steps: Annotated[int, typer.Option(min=1, max=30, help="Measured steps per stage.")] = 5,
    warm: Annotated[int, typer.Option(min=1, max=10, help="Warm-up steps before them.")] = 2,
    precision: Annotated[bool, typer.Option("--precision", help="Also the precision, which changes numbers.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the settings that were found to this TOML file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the fastest settings on this machine by trial: attention, micro-batches, threads. They change no number but
    in the last digits."""
    config = replace(options, workers=0).config()
    if out is not None and out.exists():
        raise ConfigError(f"--out {out}: exists already; expected a new file")
    from harness.speed import tuning

    def told(trial: tuning.Measured) -> None:
        if trial.setting == "given":
            say(f"seconds for all steps of {tuning.about(config)}, from {steps} of each stage:")
        say(tuning.line(trial))

    tuned = tuning.tune(config, steps, warm, precision, told)
    if out is not None:
        out.write_text(tuning.to_toml(tuned), encoding="utf-8")
    if as_json:
        print_json(tuning.to_table(tuned))
    else:
        print(tuning.to_text(tuned))


def _suite_configs(
    file: Path,
    workers: int | None,
    data_dir: str | None,
    skip_missing: bool,
    plugin: list[str] | None,
    set_: list[str] | None,
) -> tuple[list[RunConfig], str]:
    from harness.config import parse, read_toml
    from harness.experiments import equal_flops
    from harness.suite import SuiteConfig

    table = with_options(
        read_toml(file), workers=workers, data_dir=data_dir, skip_missing=skip_missing, plugins=plugin, set_=set_
    )
    suite = parse(SuiteConfig, table, str(file))
    load_plugins(suite.plugins)
    note_unused_folder(suite.benchmarks, suite.data_dir)
    return equal_flops.priced(suite).run_configs(), suite.name


def _run_suite(configs: list[RunConfig], name: str, root: str | None, as_json: bool) -> int:
    """Run what the store doesn't have, and print the tables. Gives the exit code."""
    from harness.execution.console import RunConsole
    from harness.execution.launch import launch
    from harness.report import text
    from harness.store import Store

    store = Store(root)
    with RunConsole() as console:
        records = launch(configs, store, name, console.on_event)
    failed, tables = failures(records), _tables(store, records)
    if as_json:
        ranks = {benchmark: json.loads(text.to_json(rows)) for benchmark, rows in tables.items()}
        print_json({"runs": [{"run_id": r.run_id, "status": r.status} for r in records], "rank": ranks})
    else:
        for rows in tables.values():
            print(text.to_text(rows))
            for line in _seeds_needed(store, rows):
                print(line + "\n")
        for line in failed:
            say(line)
        here = f" --store {root}" if root else ""
        splits = {_ranked_split(records, benchmark) for benchmark in tables}
        split = f" --split {splits.pop()}" if splits == {"validation"} else ""
        print(f"\nhkdbench rank{here}{split}          this table again (--format csv|json|markdown|latex|html)")
        print(f"hkdbench show RUN{here}      one run: settings, stages, cost, figures by category")
        print(f"hkdbench list runs{here}     all runs")
    return 1 if failed else 0


def _dry_run(configs: list[RunConfig], as_json: bool) -> None:
    from harness.planning import cost, plan
    from harness.report.plan import dry_run_text

    rows = [cost.of(plan.make(config)) for config in configs]
    if as_json:
        print_json(rows)
        return
    print(dry_run_text(rows))


def _tables(store: Store, records: Sequence[Record]) -> dict[str, list[Row]]:
    """The rows of each benchmark, on the test split if a run was scored on it."""
    from harness.leaderboard import leaderboard

    return {
        benchmark: leaderboard.table(store, benchmark=benchmark, split=_ranked_split(records, benchmark))
        for benchmark in sorted({record.benchmark for record in records})
    }


def _seeds_needed(store: Store, rows: Sequence[Row]) -> Iterator[str]:
    """For each directly tuned student: how many more seeds its undecided differences need."""
    from harness.leaderboard import leaderboard
    from harness.leaderboard.schema import TUNED, Filters
    from harness.report.tables import SURE, seeds_needed

    undecided = {
        row.student for row in rows if row.direct and (found := row.direct.difference) and (found.p_holm or 0) >= SURE
    }
    tuned = {row.student: row for row in reversed(rows) if row.method == TUNED and row.student in undecided}
    for base in tuned.values():
        asked = Filters(
            benchmark=base.benchmark, split=base.split, baseline=f"{base.label}@{base.student}", columns=("power",)
        )
        if said := seeds_needed(leaderboard.ranking(store, asked).rows):
            yield said


def _ranked_split(records: Sequence[Record], benchmark: str) -> str:
    scored = {split for record in records if record.benchmark == benchmark for split in record.metrics}
    return next((split for split in ("test", "validation", "ood", "train") if split in scored), "test")
