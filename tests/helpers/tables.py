"""Rows and tables of the leaderboard, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from harness.leaderboard.schema import Row, Table
from harness.record import Interval


def row(method: str, value: float | None, **fields: Any) -> Row:
    """A row of the toy benchmark, four examples, one seed."""
    base: dict[str, Any] = {
        "benchmark": "toy", "revision": "1", "fingerprint": "f", "split": "test", "kind": "run", "method": method,
        "label": method, "ladder": "tiny", "student": "S", "seeds": (0,), "examples": 4, "groups": 4,
        "metric": "accuracy", "values": {} if value is None else {"accuracy": Interval(value=value)},
        "train_tflops": 1.0, "train_seconds": 1.0, "forwards_per_answer": 1.0, "parameters": 100,
        "run_ids": (f"{method}-0",),
    }  # fmt: skip
    return Row(**base | fields)


def a_table(*rows: Row) -> Table:
    return Table(
        benchmark="toy", revision="1", fingerprint="f", split="test", metric="accuracy", rows=rows, budgets=(64,)
    )
