"""Published annotation files as rows, and rows as typed values; errors name the file and item.

`items` (or `read_rows`) yields the rows of a file; `text`, `integer`, `choice`, ... read one value of a
row; `image_in` turns a name into a path inside the data folder. All of them raise
`DataError` in one line that starts with the location of the error. Nothing here opens an image.
"""

from __future__ import annotations

import csv
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from harness.api import Benchmark, ConfigError, DataError, Split, csv_rows, read_text

Row = dict[str, Any]
Layout = Literal["json", "jsonl", "csv", "tsv", "parquet"]

MAX_BYTES = 1 << 30
"""A larger annotation file is refused: it must be something else."""
MAX_TEXT = 1 << 20
"""The maximum number of characters in a field."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 78
_short.maxlist = _short.maxdict = 8


# --------------------------------------------------------------------------------------------- folders


def data_folder(benchmark: Benchmark, split: Split) -> Path:
    """The folder to read from. Raises `ConfigError` if there is none, or no such split."""
    if split not in benchmark.splits:
        raise ConfigError(f"{benchmark.name} has no split {split!r}; it has {', '.join(benchmark.splits)}")
    if benchmark.data_dir is None:
        raise ConfigError(f"{benchmark.name} reads published files: give their folder with --data-dir")
    if not benchmark.data_dir.is_dir():
        raise DataError(f"{benchmark.name}: data folder {benchmark.data_dir} does not exist or is not a folder")
    return benchmark.data_dir


def image_in(folder: Path, name: str, where: str) -> Path:
    """The path of `name` (with slashes) in `folder`; the file need not exist, and may be a link of the user's own.

    Raises `DataError` for a name that is empty, absolute, too long, or contains `..`, a backslash or a control
    character: a name in a file leads nowhere but into the folder.
    """
    parts = name.split("/")
    if (
        not name.strip()
        or name.startswith("/")
        or any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts)
        or any(c == "\\" or c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in name)
        or len(name) > 1024
        or ":" in parts[0][:2]
    ):
        raise DataError(f"{where}: image is {shown(name)}, expected the name of a file inside {folder}")
    return folder / PurePosixPath(name)


# ----------------------------------------------------------------------------------------------- files


def items(path: Path, key: str = "", layout: Layout | None = None) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with its location for errors (`FILE: item N`, from 1)."""
    for number, row in enumerate(read_rows(path, key, layout), 1):
        yield f"{path}: item {number}", row


def read_rows(path: Path, key: str = "", layout: Layout | None = None) -> list[Row]:
    """The rows of a file in its order, one dict each; the format follows from the suffix unless `layout` is given.

    json: an array of objects, or the array under `key` in an object. jsonl: one object per line, empty
    lines skipped. csv (commas or semicolons), tsv: a header, then text values. parquet: all columns except those of
    bytes (images). Text is UTF-8 or Windows-1252. Raises `DataError` for a file that is missing, empty, damaged or has
    another structure.
    """
    kind = layout or path.suffix.lower().removeprefix(".")
    if kind == "parquet":
        rows = _parquet(path)
    elif kind in ("csv", "tsv"):
        rows = _csv(path, _read(path), "" if kind == "csv" else "\t")
    elif kind == "jsonl":
        rows = [
            _object(_json(line, f"{path}: line {number}"), f"{path}: line {number}")
            for number, line in enumerate(_read(path).split("\n"), 1)
            if line.strip()
        ]
    elif kind == "json":
        found = _json(_read(path), str(path))
        if key:
            found = _object(found, str(path)).get(key)
        if not isinstance(found, list):
            under = f" under {key!r}" if key else ""
            raise DataError(f"{path}: {_kind(found)}{under}, expected an array of objects")
        rows = [_object(row, f"{path}: item {number}") for number, row in enumerate(found, 1)]
    else:
        raise DataError(f"{path}: unknown file type: expected .json, .jsonl, .csv, .tsv or .parquet")
    if not rows:
        raise DataError(f"{path}: contains no items")
    return rows


def read_table(path: Path) -> dict[str, Row]:
    """A JSON object of objects: rows by their key. Raises `DataError`, see `read_rows`."""
    found = _object(_json(_read(path), str(path)), str(path))
    if not found:
        raise DataError(f"{path}: contains no items")
    return {key: _object(row, f"{path}: item {shown(key)}") for key, row in found.items()}


def _read(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: does not exist: expected the published layout")
    if not path.is_file():  # reading a pipe or a device could block forever
        raise DataError(f"{path}: is not a file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, expected an annotation file of at most 1 GiB")
        return read_text(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be read") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(k for k in keys if keys.count(k) > 1))} occurs twice in one object")
    return found


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: {_kind(value)}, expected an object")
    return value


def _csv(path: Path, text: str, delimiter: str) -> list[Row]:
    rows: list[Row] = []
    header: list[str] | None = None
    try:
        for number, values in csv_rows(text, delimiter):
            if header is None:
                header = values
                if len(set(header)) < len(header):
                    raise DataError(f"{path}: line 1: two columns have the same name: {shown(header)}")
            elif values:
                if len(values) != len(header):
                    raise DataError(f"{path}: line {number}: {len(values)} fields, expected {len(header)}")
                rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from None
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: does not exist: expected the published layout")
    try:
        with pq.ParquetFile(path) as file:
            kept = [field.name for field in file.schema_arrow if not _has_bytes(field.type)]
            rows: list[Row] = file.read(columns=kept).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a Parquet file that can be read ({reason})") from None
    return rows


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


# ---------------------------------------------------------------------------------------------- values


def text(row: Mapping[str, Any], key: str, where: str, blank: bool = False) -> str:
    """The text under `key`, unchanged. Unless `blank`, it must not be only white space.

    Raises `DataError` if it is missing, not a string, longer than `MAX_TEXT`, or contains invalid characters (NUL,
    half a surrogate pair).
    """
    value = row.get(key)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise _wrong(row, key, where, "a text")
    if len(value) > MAX_TEXT:
        raise DataError(f"{where}: {key} has {len(value):,} characters, expected at most {MAX_TEXT:,}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise _wrong(row, key, where, "text in Unicode")
    if "\0" in value:
        raise _wrong(row, key, where, "text without NUL characters")
    return value


def integer(row: Mapping[str, Any], key: str, where: str, low: int = 0, high: int | None = None) -> int:
    """The integer under `key` (or its digits as text), from `low` to `high`. Raises `DataError`."""
    value = row.get(key)
    if isinstance(value, str) and len(value) <= 18 and value.isascii() and value.removeprefix("-").isdigit():
        value = int(value)
    if type(value) is not int or value < low or (high is not None and value > high):
        most = f" to {high}" if high is not None else " or more"
        raise _wrong(row, key, where, f"an integer, {low}{most}")
    return value


def choice(row: Mapping[str, Any], key: str, where: str, options: Sequence[str]) -> str:
    """The option under `key` (ignoring case and outer spaces), as `options` spell it. Raises `DataError`."""
    value = row.get(key)
    if isinstance(value, str):
        for option in options:
            if option.lower() == value.strip().lower():
                return option
    few = ", ".join(map(repr, options[:20])) + (", ..." if len(options) > 20 else "")
    raise _wrong(row, key, where, f"one of {few}")


def table(row: Mapping[str, Any], key: str, where: str) -> Row:
    """The object under `key`. Raises `DataError`."""
    value = row.get(key)
    if not isinstance(value, dict):
        raise _wrong(row, key, where, "an object")
    return value


def listed(row: Mapping[str, Any], key: str, where: str, least: int = 0, most: int | None = None) -> list[Any]:
    """The list under `key`, of `least` to `most` items. Raises `DataError`."""
    value = row.get(key)
    if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
        size = f" of {least} to {most} items" if most is not None else f" of {least} or more items" if least else ""
        raise _wrong(row, key, where, f"a list{size}")
    return value


def new_id(seen: dict[str, str], id_: str, where: str) -> str:
    """`id_`, recorded in `seen` with its location. Raises `DataError` with both locations if it is a duplicate."""
    if id_ in seen:
        raise DataError(f"{where}: the id {shown(id_)} is already used by {seen[id_]}")
    seen[id_] = where
    return id_


def draw(*parts: object) -> float:
    """A number from 0 to below 1 that depends only on these values: the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) / 2**64


def shown(value: Any) -> str:
    """The value for an error message: at most 80 characters, on one line."""
    said = _short.repr(value)
    return said if len(said) <= 80 else said[:77] + "..."


def _wrong(row: Mapping[str, Any], key: str, where: str, expected: str) -> DataError:
    found = f"is {shown(row[key])}" if key in row else f"is missing (there are {shown(sorted(map(str, row)))})"
    return DataError(f"{where}: {key or 'the column without a name'} {found}, expected {expected}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a text", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")
