"""The compacted catalogue: what lists and leaderboards need of all runs, in a few Parquet files.

    <root>/.catalogue/<time>-<hash>.json       the manifest: which files make up this state of the catalogue
    <root>/.catalogue/runs-*.parquet          one line per run (`harness.store.index.RUNS`)
    <root>/.catalogue/answers-*.parquet       choices, metrics and replicates, by run and split; per data set
    <root>/.catalogue/examples-*.parquet      the examples of those answers
        <root>/.catalogue/cache/                  cached leaderboards (local)

A file's name has the hash of its content, and files are never changed. The manifest is written last, atomically, and
the newest one is valid. So a reader that runs beside a `compact` sees either the old state or the new one. A reader
combines the catalogue with one listing of the root: a run whose version is in the catalogue needs no file opened; a new
or replaced run is read from its folder. So are the runs of a file that is damaged or missing; a catalogue of another
version is ignored. Runs that can't be read aren't in the catalogue: they are tried each time.
`harness.store.compaction` writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import StoreError, first_line
from harness.stats import replicates
from harness.stats.bootstrap import RESAMPLES
from harness.stats.metrics import Ints
from harness.stats.replicates import STORED_METRICS, ExampleOrder, Examples
from harness.store import index
from harness.store.backend import CATALOGUE, each
from harness.store.index import RunSummary
from harness.store.manifest import DataKey, Manifest, TableFiles, is_named, newest
from harness.store.schemas import NoTableError
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
        data = store.backend.read(f"{CATALOGUE}/{name}")  # all of it: one request to a bucket
        if not is_named(name, data):
            raise ValueError("its bytes aren't those that were written")
        return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns), **options)
    except Exception as error:
        raise StoreError(
            f"catalogue file {name!r} can't be read: {first_line(error)}; `hkdbench store compact` writes it again"
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
        self.unreadable: dict[str, str] = {}
        """By run: why its predictions can't be read; of the runs whose `answers` were asked for."""
        self._orders: dict[DataKey, ExampleOrder] = {}
        self._sizes: dict[DataKey, dict[str, ExampleCounts]] = {}
        self._files: dict[DataKey, TableFiles | None] = {}
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
        loaded = zip(each(self.store.backend, self.store.settled, fresh), fresh, strict=True)
        found = ((record, self.versions[run_id]) for record, run_id in loaded if record is not None)
        self.fresh = index.to_arrow(found, self.store.readable_labels()[0] if fresh else {})

    def lines(self, columns: Sequence[str] = index.LIGHT) -> pa.Table:
        """One line per run by id, see `index.RUNS`; only columns that the view was opened with."""
        return pa.concat_tables([self.compacted.select(columns), self.fresh.select(columns)]).sort_by("run_id")

    def answers(
        self, data_key: DataKey, split: str, columns: Sequence[str], runs: Sequence[RunSummary]
    ) -> Iterator[pa.Table]:
        """The answers (`ANSWERS`) of these runs to a split, in batches; those of new runs are computed."""
        fresh = set(self.fresh["run_id"].to_pylist())
        wanted = {run.run_id for run in runs if run.run_id not in fresh}
        of_table = self.files(data_key)
        lost = of_table is None
        for part in of_table.parts if of_table and wanted else ():
            try:
                table = read(
                    self.store, part.file, list(dict.fromkeys([*columns, "run_id"])), filters=pc.field("split") == split
                )
            except StoreError:
                lost = True
                continue
            found = table.filter(pc.is_in(table["run_id"], value_set=pa.array(sorted(wanted), pa.string())))
            wanted -= set(found["run_id"].to_pylist())
            yield found.select(columns)
        again = wanted if lost else set()
        new = [run for run in runs if run.run_id in fresh | again and run.status == "done"]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            yield answers_of(self.store, batch, self.example_order(data_key), self.unreadable, split).select(columns)

    def examples(self, data_key: DataKey) -> dict[str, Examples]:
        """The example sets of the runs on these data by key; complete after `answers` was read."""
        return self.example_order(data_key).sets

    def sizes(self, data_key: DataKey) -> dict[str, ExampleCounts]:
        """The sizes of the example sets of the runs on these data by key; complete after `answers` was read."""
        self.files(data_key)
        sizes = self._sizes[data_key]
        for key, known in self._orders.get(data_key, ExampleOrder()).sets.items():
            if key not in sizes:
                sizes[key] = ExampleCounts(known.table.num_rows, known.groups, known.examples_per_replicate)
        return sizes

    def files(self, data_key: DataKey) -> TableFiles | None:
        """The catalogue's files of the runs on these data; None if their examples can't be read."""
        if data_key not in self._files:
            tables = self.manifest.tables if self.manifest else ()
            found = next((table for table in tables if table.data_key == data_key), None)
            sizes: dict[str, ExampleCounts] = {}
            try:
                lines = read(self.store, found.examples, ["key", "examples", "groups", "golds"]) if found else None
            except StoreError:
                found = lines = None
            for x in lines.to_pylist() if lines else ():
                sizes[x["key"]] = ExampleCounts(x["examples"], x["groups"], np.frombuffer(x["golds"], dtype="<i8"))
            self._files[data_key], self._sizes[data_key] = found, sizes
        return self._files[data_key]

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


def answers_of(
    store: Store, runs: Sequence[RunSummary], order: ExampleOrder, unreadable: dict[str, str], split: str | None = None
) -> pa.Table:
    """The answers (`ANSWERS`) of finished runs on the same data, from their predictions to a split or to all.

    A run without predictions has no line. Nor has one whose predictions can't be read; why is put into `unreadable`.
    """
    lines: list[dict[str, Any]] = []
    taken: dict[str, list[tuple[dict[str, Any], NDArray[np.int16]]]] = {}

    def predictions(run: RunSummary) -> pa.Table | None:
        try:
            return store.table(run.run_id, "predictions", _READ)
        except NoTableError:
            return None
        except StoreError as error:
            unreadable[run.run_id] = str(error).removeprefix(f"run {run.run_id}: ")
            return None

    for run, table in zip(runs, each(store.backend, predictions, runs), strict=True):
        if table is None:
            continue
        for name in table["split"].unique().to_pylist():
            if split not in (None, name):
                continue
            line: dict[str, Any] = {"run_id": run.run_id, "split": name, "examples": "", "chosen": b""}
            lines.append(line)
            try:
                line["examples"], chosen_n = order.take(table.filter(pc.equal(table["split"], name)))
            except Exception as error:  # values that no run should have
                line["problem"] = first_line(error)
                continue
            line["chosen"] = replicates.pack_choices(chosen_n)
            taken.setdefault(line["examples"], []).append((line, chosen_n))
    options = option_count(runs)
    for key, of_set in taken.items():
        _replicate(order.sets[key], of_set, options)
    lines.sort(key=lambda line: (line["split"], line["run_id"]))
    plain = [field for field in ANSWERS if not field.name.endswith("_draws")]
    table = pa.Table.from_pylist(lines, schema=pa.schema(plain))
    for metric in STORED_METRICS:  # much faster than `from_pylist`
        column = replicates.to_column(metric, [line.get(f"{metric}_draws") for line in lines])
        table = table.append_column(ANSWERS.field(f"{metric}_draws"), column)
    return table


def _replicate(
    examples: Examples, of_set: Sequence[tuple[dict[str, Any], NDArray[np.int16]]], options: int | None
) -> None:
    """Add figures and replicates to the lines of runs on the same examples; a run that has none gets a problem."""
    chosen_rn = np.stack([chosen_n for _, chosen_n in of_set])
    try:
        drawn = replicates.replicate_all(examples, chosen_rn, options, STORED_METRICS)
    except Exception as error:  # one of them: the others are computed without it
        if len(of_set) > 1:
            for one in of_set:
                _replicate(examples, [one], options)
        else:
            of_set[0][0]["problem"] = first_line(error)
        return
    for metric, of_runs in drawn.items():
        for r, (line, _) in enumerate(of_set):
            line[metric] = float(of_runs.points_r[r])
            if of_runs.replicates_rn is not None:
                line[f"{metric}_draws"] = replicates.encode(
                    metric, of_runs.replicates_rn[r], examples.examples_per_replicate
                )


def option_count(runs: Sequence[RunSummary]) -> int | None:
    """The number of options of a benchmark: that of most of its runs, so that no single record decides it."""
    counts = Counter(len(run.options) for run in runs if run.options)
    return counts.most_common(1)[0][0] if counts else None
