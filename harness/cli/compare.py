"""The verb `compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.api import Split
from harness.cli.options import JsonOption, StoreOption, app


@app.command("compare")
def compare_(
    a: Annotated[
        str,
        typer.Argument(help="A run (its id may be shortened), or a row: its label, or 'method[@student][ key=value]'"),
    ],
    b: Annotated[str, typer.Argument(help="The run or row that it is compared with.")],
    benchmark: str | None = None,
    metric: str = "accuracy",
    split: Split = "test",
    examples: Annotated[int, typer.Option(min=0, help="How many of the examples that they part on to show.")] = 10,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A minus B, paired by seed and example: overall, by category, whose errors, and where they part."""
    from harness.leaderboard import compare
    from harness.store import Store

    opened = Store(store)
    one, other = compare.sides(opened, a, b, split, benchmark)
    found = compare.compare(opened, one, other, split, metric, examples)
    print(compare.to_json(found) if as_json else compare.to_text(found))
