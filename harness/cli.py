"""The command line. Each verb imports what it needs: `--help` loads neither torch nor ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness import __version__
from harness.api import Split
from harness.errors import ConfigError, UserError, near

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.config import RunConfig
    from harness.plan import Plan
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
    Path | None, typer.Option("--store", help="Folder of the results. [default: $HKDBENCH_STORE or ./runs]")
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


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C is 130."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _say("error: " + "; ".join(str(error).splitlines()))
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        # Click's own usage errors know how to show themselves and their exit code.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        code = error.exit_code
    if code == 130:  # typer turns Ctrl-C into this exit code
        _say("interrupted; the same command goes on from the last checkpoint")
    sys.exit(code)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _version(show: bool) -> None:
    if show:
        print(f"hkdbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------ look up


@app.command("list")
def list_(
    what: Annotated[Literal["methods", "benchmarks", "ladders", "runs"], typer.Argument()],
    store: StoreOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the methods, benchmarks, ladders or runs that there are."""
    from harness import describe

    _load_plugins(plugin)
    rows = describe.listing(what, store)
    if as_json:
        _print_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['summary']}".rstrip())
    if not rows:
        print(f"no {what} yet")


@app.command("describe")
def describe_(name: str, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """Everything known of a method, benchmark or ladder: settings, sizes, licence, source."""
    from harness import describe

    _load_plugins(plugin)
    found = describe.describe(name)
    if as_json:
        _print_json(found)
    else:
        print(describe.to_text(found))


def _load_plugins(specs: Sequence[str] | None) -> None:
    """Load the plugins; one that fails is named, and doesn't stop the others."""
    from harness import registry

    for spec in specs or ():
        registry.load_plugin(spec)
    for problem in registry.problems():
        if problem.origin == "plugin":
            _say(f"warning: can't load plugin {problem.name}: {problem.error}")


# --------------------------------------------------------------------------------------------- run


@app.command("plan")
def plan_(
    file: Annotated[Path | None, typer.Argument(help="RUN.toml")] = None,
    method: str | None = None,
    benchmark: str | None = None,
    ladder: str | None = None,
    student: str | None = None,
    seed: int | None = None,
    workers: WorkersOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a run and print its stages, roles, sizes and price. Trains nothing."""
    from harness import describe, plan

    config = _run_config(file, method, benchmark, ladder, student, seed, workers, data_dir, plugin, set_)
    priced = describe.price(plan.make(config))
    if as_json:
        _print_json(priced)
    else:
        print(describe.price_text(priced))


@app.command("run")
def run_(
    file: Annotated[Path | None, typer.Argument(help="RUN.toml")] = None,
    method: str | None = None,
    benchmark: str | None = None,
    ladder: str | None = None,
    student: str | None = None,
    seed: int | None = None,
    workers: WorkersOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train and score one method on one benchmark, from one seed. A finished run isn't repeated."""
    config = _run_config(file, method, benchmark, ladder, student, seed, workers, data_dir, plugin, set_)
    records = _launch([config], store, config.method, as_json)
    if as_json:
        print(records[0].model_dump_json(indent=2))
    else:
        from harness import describe

        print(describe.record_text(records[0]))
    raise typer.Exit(0 if records[0].status == "done" else 1)


@app.command("suite")
def suite_(
    file: Annotated[Path, typer.Argument(help="SUITE.toml")],
    workers: WorkersOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their price; train nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run methods x benchmarks x seeds; runs that the store holds already are skipped."""
    configs, name = _suite_configs(file, workers, data_dir, plugin, set_)
    if dry_run:
        _dry_run(configs, as_json)
        return
    _finish_suite(_launch(configs, store, name, as_json), store, as_json)


@app.command("demo")
def demo_(store: StoreOption = None, workers: WorkersOption = None, as_json: JsonOption = False) -> None:
    """HKD4VLM and its baselines on both embedded benchmarks, ranked. Continues where it was stopped."""
    configs, name = _suite_configs(_demo_suite(), workers, None, None, None)
    _finish_suite(_launch(configs, store, name, as_json), store, as_json)


def _demo_suite() -> Path:
    """`suites/` stands beside this package, in a checkout and where it is installed."""
    return Path(__file__).resolve().parent.parent / "suites" / "demo.toml"


def _suite_configs(
    file: Path, workers: int | None, data_dir: Path | None, plugin: list[str] | None, set_: list[str] | None
) -> tuple[list[RunConfig], str]:
    from harness.config import SuiteConfig, overlay, parse, read_toml

    table = read_toml(file)
    if data_dir is not None:
        table["data_dir"] = str(data_dir.expanduser().resolve())
    table = _with_plugins(table, plugin)
    if workers is not None:
        table = overlay(table, [f"cluster.workers={workers}"])
    suite = parse(SuiteConfig, overlay(table, set_ or []), str(file))
    _load_plugins(suite.plugins)
    return suite.run_configs(), suite.name


def _run_config(
    file: Path | None,
    method: str | None,
    benchmark: str | None,
    ladder: str | None,
    student: str | None,
    seed: int | None,
    workers: int | None,
    data_dir: Path | None,
    plugin: list[str] | None,
    set_: list[str] | None,
) -> RunConfig:
    from harness.config import RunConfig, overlay, parse, read_toml

    table: dict[str, Any] = read_toml(file) if file else {}
    given = {"method": method, "benchmark": benchmark, "ladder": ladder, "student": student, "seed": seed}
    table |= {key: value for key, value in given.items() if value is not None}
    if data_dir is not None:
        table["data_dir"] = str(data_dir.expanduser().resolve())
    table = _with_plugins(table, plugin)
    if workers is not None:
        table = overlay(table, [f"cluster.workers={workers}"])
    for key in ("method", "benchmark"):
        if key not in table:
            raise ConfigError(f"no {key} given: name one with --{key} (`hkdbench list {key}s` shows them)")
    config = parse(RunConfig, overlay(table, set_ or []), str(file) if file else "the command line")
    _load_plugins(config.plugins)
    return config


def _with_plugins(table: dict[str, Any], plugins: list[str] | None) -> dict[str, Any]:
    """The table with these plugins besides its own, files by their whole path."""
    own = table.get("plugins", [])
    if not plugins or not isinstance(own, list):  # what isn't a list is refused with the rest of the settings
        return table
    return table | {"plugins": [*own, *(str(Path(p).resolve()) if p.endswith(".py") else p for p in plugins)]}


def _launch(configs: list[RunConfig], root: Path | None, name: str, as_json: bool) -> list[Record]:
    from harness.launch import launch
    from harness.store import Store

    # Standard output is for the answer alone: what libraries print meanwhile (Ray, of a lost worker) goes beside it.
    with redirect_stdout(sys.stderr), _progress() as (begin, watch):
        return launch(configs, Store(root), name, begin, watch)


def _finish_suite(records: Sequence[Record], root: Path | None, as_json: bool) -> None:
    from harness.store import Store

    store = Store(root)
    failed = [record for record in records if record.status != "done"]
    if as_json:
        _print_json(
            {"runs": [{"run_id": r.run_id, "status": r.status} for r in records], "rank": _rank_json(store, records)}
        )
    else:
        _print_rank(store, sorted({record.benchmark for record in records}))
        for record in failed:
            _say(f"{record.status}: {record.run_id}: {record.error.message if record.error else ''}")
        here = f" --store {root}" if root else ""
        print(f"\nhkdbench rank{here}          this table again (--format csv|json|markdown)")
        print(f"hkdbench show RUN{here}      one run: settings, stages, cost, figures by category")
        print(f"hkdbench list runs{here}     all runs")
    raise typer.Exit(1 if failed else 0)


def _dry_run(configs: list[RunConfig], as_json: bool) -> None:
    from harness import describe, plan

    rows = [describe.price(plan.make(config)) for config in configs]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        print(f"{row['run_id']:70}  {row['train_flops'] / 1e12:8.2f} TFLOP")
    print(f"{len(rows)} runs, {sum(row['train_flops'] for row in rows) / 1e12:.2f} TFLOP of training (estimated)")


@contextmanager
def _progress() -> Iterator[tuple[Callable[[list[Plan], list[Plan]], None], Callable[[dict[str, Any]], None]]]:
    """Progress on standard error: bars on a terminal, else a line when a run begins and ends."""
    from harness.progress import Progress

    with Progress() as progress:
        yield progress.begin, progress.watch


# ------------------------------------------------------------------------------------------- results


@app.command("rank")
def rank_(
    benchmark: str | None = None,
    metric: str = "accuracy",
    split: Split = "test",
    store: StoreOption = None,
    format_: Annotated[Literal["table", "csv", "json", "markdown"], typer.Option("--format")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Rank the methods in the store, with 95 % intervals over seeds and images, and the controls."""
    from harness import rank
    from harness.store import Store

    opened = Store(store)
    rows = rank.table(opened, benchmark=benchmark, metric=metric, split=split)
    broken = [f"broken: {problem}" for problem in opened.problems()]
    if as_json or format_ == "json":
        print(rank.to_json(rows, notes=broken))
    elif format_ == "csv":
        print(rank.to_csv(rows))
    else:
        print((rank.to_markdown if format_ == "markdown" else rank.to_text)(rows, notes=broken))


def _print_rank(store: Store, benchmarks: Sequence[str]) -> None:
    from harness import rank

    for benchmark in benchmarks:
        print(rank.to_text(rank.table(store, benchmark=benchmark)))


def _rank_json(store: Store, records: Sequence[Record]) -> Any:
    from harness import rank

    return {b: json.loads(rank.to_json(rank.table(store, benchmark=b))) for b in sorted({r.benchmark for r in records})}


@app.command("show")
def show_(run: str, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One run: settings, stages, cost, provenance, figures by category. RUN may be shortened."""
    from harness import describe
    from harness.store import Store

    record = Store(store).find(run)
    print(record.model_dump_json(indent=2) if as_json else describe.record_text(record))


# ------------------------------------------------------------------------------------------- models


@app.command("pretrain")
def pretrain_(
    rung: Annotated[str, typer.Argument(help="L, M or S")],
    out: Annotated[Path, typer.Argument(help="Folder for the weights")],
    seed: int = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of the last phase; default: the shipped recipe's.")] = None,
) -> None:
    """Rebuild the tiny ladder's weights from nothing (an hour or so for all three on 2 cores)."""
    from harness import pretrain, tiny

    if rung not in tiny.RUNGS:
        raise ConfigError(f"unknown rung {rung!r}: {near(rung, tiny.RUNGS)}")
    pretrain.main(rung, out, seed, steps)
