"""The numbers that the versions of `harness/versions.py` stand for, and the command that renews them.

    python -m scripts.golden

It computes what `tests/system/test_golden.py` compares with, and writes it to `tests/golden/`: predictions and history
of small runs (`training`), what is computed of fixed answers (`scoring`), a compacted catalogue (`catalog`). Where
numbers changed and their version didn't, it writes nothing, says which, and exits with 1.

Each file has the numbers to 8 digits, which hold on every machine to `TOLERANCE`, and checksums of all their bits by
kind of machine: another processor adds in another order.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import provenance, versions
from harness.store import Store
from scripts.golden_cases import SCORED, answered, catalogued, plain, prompts, training, training_cases

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
TOLERANCE = 1e-4
"""How far a number may be off on another kind of machine: relative, and a hundredth of it absolute."""
NAMED = 5
"""So many changed numbers of a case are named."""


@dataclass(frozen=True)
class Golden:
    """A kind of numbers: its version's name, and what computes each of its cases."""

    version: str
    cases: Mapping[str, Callable[[], Any]]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.version.lower()}.json"

    @property
    def now(self) -> int:
        """The version in `harness/versions.py`."""
        return int(getattr(versions, self.version))

    def stored(self) -> dict[str, Any]:
        """The file: `version`, `numbers` by case, `bits` by kind of machine and case."""
        if not self.path.is_file():
            return {"version": self.now, "numbers": {}, "bits": {}}
        return dict(json.loads(self.path.read_text(encoding="utf-8")))


def all_golden() -> list[Golden]:
    """The three files."""

    def of_answers(compute: Callable[[Store], Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            answered(store := Store(folder))
            return plain(compute(store))

    runs = {name: partial(training, case) for name, case in training_cases().items()}
    return [
        Golden("TRAINING", {"prompts": prompts, **runs}),
        Golden("SCORING", {name: partial(of_answers, compute) for name, compute in SCORED.items()}),
        Golden("CATALOG", {"compacted": partial(of_answers, catalogued)}),
    ]


def machine() -> str:
    """What must agree for bits to agree."""
    parts = (f"torch {torch.__version__}", f"numpy {np.__version__}", torch.backends.cpu.get_cpu_capability())
    return ", ".join((*parts, str(provenance.static()["machine"]["processor"])))


def bits(found: Any) -> str:
    """sha256 over every bit of the numbers."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def rounded(found: Any) -> Any:
    """The same with 8 digits, as it is stored."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.8g}") if isinstance(found, float) else found


def changes(stored: Mapping[str, Any], case: str, found: Any) -> list[str]:
    """How a case differs from what is stored of it, in words; [] where it is the same, or new."""
    if case not in stored["numbers"]:
        return []
    known = stored["bits"].get(machine(), {}).get(case)
    exact = known is not None
    if known == bits(found):
        return []
    before, after = dict(_leaves(stored["numbers"][case])), dict(_leaves(rounded(found)))
    said = [
        f"{where} is {after.get(where, 'gone')}, was {before.get(where, 'not there')}"
        for where in dict.fromkeys((*before, *after))
        if where not in before or where not in after or _differ(before[where], after[where], 0 if exact else TOLERANCE)
    ]
    if exact and not said:
        said = ["the last bits of some numbers"]
    return said[:NAMED] + ([f"and {len(said) - NAMED} more"] if len(said) > NAMED else [])


def _leaves(found: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict | list) and found:
        for key, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _leaves(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, found


def _differ(before: Any, after: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
    if not numbers:
        return bool(before != after)
    return not math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance / 100)


def main() -> int:
    """Renew each file, or say what changed in it without a new version."""
    refused = 0
    for golden in all_golden():
        stored, found = golden.stored(), {case: compute() for case, compute in golden.cases.items()}
        changed = [f"{case}: {line}" for case, values in found.items() for line in changes(stored, case, values)]
        for line in changed:
            print(f"{golden.path.name}: {line}", file=sys.stderr)
        raised = stored["version"] != golden.now
        if changed and not raised:
            print(
                f"{golden.path.name} stays as it is: raise {golden.version} in harness/versions.py, and run this again"
            )
            refused = 1
            continue
        others = {} if raised else stored["bits"]  # of other kinds of machine, for the same numbers
        document = {
            "version": golden.now,
            "numbers": {case: rounded(values) for case, values in found.items()},
            "bits": {**others, machine(): {case: bits(values) for case, values in found.items()}},
        }
        golden.path.parent.mkdir(exist_ok=True)
        golden.path.write_text(json.dumps(document) + "\n", encoding="utf-8")
        print(f"{golden.path.name}: {len(found)} cases, {golden.version} = {golden.now}")
    return refused


if __name__ == "__main__":
    raise SystemExit(main())
