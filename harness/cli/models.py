"""Verbs about models: `pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import app
from harness.errors import ConfigError, near


@app.command("pretrain")
def pretrain_(
    rung: Annotated[str, typer.Argument(help="L, M or S")],
    out: Annotated[Path, typer.Argument(help="Folder for the weights")],
    seed: int = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of a pass; default: the shipped recipe's.")] = None,
) -> None:
    """Rebuild the tiny ladder's weights from nothing (an hour or so for all three on 2 cores)."""
    from harness.models import pretrain, tiny

    if rung not in tiny.RUNGS:
        raise ConfigError(f"unknown rung {rung!r}: {near(rung, tiny.RUNGS)}")
    pretrain.main(rung, out, seed, steps)
