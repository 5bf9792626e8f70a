"""Commands for a store: `store ls|compact|gc|merge|export|pack|unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import JsonOption, StoreOption, app, existing, print_json, say
from harness.paths import expanded

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.store import Store

store_app = typer.Typer(
    help="Manage a store: list, compact, clean up, merge, export, pack into one file.", no_args_is_help=True
)
app.add_typer(store_app, name="store")

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")]
StatusOption = Annotated[str | None, typer.Option(help="Only these: done, failed, interrupted or broken.")]
BenchmarkOption = Annotated[str | None, typer.Option(help="Only runs on this benchmark.")]
MethodOption = Annotated[str | None, typer.Option(help="Only runs of this method.")]
TagOption = Annotated[str | None, typer.Option(help="Only runs with this tag.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        help='An SQL condition over the columns of a run, like "seed < 3 and test_accuracy > 0.6". '
        "`store export` shows the columns."
    ),
]


@store_app.command("ls")
def ls_(
    status: StatusOption = None,
    benchmark: BenchmarkOption = None,
    method: MethodOption = None,
    tag: TagOption = None,
    where: WhereOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, one line each."""
    found = _runs(existing(store), status, benchmark, method, tag, where)
    if as_json:
        print_json(found.to_pylist())
        return
    for run in found.to_pylist():
        accuracy = run.get("test_accuracy")
        shown = "" if accuracy is None else f"  test accuracy {accuracy:.4f}"
        trouble = f"  {run['problem'].splitlines()[0][:80]}" if run["problem"] else ""
        print(f"{run['status']:11}  {run['run_id']}{shown}{trouble}")
    say(f"{found.num_rows} runs")


@store_app.command("compact")
def compact_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Write what leaderboards need from all runs to a few files, so that they don't open every run's folder."""
    from dataclasses import asdict

    from harness.store.compaction import compact

    done = compact(existing(store))
    if as_json:
        print_json(asdict(done))
        return
    broken = f", {done.broken} broken" if done.broken else ""
    print(
        f"{done.runs} runs ({done.new} new, {done.gone} gone{broken}) on {done.tables} data sets: wrote "
        f"{done.files_written} files, {done.bytes_written / 2**20:.1f} MiB, in {done.seconds:.1f} s"
    )


@store_app.command("gc")
def gc_(
    unfinished_days: Annotated[
        float, typer.Option(min=0, help="Keep checkpoints of unfinished runs for this many days.")
    ] = 7.0,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete leftovers of killed runs and old files of the catalogue. Runs are never deleted."""
    from harness.store import maintenance

    opened = existing(store)
    found = maintenance.garbage(opened, unfinished_days)
    if opened.packed:
        opened.check_writable()
    if not dry_run:
        maintenance.delete(opened, found)
    if as_json:
        print_json({"deleted": not dry_run, "found": [{"name": one.name, "why": one.why} for one in found]})
        return
    for one in found:
        print(f"{one.name}  {one.why}")
    print(f"{len(found)} {'to delete' if dry_run else 'deleted'}")


@store_app.command("merge")
def merge_(
    other: Annotated[str, typer.Argument(help="The store whose runs are copied.")],
    keep_ours: Annotated[
        bool, typer.Option("--keep-ours", help="If a finished run differs between the stores, keep this store's.")
    ] = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy another store's runs byte for byte; refused if a finished run differs between the two."""
    from dataclasses import asdict

    from harness.errors import StoreError
    from harness.store import Store, maintenance

    mine, theirs = Store(store), existing(other)
    if not theirs.ids():
        raise StoreError(f"store {theirs.url!r} has no runs: expected the folder or URL of a store")
    done = maintenance.merge(mine, theirs, keep_ours, dry_run)
    if as_json:
        print_json(asdict(done))
        return
    for run_id in done.broken:
        print(f"broken, left out: {run_id}")
    print(
        f"{len(done.copied)} runs {'to copy' if dry_run else 'copied'}, {len(done.same)} were here already, "
        f"{len(done.ours)} kept as they are here, {len(done.broken)} broken"
    )


@store_app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="A .parquet or .csv file: one line per run.")],
    predictions: Annotated[
        Path | None, typer.Option(help="A second .parquet or .csv file: one line per prediction of these runs.")
    ] = None,
    status: StatusOption = None,
    benchmark: BenchmarkOption = None,
    method: MethodOption = None,
    tag: TagOption = None,
    where: WhereOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the runs to a file for other tools, and their predictions to another."""
    from harness.store import maintenance

    for out in filter(None, (file, predictions)):
        maintenance.check_ending(out)
    opened = existing(store)
    found = _runs(opened, status, benchmark, method, tag, where)
    maintenance.export_runs(found, file)
    said = {"runs": found.num_rows, "predictions": 0}
    if predictions is not None:
        said["predictions"] = maintenance.export_predictions(opened, found["run_id"].to_pylist(), predictions)
    if as_json:
        print_json(said)
    else:
        print(f"wrote {said['runs']} runs" + (f" and {said['predictions']} predictions" if predictions else ""))


@store_app.command("pack")
def pack_(
    file: Annotated[Path, typer.Argument(help="The file to write, *.tar.xz.")],
    with_students: Annotated[
        bool, typer.Option("--with-students", help="Include the trained weights, where runs have saved them.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the whole store into one file, which all verbs that read and the dashboard take as --store."""
    from dataclasses import asdict

    from harness.store.packed import pack

    done = pack.pack(existing(store), expanded(file), with_students)
    if as_json:
        print_json({"file": str(file), **asdict(done)})
        return
    for run_id in done.broken:
        print(f"broken, left out: {run_id}")
    print(f"{file}: {done.runs} runs, {done.bytes / 1e6:.2f} MB (of {done.bytes_before / 1e6:.2f} MB)")


@store_app.command("unpack")
def unpack_(
    file: Annotated[Path, typer.Argument(help="A file that `hkdbench store pack` wrote.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make of it.")],
    as_json: JsonOption = False,
) -> None:
    """Make a folder of a packed store again, which can be written to."""
    from harness.store.packed import pack

    files = pack.unpack(expanded(file), expanded(folder).absolute())
    if as_json:
        print_json({"folder": str(folder), "files": files})
    else:
        print(f"{folder}: {files} files")


def _runs(
    store: Store, status: str | None, benchmark: str | None, method: str | None, tag: str | None, where: str | None
) -> pa.Table:
    from harness.errors import ConfigError, near
    from harness.store import maintenance

    known = ("done", "failed", "interrupted", "broken")
    if status not in (None, *known):
        raise ConfigError(f"--status {status!r}: {near(str(status), known)}")
    equal = {"status": status, "benchmark": benchmark, "method": method, "tag": tag}
    return maintenance.runs(store, equal, where)
