"""Verbs for answers that were produced elsewhere: `score`, `import-predictions`."""

from __future__ import annotations

from pathlib import Path
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
    app,
    benchmark_settings,
    load_plugins,
    note_unused_folder,
    print_json,
    say,
)

if TYPE_CHECKING:
    from harness.api import Benchmark


@app.command("score")
def score_(
    benchmark: Annotated[str, typer.Option("--benchmark", help="`hkdbench list benchmarks` names them.")],
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions",
            help="CSV, TSV, JSON Lines, Parquet, Excel with id and answer; JSON {id: answer}; or the authors' file.",
        ),
    ],
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="`hkdbench describe BENCHMARK` explains each.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="[default: those whose ids are in the file]")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score incomplete answers, if the protocol allows it.")
    ] = False,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a file of answers as the benchmark's authors would. Needs no model, no run, no images."""
    from harness.evaluation import import_answers

    made, _ = _benchmark(benchmark, data_dir, plugin, set_)
    found = import_answers.score_file(made, predictions, protocol, split, allow_missing)
    if as_json:
        print_json(found)
    else:
        print(import_answers.score_text(found))


@app.command("import-predictions")
def import_predictions_(
    file: Annotated[Path, typer.Argument(help="Answers by id, as for `score`: free texts, options, or their letters.")],
    benchmark: Annotated[str, typer.Option("--benchmark", help="`hkdbench list benchmarks` names them.")],
    name: Annotated[str, typer.Option("--name", help="The row's name in the ranking.")],
    split: Annotated[Split | None, typer.Option(help="[default: those whose ids are in the file]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The number of this run, if there are several of that name.")] = 0,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of the run; may be repeated.")] = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    skip_missing: SkipMissingOption = False,
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import answers from elsewhere as a run of the store, ranked with the others."""
    from harness.evaluation import import_answers
    from harness.report.run import record_text
    from harness.store import Store

    made, settings = _benchmark(benchmark, data_dir, plugin, set_)
    record = import_answers.import_run(
        file, made, settings, name, Store(store), split, seed, tuple(tag or ()), skip_missing
    )
    if record.data is not None and record.data.leaks is None:
        say("no image was found in --data-dir: the row is ranked apart from runs that had the images")
    print(record.model_dump_json(indent=2) if as_json else record_text(record))


def _benchmark(
    name: str, data_dir: str | None, plugin: list[str] | None, set_: list[str] | None
) -> tuple[Benchmark, dict[str, Any]]:
    """The benchmark with its settings, which are set as for a run: `--set benchmark_settings.variant=random`."""
    from harness import registry

    load_plugins(plugin)
    note_unused_folder([name], data_dir)
    settings = benchmark_settings([name], set_)[name]
    return registry.make_benchmark(name, settings, data_dir), settings
