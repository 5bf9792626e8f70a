"""Writes the compacted catalogue that `harness.store.catalog` reads; unchanged files are reused."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import StoreError
from harness.stats.bootstrap import RESAMPLES
from harness.stats.replicates import ExampleOrder
from harness.store import index
from harness.store.backend import CATALOGUE
from harness.store.catalog import ANSWERS, BATCH, DRAWS_ENCODING, EXAMPLES, View, answers_of, read
from harness.store.index import BROKEN, RunSummary
from harness.store.manifest import DataKey, Manifest, Part, TableFiles, name_of
from harness.store.store import Store
from harness.versions import CATALOG

SMALL = 1024
"""A file with answers of fewer runs than this is rewritten together with those of new runs."""


@dataclass(frozen=True)
class Compacted:
    """The result of `compact`."""

    runs: int
    new: int
    gone: int
    """Lines that were dropped: of runs deleted or replaced since the last `compact`."""
    broken: int
    """Runs that can't be read; they are left out."""
    tables: int
    files_written: int
    bytes_written: int
    seconds: float


def compact(store: Store) -> Compacted:
    """Bring the catalogue up to date with the runs; only tables with new or lost runs are rewritten."""
    clock = time.perf_counter()
    if store.packed:
        store.check_writable()
    view = View(store, index.RUNS.names)
    old = view.manifest
    everything = view.lines(index.RUNS.names)
    runs = [e for e in index.from_arrow(everything) if e.status != BROKEN]
    known = set(view.compacted["run_id"].to_pylist())
    by_data: dict[DataKey, list[RunSummary]] = {}
    for run in runs:
        if run.status == "done":
            by_data.setdefault(run.data_key, []).append(run)
    with _written(store), tempfile.TemporaryDirectory(dir=_scratch(store)) as folder:
        writer = _Writer(store, Path(folder))
        tables = [_compact_table(view, writer, key, members, known) for key, members in sorted(by_data.items())]
        # A run that can't be read now may be readable the next time, without being changed.
        readable = [e.run_id for e in runs if e.run_id not in view.unreadable]
        lines = everything.filter(pc.is_in(everything["run_id"], value_set=pa.array(readable, pa.string())))
        name = writer.write("runs", lines)
        manifest = Manifest(
            version=CATALOG,
            resamples=RESAMPLES,
            runs=name,
            count=lines.num_rows,
            tables=tuple(tables),
        )
        text = manifest.model_dump_json(indent=1).encode()
        writer.put(name_of(f"{time.time_ns():020d}", text, ".json"), text)  # names sort by time
    broken = everything.num_rows - lines.num_rows
    return Compacted(
        runs=everything.num_rows,
        new=view.fresh.num_rows - broken,
        gone=old.count - len(known) if old else 0,
        broken=broken,
        tables=len(tables),
        files_written=writer.files,
        bytes_written=writer.bytes,
        seconds=time.perf_counter() - clock,
    )


def _compact_table(
    view: View, writer: _Writer, data_key: DataKey, members: Sequence[RunSummary], known: set[str]
) -> TableFiles:
    """The files of one table; the old ones if nothing changed."""
    old = view.files(data_key)
    alive = {run.run_id for run in members if run.run_id in known}
    parts: list[Part] = []
    rewritten: list[Part] = []
    found: dict[str, set[str]] = {}
    """The runs in each file that can be read."""
    for part in old.parts if old else ():
        with suppress(StoreError):
            found[part.file] = set(read(view.store, part.file, ["run_id"])["run_id"].to_pylist())
    lost = old is None or len(found) < len(old.parts)
    held = {run_id for run_ids in found.values() for run_id in run_ids}
    new = [run for run in members if run.run_id not in known or (lost and run.run_id not in held)]
    for part in old.parts if old else ():
        if part.file in found:
            small = bool(new) and part.runs < SMALL
            (rewritten if small or found[part.file] - alive else parts).append(part)
    if old is not None and not lost and not new and not rewritten:
        return old
    order = view.example_order(data_key)
    sets = set(order.sets)

    def answers() -> Iterator[pa.Table]:
        for part in rewritten:
            table = read(view.store, part.file)
            yield table.filter(pc.is_in(table["run_id"], value_set=pa.array(sorted(alive), pa.string())))
        for start in range(0, len(new), BATCH):
            yield answers_of(view.store, new[start : start + BATCH], order, view.unreadable)

    if new or rewritten:
        name, runs = writer.stream("answers", ANSWERS, answers())
        parts += [Part(file=name, runs=runs)] if runs else []
    same_sets = old is not None and set(order.sets) == sets
    examples = old.examples if old is not None and same_sets else writer.write("examples", _examples_table(order))
    benchmark, revision, fingerprint = data_key
    return TableFiles(
        benchmark=benchmark, revision=revision, fingerprint=fingerprint, examples=examples, parts=tuple(parts)
    )


def _examples_table(order: ExampleOrder) -> pa.Table:
    lines = [
        {
            "key": examples.key,
            "examples": examples.table.num_rows,
            "groups": examples.groups,
            "golds": examples.examples_per_replicate.astype("<i8").tobytes(),
            **{name: examples.table[name].to_pylist() for name in ("id", "group", "category", "gold")},
        }
        for examples in order.sets.values()
    ]
    return pa.Table.from_pylist(lines, schema=EXAMPLES)


class _Writer:
    """Writes files of the catalogue locally, then moves them into the store; counts what it wrote."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.files = self.bytes = 0

    def write(self, kind: str, table: pa.Table) -> str:
        return self.stream(kind, table.schema, iter([table]))[0]

    def stream(self, kind: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> tuple[str, int]:
        """Write tables one after another. Returns the file's name, and how many runs have lines in it."""
        runs: set[str] = set()
        file = self.folder / f"{kind}.parquet"
        options: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
        if kind == "answers":
            options |= {"use_dictionary": ["run_id", "split", "examples"], "column_encoding": DRAWS_ENCODING}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for table in tables:
                if kind != "answers":
                    writer.write_table(table)
                    continue
                runs.update(table["run_id"].to_pylist())
                for split in sorted(set(table["split"].to_pylist())):  # a row group holds lines of one split
                    of_split = table.filter(pc.equal(table["split"], split))
                    writer.write_table(of_split, row_group_size=2 * BATCH)
        name = name_of(kind, file.read_bytes(), ".parquet")
        self._place(file, name)
        return name, len(runs)

    def put(self, name: str, data: bytes) -> None:
        file = self.folder / name
        file.write_bytes(data)
        self._place(file, name)

    def _place(self, file: Path, name: str) -> None:
        self.files += 1
        self.bytes += file.stat().st_size
        self.store.backend.put(file, f"{CATALOGUE}/{name}")


def _scratch(store: Store) -> Path:
    """The local folder where files are written first."""
    folder = store.backend.scratch / CATALOGUE
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _written(store: Store) -> Iterator[None]:
    """Within the context, an error of the disk (read-only, full) is a `StoreError`. What was there stays in use."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"the catalogue of {store.url!r} can't be written: {error.strerror or error}; compact it as a user who may "
            "write there, or on a disk with room; until then rankings use the runs themselves"
        ) from None
