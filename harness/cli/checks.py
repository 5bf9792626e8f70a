"""Verbs that examine benchmarks: `leaks`, `check-benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import DataOption, JsonOption, PluginOption, StoreOption, app, load_plugins, print_json, say
from harness.errors import ConfigError

DataOf = Annotated[
    list[str] | None,
    typer.Option("--data-dir", help="Folder of the published files; with several benchmarks NAME=FOLDER, repeated."),
]


@app.command("leaks")
def leaks_(
    benchmark: Annotated[list[str] | None, typer.Option("--benchmark", help="May be repeated.")] = None,
    data_dir: DataOf = None,
    plugin: PluginOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Leave near duplicates out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Images and texts that the splits of these benchmarks share: exact and near duplicates, with examples."""
    from harness import data, leaks, registry

    load_plugins(plugin)
    if not benchmark:
        raise ConfigError("no benchmark given: name one or more with --benchmark")
    folders = _folders(benchmark, data_dir)
    datasets = [data.load(registry.make_benchmark(name, {}, folders.get(name))) for name in dict.fromkeys(benchmark)]
    found = leaks.find(leaks.sides(datasets), near=not exact, progress=lambda what: say(f"looking at {what}"))
    if as_json:
        print_json([shared.model_dump() for shared in found])
    else:
        print(leaks.to_text(found))


def _folders(benchmarks: list[str], data_dirs: list[str] | None) -> dict[str, Path]:
    """The data folder of each benchmark."""
    folders: dict[str, Path] = {}
    for given in data_dirs or ():
        name, equals, folder = given.partition("=")
        if equals and name in benchmarks:
            folders[name] = Path(folder)
        elif len(data_dirs or ()) == 1:  # one folder for all that read files
            folders |= dict.fromkeys(benchmarks, Path(given))
        else:
            raise ConfigError(f"--data-dir {given!r}: expected NAME=FOLDER with a NAME among {', '.join(benchmarks)}")
    return folders


@app.command("check-benchmark")
def check_benchmark_(
    name: str,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a benchmark: schema, ids, golds, balance, leaks, images, speed. Exit code 1 where something must change."""
    from harness import check_benchmark, registry
    from harness.store import Store

    load_plugins(plugin)
    findings = check_benchmark.check(registry.make_benchmark(name, {}, data_dir), Store(store))
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        print(check_benchmark.to_text(name, findings))
    raise typer.Exit(1 if any(finding.level == "fail" for finding in findings) else 0)
