"""Checks of a submitted run: record, tables and weights must be as the store could have written them.

Nothing is unpickled, imported or loaded into a model. Arrow reads Parquet in parts, after the declared size
was checked; the memory for reading is limited too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.api import Split
from harness.data.example_checks import MAX_OPTIONS
from harness.errors import DataError, first_line, near
from harness.evaluation.controls import is_control_name
from harness.record import Record, parse_record
from harness.stats.metrics import NO_ANSWER
from harness.store.schemas import TABLES, WRITTEN
from harness.submission.bundle import MIB, MOST_TABLE, kind, refuse

MOST_DEPTH = 50
"""The maximum nesting depth of a record's JSON."""
MOST_ROWS = 2_000_000
MOST_LETTERS = 1000
"""Bytes of an id, group, category, stage, role or term."""
MOST_NAMES = 1000
"""The maximum number of categories, of figures per split, of stages and of roles."""
MOST_RESAMPLES = 100_000
MOST_TALLIES = 40_000_000
"""Groups (or resamples) times labels and categories: the memory of the bootstrap, 24 bytes each."""
MOST_DRAWS = 10_000_000_000
"""Groups times resamples: the time of the bootstrap, some minutes."""
MOST_MEMORY = 4096 * MIB
"""The additional memory that reading a table may take (enforced on Linux)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that could change what a terminal or a table shows (except line ends and tabs)."""


def unfit(record: Record) -> str:
    """Why a run can't be submitted; empty if it can."""
    if record.kind != "run":
        return f"it is a {record.kind}, which every store computes for itself"
    if record.status != "done":
        return f"it is {record.status}, and only finished runs can be sent"
    return ""


def check_record(file: Path, path: Path, run_id: str) -> Record:
    """The record in `path`, checked. Raises `DataError` unless the store could have written it."""
    try:
        text = path.read_bytes().decode("utf-8")
        for found in _texts(json.loads(text)):
            if _CONTROL.search(found):
                refuse(file, f"{path.name} holds control characters, in {found[:100]!r}")
        record = parse_record(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        refuse(file, f"{path.name} is damaged: {first_line(error)}")
    if isinstance(record, str):
        refuse(file, record)
    if record.run_id != run_id:
        refuse(file, f"{path.name} is of run {record.run_id!r}, the manifest of {run_id!r}")
    if problem := unfit(record):
        refuse(file, problem)
    for field in (
        ("benchmark", "method") if record.provenance.imported else ("benchmark", "method", "student", "ladder")
    ):
        if not _NAME.fullmatch(value := getattr(record, field)):
            refuse(file, f"{field} is {value[:100]!r}; expected letters, digits, '.', '_', '+' and '-'")
    if record.provenance.imported and is_control_name(record.method):
        refuse(file, f"its answers were imported, and its name {record.method!r} is that of a control")
    _check_sizes(file, record)
    return record


def _texts(document: Any) -> Iterator[str]:
    """Every string in a JSON document, keys included. Raises `ValueError` if it is nested too deep."""
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _check_sizes(file: Path, record: Record) -> None:
    data = record.data
    if data is None or not record.metrics:
        refuse(file, "record.json has no data or no figures")
    if unknown := record.metrics.keys() - set(get_args(Split)):
        refuse(file, f"record.json has figures of split {min(unknown)!r}; {near(min(unknown), get_args(Split))}")
    if any(not 0 < size <= 10**12 for size in data.sizes.values()):
        refuse(file, f"sizes of splits are {data.sizes}; expected 1 or more")
    if data.options is not None and not 2 <= len(data.options) <= MAX_OPTIONS:
        refuse(file, f"{len(data.options)} options; expected 2 to {MAX_OPTIONS}")
    counts = [len(record.stages), len(record.cost.roles), len(data.sizes), *map(len, record.metrics.values())]
    if max(counts) > MOST_NAMES:
        refuse(file, f"{max(counts)} stages, roles, splits or figures; expected at most {MOST_NAMES}")


def check_table(file: Path, path: Path, name: str, record: Record) -> None:
    """Raise `DataError` unless a table has the store's columns, at most `MOST_ROWS` rows, and values in range."""
    try:
        with _memory_limit(MOST_MEMORY):
            table = _read(file, path, name)
            if name == "predictions":
                _check_predictions(file, table, record)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        refuse(file, f"{path.name} can't be read: {first_line(error)}")


def _read(file: Path, path: Path, name: str) -> pa.Table:
    """The table, read in parts, so that the declared sizes are checked first."""
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    with pq.ParquetFile(path, thrift_string_size_limit=MIB, thrift_container_size_limit=100_000) as parquet:
        schema, meta = parquet.schema_arrow.remove_metadata(), parquet.metadata
        older = pa.schema([field for field in TABLES[name] if field.name != "text"])
        written = [WRITTEN] if name == "predictions" else []
        if schema not in (TABLES[name], older, *written):
            found = ", ".join(f"{field.name} {field.type}" for field in schema)[:300]
            refuse(file, f"{path.name} has columns {found}; expected {', '.join(TABLES[name].names)}, typed as stored")
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        declared = sum(group.column(i).total_uncompressed_size for group in groups for i in range(meta.num_columns))
        if meta.num_rows > MOST_ROWS or declared > MOST_TABLE:
            most = f"expected at most {MOST_ROWS} and {MOST_TABLE}"
            refuse(file, f"{path.name} declares {meta.num_rows} rows in {declared} bytes; {most}")
        for batch in parquet.iter_batches(batch_size=16 * 1024, use_threads=False):
            rows, size = rows + len(batch), size + batch.nbytes
            if size > MOST_TABLE or rows > MOST_ROWS:
                refuse(file, f"{path.name} holds more than it declares")
            batches.append(batch)
    table = pa.Table.from_batches(batches, schema=schema)
    for field in schema:
        column = table[field.name]
        if field.name == "text":  # what a model wrote, however long
            column.validate(full=True)
            continue
        if column.null_count:
            refuse(file, f"{path.name}: column {field.name} has {column.null_count} null values")
        if pa.types.is_string(field.type) and len(table):
            column.validate(full=True)  # UTF-8
            if pc.max(pc.binary_length(column)).as_py() > MOST_LETTERS:
                refuse(file, f"{path.name}: a {field.name} is longer than {MOST_LETTERS} bytes")
            if any(_CONTROL.search(text) for text in pc.unique(column).to_pylist()):
                refuse(file, f"{path.name}: a {field.name} holds control characters")
    return table


def _check_predictions(file: Path, table: pa.Table, record: Record) -> None:
    """Check that golds, choices and scores are in range, and that computing the figures is bounded in memory and
    time."""
    if not len(table):
        refuse(file, "predictions.parquet has no rows")
    if set(pc.unique(table["split"]).to_pylist()) != record.metrics.keys():
        refuse(file, f"predictions.parquet isn't of the splits that record.json has: {', '.join(record.metrics)}")
    scores = pc.list_value_length(table["scores"])
    fixed = len(record.data.options) if record.data and record.data.options else MAX_OPTIONS
    widths = pc.if_else(pc.equal(scores, 0), fixed, scores)  # imported answers may have no scores
    if pc.max(widths).as_py() > fixed:
        refuse(file, f"predictions.parquet has {pc.max(widths).as_py()} scores for {fixed} options")
    for column, least in (("gold", 0), ("chosen", NO_ANSWER)):
        bad = pc.or_(pc.less(table[column], least), pc.greater_equal(table[column], widths))
        if pc.any(bad).as_py():
            row = table.slice(pc.index(bad, True).as_py(), 1).to_pylist()[0]
            refuse(file, f"example {row['id']!r} of {row['split']}: {column} {row[column]} isn't one of its options")
    groups, categories = (len(pc.unique(table[column])) for column in ("group", "category"))
    evaluate = record.config.get("evaluate")
    count = evaluate.get("resamples", 0) if isinstance(evaluate, Mapping) else 0
    if not isinstance(count, int) or count > MOST_RESAMPLES or categories > MOST_NAMES:
        refuse(file, f"{count!r} resamples, {categories} categories; at most {MOST_RESAMPLES}, {MOST_NAMES}")
    if max(groups, count) * (fixed + categories) > MOST_TALLIES or groups * count > MOST_DRAWS:
        refuse(file, f"{groups} groups, {categories} categories and {count} resamples: too many to recompute")


def check_student(file: Path, path: Path, name: str) -> None:
    """Raise `DataError` unless a file of the student has the format of its name; no model is loaded."""
    if kind(name) == "safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np"):  # checks the header: names, types, shapes, places
                return
        except SafetensorError as error:
            refuse(file, f"{name} isn't a safetensors file: {first_line(error)}")
    try:
        text = path.read_bytes().decode("utf-8")
        found = json.loads(text) if kind(name) == "json" else None
    except (ValueError, RecursionError) as error:
        refuse(file, f"{name} isn't a {kind(name)} file: {first_line(error)}")
    if isinstance(found, dict) and "auto_map" in found:
        refuse(file, f"{name} refers to custom code (auto_map), which isn't allowed")


@contextmanager
def _memory_limit(extra: int) -> Iterator[None]:
    """On Linux, allocations fail beyond `extra` more bytes: a Parquet page may declare a wrong size."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [limit for limit in (soft, hard, used + extra) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
