"""Verbs that examine benchmarks, students and runs: `leaks`, `check-benchmark`, `robustness`, `reproduce`, `audit`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.api import Split
from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    SetOption,
    SkipMissingOption,
    StoreOption,
    WorkersOption,
    app,
    benchmark_settings,
    existing,
    load_plugins,
    note_unused_folder,
    print_json,
    say,
)
from harness.errors import ConfigError
from harness.events import Event, OnEvent

if TYPE_CHECKING:
    from harness.record import Record
    from harness.store import Store
    from harness.submission.reproduce import Reproduced

DataOf = Annotated[
    list[str] | None,
    typer.Option("--data-dir", help="Folder of the published files; with several benchmarks NAME=FOLDER, repeated."),
]


@app.command("leaks")
def leaks_(
    run: Annotated[
        str | None, typer.Argument(help="A run: the benchmarks that it uses, with its settings; may be shortened.")
    ] = None,
    benchmark: Annotated[list[str] | None, typer.Option("--benchmark", help="May be repeated.")] = None,
    store: StoreOption = None,
    data_dir: DataOf = None,
    plugin: PluginOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Ignore near duplicates.")] = False,
    texts: Annotated[bool, typer.Option("--texts", help="Ignore images: only annotation files are needed.")] = False,
    set_: SetOption = None,
    skip_missing: SkipMissingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Images and texts that the splits of these benchmarks share: exact and near duplicates, with examples."""
    from harness import registry
    from harness.data import dataset, leakage

    load_plugins(plugin)
    settings: dict[str, dict[str, Any]] = {name: {} for name in benchmark or ()}
    if run is not None:
        settings = _touched(existing(store).find(run)) | settings
    if not settings:
        raise ConfigError("no benchmark given: name a run, or one or more with --benchmark")
    settings = {name: settings[name] | chosen for name, chosen in benchmark_settings(list(settings), set_).items()}
    note_unused_folder(list(settings), data_dir)
    folders = _folders(list(settings), data_dir)
    made = [registry.make_benchmark(name, chosen, folders.get(name)) for name, chosen in settings.items()]
    loaded = [] if texts else [dataset.load(one, skip_missing=skip_missing) for one in made]
    sides = leakage.texts_of(made) if texts else leakage.sides(loaded)
    for one in loaded:
        for split, count in one.skipped.items():
            say(f"not looked at: {count} examples of {one.benchmark.name}/{split}, whose images are missing")
    found = leakage.find(sides, not exact, not texts, lambda what: say(f"looking at {what}"))
    if as_json:
        print_json([shared.model_dump() for shared in found])
    else:
        print(leakage.to_text(found))


def _touched(record: Record) -> dict[str, dict[str, Any]]:
    """The benchmarks that a run is scored on and learned from, with its settings of them.

    Plugins are code: those named in the record aren't loaded, only those of `--plugin`.
    """
    learned = {record.trained_on.benchmark: record.trained_on.settings} if record.trained_on else {}
    return learned | {record.benchmark: record.config.get("benchmark_settings", {})}


def _folders(benchmarks: list[str], data_dirs: list[str] | None) -> dict[str, str]:
    """The data folder of each benchmark."""
    folders: dict[str, str] = {}
    for given in data_dirs or ():
        name, equals, folder = given.partition("=")
        if equals and name in benchmarks:
            folders[name] = folder
        elif len(data_dirs or ()) == 1:  # one folder for all benchmarks that read files
            folders |= dict.fromkeys(benchmarks, given)
        else:
            raise ConfigError(f"--data-dir {given!r}: expected NAME=FOLDER with a NAME among {', '.join(benchmarks)}")
    return folders


@app.command("check-benchmark")
def check_benchmark_(
    name: Annotated[str, typer.Argument(help="The benchmark: `hkdbench list benchmarks`, or a plugin's.")],
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    store: StoreOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a benchmark: schema, ids, golds, balance, leaks, images, speed. Exit code 1 if something must change."""
    from harness import registry
    from harness.authoring import benchmark_checks
    from harness.store import Store

    load_plugins(plugin)
    note_unused_folder([name], data_dir)
    made = registry.make_benchmark(name, benchmark_settings([name], set_)[name], data_dir)
    findings = benchmark_checks.check(made, Store(store))
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        print(benchmark_checks.to_text(name, findings))
    raise typer.Exit(1 if any(finding.level == "fail" for finding in findings) else 0)


@app.command("robustness")
def robustness_(
    run: Annotated[str, typer.Argument(help="A run with a saved student (--set save_student=true); may be shortened.")],
    split: Annotated[Split, typer.Option(help="The split that is scored.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many examples.")] = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a run's student: options in every order, other words, corrupted images, no image, another image."""
    from harness.evaluation import robustness
    from harness.report.robustness import to_text

    load_plugins(plugin)
    with redirect_stdout(sys.stderr):  # libraries print while they load a model
        record = robustness.of_run(existing(store), run, split, limit, data_dir, _steps())
    print(record.model_dump_json(indent=2) if as_json else to_text(record))


@app.command("reproduce")
def reproduce_(
    run: Annotated[str, typer.Argument(help="A finished run; may be shortened.")],
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train RUN again from its record, and compare the answers. Exit code 1: it isn't reproduced."""
    from harness.report.run import reproduction_text

    opened = existing(store)
    (outcome,) = _trained_again(opened, [opened.match(run)], data_dir, plugin, workers)
    if outcome.result is None:
        raise ConfigError(outcome.problem)
    if as_json:
        print_json(_as_json(outcome))
    else:
        print(reproduction_text(outcome.result))
        print(f"  written to {outcome.file}" if outcome.file else "  not written: a packed store can only be read")
    raise typer.Exit(0 if outcome.result.reproduced else 1)


@app.command("audit")
def audit_(
    sample: Annotated[int, typer.Option("--sample", min=1, help="How many runs, drawn at random.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw. [default: another one each time]")] = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a random sample of runs again, and compare the answers. Exit code 1: one of them isn't reproduced."""
    import secrets

    from harness.report.run import audit_text
    from harness.submission import reproduce

    opened = existing(store)
    drawn = secrets.randbelow(10**6) if seed is None else seed
    run_ids = reproduce.sample(opened, sample, drawn)
    if not run_ids:
        raise ConfigError(f"store {opened.url!r} has no finished run with a student: nothing to train again")
    found = _trained_again(opened, run_ids, data_dir, plugin, workers)
    if as_json:
        print_json({"seed": drawn, "runs": [_as_json(one) for one in found]})
    else:
        print(audit_text([(one.run_id, one.result, one.problem) for one in found]))
        print(f"the sample is that of --seed {drawn}")
    raise typer.Exit(0 if all(one.result and one.result.reproduced for one in found) else 1)


def _trained_again(
    store: Store, run_ids: list[str], data_dir: str | None, plugin: list[str] | None, workers: int | None
) -> list[Reproduced]:
    from harness import registry
    from harness.execution.console import RunConsole
    from harness.submission import reproduce

    load_plugins(plugin)
    plugins = [registry.absolute(spec) for spec in plugin or ()]
    with RunConsole() as console:
        return reproduce.reproduce(store, run_ids, console.on_event, data_dir, plugins, workers)


def _as_json(outcome: Reproduced) -> dict[str, Any]:
    found = outcome.result.model_dump(mode="json") if outcome.result else {}
    reproduced = bool(outcome.result and outcome.result.reproduced)
    return {
        "run_id": outcome.run_id,
        "reproduced": reproduced,
        "problem": outcome.problem,
        "file": outcome.file,
    } | found


def _steps() -> OnEvent:
    """Reports each variant once, when it begins."""
    seen: set[str] = set()

    def report(event: Event) -> None:
        if event["stage"] not in seen:
            seen.add(event["stage"])
            say(event["stage"])

    return report
