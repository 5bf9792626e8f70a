"""Which columns of somebody's rows are the question, the image, the options, the answer: a proposal to be checked.

Columns are recognised by customary names and by their values; what isn't recognised is left out, and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from harness.api import DataError, csv_rows, read_text
from harness.errors import first_line

Row = Mapping[str, Any]
GoldForm = Literal["label", "index", "index from 1", "letter", "text"]
"""How the answer is given: a label that is the same in all rows, or the index (from 0 or 1), letter or text of one of
the row's own options."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qid", "uid", "sample_id", "index", ""),
    "image": ("image", "image_path", "image_file", "image_name", "img", "img_path", "file_name", "filename", "path"),
    "question": ("question", "query", "prompt", "instruction"),
    "claim": ("claim", "caption", "statement", "sentence", "hypothesis", "text"),
    "context": ("context", "evidence", "passage", "background"),
    "options": ("options", "choices", "candidates", "answers"),
    "gold": ("label", "gold", "gt_answer", "answer", "target", "correct", "correct_answer", "gt", "ground_truth"),
    "category": ("category", "type", "kind", "subset", "topic", "relation"),
    "split": ("split", "fold", "partition"),
}
"""What a column of an example may be called, the most customary first."""
ORDER = ("yes", "true", "accurate", "no", "false", "inaccurate")
"""The customary order of verdicts."""
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLITS |= {"dev": "validation", "test": "test", "eval": "test", "testing": "test"}
"""What splits are called."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Proposal:
    """The columns of an example, and the labels in the order of the options (empty: each row has its own options)."""

    columns: Mapping[str, str]
    option_columns: Sequence[str] = ()
    labels: Sequence[str] = ()
    gold_form: GoldForm = "label"
    image_in_row: bool = False
    """The image itself is a cell, not a file's name."""
    unused: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """The annotation files, by split ("": all splits in one), relative to the data folder, and all of their rows."""

    folder: Path
    files: Mapping[str, Path]
    rows: Mapping[str, Sequence[Row]] = field(repr=False)
    images: str = ""
    """The folder of the images inside `folder`; empty: beside the files."""


# ----------------------------------------------------------------------------------------- reading


def find_files(path: Path) -> Source:
    """The annotation file at `path`, or those of a folder: one, or one for each split. Raises `DataError`."""
    if path.is_file():
        return Source(path.parent, {"": Path(path.name)}, {"": _rows(path)}, "")
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected rows as CSV, JSON, JSON lines or Parquet")
    inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    named = {p: SPLITS.get(p.stem.lower().partition("-")[0]) or SPLITS.get(p.parent.name.lower()) for p in inside}
    by_split: dict[str, list[Path]] = {}
    for p, split in named.items():
        if split:
            by_split.setdefault(split, []).append(p)
    if by_split and all(p.suffix == ".parquet" or len(some) == 1 for some in by_split.values() for p in some):
        rows = {split: [row for p in some for row in _rows(p)] for split, some in by_split.items()}
        return Source(path, {split: some[0].relative_to(path) for split, some in by_split.items()}, rows)
    if len(inside) == 1:
        return Source(path, {"": inside[0].relative_to(path)}, {"": _rows(inside[0])})
    found = ", ".join(str(p.relative_to(path)) for p in inside[:5]) or "none"
    raise DataError(
        f"{path}: expected one annotation file, or one for each split (train, validation, test), found {found}; "
        "name the file instead of the folder"
    )


def _rows(path: Path) -> list[Row]:
    """The rows of a file; an image column has the value `b""`."""
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            table = [row for _, row in csv_rows(read_text(path), "\t" if kind == ".tsv" else "") if row]
            rows: list[Any] = [dict(zip(table[0], row, strict=True)) for row in table[1:]] if table else []
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in read_text(path).split("\n") if line.strip()]
        elif kind == ".json":
            rows = json.loads(read_text(path))
        elif kind == ".parquet":
            rows = _parquet(path)
        else:
            raise DataError(f"{path}: unknown file type; expected {', '.join(SUFFIXES)}")
    except DataError:
        raise
    except Exception as error:  # of csv, json and Arrow
        raise DataError(f"{path}: can't be read: {first_line(error)}") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected rows: an array of objects, an object a line, or a table with a header")
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        kinds = {f.name: f.type for f in file.schema_arrow}
        images = [n for n, t in kinds.items() if pa.types.is_struct(t) and {f.name for f in t} == {"bytes", "path"}]
        rows = file.read(columns=[name for name in kinds if name not in images]).to_pylist()
        rows = rows or [{} for _ in range(file.metadata.num_rows)]
    return [row | dict.fromkeys(images, b"") for row in rows]


# --------------------------------------------------------------------------------------- proposing


def propose(source: Source) -> Proposal:
    """The mapping that fits the rows. Raises `DataError` if there is no image or no answer in them."""
    rows = [row for some in source.rows.values() for row in some]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns: dict[str, str] = {}
    for part, known in NAMES.items():
        for name in sorted(names, key=lambda name: known.index(name.lower()) if name.lower() in known else len(known)):
            if name.lower() in known and name not in columns.values() and _fits(part, [row.get(name) for row in rows]):
                columns[part] = name
                break
    if "question" not in columns and columns.get("claim", "").lower() == "text":
        columns["question"] = columns.pop("claim")
    option_columns = _option_columns(names)
    if option_columns and set(option_columns) & set(columns.values()):
        option_columns = []
    for part in ("image", "gold"):
        if part not in columns:
            raise DataError(
                f"{source.folder}: no column for the {'image' if part == 'image' else 'answer'} among "
                f"{', '.join(names)}; name it like {NAMES[part][0]!r}, or write the loader by hand "
                "(docs/adding_a_benchmark.md)"
            )
    golds = [row.get(columns["gold"]) for row in rows]
    if option_columns or "options" in columns:
        options = [
            [str(row.get(name, "")) for name in option_columns] if option_columns else list(row[columns["options"]])
            for row in rows
        ]
        labels: Sequence[str] = ()
        form = _gold_form(golds, options)
        if form is None:
            raise DataError(
                f"{source.folder}: column {columns['gold']!r} is {golds[0]!r} in the first row; expected an index, a "
                "letter or the text of one of its options in every row"
            )
    else:
        labels, form = _labels(golds), "label"
        if not 2 <= len(labels) <= len(ascii_uppercase):
            raise DataError(
                f"{source.folder}: column {columns['gold']!r} has {len(labels)} different values, and there is no "
                f"column of options (like {', '.join(NAMES['options'][:2])}, or A, B, C): expected 2 to 26 labels"
            )
        columns.pop("options", None)
    used = {*columns.values(), *option_columns}
    in_row = isinstance(rows[0].get(columns["image"]), bytes)
    return Proposal(columns, option_columns, labels, form, in_row, [name for name in names if name not in used])


def _fits(part: str, values: Sequence[Any]) -> bool:
    """Whether a column of a fitting name has fitting values."""
    if part == "id":
        return len({str(value) for value in values}) == len(values)
    if part == "image":
        names = [value for value in values if isinstance(value, str)]
        return all(value == b"" for value in values) or (
            len(names) == len(values) and all(name.lower().endswith(PICTURES) for name in names)
        )
    if part == "options":
        return all(isinstance(value, list) and len(value) > 1 for value in values)
    if part == "gold":
        return not any(value is None or isinstance(value, list | dict) for value in values)
    if part == "split":
        return all(str(value).lower() in SPLITS for value in values)
    return all(isinstance(value, str) for value in values) and any(value.strip() for value in values)


def _option_columns(names: Sequence[str]) -> list[str]:
    """Columns A, B, C, or with a common beginning: option_a, option_b; choice0, choice1."""
    for prefix in ("", "option_", "option", "choice_", "choice", "opt_"):
        for ends in (ascii_uppercase, ascii_uppercase.lower(), "123456789", "0123456789"):
            found = [f"{prefix}{end}" for end in ends]
            held = [{name.lower() if prefix else name: name for name in names}.get(f) for f in found]
            run = [name for name in held[: held.index(None) if None in held else None] if name is not None]
            if len(run) >= 2:
                return run
    return []


def _gold_form(golds: Sequence[Any], options: Sequence[Sequence[str]]) -> GoldForm | None:
    """How the golds name the rows' options; None if in none of the ways."""
    said = [str(gold).strip() for gold in golds]
    sizes = [len(some) for some in options]
    if all(s in map(str, some) for s, some in zip(said, options, strict=True)):
        return "text"
    if all(len(s) == 1 and s.upper() in ascii_uppercase[:n] for s, n in zip(said, sizes, strict=True)):
        return "letter"
    if all(s.isdigit() for s in said):
        numbers = [int(s) for s in said]
        if all(k < n for k, n in zip(numbers, sizes, strict=True)) and 0 in numbers:
            return "index"
        if all(1 <= k <= n for k, n in zip(numbers, sizes, strict=True)):
            return "index from 1"
    return None


def _labels(golds: Sequence[Any]) -> list[str]:
    """The different labels in lower case: verdicts in their customary order, others by first appearance."""
    seen = list(dict.fromkeys(str(gold).strip().lower() for gold in golds))
    if set(seen) <= {"0", "1"}:
        return ["1", "0"]
    return sorted(seen, key=lambda label: ORDER.index(label) if label in ORDER else len(ORDER))
