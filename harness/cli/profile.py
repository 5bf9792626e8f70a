"""The verb `profile`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption, RunOptions, print_json, run_verb


@run_verb("profile", leave_out=("seed", "workers"))
def profile_(
    options: RunOptions,
    steps: Annotated[int, typer.Option(min=1, max=30, help="Steps of each stage that are measured.")] = 10,
    warm: Annotated[int, typer.Option(min=1, max=10, help="Steps before them that aren't.")] = 3,
    trace: Annotated[Path | None, typer.Option(help="Folder for a trace of each stage, for Perfetto.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a training step's time goes: data, vision, language, loss, backward, ... Keeps nothing."""
    config = replace(options, workers=0).config()
    from harness.train import profiling

    found = profiling.measure(config, steps, warm, trace)
    if as_json:
        print_json(found)
    else:
        print(profiling.to_text(found))
