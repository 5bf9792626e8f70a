"""Maintenance of a store: list its runs, delete garbage, merge another store, export tables."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import ConfigError, StoreError, first_line
from harness.store import checksums, index, manifest
from harness.store.backend import CATALOGUE, LABELS, RECORD, Problem
from harness.store.catalog import View
from harness.store.local import LocalBackend
from harness.store.schemas import PREDICTIONS
from harness.store.store import LOCKS, Store

HOUR, DAY = 3600.0, 24 * 3600.0
LOCKED_SECONDS = 10.0

# --------------------------------------------------------------------------------------------- runs


def runs(store: Store, equal: Mapping[str, str | int | None] | None = None, where: str | None = None) -> pa.Table:
    """One line per run by id: the plain columns of `index.RUNS`, and `<split>_<metric>` for the recorded metrics.

    `equal` restricts columns to values (`tag`: one of the tags), `where` is an SQL condition over the columns.
    Raises `ConfigError` for a condition that DuckDB rejects.
    """
    import duckdb

    lines = View(store, [*index.LIGHT, "metrics"]).lines([*index.LIGHT, "metrics"])
    table = _with_figures(lines)
    conditions, values = [], []
    for column, value in (equal or {}).items():
        if value is not None:
            conditions.append("list_contains(tags, ?)" if column == "tag" else f'"{column}" = ?')
            values.append(value)
    if where is not None:
        conditions.append(f"({where})")
    condition = " AND ".join(conditions) or "true"
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        connection.register("runs", table)
        try:
            found = connection.sql(f"SELECT * FROM runs WHERE {condition} ORDER BY run_id", params=values)
            return found.to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(
                f"--where {where!r}: {first_line(error)}; expected a condition over columns like "
                "method, seed, budget, test_accuracy"
            ) from None


def _with_figures(lines: pa.Table) -> pa.Table:
    """The light columns, and a column for each recorded metric of each split, with its bounds."""
    stated: list[dict[str, float | None]] = []
    for metrics in lines["metrics"].to_pylist():
        of_run: dict[str, float | None] = {}
        for m in metrics or ():
            name = f"{m['split']}_{m['metric']}"
            of_run |= {name: m["value"], f"{name}_low": m["low"], f"{name}_high": m["high"]}
        stated.append(of_run)
    table = lines.select(index.LIGHT)
    for name in sorted({name for of_run in stated for name in of_run}):
        table = table.append_column(name, pa.array([of_run.get(name) for of_run in stated], pa.float64()))
    return table


# ----------------------------------------------------------------------------------------------- gc


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can be deleted."""

    name: str
    why: str
    local: bool = False
    """Whether it is in the local scratch folder of a store in a bucket."""


def garbage(store: Store, unfinished_days: float = 7.0) -> list[Garbage]:
    """What `gc` deletes: leftovers of killed writers, work folders that nobody needs, old files of the catalogue.

    An unfinished run resumes from its work folder, so the folder stays for `unfinished_days`.
    """
    found = [Garbage(name, "left behind by a killed writer") for name in store.leftovers()]
    scratch = store.backend.scratch
    if not isinstance(store.backend, LocalBackend):
        found += [
            Garbage(name, "left behind by a killed writer", local=True)
            for name, age in LocalBackend(scratch).files_with_age("").items()
            if age > DAY
        ]
    found += list(_dead_work(store, scratch / ".work", unfinished_days))
    found += list(_old_catalogue(store))
    return found


def _dead_work(store: Store, work: Path, unfinished_days: float) -> Iterator[Garbage]:
    local = not isinstance(store.backend, LocalBackend)
    for folder in sorted(work.iterdir()) if work.is_dir() else ():
        name = f".work/{folder.name}"
        age = time.time() - max((p.stat().st_mtime for p in [folder, *folder.rglob("*")] if p.exists()), default=0.0)
        if folder.name == LOCKS:  # without its file, a second process could get a held lock
            continue
        if folder.name.startswith("."):  # of a cluster, see `harness.execution.ray_train`
            if age > DAY:
                yield Garbage(name, "left behind by a killed cluster run", local)
        elif not isinstance(found := store.load(folder.name), Problem) and found.status == "done":
            if age > HOUR:  # a run that has just written its record deletes it itself
                yield Garbage(name, "working state of a run that is done", local)
        elif age > unfinished_days * DAY:
            yield Garbage(name, f"working state of an unfinished run, untouched for {age / DAY:.0f} days", local)


def _old_catalogue(store: Store) -> Iterator[Garbage]:
    """Files that the newest state doesn't use, and that no reader that began up to an hour ago needs."""
    names = manifest.manifests(store.backend)
    if not names:
        return
    newest = manifest.load(store.backend, names[-1])
    keep = {names[-1]} | (newest.files if newest else set())
    for path, age in store.backend.files_with_age(CATALOGUE).items():
        name = path.removeprefix(f"{CATALOGUE}/")
        if name not in keep and name != "cache" and age > HOUR:
            yield Garbage(path, "part of an older state of the catalogue")
    cache = store.backend.scratch / CATALOGUE / "cache"
    for file in sorted(cache.iterdir()) if cache.is_dir() else ():
        if time.time() - file.stat().st_mtime > 7 * DAY:
            yield Garbage(
                f"{CATALOGUE}/cache/{file.name}",
                "a leaderboard computed a week ago or earlier",
                not isinstance(store.backend, LocalBackend),
            )


def delete(store: Store, found: Sequence[Garbage]) -> None:
    """Delete what `garbage` found."""
    for one in found:
        if one.local:
            LocalBackend(store.backend.scratch).remove(one.name)
        else:
            store.backend.remove(one.name)


# ------------------------------------------------------------------------------------------- labels


def relabel(store: Store, labels: Mapping[str, str]) -> None:
    """Call runs otherwise (by id; "": no label) than their records say, which stay as they are; the last word counts.

    Raises `StoreError`.
    """
    lock = store.lock("labels", LOCKED_SECONDS)  # two suites at one moment don't drop each other's labels
    try:
        store.write_text(LABELS, json.dumps({**store.labels(), **labels}, indent=1, sort_keys=True) + "\n")
    finally:
        if lock is not None:
            lock.release()


# -------------------------------------------------------------------------------------------- merge


@dataclass
class Merged:
    """What a merge did, by run id."""

    copied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    """Not copied: the other run isn't done, or this store's run has priority."""
    broken: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def merge(store: Store, other: Store, keep_ours: bool = False, dry_run: bool = False) -> Merged:
    """Copy another store's runs, byte for byte; none if the two stores contradict each other.

    A conflict is a run that is done in both stores, with different bytes. Model-free controls are equal if their
    predictions are: each store writes its own, with its own date. Raises `StoreError` for conflicts unless `keep_ours`.
    """
    if store.packed:
        store.check_writable()
    result, ours = Merged(), store.versions()
    for run_id in other.ids():
        theirs = other.load(run_id)
        if isinstance(theirs, Problem):
            result.broken.append(run_id)
        elif run_id not in ours:
            result.copied.append(run_id)
        elif _same(store, other, run_id):
            result.same.append(run_id)
        elif theirs.status != "done":
            result.ours.append(run_id)
        elif store.status(run_id) != "done":
            result.copied.append(run_id)
        else:
            result.conflicts.append(run_id)
    if result.conflicts and not keep_ours:
        some = ", ".join(result.conflicts[:3]) + (", ..." if len(result.conflicts) > 3 else "")
        raise StoreError(
            f"{len(result.conflicts)} finished runs differ in {other.url!r} ({some}): nothing was copied; "
            "delete the ones you don't trust, or keep this store's with --keep-ours"
        )
    result.ours += result.conflicts
    if not dry_run:
        store.check_writable()
        for run_id in result.copied:
            store.copy(run_id, other)
        _copy_attested(store, other, [*result.copied, *result.same])
        if labels := {run_id: label for run_id, label in other.labels().items() if run_id in result.copied}:
            relabel(store, labels)
    return result


def _copy_attested(store: Store, other: Store, run_ids: Sequence[str]) -> None:
    """What was found when these runs were trained again: each file's name has its sum, so none is replaced."""
    ours, theirs = (checksums.attested_names(one.backend) for one in (store, other))
    for run_id in run_ids:
        for name in theirs.get(run_id, []):
            if name not in ours.get(run_id, []):
                store.write_text(name, other.backend.read(name).decode("utf-8", "replace"))


def _same(store: Store, other: Store, run_id: str) -> bool:
    ours = store.load(run_id)
    if isinstance(ours, Problem):
        return False
    if ours.kind == "control":
        columns = [name for name in PREDICTIONS.names if name != "seconds"]
        try:
            return bool(store.table(run_id, "predictions", columns).equals(other.table(run_id, "predictions", columns)))
        except StoreError:
            return False
    here, there = (_without_weights(one.backend.files(run_id)) for one in (store, other))
    return here.keys() == there.keys() and all(
        _equal(store.backend.open(here[name]), other.backend.open(there[name])) for name in [RECORD, *sorted(here)]
    )


def _without_weights(files: Mapping[str, str]) -> dict[str, str]:
    """A run's files but its student: the record states the sums of its weights, and a packed store has none."""
    return {name: there for name, there in files.items() if not name.startswith("student/")}


def _equal(a: IO[bytes], b: IO[bytes]) -> bool:
    with a, b:
        while True:
            of_a, of_b = a.read(1 << 20), b.read(1 << 20)
            if of_a != of_b:
                return False
            if not of_a:
                return True


# ------------------------------------------------------------------------------------------- export


def export_runs(table: pa.Table, out: Path) -> None:
    """Write the table of `runs` as Parquet or CSV, by the file's ending. Raises `ConfigError` for another ending."""
    _write(out, table.schema, iter([table]))


def export_predictions(store: Store, run_ids: Sequence[str], out: Path) -> int:
    """Write the predictions of many runs to one file, with a column `run_id`. Returns the number of rows."""
    schema = pa.schema([("run_id", pa.string()), *PREDICTIONS])
    rows = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal rows
        for run_id in run_ids:
            try:
                table = store.table(run_id, "predictions")
            except StoreError:  # a failed run has none
                continue
            rows += table.num_rows
            table = table.select(PREDICTIONS.names)
            yield table.add_column(0, "run_id", pa.array([run_id] * table.num_rows, pa.string()))

    _write(out, schema, tables())
    return rows


def check_ending(out: Path) -> None:
    """Raise `ConfigError` for a file that is neither .parquet nor .csv, or whose folder doesn't exist."""
    if out.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{str(out)!r}: expected a name that ends in .parquet or .csv")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{str(out)!r}: its folder doesn't exist; create it first")


def _write(out: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Written under a temporary name and renamed: a killed export leaves no partial file under the name."""
    check_ending(out)
    temporary = out.with_name(f".tmp-{out.name}")
    try:
        if out.suffix == ".parquet":
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
        else:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(schema.names)
                for table in tables:
                    for batch in table.to_batches(max_chunksize=10_000):
                        lines.writerows(zip(*(map(_cell, column.to_pylist()) for column in batch.columns), strict=True))
        temporary.replace(out)
    except OSError as error:
        raise StoreError(f"{str(out)!r} can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    """Lists are separated by spaces in CSV."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
