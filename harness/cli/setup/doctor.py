"""The verb `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from harness.cli.options import JsonOption, StoreOption, app, print_json


@app.command("doctor")
def doctor_(
    store: StoreOption = None,
    ray: Annotated[bool, typer.Option("--ray", help="Also start Ray, or join the cluster of RAY_ADDRESS.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check versions, devices, Ray, store, disk and limits, each with what to change. Exit code 1: a problem."""
    from harness.setup import doctor

    findings = []
    for finding in doctor.examine(store, ray):
        findings.append(finding)
        if not as_json:
            print(f"{finding.state:8} {finding.name:22} {finding.found}", flush=True)
            if finding.mend:
                print(f"{'':31} -> {finding.mend}", flush=True)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print(doctor.summary(findings))
    raise typer.Exit(1 if any(finding.state == "problem" for finding in findings) else 0)
