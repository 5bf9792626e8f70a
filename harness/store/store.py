"""The store: one folder per run, written once. Many writers may share a root; no server is needed.

    <root>/<run_id>/record.json           what was run and its results (`harness.record.Record`)
    <root>/<run_id>/predictions.parquet   one row per example and split
    <root>/<run_id>/history.parquet       one row per logged value
    <root>/<run_id>/student/              the trained student, if it was to be saved
    <root>/<run_id>/received.json         only of a run that was sent by somebody (`harness.submission.submit`)
    <root>/.reproduced/                   what was found when runs were trained again (`harness.store.checksums`)
    <root>/.work/<run_id>/                checkpoints and progress of an unfinished run
    <root>/.work/.locks/<run_id>.lock     locked by the process that executes the run
    <root>/.catalogue/                    the compacted catalogue of all runs, see `harness.store.catalog`
        <root>/.tmp-*                         folders being written; leftovers of killed writers are deleted after a day

A folder is filled under a temporary name, flushed to disk and renamed, so a reader sees either a complete run or
nothing. A finished run never changes; a failed or interrupted one may be replaced. The root may also be a URL like
`s3://bucket/prefix` (`harness.store.object_storage` says how a run is published there). Work in progress is then
in a local cache, `HKDBENCH_CACHE` or `~/.cache/hkdbench`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from harness.api import Split
from harness.errors import StoreError, first_line
from harness.paths import expanded
from harness.record import Received, Record, parse_record, read_record
from harness.store import checksums
from harness.store.backend import LABELS, RECORD, RUN_ID, STALE_SECONDS, Backend, Problem, RunLock, checked_id
from harness.store.local import LocalBackend
from harness.store.packed.archive import SUFFIX, PackedBackend
from harness.store.schemas import (
    HISTORY,
    PREDICTIONS,
    TABLES,
    HistoryRow,
    NoTableError,
    PredictionRow,
    from_parquet,
    history_frame,
    predictions_frame,
    to_table,
    write_options,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "HISTORY",
    "PREDICTIONS",
    "HistoryRow",
    "PredictionRow",
    "Problem",
    "Store",
    "history_frame",
    "predictions_frame",
]

DEFAULT_ROOT = "runs"
LOCKS = ".locks"
"""The folder below .work with a lock for each run that is being executed."""

_LABELS = TypeAdapter(dict[str, str])


class Store:
    """The runs under a root (default: `HKDBENCH_STORE`, else `./runs`). The first write creates it.

    The root is a folder, the URL of an fsspec filesystem, or a packed store (`harness.store.packed`), which can only be
    read. Raises `StoreError` for a URL without a filesystem, and for a packed store that is damaged.
    """

    backend: Backend

    def __init__(self, root: str | Path | None = None) -> None:
        named = str(root or os.environ.get("HKDBENCH_STORE") or DEFAULT_ROOT).removeprefix("file://")
        if "://" in named:
            from harness.store.object_storage import ObjectStorage

            self.backend = ObjectStorage(named)
        elif named.endswith(SUFFIX) and not expanded(named).is_dir():
            self.backend = PackedBackend(expanded(named).absolute())
        else:
            self.backend = LocalBackend(expanded(named).absolute())

    @property
    def url(self) -> str:
        """The address that opens this store again, also in another process."""
        return self.backend.url

    @property
    def packed(self) -> bool:
        """Whether all of it is one file, which can only be read."""
        return isinstance(self.backend, PackedBackend)

    @property
    def root(self) -> Path:
        """The folder of a local store. Raises `StoreError` for any other."""
        if self.packed:
            self.check_writable()
        if not isinstance(self.backend, LocalBackend):
            raise StoreError(
                f"store {self.url!r} isn't a local folder, which this command needs: choose one with --store"
            )
        return self.backend.root

    def check_exists(self) -> None:
        """Raise `StoreError` if there is no store at this address: it is mistyped, or nothing was written there yet."""
        if why := self.backend.missing():
            raise StoreError(why)

    # ------------------------------------------------------------------------------------- writing

    def check_writable(self) -> None:
        """Create the root if it is missing, write a file there, delete leftovers. Raises `StoreError`."""
        self.backend.check_writable()
        for name in self.leftovers():
            self.backend.remove(name)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file beside the runs atomically, replacing an older one. Raises `StoreError`."""
        part = self.backend.scratch / f".tmp-{Path(name).name}-{uuid4().hex[:8]}"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            self.backend.put(part, name)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"{name} can't be written to {self.url!r}: {error.strerror or error}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        """The temporary files and folders of writers that were killed a day ago or earlier."""
        return [name for name, age in self.backend.files_with_age("").items() if age > STALE_SECONDS]

    def write(
        self,
        record: Record,
        predictions: pd.DataFrame | None = None,
        history: pd.DataFrame | None = None,
        student: Path | None = None,
    ) -> Path:
        """Publish a run's folder atomically and return it; `student` is a folder to copy into it.

        A failed or interrupted record of this id is replaced. Raises `StoreError` if the run is already
        done and not byte for byte the same, or if a table doesn't fit its schema; nothing is left behind.
        """
        run_id = checked_id(record.run_id)
        if isinstance(fault := parse_record(record.model_dump_json()), str):  # a NaN becomes null
            raise StoreError(f"run {run_id}: the record can't be stored: {fault.removeprefix(_DAMAGED)}")
        given = {"predictions": predictions, "history": history}
        tables = {
            name: to_table(frame, TABLES[name], f"run {run_id}: {name}")
            for name, frame in given.items()
            if frame is not None
        }

        def fill(folder: Path) -> None:
            for name, table in tables.items():
                pq.write_table(table, folder / f"{name}.parquet", **write_options(table.schema))
            if student is not None:
                shutil.copytree(student, folder / "student")
            (folder / RECORD).write_bytes(checksums.with_checksums(record, folder))

        return self._publish(run_id, fill)

    def copy(self, run_id: str, source: Store) -> None:
        """Copy a run from another store, byte for byte. Raises `StoreError` as `write` does."""

        def fill(folder: Path) -> None:
            for name, there in source.backend.files(checked_id(run_id)).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with source.backend.open(there) as reader, open(folder / name, "wb") as writer:
                    shutil.copyfileobj(reader, writer)

        self._publish(run_id, fill)

    def _publish(self, run_id: str, fill: Callable[[Path], None]) -> Path:
        scratch = self.backend.scratch
        temporary = scratch / f".tmp-{run_id}-{uuid4().hex[:8]}"
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            fill(temporary)
            self.backend.publish(temporary, run_id)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"run {run_id} can't be written to {self.url!r}: {error.strerror or error}; "
                "fix that, or choose another store with --store or HKDBENCH_STORE"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return scratch / run_id

    def work(self, run_id: str) -> Path:
        """The local folder for the working state of an unfinished run; the caller creates and deletes it."""
        return self.backend.scratch / ".work" / checked_id(run_id)

    def lock(self, run_id: str, seconds: float) -> RunLock | None:
        """The lock for executing a run; None if another living process holds it for this number of seconds.

        All machines that share a bucket see each other's locks, and those on a shared disk that supports locks.
        """
        return self.backend.lock(f".work/{LOCKS}/{checked_id(run_id)}.lock", seconds)

    # ------------------------------------------------------------------------------------- reading

    def versions(self) -> dict[str, str]:
        """Every run by id, sorted, with a version that changes when its record, predictions, label or attested results
        do: none is opened."""
        return self.listed()[0]

    def listed(self) -> tuple[dict[str, str], list[Problem]]:
        """`versions`, and what is wrong with the file of the labels."""
        labels, problems = self.readable_labels()
        found = {name: version for name, version in sorted(self.backend.folders().items()) if RUN_ID.fullmatch(name)}
        for run_id, more in [*labels.items(), *checksums.attested_names(self.backend).items()]:
            if run_id in found:
                found[run_id] += f"-{hashlib.sha256(str(more).encode()).hexdigest()[:8]}"
        return found, problems

    def labels(self) -> dict[str, str]:
        """What runs are called by id, where a suite said so after they had finished, see `maintenance.relabel`.

        Raises `StoreError` for a file that can't be read.
        """
        try:
            return _LABELS.validate_json(self.backend.read(LABELS))
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StoreError(
                f"{LABELS} in {self.url!r} is damaged: {first_line(error)}; delete it: a suite writes its labels anew"
            ) from None

    def readable_labels(self) -> tuple[dict[str, str], list[Problem]]:
        """`labels`; none, and what is wrong, if their file can't be read: runs then have the names of their records."""
        try:
            return self.labels(), []
        except StoreError as error:
            return {}, [Problem(LABELS, str(error).removeprefix(f"{LABELS} "))]

    def ids(self) -> list[str]:
        """The names of all run folders, sorted; their records aren't checked."""
        return list(self.versions())

    def status(self, run_id: str) -> str | None:
        """`done`, `failed` or `interrupted`; None if the run doesn't exist or its record is broken."""
        loaded = self.load(checked_id(run_id))
        return None if isinstance(loaded, Problem) else loaded.status

    def finished(self, run_id: str) -> Record | None:
        """The run's record if it is done, else None."""
        loaded = self.load(checked_id(run_id))
        return loaded if isinstance(loaded, Record) and loaded.status == "done" else None

    def load(self, run_id: str, sealed: bool = True) -> Record | Problem:
        """The record of a run's folder, or what is wrong with it, whatever that is.

        Without `sealed`, its text may be another than the one that its checksum is of.
        """
        try:
            text = self.backend.read(f"{run_id}/{RECORD}")
            record = read_record(text) if sealed else parse_record(text.decode("utf-8"))
        except FileNotFoundError:
            return Problem(run_id, f"{RECORD} is missing; delete the folder")
        except Exception as error:
            return Problem(run_id, f"{RECORD} can't be read: {first_line(error)}")
        if isinstance(record, str):
            return Problem(run_id, record)
        if record.run_id != run_id:
            return Problem(run_id, f"{RECORD} is of run {record.run_id!r}: rename the folder back")
        return record

    def scan(self) -> Iterator[Record | Problem]:
        """Every run by id: its record, or the problem if it has no valid one."""
        for run_id in self.ids():
            if (loaded := self.settled(run_id)) is not None:
                yield loaded

    def settled(self, run_id: str) -> Record | Problem | None:
        """A listed run; it is read again if it was just being replaced. None: it was deleted."""
        loaded = self.load(run_id)
        if isinstance(loaded, Problem):
            if not self.backend.exists(run_id):
                time.sleep(0.05)
                if not self.backend.exists(run_id):
                    return None
            loaded = self.load(run_id)
        return loaded

    def records(self) -> Iterator[Record]:
        """Every valid record by id. `problems` lists the others."""
        return (loaded for loaded in self.scan() if isinstance(loaded, Record))

    def problems(self) -> list[Problem]:
        """The folders without a valid record."""
        return [loaded for loaded in self.scan() if isinstance(loaded, Problem)]

    def read(self, run_id: str) -> Record:
        """The record of a run. Raises `StoreError` if there is none or it is broken."""
        loaded = self.load(checked_id(run_id))
        if isinstance(loaded, Problem):
            raise StoreError(f"run {loaded}") if self.backend.exists(run_id) else self._unknown(run_id)
        return loaded

    def find(self, prefix: str) -> Record:
        """The record of the one run whose id starts with `prefix`. Raises `StoreError` for none or several."""
        return self.read(self.match(prefix))

    def match(self, prefix: str) -> str:
        """The id of the one run that starts with `prefix`, valid or not. Raises `StoreError` for none or several."""
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
        """The predictions of a run (or of a split), see `PREDICTIONS`. Raises `StoreError` if there are none."""
        table = self.table(run_id, "predictions")
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def history(self, run_id: str) -> pd.DataFrame:
        """The logged values of a run, see `HISTORY`. Raises `StoreError` if there are none."""
        frame: pd.DataFrame = self.table(run_id, "history").to_pandas()
        return frame

    def table(
        self, run_id: str, name: str, columns: Sequence[str] | None = None, record: Record | None = None
    ) -> pa.Table:
        """A run's `predictions` or `history` as Arrow; `record` is the run's, if it is known.

        Raises `NoTableError` for a run that was written without it, `StoreError` if it or the record is missing or
        damaged: a file must have the sha256 that its run's record states.
        """
        record = record or self.read(run_id)
        file = f"{name}.parquet"
        listed = record.seal.files if record.seal else {}
        try:
            data = self.backend.read(self.backend.file(run_id, file))
            if record.seal and hashlib.sha256(data).hexdigest() != listed.get(file):
                raise ValueError(checksums.OTHER_BYTES)
            return from_parquet(data, TABLES[name], columns)
        except FileNotFoundError:
            if file in listed:
                raise StoreError(f"run {run_id}: {file} is missing; {_AGAIN}") from None
            raise NoTableError(f"run {run_id} has no {name} (status: {record.status})") from None
        except Exception as error:  # whatever is wrong with a file, it is wrong with this run alone
            raise StoreError(f"run {run_id}: {file} is damaged: {first_line(error)}; {_AGAIN}") from None

    def received(self, run_id: str) -> Received | None:
        """When and from which file a run was submitted; None for one that was made here. Raises `StoreError`."""
        try:
            return Received.model_validate_json(
                self.backend.read(self.backend.file(checked_id(run_id), checksums.RECEIVED))
            )
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StoreError(
                f"run {run_id}: {checksums.RECEIVED} is damaged: {first_line(error)}; delete the run"
            ) from None

    def _unknown(self, run_id: str, ids: list[str] | None = None) -> StoreError:
        ids = self.ids() if ids is None else ids
        close = get_close_matches(run_id, ids, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        return StoreError(f"no run {run_id!r} in {self.url!r} ({len(ids)} runs); {hint}`hkdbench list runs` names all")


_DAMAGED = "record.json is damaged: "
_AGAIN = "delete the run and run it again"
