"""The verb `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    SetOption,
    StoreOption,
    WorkersOption,
    app,
    failures,
    load_plugins,
    note_unused_folder,
    print_json,
    say,
    with_options,
)
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.experiments.ablation import AblationVariant
    from harness.leaderboard.ablation import Ablation
    from harness.store import Store
    from harness.suite import SuiteConfig


@app.command("ablate")
def ablate_(
    method: Annotated[str, typer.Argument(help="The method: `hkdbench list methods`.")],
    file: Annotated[Path | None, typer.Argument(help="SUITE.toml: budget, seeds, and the rivals.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default: those that need no files.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Like 0,1,2,3,4.")] = None,
    student: Annotated[str, typer.Option(help="The rung, if no suite sets it.")] = "S",
    ladder: Annotated[str, typer.Option(help="The ladder, if no suite sets it.")] = "tiny",
    workers: WorkersOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their cost; train nothing.")] = False,
    page: Annotated[
        Path | None, typer.Option("--page", help="Train nothing; write this page from the store's records.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a method without each of its parts, and its rivals; finished runs are skipped."""
    from harness.execution.console import RunConsole
    from harness.execution.launch import launch
    from harness.experiments import ablation
    from harness.leaderboard import ablation as stored
    from harness.report import ablation as ablation_page
    from harness.store import Store

    load_plugins(plugin)
    opened = Store(store)
    suite = None
    if page is None or file is not None:
        suite = _suite(method, file, benchmark, seeds, student, ladder, workers, data_dir, plugin, set_)
    if page is not None:
        opened.check_exists()
        name = suite.name if suite else f"{method}_ablation"
        _write_page(page, ablation_page.page(stored.evaluated(stored.load(opened, name), opened), opened))
        return
    assert suite is not None
    kept, left_out = ablation.variants(method, suite)
    if dry_run:
        _dry_run(suite, kept, left_out, as_json)
        return
    laid_out = ablation.lay_out(method, suite, kept, left_out)
    with RunConsole() as console:
        failed = failures(launch(ablation.configs(suite, kept), opened, suite.name, console.on_event))
    done = stored.evaluated(laid_out, opened)
    stored.save(done, opened, ablation_page.to_markdown(done))
    _show(done, opened, as_json)
    for line in failed:
        say(line)
    raise typer.Exit(1 if failed else 0)


def _suite(
    method: str,
    file: Path | None,
    benchmarks: list[str] | None,
    seeds: str | None,
    student: str,
    ladder: str,
    workers: int | None,
    data_dir: str | None,
    plugin: list[str] | None,
    set_: list[str] | None,
) -> SuiteConfig:
    from harness import registry
    from harness.config import parse, read_toml
    from harness.experiments import ablation, equal_flops
    from harness.leaderboard.ablation import check_name
    from harness.suite import SuiteConfig

    numbers = _numbers(seeds) if seeds is not None else None
    if file is not None:
        table: dict[str, Any] = read_toml(file)
        load_plugins([p for p in table.get("plugins", []) if isinstance(p, str)])
    else:
        ready = [name for name, cls in registry.load_all(registry.benchmarks()) if not cls.needs_data_dir]
        table = ablation.suite_table(method, numbers or [0, 1, 2], benchmarks or ready, student, ladder)
    if benchmarks:
        table["benchmarks"] = list(benchmarks)
    if numbers is not None:
        table["seeds"] = numbers
    table = with_options(table, workers=workers, data_dir=data_dir, plugins=plugin, set_=set_)
    suite = parse(SuiteConfig, table, str(file) if file else "the command line")
    check_name(suite.name)
    note_unused_folder(suite.benchmarks, suite.data_dir)
    return equal_flops.priced(suite)


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {seeds!r}: expected integers separated by commas, like 0,1,2") from None


def _dry_run(suite: SuiteConfig, kept: list[AblationVariant], left_out: dict[str, str], as_json: bool) -> None:
    """Estimate the cost of one run of each line: its other seeds cost the same."""
    from harness.experiments.ablation import one_seed
    from harness.planning import cost, plan

    rows = []
    for variant in kept:
        priced = [cost.of(plan.make(config))["train_flops"] for config in one_seed(suite, variant.run)]
        seeds = len(variant.run.seeds or suite.seeds)
        rows.append({"label": variant.label, "runs": len(priced) * seeds, "train_flops": sum(priced) * seeds})
    if as_json:
        print_json({"name": suite.name, "lines": rows, "left_out": left_out})
        return
    for row in rows:
        print(f"{row['label']:40} {row['runs']:4} runs  {row['train_flops'] / 1e12:10.2f} TFLOP")
    total = sum(row["train_flops"] for row in rows)
    print(f"{sum(row['runs'] for row in rows)} runs, {total / 1e12:.2f} TFLOP of training (estimated)")
    for label, reason in left_out.items():
        say(f"left out: {label}: {reason}")


def _show(done: Ablation, store: Store, as_json: bool) -> None:
    from harness.report import ablation as ablation_page

    if as_json:
        print(done.model_dump_json(indent=2))
        return
    print(ablation_page.to_text(done))
    print(f"wrote {done.name}.json and {done.name}.md into {store.url}")


def _write_page(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--page {path}: can't be written: {error.strerror or error}") from None
    print(f"wrote {path}")
