"""What the verbs share: the options that several take, and how they speak."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="hkdbench",
    help="Distillation methods for small vision-language models, compared at equal budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Folder of the results, or s3://bucket/prefix. [default: $HKDBENCH_STORE or ./runs]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]
PluginOption = Annotated[
    list[str] | None, typer.Option("--plugin", help="A file or module with a method or benchmark; may be repeated.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, like train.lr=0.001 or settings.alpha=2; may be repeated.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Ray Train workers a run; 0: in this process, without Ray.")
]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the benchmark's published files.")]


def say(text: str) -> None:
    """Beside the answer: on standard error."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """The one document of `--json`."""
    print(json.dumps(value, indent=2))


def load_plugins(specs: Sequence[str] | None) -> None:
    """Load the plugins; one that fails is named, and doesn't stop the others."""
    from harness import registry

    for spec in specs or ():
        registry.load_plugin(spec)
    for problem in registry.problems():
        if problem.origin == "plugin":
            say(f"warning: can't load plugin {problem.name}: {problem.error}")
