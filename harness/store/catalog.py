"""The compacted catalogue: what lists and rankings need of all runs in a few Parquet files, and what is new.

    <root>/.catalogue/<generation>.json       the manifest: which files make up this state of the catalogue
    <root>/.catalogue/runs-*.parquet          one line a run (`harness.store.index.RUNS`)
    <root>/.catalogue/answers-*.parquet       of the runs on one data: choices, figures and draws, by run and split
    <root>/.catalogue/examples-*.parquet      the examples that those answers are to
    <root>/.catalogue/cache/                  rankings as they were last computed (local)

Files are written under new names and never changed; a manifest is put in place last, whole, and the newest one
counts. So a reader beside a `compact`, or two of them at once, sees one state or the other. A reader takes the
catalogue and one listing of the root: a run whose stamp it knows needs no file opened, one that is new or was
replaced is read from its folder. A catalogue that is damaged or of another version is left aside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import DataError, StoreError
from harness.stats import replicates
from harness.stats.bootstrap import RESAMPLES
from harness.stats.metrics import Ints
from harness.stats.replicates import STORED_METRICS, Canon, Examples
from harness.store import index
from harness.store.index import BROKEN, Entry
from harness.store.local import CATALOGUE
from harness.store.manifest import VERSION, DataKey, Manifest, Part, TableFiles, newest
from harness.store.store import Store

BATCH = 128
"""Runs whose draws are made at once; a row group holds at most so many lines."""
SMALL = 1024
"""A file of answers of fewer runs is joined with those of new runs."""

ANSWERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("split", pa.string()),
        ("examples", pa.string()),  # key of their `Examples`, "" with a problem
        ("problem", pa.string()),  # why the answers give no figures
        ("chosen", pa.large_binary()),
        *((name, pa.float64()) for name in STORED_METRICS),
        *((f"{name}_draws", pa.large_binary()) for name in STORED_METRICS),
    ]
)
EXAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("examples", pa.int64()),
        ("groups", pa.int64()),
        ("golds", pa.large_binary()),  # examples drawn by each resample, int64
        ("id", pa.list_(pa.string())),
        ("group", pa.list_(pa.string())),
        ("category", pa.list_(pa.string())),
        ("gold", pa.list_(pa.int32())),
    ]
)
_READ = ("split", "id", "group", "category", "gold", "chosen")


# ------------------------------------------------------------------------------------------- reading


def read(store: Store, name: str, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """A Parquet file of the catalogue. Raises `StoreError` where it is missing or damaged."""
    try:
        file = pa.BufferReader(store.place.read(f"{CATALOGUE}/{name}"))  # whole: of a bucket that is one request
        return pq.read_table(file, columns=None if columns is None else list(columns), **options)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
        raise StoreError(f"catalogue file {name!r} can't be read: {error}; `hkdbench store compact` mends it") from None


class Size(NamedTuple):
    """How large an example set is, and how many of its examples each resample drew."""

    examples: int
    groups: int
    examples_per_replicate: Ints


class View:
    """All runs of a store at one moment: the catalogue's lines, and those of runs that it doesn't know yet."""

    def __init__(
        self, store: Store, columns: Sequence[str] = index.LIGHT, stamps: dict[str, str] | None = None
    ) -> None:
        self.store = store
        self.stamps = store.stamps() if stamps is None else stamps
        self._canons: dict[DataKey, Canon] = {}
        self._sizes: dict[DataKey, dict[str, Size]] = {}
        self.manifest = self._newest()
        try:
            self._open(columns)
        except StoreError:  # damaged; or a newer state took its place, and this one was swept: look again
            found = self._newest()
            self.manifest = None if found == self.manifest else found
            self._open(columns)

    def _newest(self) -> Manifest | None:
        found = newest(self.store.place)
        return found if found is not None and found.resamples == RESAMPLES else None

    def _open(self, columns: Sequence[str]) -> None:
        self.kept = index.RUNS.empty_table().select(columns)
        if self.manifest is not None:
            lines = read(self.store, self.manifest.runs, columns)
            now = pa.array([self.stamps.get(run_id) for run_id in lines["run_id"].to_pylist()], pa.string())
            self.kept = lines.filter(pc.fill_null(pc.equal(lines["stamp"], now), False))
        known = set(self.kept["run_id"].to_pylist())
        fresh = (run_id for run_id in self.stamps if run_id not in known)
        loaded = ((self.store.settled(run_id), self.stamps[run_id]) for run_id in fresh)
        self.fresh = index.to_arrow((record, stamp) for record, stamp in loaded if record is not None)

    def lines(self, columns: Sequence[str] = index.LIGHT) -> pa.Table:
        """One line a run by id, see `entries.RUNS`; only columns that the view was opened with."""
        return pa.concat_tables([self.kept.select(columns), self.fresh.select(columns)]).sort_by("run_id")

    def answers(
        self, data_key: DataKey, split: str, columns: Sequence[str], runs: Sequence[Entry]
    ) -> Iterator[pa.Table]:
        """The answers (`ANSWERS`) of these runs to a split, in tables of bounded size; draws of new ones are made."""
        fresh = set(self.fresh["run_id"].to_pylist())
        wanted = pa.array([run.run_id for run in runs if run.run_id not in fresh], pa.string())
        of_table = self._files(data_key)
        if of_table is not None and len(wanted):
            for part in of_table.parts:
                table = read(
                    self.store, part.file, list(dict.fromkeys([*columns, "run_id"])), filters=pc.field("split") == split
                )
                yield table.filter(pc.is_in(table["run_id"], value_set=wanted)).select(columns)
        new = [run for run in runs if run.run_id in fresh and run.status == "done"]
        for start in range(0, len(new), BATCH):
            yield answers_of(self.store, new[start : start + BATCH], self._canon(data_key), split).select(columns)

    def examples(self, data_key: DataKey) -> dict[str, Examples]:
        """The example sets of the runs on these data by key; complete once `answers` was read."""
        return self._canon(data_key).sets

    def sizes(self, data_key: DataKey) -> dict[str, Size]:
        """The sizes of the example sets of the runs on these data by key; complete once `answers` was read."""
        if data_key not in self._sizes:
            found: dict[str, Size] = {}
            if (of_table := self._files(data_key)) is not None:
                lines = read(self.store, of_table.examples, ["key", "examples", "groups", "golds"]).to_pylist()
                for x in lines:
                    found[x["key"]] = Size(x["examples"], x["groups"], np.frombuffer(x["golds"], dtype="<i8"))
            self._sizes[data_key] = found
        sizes = self._sizes[data_key]
        for key, known in self._canons.get(data_key, Canon()).sets.items():
            if key not in sizes:
                sizes[key] = Size(known.table.num_rows, known.groups, known.examples_per_replicate)
        return sizes

    def _files(self, data_key: DataKey) -> TableFiles | None:
        tables = self.manifest.tables if self.manifest else ()
        return next((table for table in tables if table.data_key == data_key), None)

    def _canon(self, data_key: DataKey) -> Canon:
        if data_key not in self._canons:
            of_table = self._files(data_key)
            self._canons[data_key] = Canon(_examples(self.store, of_table.examples) if of_table else ())
        return self._canons[data_key]


def _examples(store: Store, name: str) -> list[Examples]:
    lines = read(store, name, ["key", "id", "group", "category", "gold"])
    found = []
    for line in range(lines.num_rows):
        columns = {c: lines[c][line].values for c in ("id", "group", "category", "gold")}
        found.append(Examples(lines["key"][line].as_py(), pa.table(columns)))
    return found


# ------------------------------------------------------------------------------------------- answers


def answers_of(store: Store, runs: Sequence[Entry], canon: Canon, split: str | None = None) -> pa.Table:
    """The answers (`ANSWERS`) of finished runs on one data from their predictions, of a split or of all."""
    lines: list[dict[str, Any]] = []
    taken: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for run in runs:
        try:
            table = store.table(run.run_id, "predictions", _READ)
        except StoreError:  # a run without predictions has no line
            continue
        for name in table["split"].unique().to_pylist():
            if split not in (None, name):
                continue
            line: dict[str, Any] = {"run_id": run.run_id, "split": name, "examples": "", "chosen": b""}
            lines.append(line)
            try:
                line["examples"], chosen_n = canon.take(table.filter(pc.equal(table["split"], name)))
            except DataError as error:
                line["problem"] = str(error)
                continue
            line["chosen"] = replicates.pack_choices(chosen_n)
            taken.setdefault(line["examples"], []).append((line, chosen_n))
    options = next((run.options for run in runs if run.options), None)
    for key, of_set in taken.items():
        examples = canon.sets[key]
        chosen_rn = np.stack([chosen_n for _, chosen_n in of_set])
        try:
            drawn = replicates.replicate_all(examples, chosen_rn, len(options) if options else None, STORED_METRICS)
        except DataError as error:
            for line, _ in of_set:
                line["problem"] = str(error)
            continue
        for metric, of_runs in drawn.items():
            for r, (line, _) in enumerate(of_set):
                line[metric] = float(of_runs.points_r[r])
                if of_runs.replicates_rn is not None:
                    packed = replicates.pack(metric, of_runs.replicates_rn[r], examples.examples_per_replicate)
                    line[f"{metric}_draws"] = packed
    lines.sort(key=lambda line: (line["split"], line["run_id"]))
    return pa.Table.from_pylist(lines, schema=ANSWERS)


# ------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class Compacted:
    """What a `compact` did."""

    runs: int
    new: int
    gone: int
    """Lines that were dropped: of runs deleted or replaced since."""
    broken: int
    tables: int
    files_written: int
    bytes_written: int
    seconds: float


def compact(store: Store) -> Compacted:
    """Brings the catalogue up to date with the folders; only tables with new or lost runs are written anew."""
    clock = time.perf_counter()
    view = View(store, index.RUNS.names)
    old = view.manifest
    lines = view.lines(index.RUNS.names)
    runs = [e for e in index.from_arrow(lines) if e.status != BROKEN]
    known = set(view.kept["run_id"].to_pylist())
    by_data: dict[DataKey, list[Entry]] = {}
    for run in runs:
        if run.status == "done":
            by_data.setdefault(run.data_key, []).append(run)
    with tempfile.TemporaryDirectory(dir=_scratch(store)) as folder:
        writer = _Writer(store, Path(folder))
        tables = [_compact_table(view, writer, key, members, known) for key, members in sorted(by_data.items())]
        name = writer.write("runs", lines)
        manifest = Manifest(
            version=VERSION,
            resamples=RESAMPLES,
            runs=name,
            count=lines.num_rows,
            tables=tuple(tables),
        )
        # Names sort by time; the last part tells apart what was made in the same moment.
        writer.put(f"{time.time_ns():020d}-{uuid4().hex[:8]}.json", manifest.model_dump_json(indent=1).encode())
    return Compacted(
        runs=lines.num_rows,
        new=view.fresh.num_rows,
        gone=old.count - len(known) if old else 0,
        broken=lines.num_rows - len(runs),
        tables=len(tables),
        files_written=writer.files,
        bytes_written=writer.bytes,
        seconds=time.perf_counter() - clock,
    )


def _compact_table(
    view: View, writer: _Writer, data_key: DataKey, members: Sequence[Entry], known: set[str]
) -> TableFiles:
    """The files of one table: those there are, where nothing changed."""
    old = view._files(data_key)
    new = [run for run in members if run.run_id not in known]
    alive = {run.run_id for run in members if run.run_id in known}
    kept: list[Part] = []
    rewritten: list[Part] = []
    for part in old.parts if old else ():
        holds = set(read(view.store, part.file, ["run_id"])["run_id"].to_pylist())
        small = bool(new) and part.runs < SMALL
        (rewritten if small or holds - alive else kept).append(part)
    if old is not None and not new and not rewritten:
        return old
    canon = view._canon(data_key)
    sets = set(canon.sets)

    def answers() -> Iterator[pa.Table]:
        for part in rewritten:
            table = read(view.store, part.file)
            yield table.filter(pc.is_in(table["run_id"], value_set=pa.array(sorted(alive), pa.string())))
        for start in range(0, len(new), BATCH):
            yield answers_of(view.store, new[start : start + BATCH], canon)

    if new or rewritten:
        name, runs = writer.stream("answers", ANSWERS, answers())
        kept += [Part(file=name, runs=runs)] if runs else []
    unchanged = old is not None and set(canon.sets) == sets
    examples = old.examples if old is not None and unchanged else writer.write("examples", _examples_table(canon))
    benchmark, revision, fingerprint = data_key
    return TableFiles(
        benchmark=benchmark, revision=revision, fingerprint=fingerprint, examples=examples, parts=tuple(kept)
    )


def _examples_table(canon: Canon) -> pa.Table:
    lines = [
        {
            "key": examples.key,
            "examples": examples.table.num_rows,
            "groups": examples.groups,
            "golds": examples.examples_per_replicate.astype("<i8").tobytes(),
            **{name: examples.table[name].to_pylist() for name in ("id", "group", "category", "gold")},
        }
        for examples in canon.sets.values()
    ]
    return pa.Table.from_pylist(lines, schema=EXAMPLES)


class _Writer:
    """Writes files of the catalogue locally, then puts them in place; counts what it wrote."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.files = self.bytes = 0

    def write(self, kind: str, table: pa.Table) -> str:
        return self.stream(kind, table.schema, iter([table]))[0]

    def stream(self, kind: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> tuple[str, int]:
        """Writes tables one after another; the file's name, and how many runs have lines in it."""
        name = f"{kind}-{uuid4().hex}.parquet"
        runs: set[str] = set()
        with pq.ParquetWriter(self.folder / name, schema, compression="zstd", compression_level=1) as writer:
            for table in tables:
                if kind != "answers":
                    writer.write_table(table)
                    continue
                runs.update(table["run_id"].to_pylist())
                for split in sorted(set(table["split"].to_pylist())):  # a row group holds lines of one split
                    of_split = table.filter(pc.equal(table["split"], split))
                    writer.write_table(of_split, row_group_size=2 * BATCH)
        self._place(name)
        return name, len(runs)

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)
        self._place(name)

    def _place(self, name: str) -> None:
        self.files += 1
        self.bytes += (self.folder / name).stat().st_size
        self.store.place.put(self.folder / name, f"{CATALOGUE}/{name}")


def _scratch(store: Store) -> Path:
    """Where files are made before they are put in place."""
    folder = store.place.scratch / CATALOGUE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"store {store.url!r} can't be written: {error.strerror or error}") from None
    return folder
