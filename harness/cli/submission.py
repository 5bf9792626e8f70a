"""Commands that send a run and add one that was sent: `pack`, `add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    StoreOption,
    app,
    load_plugins,
    print_json,
)


@app.command("pack")
def pack_(
    run: Annotated[str, typer.Argument(help="The id of a run, or its first letters.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write. [default: RUN.zip]")] = None,
    with_student: Annotated[bool, typer.Option("--with-student", help="Include the trained weights.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a finished run into one file, for somebody else to `add` to a store."""
    from harness.store import Store
    from harness.submission import submit

    opened = Store(store)
    run_id = opened.match(run)
    file = out or Path(f"{run_id}.zip")
    file = file / f"{run_id}.zip" if file.is_dir() else file
    manifest = submit.pack(opened, run_id, file, with_student)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size, "manifest": manifest.model_dump(mode="json")})
    else:
        print(f"{file}: {len(manifest.files)} files of {run_id}, {size / 1e6:.2f} MB")
        print(f"hkdbench add {file}      adds it to a store")


@app.command("add")
def add_(
    file: Annotated[Path, typer.Argument(help="A file that `hkdbench pack` wrote.")],
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a packed run and add it to the store, marked as received; a file that fails leaves nothing behind."""
    from harness.store import Store
    from harness.submission import submit

    load_plugins(plugin)
    arrival = submit.add(Store(store), file, data_dir.expanduser().resolve() if data_dir else None)
    if as_json:
        print_json({"run_id": arrival.run_id, "added": arrival.added, "report": arrival.report.to_json()})
        return
    print(
        f"{arrival.run_id} is {'added' if arrival.added else 'already here'}; {len(arrival.report.of('ok'))} checks ok"
    )
    for finding in arrival.report.of("unverified"):
        print(f"  {finding.state}  {finding.check}: {finding.detail}")
