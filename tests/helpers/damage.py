"""Ways to damage a file of rows, for tests that its reader says in one line what is wrong and where."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import DataError

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**40,
    1.5,
    "",
    " ",
    "\0",
    "\ud800",
    "x" * 200_000,
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "C:\\x.png",
    "maybe",
    [],
    [[]],
    {},
    {"id": 1},
)
"""Values that a field shouldn't have (some fields may: then nothing is wrong)."""


def damaged(rows: list[dict[str, Any]], rng: random.Random, lines: bool) -> bytes:
    """The rows as a file of one object a line, or of one array, with one fault of a random kind."""
    rows = json.loads(json.dumps(rows))
    at = rng.randrange(len(rows))
    kind = rng.choice(["value", "value", "value", "missing", "twice", "row", "cut", "bytes", "deep", "empty", "extra"])
    if kind == "value":
        rows[at][rng.choice(list(rows[at]))] = rng.choice(WRONG)
    elif kind == "missing":
        del rows[at][rng.choice(list(rows[at]))]
    elif kind == "twice":
        rows.append(rows[at])
    elif kind == "row":
        rows[at] = rng.choice(WRONG)
    if kind == "empty":
        return rng.choice([b"", b"[]", b"{}", b"null", b"\n\n"])
    if kind == "deep":
        return b"[" * 100_000
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    whole = text.encode()
    if kind == "cut":
        return whole[: rng.randrange(len(whole))]
    if kind == "bytes":
        spot = rng.randrange(len(whole))
        return whole[:spot] + rng.choice([b"\xff\xfe", b"\0", b"}", b'"']) + whole[spot + 1 :]
    return whole + (b"\n}" if kind == "extra" else b"")


Load = Callable[[], object]


def says(load: Load, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        load()
