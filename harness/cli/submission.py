"""Verbs that check results, pack a run and add one: `verify`, `pack`, `add`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    StoreOption,
    app,
    existing,
    load_plugins,
    print_json,
    run_ids,
)
from harness.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.submission.checks import Report


@app.command("verify")
def verify_(
    run: Annotated[str | None, typer.Argument(autocompletion=run_ids, help="A run's id, or its beginning.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run of the store.")] = False,
    store: StoreOption = None,
    data_dir: DataOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute every figure of RUN, and check hashes, ids, golds and sums. Exit code 1: something changed."""
    from harness.submission import verify
    from harness.submission.flops import plan_flops

    if (run is None) != all_:
        raise ConfigError("verify takes a RUN, or --all for every run of the store")
    load_plugins(plugin)
    opened = existing(store)
    if run is None:
        reports = list(verify.verify_all(opened, data_dir, plan_flops))
        if not reports:
            raise StoreError(
                f"store {opened.url!r} has no runs to verify: choose another with --store or HKDBENCH_STORE"
            )
    else:
        reports = [verify.verify(opened, opened.match(run), data_dir, plan_flops)]
    if as_json:
        print_json({"runs": [report.to_json() for report in reports], "states": _count(reports)})
    elif run is None:
        _print_all(reports)
    else:
        _print_one(reports[0])
    raise typer.Exit(1 if any(report.state == "changed" for report in reports) else 0)


def _print_one(report: Report) -> None:
    print(report.run_id)
    for finding in report.findings:
        print(f"  {finding.state:10}  {finding.check:11}  {finding.detail}")
    verdict = "something changed" if report.state == "changed" else "nothing changed"
    unsure = len(report.of("unverified"))
    _print_not_checked([report])
    print(f"{verdict}; {len(report.of('ok'))} checks ok" + (f", {unsure} can't be verified" if unsure else ""))


def _print_all(reports: Sequence[Report]) -> None:
    """What changed, by run; what can't be verified, by reason."""
    for report in reports:
        for finding in report.of("changed"):
            print(f"changed     {report.run_id}  {finding.check}: {finding.detail}")
    reasons = Counter((f.check, f.detail) for report in reports for f in report.of("unverified"))
    for (check, detail), count in reasons.most_common(20):
        print(f"unverified  {check} of {count} run{'s' if count > 1 else ''}: {detail}")
    if len(reasons) > 20:
        print(f"unverified  {len(reasons) - 20} more reasons; --json has all")
    _print_not_checked(reports)
    figures = sum(1 for report in reports if any(f.check == "figures" for f in report.of("ok")))
    changed = _count(reports)["changed"]
    print(f"{len(reports)} runs: {changed} changed; the figures of {figures} were recomputed and are the same")


def _print_not_checked(reports: Sequence[Report]) -> None:
    """What no check covers, in one line."""
    if names := dict.fromkeys(name for report in reports for name in report.not_checked):
        print(f"not checked: {'; '.join(names)}")


def _count(reports: Sequence[Report]) -> dict[str, int]:
    found = Counter(report.state for report in reports)
    return {state: found[state] for state in ("ok", "changed", "unverified")}


@app.command("pack")
def pack_(
    run: Annotated[str, typer.Argument(autocompletion=run_ids, help="The id of a run, or its first letters.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write. [default: RUN.zip]")] = None,
    with_student: Annotated[bool, typer.Option("--with-student", help="Include the trained weights.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a finished run to one file, for somebody else to `add` to a store."""
    from harness.submission import submit

    opened = existing(store)
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
    arrival = submit.add(Store(store), file, data_dir)
    if as_json:
        print_json({"run_id": arrival.run_id, "added": arrival.added, "report": arrival.report.to_json()})
        return
    print(
        f"{arrival.run_id} is {'added' if arrival.added else 'already here'}; {len(arrival.report.of('ok'))} checks ok"
    )
    for finding in arrival.report.of("unverified"):
        print(f"  {finding.state}  {finding.check}: {finding.detail}")
    _print_not_checked([arrival.report])
