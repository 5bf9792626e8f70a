"""The verb `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    SetOption,
    SkipMissingOption,
    app,
    print_json,
)
from harness.cli.runs import run_config


@app.command("profile")
def profile_(
    file: Annotated[Path | None, typer.Argument(help="RUN.toml")] = None,
    method: str | None = None,
    benchmark: str | None = None,
    ladder: str | None = None,
    student: str | None = None,
    steps: Annotated[int, typer.Option(min=1, max=30, help="Steps of each stage that are measured.")] = 10,
    warm: Annotated[int, typer.Option(min=1, max=10, help="Steps before them that aren't.")] = 3,
    trace: Annotated[Path | None, typer.Option(help="Folder for a trace of each stage, for Perfetto.")] = None,
    data_dir: DataOption = None,
    skip_missing: SkipMissingOption = False,
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where a training step's time goes: data, vision, language, loss, backward, ... Keeps nothing."""
    config = run_config(file, method, benchmark, ladder, student, None, 0, data_dir, skip_missing, plugin, set_)
    from harness.train import profiling

    found = profiling.measure(config, steps, warm, trace)
    if as_json:
        print_json(found)
    else:
        print(profiling.to_text(found))
