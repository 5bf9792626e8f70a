"""Options that several verbs share, and output functions."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.record import Record
    from harness.store import Store

app = typer.Typer(
    name="hkdbench",
    help="Distillation methods for small vision-language models, compared at equal budgets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def method_names(incomplete: str) -> list[str]:
    """The methods that begin so, for the shell."""
    from harness import registry

    return [name for name in registry.methods() if name.startswith(incomplete)]


def benchmark_names(incomplete: str) -> list[str]:
    """The benchmarks that begin so, for the shell."""
    from harness import registry

    return [name for name in registry.benchmarks() if name.startswith(incomplete)]


def run_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runs that begin so in a store's folder, for the shell: those of buckets and packed stores take too long."""
    root = ctx.params.get("store") or os.environ.get("HKDBENCH_STORE") or "runs"
    try:
        names = sorted(entry.name for entry in os.scandir(os.path.expanduser(root)) if entry.is_dir())
    except OSError:
        return []
    return [name for name in names if name.startswith(incomplete) and not name.startswith(".")]


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Folder of the results, s3://bucket/prefix, or a packed *.tar.xz. [default: $HKDBENCH_STORE or ./runs]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]
PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="A file, folder or module with methods or benchmarks; repeatable."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, like train.lr=0.001 or settings.alpha=2; may be repeated.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Ray Train workers per run; 0: in this process, without Ray.")
]
SkipMissingOption = Annotated[
    bool, typer.Option("--skip-missing", help="Continue without the examples whose image file is missing.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data-dir", help="Folder of the benchmark's published files, s3://bucket/prefix or hf://datasets/OWNER/NAME."
    ),
]


def existing(store: str | None) -> Store:
    """The store, for a verb that reads it. Raises `StoreError` if there is none at this address."""
    from harness.store import Store

    opened = Store(store)
    opened.check_exists()
    return opened


def say(text: str) -> None:
    """Print to standard error, apart from the result."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print the one document of `--json`."""
    print(json.dumps(value, indent=2))


def load_plugins(specs: Sequence[str] | None) -> None:
    """Load the plugins. Raises `ConfigError` if one can't be loaded."""
    from harness import registry

    for spec in specs or ():
        if not registry.load_plugin(spec):
            problem = [p for p in registry.problems() if p.origin == "plugin"][-1]
            raise ConfigError(f"--plugin {spec}: can't load plugin {problem.name}: {problem.error}")


def note_unused_folder(benchmarks: Sequence[str], folder: object) -> None:
    """Say that `--data-dir` isn't used, if none of these benchmarks reads files."""
    from harness import registry

    known = registry.benchmarks()
    if folder is None or not benchmarks or any(name not in known for name in benchmarks):
        return
    if not any(known[name].load().needs_data_dir for name in benchmarks):
        say(f"note: --data-dir isn't used: {', '.join(benchmarks)} reads no files; leave it out")


def benchmark_settings(names: Sequence[str], set_: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """The settings of each benchmark from `--set benchmark_settings.KEY=VALUE`.

    With several benchmarks, or for clarity, `--set benchmark_settings.NAME.KEY=VALUE`. Raises `ConfigError`.
    """
    from harness.settings import overlay

    table = overlay({"benchmark_settings": {}}, set_ or [])
    if others := set(table) - {"benchmark_settings"}:
        raise ConfigError(f"--set {min(others)}: no model is run here; expected --set benchmark_settings.KEY=VALUE")
    settings = table["benchmark_settings"]
    if not isinstance(settings, dict):
        raise ConfigError(f"--set benchmark_settings={settings}: expected --set benchmark_settings.KEY=VALUE")
    named = {name: value for name, value in settings.items() if name in names and isinstance(value, dict)}
    own = {key: value for key, value in settings.items() if key not in named}
    if own and len(names) != 1:
        raise ConfigError(
            f"--set benchmark_settings.{min(own)}: of several benchmarks; expected --set benchmark_settings.NAME.KEY="
            f"VALUE with a NAME among {', '.join(names)}"
        )
    return {name: named.get(name, {}) | own for name in names}


def with_options(
    table: dict[str, Any],
    *,
    workers: int | None = None,
    data_dir: str | None = None,
    skip_missing: bool = False,
    plugins: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The table of a run or a suite, updated by the command line; `--set` has the highest priority."""
    from harness import registry
    from harness.settings import overlay

    if data_dir is not None:
        table = table | {"data_dir": data_dir}
    if skip_missing:
        table = table | {"skip_missing": True}
    own = table.get("plugins", [])
    if plugins and isinstance(own, list):  # anything else is refused together with the other settings
        table = table | {"plugins": [*own, *map(registry.absolute, plugins)]}
    numbered = [] if workers is None else [f"cluster.workers={workers}"]
    return overlay(table, [*numbered, *(set_ or ())])


@dataclass(frozen=True)
class RunOptions:
    """The options of `plan`, `run` and `profile` that define the run, see `run_verb`."""

    file: Annotated[Path | None, typer.Argument(help="RUN.toml")] = None
    method: Annotated[
        str | None, typer.Option(help="The method: `hkdbench list methods`.", autocompletion=method_names)
    ] = None
    benchmark: Annotated[
        str | None, typer.Option(help="The benchmark: `hkdbench list benchmarks`.", autocompletion=benchmark_names)
    ] = None
    ladder: Annotated[str | None, typer.Option(help="A ladder's name or .toml file. [default: tiny]")] = None
    student: Annotated[str | None, typer.Option(help="The rung that is scored. [default: S]")] = None
    seed: Annotated[int | None, typer.Option(help="Of weights, order and draws. [default: 0]")] = None
    workers: WorkersOption = None
    data_dir: DataOption = None
    skip_missing: SkipMissingOption = False
    plugin: PluginOption = None
    set_: SetOption = None

    def config(self) -> RunConfig:
        """The file's configuration, updated by the command line. Loads its plugins."""
        from harness.config import RunConfig, parse, read_toml

        table: dict[str, Any] = read_toml(self.file) if self.file else {}
        for name in ("method", "benchmark", "ladder", "student", "seed"):
            if (value := getattr(self, name)) is not None:
                table[name] = value
        for name in ("method", "benchmark"):
            if name not in table:
                raise ConfigError(f"no {name} given: name one with --{name} (`hkdbench list {name}s` shows them)")
        table = with_options(
            table,
            workers=self.workers,
            data_dir=self.data_dir,
            skip_missing=self.skip_missing,
            plugins=self.plugin,
            set_=self.set_,
        )
        config = parse(RunConfig, table, str(self.file) if self.file else "the command line")
        load_plugins(config.plugins)
        note_unused_folder([config.benchmark], config.data_dir)
        return config


def run_verb(name: str, leave_out: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the verb `name`: its first argument is `RunOptions`, and each field of it is an option.

    Typer takes options only from a function's signature, and has no groups of options. `leave_out`: fields that the
    verb doesn't offer.
    """

    def register(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(RunOptions, include_extras=True)
        names = [field.name for field in fields(RunOptions) if field.name not in leave_out]
        _, *own = inspect.signature(verb, eval_str=True).parameters.values()
        of_run = [
            inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=getattr(RunOptions, name), annotation=hints[name]
            )
            for name in names
        ]

        def command(**given: Any) -> None:
            verb(RunOptions(**{name: given.pop(name) for name in names}), **given)

        parameters = [*of_run, *own]
        command.__doc__ = verb.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(command)
        return verb

    return register


def failures(records: Sequence[Record]) -> list[str]:
    """One line for each run that isn't done."""
    return [
        f"{record.status}: {record.run_id}: {record.error.message if record.error else ''}"
        for record in records
        if record.status != "done"
    ]
