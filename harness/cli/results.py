"""Verbs that read the store: `rank`, `show`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.api import Split
from harness.cli.common import JsonOption, StoreOption, app


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


@app.command("show")
def show_(run: str, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One run: settings, stages, cost, provenance, figures by category. RUN may be shortened."""
    from harness import describe
    from harness.store import Store

    opened = Store(store)
    record = opened.find(run)
    print(record.model_dump_json(indent=2) if as_json else describe.record_text(record))
    if not as_json and (received := opened.received(record.run_id)):
        print(f"  received {received.time} in {received.file} (sha256 {received.sha256[:12]})")
