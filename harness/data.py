"""A benchmark's splits, checked as a whole before anything is trained; and the one order of training."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.api import Benchmark, DataError, Example, Split

MAX_OPTIONS = 26
"""Options are lettered A to Z."""


@dataclass(frozen=True)
class Dataset:
    """The checked splits of a benchmark, in the benchmark's order."""

    benchmark: Benchmark
    splits: dict[Split, list[Example]]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every example's id, texts, options and gold, and the size of image files."""
        digest = hashlib.sha256()
        for split, examples in self.splits.items():
            digest.update(split.encode())
            for e in examples:
                image = [e.image.name, e.image.stat().st_size] if isinstance(e.image, Path) else None
                row = [e.id, e.group, e.question, e.claim, e.context, e.options, e.gold, e.category, image]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.splits.items()}

    @cached_property
    def options(self) -> tuple[str, ...] | None:
        """The options, where every example has the same ones in the same order; else None."""
        seen = {e.options for examples in self.splits.values() for e in examples}
        return seen.pop() if len(seen) == 1 else None


def load(benchmark: Benchmark) -> Dataset:
    """All splits of the benchmark. Raises `DataError` on the first example that can't be used."""
    return Dataset(benchmark, {split: _checked(benchmark, split) for split in benchmark.splits})


def _checked(benchmark: Benchmark, split: Split) -> list[Example]:
    where = f"benchmark {benchmark.name!r}, split {split!r}"
    try:
        examples = list(benchmark.load(split))
    except DataError:
        raise
    except Exception as error:  # a benchmark is a plugin: what it didn't foresee is still said in one line
        raise DataError(f"{where}: its loader failed: {type(error).__name__}: {error}") from error
    if not examples:
        raise DataError(f"{where}: no examples; a split that is listed must hold at least one")
    for e in examples:
        if not 2 <= len(e.options) <= MAX_OPTIONS:
            raise DataError(f"{where}, example {e.id!r}: {len(e.options)} options; expected 2 to {MAX_OPTIONS}")
        if not isinstance(e.gold, int) or not 0 <= e.gold < len(e.options):
            raise DataError(
                f"{where}, example {e.id!r}: gold {e.gold!r} is not among its {len(e.options)} options "
                f"(0 to {len(e.options) - 1})"
            )
    id_, count = Counter(e.id for e in examples).most_common(1)[0]
    if count > 1:
        raise DataError(f"{where}: {count} examples have the id {id_!r}; ids must be unique in a split")
    missing = [e for e in examples if isinstance(e.image, Path) and not e.image.is_file()]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(examples)} images are missing, first {missing[0].image!s} of "
            f"example {missing[0].id!r}; check --data-dir"
        )
    return examples


def batch_at(examples: Sequence[Example], seed: int, position: int, size: int) -> list[tuple[int, Example]]:
    """The `size` examples that are seen from `position` on, each with its position.

    The order is that of reshuffled epochs and depends on the seed and the position alone: every method
    sees the same examples in the same order, a resumed run goes on where it was, and the workers cut one
    global batch among them.
    """
    positions = range(position, position + size)
    orders = {epoch: _order(len(examples), seed, epoch) for epoch in {p // len(examples) for p in positions}}
    return [(p, examples[orders[p // len(examples)][p % len(examples)]]) for p in positions]


_orders: dict[tuple[int, int, int], list[int]] = {}


def _order(n: int, seed: int, epoch: int) -> list[int]:
    key = (n, seed, epoch)
    if key not in _orders:
        if len(_orders) > 16:
            _orders.clear()
        _orders[key] = random.Random(f"order/{seed}/{epoch}").sample(range(n), n)
    return _orders[key]
