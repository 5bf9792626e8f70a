"""What the verbs share: the options that several take, and how they speak."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.record import Record
    from harness.store import Store

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
    typer.Option(
        "--store",
        help="Folder of the results, s3://bucket/prefix, or a packed *.tar.xz. [default: $HKDBENCH_STORE or ./runs]",
    ),
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
SkipMissingOption = Annotated[
    bool, typer.Option("--skip-missing", help="Go on without the examples whose image file is missing.")
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


def with_options(
    table: dict[str, Any],
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    skip_missing: bool = False,
    plugins: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The table of a run or a suite with what the command line says beside it; `--set` has the last word."""
    from harness.config import overlay

    if data_dir is not None:
        table = table | {"data_dir": str(data_dir)}
    if skip_missing:
        table = table | {"skip_missing": True}
    own = table.get("plugins", [])
    if plugins and isinstance(own, list):  # what isn't a list is refused with the rest of the settings
        whole = (str(Path(p).resolve()) if p.endswith(".py") else p for p in plugins)
        table = table | {"plugins": [*own, *whole]}
    numbered = [] if workers is None else [f"cluster.workers={workers}"]
    return overlay(table, [*numbered, *(set_ or ())])


def launched(configs: Sequence[RunConfig], store: Store, name: str) -> list[Record]:
    """The records of the runs, see `harness.execution.launch`; progress is on standard error."""
    from harness.execution.console import Progress
    from harness.execution.launch import launch

    # Standard output is for the answer alone: what libraries print meanwhile (Ray, of a lost worker) goes beside it.
    with redirect_stdout(sys.stderr), Progress() as progress:
        return launch(configs, store, name, progress.begin, progress.watch)


def failures(records: Sequence[Record]) -> list[str]:
    """A line for each run that isn't done."""
    return [
        f"{record.status}: {record.run_id}: {record.error.message if record.error else ''}"
        for record in records
        if record.status != "done"
    ]
