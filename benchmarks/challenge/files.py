"""The files of the two tasks of the Responsible Multimodal AI Challenge (ACM MM 2025).

Published layout: two folders, `HallucinationDetection` and `FactChecking` (with or without a space between the
words), each with `json/train.json`, `json/val.json`, `json/test.json` and `images/`. `data_dir` is the folder that
has both, or the task's own; the files may also be directly in it, and the validation file may be `validation.json`.
A file is an array of items `{"image_id": "x.jpg", ..., "correct_answer": ..., "correct_choice": "C", "choices":
[{"id": "A", "choice": ...}, ...]}`; items wrapped in `{"metadata": ...}`, as on the site, and choices that
are plain strings are read too. Without a validation file, a tenth of the training images (selected by name) is used.

Sources: the item schema of the challenge's site; folders, files and bare items as participants describe and read
them (the README of "See, Localize and Verify: A GRPO-Powered Framework for Enhancing Factual Accuracy in Multimodal
Models"; a public CLIP baseline that reads `Hallucination Detection/json/val.json` and the items' image_id,
system1_question, system1_answer, choices and correct_choice). The files themselves were not available.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar

from benchmarks.shared.annotations import (
    Row,
    choice,
    data_folder,
    draw,
    image_in,
    items,
    listed,
    new_id,
    shown,
    table,
    text,
)
from harness.api import Benchmark, DataError, Split

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Challenge(Benchmark):
    """A task of the challenge, read from files."""

    licence: ClassVar[str] = "not stated; given to participants for research"
    citation: ClassVar[str] = (
        "Responsible AI challenge: Multimodal Hallucination Detection and Fact Checking. ACM Multimedia 2025."
    )
    homepage: ClassVar[str] = "https://mm-hall-fact.github.io/ACMMM2025"
    obtain: ClassVar[str] = (
        "from the organisers (see the homepage): the folder that holds HallucinationDetection and FactChecking"
    )
    needs_data_dir: ClassVar[bool] = True
    folder: ClassVar[str]
    """The published name of the task's folder, words joined."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a file: its location, its id, its fields, its image, its options and the right ones."""

    where: str
    id: str
    row: Row
    image: Path
    options: tuple[str, ...]
    golds: tuple[int, ...]


def read(benchmark: Challenge, split: Split, key: str) -> Iterator[Item]:
    """The items of a split in the order of its file. `key` is the field with the text to judge. Raises `DataError`."""
    folder = _task_folder(data_folder(benchmark, split), benchmark.folder)
    path, part = _file(folder / "json" if (folder / "json").is_dir() else folder, split)
    seen: dict[str, str] = {}
    for number, (where, outer) in enumerate(items(path), 1):
        row = table(outer, "metadata", where) if "metadata" in outer else outer
        image_id = text(row, "image_id", where)
        if part is not None and part != (draw("challenge validation", image_id) < VALIDATION_SHARE):
            continue
        options, golds = _options(row, where)
        new_id(seen, repr((image_id, text(row, key, where), row.get("context"), options)), where)
        yield Item(where, f"{path.stem}-{number}", row, image_in(folder / "images", image_id, where), options, golds)


def _task_folder(folder: Path, name: str) -> Path:
    """The task's own folder inside `folder`, by its published name; `folder` itself if there is none."""
    inside = (path for path in sorted(folder.iterdir()) if path.name.replace(" ", "").lower() == name.lower())
    return next((path for path in inside if path.is_dir()), folder)


def _file(folder: Path, split: Split) -> tuple[Path, bool | None]:
    """The file of a split; and, if the training file is divided, whether the split is the smaller part."""
    validation = next((p for name in ("validation", "val") if (p := folder / f"{name}.json").exists()), None)
    if split == "test":
        return folder / "test.json", None
    if validation is not None:
        return (folder / "train.json" if split == "train" else validation), None
    return folder / "train.json", split == "validation"


def _options(row: Row, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The options' texts and the indices of the right ones; both fields with the answer must agree."""
    entries = listed(row, "choices", where, least=2, most=len(ascii_uppercase))
    options = tuple(_option(entry, k, f"{where}, choice {k + 1}") for k, entry in enumerate(entries))
    if len(set(options)) < len(options):
        raise DataError(f"{where}: choices contains a text twice: {shown(options)}")
    letters = row.get("correct_choice")
    if isinstance(letters, str):
        letters = [part.strip() for part in letters.split(",")]
    if not isinstance(letters, list) or not letters or not all(isinstance(x, str) for x in letters):
        raise DataError(
            f"{where}: correct_choice is {shown(row.get('correct_choice'))}, expected a letter, or several in a list"
        )
    known = ascii_uppercase[: len(options)]
    golds = tuple(sorted({known.index(choice({"correct_choice": x}, "correct_choice", where, known)) for x in letters}))
    answer = row.get("correct_answer")
    if isinstance(answer, str | bool) and len(golds) == 1 and _folded(answer) != _folded(options[golds[0]]):
        raise DataError(
            f"{where}: correct_answer {shown(answer)} is not the text of choice {known[golds[0]]}, "
            f"{shown(options[golds[0]])}"
        )
    return options, golds


def _option(entry: Any, place: int, where: str) -> str:
    if isinstance(entry, dict):
        choice(entry, "id", where, [ascii_uppercase[place]])  # the letters must run from A
        entry = entry.get("choice")
    if isinstance(entry, bool):  # "choices": [true, false, ...] in JSON
        entry = str(entry)
    return " ".join(text({"choice": entry}, "choice", where).split())


def _folded(value: str | bool) -> str:
    return " ".join(str(value).lower().split())
