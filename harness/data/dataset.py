"""A benchmark's splits, completely checked before training."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness import registry
from harness.api import LATER, Benchmark, DataError, Example, Split
from harness.data import dataset as data
from harness.data import image_content

T = TypeVar("T")

MAX_OPTIONS = 26
"""Options are lettered A to Z."""


@dataclass(frozen=True)
class Dataset:
    """The checked splits of a benchmark, in the benchmark's order."""

    benchmark: Benchmark
    splits: dict[Split, list[Example]]
    skipped: dict[Split, int] = field(default_factory=dict)
    """How many examples of a split were left out because their image is missing; splits with 0 are left out."""

    @cached_property
    def image_contents(self) -> dict[Split, list[str | None]]:
        """For each example the sha256 of its image, see `image_content`. None: it is drawn when it is asked for."""
        every = iter(image_content.contents([e for examples in self.splits.values() for e in examples]))
        return {split: [next(every) for _ in examples] for split, examples in self.splits.items()}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every example's id, texts, options, gold, and image content. Raises `DataError`.

        It doesn't depend on where images lie: files and cells of a Parquet file with the same bytes are the same. A
        drawn image isn't in it: ids and texts are drawn together with it.
        """
        return self._digest(self.image_contents)

    @cached_property
    def fingerprint_by_names(self) -> str:
        """The fingerprint that older records have: with the names and sizes of image files instead of their content."""
        names = {
            split: [[e.image.name, _size(e.image)] if isinstance(e.image, Path) else None for e in examples]
            for split, examples in self.splits.items()
        }
        return self._digest(names)

    def _digest(self, images: Mapping[Split, Sequence[Any]]) -> str:
        digest = hashlib.sha256()
        for split, examples in self.splits.items():
            digest.update(split.encode())
            for e, image in zip(examples, images[split], strict=True):
                row = [e.id, e.group, e.question, e.claim, e.context, e.options, e.gold, e.category, image]
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def recognises(self, fingerprint: str) -> Literal["content", "names", ""]:
        """Whether a record's fingerprint is of these data: of their content, of an older record by file names, or not.

        Data without image files have the same fingerprint both ways: `content`.
        """
        if fingerprint == self.fingerprint:
            return "content"
        return "names" if fingerprint == self.fingerprint_by_names else ""

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.splits.items()}

    @cached_property
    def options(self) -> tuple[str, ...] | None:
        """The options, if every example has the same ones in the same order; else None."""
        seen = {e.options for examples in self.splits.values() for e in examples}
        return seen.pop() if len(seen) == 1 else None


def load(
    benchmark: Benchmark,
    splits: Sequence[Split] | None = None,
    skip_missing: bool = False,
    need_images: bool = True,
) -> Dataset:
    """The splits of the benchmark (None: all). Raises `DataError` on the first example that can't be used.

    `skip_missing` leaves out the examples whose image file is missing, and counts them. Without `need_images` they are
    not looked for.
    """
    found = {split: _checked(benchmark, split, skip_missing, need_images) for split in splits or benchmark.splits}
    if "pool" in found and not found["pool"][0]:  # a generated pool is as large as asked
        del found["pool"]
    return Dataset(
        benchmark,
        {split: examples for split, (examples, _) in found.items()},
        {split: missing for split, (_, missing) in found.items() if missing},
    )


def _checked(benchmark: Benchmark, split: Split, skip_missing: bool, need_images: bool) -> tuple[list[Example], int]:
    """The usable examples of a split, and how many were left out."""
    where = f"benchmark {benchmark.name!r}, split {split!r}"
    try:
        examples = list(benchmark.load(split))
    except DataError:
        raise
    except Exception as error:  # a benchmark is a plugin: any error becomes one line
        raise DataError(f"{where}: its loader failed: {type(error).__name__}: {error}") from error
    if not examples and split != "pool":
        raise DataError(f"{where}: no examples; a listed split must have at least one")
    for e in examples:
        if not 2 <= len(e.options) <= MAX_OPTIONS:
            raise DataError(f"{where}, example {e.id!r}: {len(e.options)} options; expected 2 to {MAX_OPTIONS}")
        if e.gold is None and split == "pool":
            if benchmark.pool_has_golds:
                raise DataError(
                    f"{where}, example {e.id!r}: no gold; a pool without golds must say so (pool_has_golds = False)"
                )
            continue
        if not isinstance(e.gold, int) or not 0 <= e.gold < len(e.options):
            raise DataError(
                f"{where}, example {e.id!r}: gold {e.gold!r} is not among its {len(e.options)} options "
                f"(0 to {len(e.options) - 1})"
            )
    id_, count = Counter(e.id for e in examples).most_common(1)[0] if examples else ("", 0)
    if count > 1:
        raise DataError(f"{where}: {count} examples have the id {id_!r}; ids must be unique in a split")
    missing = _without_image(examples) if need_images else set()
    if missing and (not skip_missing or len(missing) == len(examples)):
        first = next(e for e in examples if e.id in missing)
        advice = "check --data-dir" + ("" if skip_missing else ", or leave them out with --skip-missing")
        raise DataError(
            f"{where}: the images of {len(missing)} of {len(examples)} examples are missing, first {_file_of(first)} "
            f"of example {first.id!r}; {advice}"
        )
    return [e for e in examples if e.id not in missing], len(missing)


def _without_image(examples: Sequence[Example]) -> set[str]:
    """The ids of the examples whose image file doesn't exist. A file of several examples is looked for once."""
    files = {e.id: path for e in examples if (path := _file_of(e)) is not None}
    absent = {path for path in set(files.values()) if not os.path.isfile(path)}
    return {id_ for id_, path in files.items() if path in absent} if absent else set()


def _size(path: Path) -> int | None:
    """None for a file that doesn't exist, where images aren't needed."""
    return path.stat().st_size if path.is_file() else None


def _file_of(example: Example) -> Path | None:
    path = example.image if isinstance(example.image, Path) else getattr(example.image, "path", None)
    return path if isinstance(path, Path) else None


def settings_of(benchmark: Benchmark) -> dict[str, Any]:
    """All settings of a benchmark, defaults included; the folder of its files isn't one.

    A setting that came later (`harness.benchmark.LATER`) isn't among them at its default: runs that knew nothing of it
    keep their identity.
    """
    later = {f.name for f in fields(benchmark) if f.metadata.get(LATER) and getattr(benchmark, f.name) == f.default}
    return {name: value for name, value in asdict(benchmark).items() if name not in later | {"data_dir"}}


def load_data(
    benchmark: str, settings: Mapping[str, Any], data_dir: Path | None, skip_missing: bool = False
) -> data.Dataset:
    """The checked data of a benchmark with these settings. Raises `ConfigError` or `DataError`."""
    return _dataset(benchmark, _canonical(settings), data_dir, skip_missing)


@lru_cache(maxsize=8)
def _dataset(
    name: str, settings: str, data_dir: Path | None, skip_missing: bool, splits: tuple[Split, ...] | None = None
) -> data.Dataset:
    """One copy per process: the runs of a suite share it."""
    return data.load(registry.make_benchmark(name, json.loads(settings), data_dir), splits, skip_missing)


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
