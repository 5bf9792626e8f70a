"""The compacted catalogue: what lists and leaderboards need of all runs, in a few Parquet files.

    <root>/.catalogue/<generation>.json       the manifest: which files make up this state of the catalogue
    <root>/.catalogue/runs-*.parquet          one line per run (`harness.store.index.RUNS`)
    <root>/.catalogue/answers-*.parquet       choices, metrics and replicates, by run and split; per data set
    <root>/.catalogue/examples-*.parquet      the examples of those answers
        <root>/.catalogue/cache/                  cached leaderboards (local)

Files are written under new names and never changed. The manifest is written last, atomically, and the newest one
is valid. So a reader that runs beside a `compact` sees either the old state or the new one. A reader combines the
catalogue with one listing of the root: a run whose version is in the catalogue needs no file opened; a new or replaced
run is read from its folder. A damaged catalogue, or one of another version, is ignored. `harness.store.compaction`
writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import DataError, StoreError
from harness.stats import replicates
from harness.stats.bootstrap import RESAMPLES
from harness.stats.metrics import Ints
from harness.stats.replicates import STORED_METRICS, ExampleOrder, Examples
from harness.store import index
from harness.store.backend import CATALOGUE
from harness.store.index import RunSummary
from harness.store.manifest import DataKey, Manifest, TableFiles, newest
from harness.store.store import Store

BATCH = 128
"""How many runs' replicates are computed at once; a row group has at most twice as many lines."""

ANSWERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("split", pa.string()),
        ("examples", pa.string()),  # key of their `Examples`, "" with a problem
        ("problem", pa.string()),  # why the answers give no figures
        ("chosen", pa.large_binary()),
        *((name, pa.float64()) for name in STORED_METRICS),
        *((f"{name}_draws", replicates.column_type(name)) for name in STORED_METRICS),
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
DRAWS_ENCODING = {f"{name}_draws.list.element": "BYTE_STREAM_SPLIT" for name in STORED_METRICS}
"""Parquet's encoding of the draws: it puts the first bytes of all numbers together, then the second, ..., which
compresses well."""
_READ = ("split", "id", "group", "category", "gold", "chosen")


# ------------------------------------------------------------------------------------------- reading


def read(store: Store, name: str, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """A Parquet file of the catalogue. Raises `StoreError` if it is missing or damaged."""
    try:
        file = pa.BufferReader(store.backend.read(f"{CATALOGUE}/{name}"))  # all of it: one request to a bucket
        return pq.read_table(file, columns=None if columns is None else list(columns), **options)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError, KeyError) as error:
        raise StoreError(
            f"catalogue file {name!r} can't be read: {error}; `hkdbench store compact` writes it again"
        ) from None


class ExampleCounts(NamedTuple):
    """The size of an example set, and how many of its examples each resample drew."""

    examples: int
    groups: int
    examples_per_replicate: Ints


class View:
    """All runs of a store at one moment: the catalogue's lines, and those of runs that aren't in it yet."""

    def __init__(
        self, store: Store, columns: Sequence[str] = index.LIGHT, versions: dict[str, str] | None = None
    ) -> None:
        self.store = store
        self.versions = store.versions() if versions is None else versions
        self._orders: dict[DataKey, ExampleOrder] = {}
        self._sizes: dict[DataKey, dict[str, ExampleCounts]] = {}
        self.manifest = self._newest()
        try:
            self._open(columns)
        except StoreError:  # damaged, or deleted because a newer state replaced it: look again
            found = self._newest()
            self.manifest = None if found == self.manifest else found
            self._open(columns)

    def _newest(self) -> Manifest | None:
        found = newest(self.store.backend)
        return found if found is not None and found.resamples == RESAMPLES else None

    def _open(self, columns: Sequence[str]) -> None:
        self.compacted = index.RUNS.empty_table().select(columns)
        if self.manifest is not None:
            lines = read(self.store, self.manifest.runs, columns)
            now = pa.array([self.versions.get(run_id) for run_id in lines["run_id"].to_pylist()], pa.string())
            self.compacted = lines.filter(pc.fill_null(pc.equal(lines["stamp"], now), False))
        known = set(self.compacted["run_id"].to_pylist())
        fresh = [run_id for run_id in self.versions if run_id not in known]
        loaded = ((self.store.settled(run_id), self.versions[run_id]) for run_id in fresh)
        found = ((record, version) for record, version in loaded if record is not None)
        self.fresh = index.to_arrow(found, self.store.labels() if fresh else {})

    def lines(self, columns: Sequence[str] = index.LIGHT) -> pa.Table:
        """One line per run by id, see `index.RUNS`; only columns that the view was opened with."""
        return pa.concat_tables([self.compacted.select(columns), self.fresh.select(columns)]).sort_by("run_id")

    def answers(
        self, data_key: DataKey, split: str, columns: Sequence[str], runs: Sequence[RunSummary]
    ) -> Iterator[pa.Table]:
        """The answers (`ANSWERS`) of these runs to a split, in batches; those of new runs are computed."""
        fresh = set(self.fresh["run_id"].to_pylist())
        wanted = pa.array([run.run_id for run in runs if run.run_id not in fresh], pa.string())
        of_table = self.files(data_key)
        if of_table is not None and len(wanted):
            for part in of_table.parts:
                table = read(
                    self.store, part.file, list(dict.fromkeys([*columns, "run_id"])), filters=pc.field("split") == split
                )
                yield table.filter(pc.is_in(table["run_id"], value_set=wanted)).select(columns)
        new = [run for run in runs if run.run_id in fresh and run.status == "done"]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            yield answers_of(self.store, batch, self.example_order(data_key), split).select(columns)

    def examples(self, data_key: DataKey) -> dict[str, Examples]:
        """The example sets of the runs on these data by key; complete after `answers` was read."""
        return self.example_order(data_key).sets

    def sizes(self, data_key: DataKey) -> dict[str, ExampleCounts]:
        """The sizes of the example sets of the runs on these data by key; complete after `answers` was read."""
        if data_key not in self._sizes:
            found: dict[str, ExampleCounts] = {}
            if (of_table := self.files(data_key)) is not None:
                lines = read(self.store, of_table.examples, ["key", "examples", "groups", "golds"]).to_pylist()
                for x in lines:
                    found[x["key"]] = ExampleCounts(x["examples"], x["groups"], np.frombuffer(x["golds"], dtype="<i8"))
            self._sizes[data_key] = found
        sizes = self._sizes[data_key]
        for key, known in self._orders.get(data_key, ExampleOrder()).sets.items():
            if key not in sizes:
                sizes[key] = ExampleCounts(known.table.num_rows, known.groups, known.examples_per_replicate)
        return sizes

    def files(self, data_key: DataKey) -> TableFiles | None:
        """The catalogue's files of the runs on these data."""
        tables = self.manifest.tables if self.manifest else ()
        return next((table for table in tables if table.data_key == data_key), None)

    def example_order(self, data_key: DataKey) -> ExampleOrder:
        """The example sets of these data, each in the order that all answers to it are stored in."""
        if data_key not in self._orders:
            of_table = self.files(data_key)
            self._orders[data_key] = ExampleOrder(_examples(self.store, of_table.examples) if of_table else ())
        return self._orders[data_key]


def _examples(store: Store, name: str) -> list[Examples]:
    lines = read(store, name, ["key", "id", "group", "category", "gold"])
    found = []
    for line in range(lines.num_rows):
        columns = {c: lines[c][line].values for c in ("id", "group", "category", "gold")}
        found.append(Examples(lines["key"][line].as_py(), pa.table(columns)))
    return found


# ------------------------------------------------------------------------------------------- answers


def answers_of(store: Store, runs: Sequence[RunSummary], order: ExampleOrder, split: str | None = None) -> pa.Table:
    """The answers (`ANSWERS`) of finished runs on the same data, from their predictions to a split or to all."""
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
                line["examples"], chosen_n = order.take(table.filter(pc.equal(table["split"], name)))
            except DataError as error:
                line["problem"] = str(error)
                continue
            line["chosen"] = replicates.pack_choices(chosen_n)
            taken.setdefault(line["examples"], []).append((line, chosen_n))
    options = next((run.options for run in runs if run.options), None)
    for key, of_set in taken.items():
        examples = order.sets[key]
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
                    line[f"{metric}_draws"] = replicates.encode(
                        metric, of_runs.replicates_rn[r], examples.examples_per_replicate
                    )
    lines.sort(key=lambda line: (line["split"], line["run_id"]))
    plain = [field for field in ANSWERS if not field.name.endswith("_draws")]
    table = pa.Table.from_pylist(lines, schema=pa.schema(plain))
    for metric in STORED_METRICS:  # much faster than `from_pylist`
        column = replicates.to_column(metric, [line.get(f"{metric}_draws") for line in lines])
        table = table.append_column(ANSWERS.field(f"{metric}_draws"), column)
    return table
