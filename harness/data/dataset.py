"""A benchmark's splits, checked as a whole before anything is trained; and the one order of training."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from harness.api import Benchmark, DataError, Example, Split

T = TypeVar("T")

MAX_OPTIONS = 26
"""Options are lettered A to Z."""


@dataclass(frozen=True)
class Dataset:
    """The checked splits of a benchmark, in the benchmark's order."""

    benchmark: Benchmark
    splits: dict[Split, list[Example]]
    skipped: dict[Split, int] = field(default_factory=dict)
    """How many examples of a split were left out because their image is missing; splits without any don't appear."""

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


def settings_of(benchmark: Benchmark) -> dict[str, Any]:
    """All settings of a benchmark, defaults included; where its files lie is none."""
    return {name: value for name, value in asdict(benchmark).items() if name != "data_dir"}


def load(benchmark: Benchmark, splits: Sequence[Split] | None = None, skip_missing: bool = False) -> Dataset:
    """The splits of the benchmark (None: all). Raises `DataError` on the first example that can't be used.

    `skip_missing` leaves out the examples whose image file is missing, and counts them.
    """
    found = {split: _checked(benchmark, split, skip_missing) for split in splits or benchmark.splits}
    return Dataset(
        benchmark,
        {split: examples for split, (examples, _) in found.items()},
        {split: missing for split, (_, missing) in found.items() if missing},
    )


def _checked(benchmark: Benchmark, split: Split, skip_missing: bool) -> tuple[list[Example], int]:
    """The examples of a split that can be used, and how many were left out."""
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
    missing = _without_image(examples)
    if missing and (not skip_missing or len(missing) == len(examples)):
        first = next(e for e in examples if e.id in missing)
        mend = "check --data-dir" + ("" if skip_missing else ", or leave them out with --skip-missing")
        raise DataError(
            f"{where}: the images of {len(missing)} of {len(examples)} examples are missing, first {_file_of(first)} "
            f"of example {first.id!r}; {mend}"
        )
    return [e for e in examples if e.id not in missing], len(missing)


def _without_image(examples: Sequence[Example]) -> set[str]:
    """The ids of the examples whose image file isn't there. A file that several share is looked for once."""
    files = {e.id: path for e in examples if (path := _file_of(e)) is not None}
    absent = {path for path in set(files.values()) if not os.path.isfile(path)}
    return {id_ for id_, path in files.items() if path in absent} if absent else set()


def _file_of(example: Example) -> Path | None:
    path = example.image if isinstance(example.image, Path) else getattr(example.image, "path", None)
    return path if isinstance(path, Path) else None


def batch_at(
    examples: Sequence[Example],
    seed: int,
    position: int,
    size: int,
    together: int = 1,
    pictured: Sequence[Example] | None = None,
) -> list[tuple[int, Example]]:
    """The `size` examples that are seen from `position` on, each with its position.

    The order is that of reshuffled epochs and depends on the seed and the position alone: every method
    sees the same examples in the same order, a resumed run goes on where it was, and the workers cut one
    global batch among them. Up to `together` questions of one image follow each other; `pictured` are the
    same examples with their own images, where a control has taken these.
    """
    positions = range(position, position + size)
    orders = {
        epoch: _order(pictured or examples, seed, epoch, together) for epoch in {p // len(examples) for p in positions}
    }
    return [(p, examples[orders[p // len(examples)][p % len(examples)]]) for p in positions]


def share_of(batch: Sequence[T], rank: int, world: int, together: int = 1) -> Sequence[T]:
    """What a rank takes of a global batch: each `world`-th, or a stretch where an image's questions stand together."""
    if together == 1:
        return batch[rank::world]
    return batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]


_orders: dict[tuple[int, int, int, int], tuple[Sequence[Example], list[int]]] = {}


def _order(examples: Sequence[Example], seed: int, epoch: int, together: int) -> list[int]:
    key = (id(examples), seed, epoch, together)
    known = _orders.get(key)
    if known is None or known[0] is not examples:
        if len(_orders) > 16:
            _orders.clear()
        rng = random.Random(f"order/{seed}/{epoch}")
        known = _orders[key] = examples, _shuffled(examples, together, rng)
    return known[1]


def _shuffled(examples: Sequence[Example], together: int, rng: random.Random) -> list[int]:
    """Every example's number once; up to `together` of one image beside each other, other ones in each epoch."""
    if together == 1:
        return rng.sample(range(len(examples)), len(examples))
    families = (rng.sample(family, len(family)) for family in by_image(examples))
    chunks = [family[at : at + together] for family in families for at in range(0, len(family), together)]
    return [i for chunk in rng.sample(chunks, len(chunks)) for i in chunk]


def by_image(examples: Sequence[Example]) -> list[list[int]]:
    """The examples' numbers by image, in the order in which the images come first."""
    families: dict[Hashable, list[int]] = {}
    for i, example in enumerate(examples):
        families.setdefault(_image(example), []).append(i)
    return list(families.values())


def _image(example: Example) -> Hashable:
    try:
        hash(example.image)
    except TypeError:  # a callable with fields that can't be hashed
        return id(example.image)
    return example.image


class Ahead(Iterator[T]):
    """What `make` makes of each of `positions`, in order: the next one in a thread, while the current one is used.

    `begin` is called in the thread first. An error of `make` is raised where its position's turn comes.
    """

    def __init__(self, make: Callable[[int], T], positions: Sequence[int], begin: Callable[[], object]) -> None:
        self.make, self.positions = make, iter(positions)
        self.thread = ThreadPoolExecutor(1, "hkdbench-data", begin)
        self.coming = self._submitted()

    def _submitted(self) -> Future[T] | None:
        for position in self.positions:
            return self.thread.submit(self.make, position)
        self.thread.shutdown(wait=False)
        return None

    def __next__(self) -> T:
        if self.coming is None:
            raise StopIteration
        found = self.coming.result()
        self.coming = self._submitted()
        return found
