"""A benchmark's splits, completely checked before training."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness import registry
from harness.api import LATER, Benchmark, DataError, Example, ImageSource, Split
from harness.data import dataset as data
from harness.data import image_content, opening
from harness.data.example_checks import faults

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """The checked splits of a benchmark, in the benchmark's order."""

    benchmark: Benchmark
    splits: dict[Split, list[Example]]
    skipped: dict[Split, int] = field(default_factory=dict)
    """How many examples of a split were left out because their image is missing or damaged; splits with 0 are left
    out."""
    needs_images: bool = True
    """Whether images must be there. If not, a missing one counts as none."""

    @cached_property
    def image_contents(self) -> dict[Split, list[list[str | None]]]:
        """For each example the sha256 of each image, see `image_content`. None: it is drawn when it is asked for."""
        images = [one for of_split in self.splits.values() for one in image_content.each_image(of_split)]
        every = iter(image_content.contents(images, self.needs_images))
        return {split: [[next(every) for _ in e.images] for e in of_split] for split, of_split in self.splits.items()}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every example's id, texts, options, gold, response and image content. Raises `DataError`.

        It doesn't depend on where images lie: files and cells of a Parquet file with the same bytes are the same. A
        drawn image isn't in it, and no response beside one: ids and texts are drawn together with it.
        """
        return self._digest(
            {
                split: [hashes if len(hashes) > 1 else hashes[0] for hashes in of_split]
                for split, of_split in self.image_contents.items()
            }
        )

    @cached_property
    def fingerprint_by_names(self) -> str:
        """The fingerprint that older records have: with the names and sizes of image files instead of their content."""
        names = {
            split: [[_composed(e.image.name), _size(e.image)] if isinstance(e.image, Path) else None for e in examples]
            for split, examples in self.splits.items()
        }
        return self._digest(names)

    def _digest(self, images: Mapping[Split, Sequence[Any]]) -> str:
        digest = hashlib.sha256()
        for split, examples in self.splits.items():
            digest.update(split.encode())
            for e, image in zip(examples, images[split], strict=True):
                row = [e.id, e.group, e.question, e.claim, e.context, e.options, e.gold, e.category, image]
                if e.response is not None and not _is_drawn(e.image):
                    row.append(e.response)
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

    `skip_missing` leaves out the examples whose image file is missing or damaged, and counts them: for that, all images
    are opened, see `harness.data.opening`. Without `need_images` they are neither looked for nor opened.
    """
    found = {split: _checked(benchmark, split, skip_missing, need_images) for split in splits or benchmark.splits}
    if "pool" in found and not found["pool"][0]:  # a generated pool is as large as asked
        del found["pool"]
    return Dataset(
        benchmark,
        {split: examples for split, (examples, _) in found.items()},
        {split: missing for split, (_, missing) in found.items() if missing},
        need_images,
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
    for number, e in enumerate(examples):
        if not isinstance(e, Example):
            raise DataError(f"{where}, example number {number}: a {type(e).__name__}, expected an Example")
        if e.gold is None and split == "pool" and benchmark.pool_has_golds:
            raise DataError(
                f"{where}, example {e.id!r}: no gold; a pool without golds must say so (pool_has_golds = False)"
            )
        for fault in faults(e, golds=e.gold is not None or split != "pool"):
            raise DataError(f"{where}, example {e.id!r}: {fault}")
    id_, count = Counter(e.id for e in examples).most_common(1)[0] if examples else ("", 0)
    if count > 1:
        raise DataError(f"{where}: {count} examples have the id {id_!r}; ids must be unique in a split")
    examples, missing = _found(examples) if need_images else (examples, set())
    if missing and (not skip_missing or len(missing) == len(examples)):
        first = next(e for e in examples if e.id in missing)
        advice = "check --data-dir" + ("" if skip_missing else ", or leave them out with --skip-missing")
        raise DataError(
            f"{where}: the images of {len(missing)} of {len(examples)} examples are missing, first {first.image_file} "
            f"of example {first.id!r}; {advice}"
        )
    opened = [e for e in examples if e.id not in missing] if skip_missing and need_images else []
    damaged = opening.damaged(opened)
    if damaged and len(missing) + len(damaged) == len(examples):
        first = next(e for e in examples if e.id in damaged)
        raise DataError(
            f"{where}: no image can be used: {len(missing)} are missing, {len(damaged)} are damaged, first "
            f"{first.image_name} of example {first.id!r}: it {damaged[first.id]}; check --data-dir"
        )
    return [e for e in examples if e.id not in missing and e.id not in damaged], len(missing) + len(damaged)


def _found(examples: list[Example]) -> tuple[list[Example], set[str]]:
    """The examples, and the ids of those whose image file doesn't exist. A file of several is looked for once.

    A name with accents may be written in two ways (NFC, NFD): if the file has the other one, the example gets that.
    """
    files = {path for e in examples for path in _files(e)}
    absent = {path for path in files if not os.path.isfile(path)}
    if not absent:
        return examples, set()
    other = {path: found for path in absent if (found := _named_otherwise(path)) is not None}
    if other:
        examples = [_with_names(e, other) if any(path in other for path in _files(e)) else e for e in examples]
    return examples, {e.id for e in examples if any(path in absent for path in _files(e))}


def _files(example: Example) -> list[Path]:
    """The files of its images."""
    return [path for one in example.each_image() if (path := one.image_file) is not None]


def _with_names(example: Example, other: Mapping[Path, Path]) -> Example:
    first, *more = (_moved(one.image, other) if one.image_file in other else one.image for one in example.each_image())
    return replace(example, image=first, more_images=tuple(more))


def _is_drawn(image: ImageSource) -> bool:
    """Whether the image follows from the benchmark's code and settings alone."""
    return callable(image) and not hasattr(image, "path") and not hasattr(image, "content")


def _size(path: Path) -> int | None:
    """None for a file that doesn't exist, where images aren't needed."""
    return path.stat().st_size if path.is_file() else None


def _moved(image: ImageSource, other: Mapping[Path, Path]) -> ImageSource:
    """The image with the path that its file has; a callable only if it is a dataclass with a field `path`."""
    if isinstance(image, Path):
        return other[image]
    if is_dataclass(image) and any(f.name == "path" for f in fields(image)):
        moved: ImageSource = replace(image, path=other[image.path])
        return moved
    return image


def _named_otherwise(path: Path) -> Path | None:
    """The same file with its name, or that of a folder, in the other form of Unicode; None if there is none."""
    if str(path).isascii():
        return None
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, _composed(part), unicodedata.normalize("NFD", part))
        there = next((form for form in forms if os.path.lexists(found / form)), None)
        if there is None:
            return None
        found /= there
    return found if found.is_file() else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def settings_of(benchmark: Benchmark) -> dict[str, Any]:
    """All settings of a benchmark, defaults included; the folder of its files isn't one.

    A setting that came later (`harness.benchmark.LATER`) isn't among them at its default: runs that knew nothing of it
    keep their identity.
    """
    later = {f.name for f in fields(benchmark) if f.metadata.get(LATER) and getattr(benchmark, f.name) == f.default}
    return {name: value for name, value in asdict(benchmark).items() if name not in later | {"data_dir"}}


def load_data(
    benchmark: str, settings: Mapping[str, Any], data_dir: Path | str | None, skip_missing: bool = False
) -> data.Dataset:
    """The checked data of a benchmark with these settings. Raises `ConfigError` or `DataError`."""
    return _dataset(benchmark, _canonical(settings), data_dir, skip_missing)


@lru_cache(maxsize=8)
def _dataset(
    name: str, settings: str, data_dir: Path | str | None, skip_missing: bool, splits: tuple[Split, ...] | None = None
) -> data.Dataset:
    """One copy per process: the runs of a suite share it."""
    return data.load(registry.make_benchmark(name, json.loads(settings), data_dir), splits, skip_missing)


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
