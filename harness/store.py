"""The store: one folder a run, written once. Many writers may share a root; no server is needed.

    <root>/<run_id>/record.json           what was run and what came out (`harness.record.Record`)
    <root>/<run_id>/predictions.parquet   one row an example and split
    <root>/<run_id>/history.parquet       one row a logged value
    <root>/<run_id>/student/              the trained student, where it was kept
    <root>/<run_id>/received.json         only of a run that came from elsewhere (`harness.submission`)
    <root>/.work/<run_id>/                what an unfinished run needs to go on; the train loop's own
    <root>/.tmp-*                         folders being written; leftovers of killed writers go after a day

A folder is filled under a temporary name, flushed to disk and renamed, so that a reader sees all of a run or
nothing. A finished run never changes; a failed or interrupted one may be replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from harness import seal
from harness.api import Split
from harness.errors import StoreError
from harness.record import SCHEMA_VERSION, Received, Record

DEFAULT_ROOT = "runs"
STALE_SECONDS = 24 * 3600.0

PREDICTIONS = pa.schema(
    [
        ("split", pa.string()),
        ("id", pa.string()),
        ("group", pa.string()),
        ("category", pa.string()),
        ("gold", pa.int32()),
        ("chosen", pa.int32()),
        ("scores", pa.list_(pa.float32())),
        ("seconds", pa.float32()),
    ]
)
"""An answered example: gold and chosen index its options, scores (K,) has one number an option."""

HISTORY = pa.schema(
    [
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("progress", pa.float64()),
        ("role", pa.string()),
        ("term", pa.string()),
        ("value", pa.float64()),
    ]
)
"""A logged value: a loss term, a learning rate, a validation figure, by stage, step and role."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class PredictionRow(NamedTuple):
    """One answered example, see `PREDICTIONS`."""

    split: str
    id: str
    group: str
    category: str
    gold: int
    chosen: int
    scores: Iterable[float]
    seconds: float


class HistoryRow(NamedTuple):
    """One logged value, see `HISTORY`."""

    stage: str
    step: int
    progress: float
    role: str
    term: str
    value: float


@dataclass(frozen=True)
class Problem:
    """A folder of the store that holds no usable record, and why."""

    run_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.run_id}: {self.message}"


def predictions_frame(rows: Iterable[PredictionRow]) -> pd.DataFrame:
    """The rows as the table that `Store.write` takes."""
    return pd.DataFrame.from_records(list(rows), columns=PREDICTIONS.names)


def history_frame(rows: Iterable[HistoryRow]) -> pd.DataFrame:
    """The rows as the table that `Store.write` takes."""
    return pd.DataFrame.from_records(list(rows), columns=HISTORY.names)


class Store:
    """The runs under a root folder (default: `HKDBENCH_STORE`, else `./runs`), made by the first write."""

    root: Path

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("HKDBENCH_STORE") or DEFAULT_ROOT).expanduser().absolute()

    # ------------------------------------------------------------------------------------- writing

    def check_writable(self) -> None:
        """Makes the root where it is missing, tries a file in it, drops leftovers. Raises `StoreError`."""
        probe = self.root / f".tmp-probe-{uuid4().hex[:8]}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"store {str(self.root)!r} can't be written: {error.strerror or error}; expected a folder or "
                "a path where one can be made: choose another with --store or HKDBENCH_STORE"
            ) from None
        self._drop_leftovers()

    def write(
        self,
        record: Record,
        predictions: pd.DataFrame | None = None,
        history: pd.DataFrame | None = None,
        student: Path | None = None,
    ) -> Path:
        """Publishes a run's folder in one rename and returns it; `student` is a folder to copy into it.

        A failed or interrupted record of this id is replaced. Raises `StoreError` when the run is already
        done and not byte for byte the same, or when a table doesn't fit its schema; nothing is left behind.
        """
        final = self._folder(record.run_id)
        try:
            Record.model_validate_json(record.model_dump_json())
        except ValidationError as error:  # a NaN becomes null
            raise StoreError(f"run {record.run_id}: the record can't be stored: {_first(error)}") from None
        tables = {
            name: _table(frame, schema, f"run {record.run_id}: {name}")
            for name, frame, schema in (
                ("predictions", predictions, PREDICTIONS),
                ("history", history, HISTORY),
            )
            if frame is not None
        }
        temporary = self.root / f".tmp-{record.run_id}-{uuid4().hex[:8]}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            for name, table in tables.items():
                pq.write_table(table, temporary / f"{name}.parquet", compression="zstd")
            if student is not None:
                shutil.copytree(student, temporary / "student")
            (temporary / seal.RECORD).write_bytes(seal.sealed(record, temporary))
            _flush(temporary)
            self._publish(temporary, final)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"run {record.run_id} can't be written to {str(self.root)!r}: {error.strerror or error}; "
                "mend that, or choose another store with --store or HKDBENCH_STORE"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return final

    def _publish(self, temporary: Path, final: Path) -> None:
        """Renames `temporary` to `final`, whatever other writers do meanwhile: a done run is never lost."""
        for _ in range(100):
            try:
                os.rename(temporary, final)
            except OSError:  # the name is taken (each platform has its own error for that), or a real fault
                if not final.exists():
                    raise
            else:
                _flush_folder(self.root)
                return
            if _is_done(final):
                if _same_files(temporary, final):
                    return
                raise StoreError(
                    f"run {final.name} is already done in {str(self.root)!r}: a finished run never changes; "
                    "write to another store, or delete the run's folder first"
                )
            aside = self.root / f".tmp-{final.name}-{uuid4().hex[:8]}"
            try:
                os.rename(final, aside)
            except FileNotFoundError:  # another writer was faster
                continue
            if _is_done(aside):  # it became done after we looked: put it back, then meet it as such
                self._publish(aside, final)
            else:
                shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(f"run {final.name}: other writers keep replacing it; run it once at a time")

    def _drop_leftovers(self) -> None:
        for entry in self._entries(".tmp-"):
            try:
                if time.time() - entry.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            except OSError:  # another process drops it too, or it isn't ours
                continue

    def work(self, run_id: str) -> Path:
        """The folder for the working state of an unfinished run: the caller makes and deletes it."""
        return self.root / ".work" / self._folder(run_id).name

    # ------------------------------------------------------------------------------------- reading

    def ids(self) -> list[str]:
        """The names of all run folders, sorted; whether their records are sound isn't looked at."""
        found = (path for path in self._entries("") if _RUN_ID.fullmatch(path.name) and path.is_dir())
        return sorted(path.name for path in found)

    def status(self, run_id: str) -> str | None:
        """`done`, `failed` or `interrupted`; None where the run isn't there or its record is broken."""
        loaded = _load(self._folder(run_id))
        return None if isinstance(loaded, Problem) else loaded.status

    def scan(self) -> Iterator[Record | Problem]:
        """Every run by id: its record or, for a folder without a sound one, the problem."""
        for run_id in self.ids():
            loaded = _load(self.root / run_id)
            if isinstance(loaded, Problem) and not (self.root / run_id).exists():
                time.sleep(0.05)  # being replaced this very moment, or deleted
                if not (self.root / run_id).exists():
                    continue
                loaded = _load(self.root / run_id)
            yield loaded

    def records(self) -> Iterator[Record]:
        """Every sound record by id. `problems` lists the others."""
        return (loaded for loaded in self.scan() if isinstance(loaded, Record))

    def problems(self) -> list[Problem]:
        """The folders without a sound record."""
        return [loaded for loaded in self.scan() if isinstance(loaded, Problem)]

    def read(self, run_id: str) -> Record:
        """The record of a run. Raises `StoreError` where there is none or it is broken."""
        folder = self._folder(run_id)
        if not folder.is_dir():
            raise self._unknown(run_id)
        loaded = _load(folder)
        if isinstance(loaded, Problem):
            raise StoreError(f"run {loaded}")
        return loaded

    def find(self, prefix: str) -> Record:
        """The record of the one run whose id starts so. Raises `StoreError` for none or several."""
        return self.read(self.match(prefix))

    def match(self, prefix: str) -> str:
        """The id of the one run whose id starts so, sound or not. Raises `StoreError` for none or several."""
        ids = self.ids()
        matches = [prefix] if prefix in ids else [name for name in ids if prefix and name.startswith(prefix)]
        if not matches:
            raise self._unknown(prefix, ids)
        if len(matches) > 1:
            more = ", ..." if len(matches) > 5 else ""
            some = ", ".join(matches[:5]) + more
            raise StoreError(f"run {prefix!r} could be any of {len(matches)}: {some}; give more letters")
        return matches[0]

    def predictions(self, run_id: str, split: Split | None = None) -> pd.DataFrame:
        """The predictions of a run (of a split), see `PREDICTIONS`. Raises `StoreError` where it has none."""
        table = self._read_table(run_id, "predictions", PREDICTIONS)
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def history(self, run_id: str) -> pd.DataFrame:
        """The logged values of a run, see `HISTORY`. Raises `StoreError` where it has none."""
        frame: pd.DataFrame = self._read_table(run_id, "history", HISTORY).to_pandas()
        return frame

    def received(self, run_id: str) -> Received | None:
        """Where a run came from that wasn't made here; None for one that was. Raises `StoreError`."""
        path = self._folder(run_id) / seal.RECEIVED
        try:
            return Received.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise StoreError(f"run {run_id}: {path.name} is damaged: {_line(error)}; delete the run") from None

    def _read_table(self, run_id: str, name: str, schema: pa.Schema) -> pa.Table:
        folder = self._folder(run_id)
        path = folder / f"{name}.parquet"
        if not folder.is_dir():
            raise self._unknown(run_id)
        if not path.is_file():
            raise StoreError(f"run {run_id} has no {name} (status: {self.status(run_id) or 'unknown'})")
        try:
            table = pq.read_table(path)
            return table.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowTypeError, KeyError, OSError) as error:
            raise StoreError(
                f"run {run_id}: {path.name} is damaged: {_line(error)}; delete the run and run it again"
            ) from None

    def _entries(self, prefix: str) -> Iterator[Path]:
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:  # no store yet: it is empty
            return iter(())
        except OSError as error:
            raise StoreError(
                f"store {str(self.root)!r} can't be read: {error.strerror or error}; expected a folder of "
                "runs: choose another with --store or HKDBENCH_STORE"
            ) from None
        return (self.root / name for name in names if name.startswith(prefix))

    def _folder(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise StoreError(
                f"run id {run_id!r}: expected at most 128 letters, digits, '.', '_' and '-', and a letter or "
                "digit first"
            )
        return self.root / run_id

    def _unknown(self, run_id: str, ids: list[str] | None = None) -> StoreError:
        ids = self.ids() if ids is None else ids
        close = get_close_matches(run_id, ids, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        return StoreError(
            f"no run {run_id!r} in {str(self.root)!r} ({len(ids)} runs); {hint}`hkdbench list runs` names all"
        )


# ------------------------------------------------------------------------------------------- the files


def _load(folder: Path) -> Record | Problem:
    """The record of a run's folder, or what is wrong with it."""
    record = _parse(folder)
    if isinstance(record, Record) and record.run_id != folder.name:
        return Problem(folder.name, f"record.json is of run {record.run_id!r}: rename the folder back")
    return record


def _parse(folder: Path) -> Record | Problem:
    """The record in a folder of any name, or what is wrong with it."""
    path = folder / "record.json"
    try:
        text = path.read_text(encoding="utf-8")
        newer = re.search(r'"schema_version":\s*(\d+)', text)
        if newer and int(newer[1]) > SCHEMA_VERSION:
            found = f"record.json has schema {newer[1]}, this version reads {SCHEMA_VERSION}"
            return Problem(folder.name, f"{found}: update hkdbench")
        return Record.model_validate_json(text)
    except FileNotFoundError:
        return Problem(folder.name, "record.json is missing; delete the folder")
    except ValidationError as error:
        return Problem(folder.name, f"record.json is damaged: {_first(error)}")
    except (OSError, UnicodeDecodeError) as error:
        return Problem(folder.name, f"record.json can't be read: {_line(error)}")


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    where = ".".join(map(str, item["loc"]))
    return f"{where}: {item['msg']}" if where else item["msg"]


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _table(frame: pd.DataFrame, schema: pa.Schema, what: str) -> pa.Table:
    """The frame in its schema. Raises `StoreError` for other columns or values that don't fit."""
    if set(frame.columns) != set(schema.names):
        found, expected = ", ".join(map(str, frame.columns)), ", ".join(schema.names)
        raise StoreError(f"{what}: columns {found}; expected {expected}")
    try:
        return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError) as error:
        raise StoreError(f"{what}: {_line(error)}") from None


def _is_done(folder: Path) -> bool:
    record = _parse(folder)
    return isinstance(record, Record) and record.status == "done"


def _same_files(a: Path, b: Path) -> bool:
    def files(folder: Path) -> dict[Path, int]:
        return {p.relative_to(folder): p.stat().st_size for p in folder.rglob("*") if p.is_file()}

    found = files(a)
    return found == files(b) and all((a / name).read_bytes() == (b / name).read_bytes() for name in found)


def _flush(folder: Path) -> None:
    """Forces a folder's files to disk, so that the rename can't come before them."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb+") as file:  # Windows flushes writable handles only
                os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # folders can't be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
