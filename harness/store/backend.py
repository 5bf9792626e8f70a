"""What a store needs from the place where its files are stored: `Backend`, a local folder, a bucket or one file.

A backend uses names below its root ("run-1/record.json"), and can publish a run's folder atomically.
`harness.store.local` does this on a disk, `harness.store.object_storage` in a bucket. `harness.store.packed` only
reads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Protocol

from harness.record import Record, parse_record

STALE_SECONDS = 24 * 3600.0
"""A temporary file of this age was left behind by a killed writer."""
RECORD = "record.json"
CATALOGUE = ".catalogue"
"""The folder of the compacted catalogue, see `harness.store.catalog`."""
LABELS = ".labels.json"
"""What finished runs are called now, where that isn't what their records say, see `Store.labels`."""
SWEEPS = ".sweeps"
"""The folder of what sweeps were asked and found, see `harness.experiments.selection`."""


TEXTS = (LABELS, "*.json", "*.md", f"{SWEEPS}/*.json")
"""Patterns of the texts beside the runs."""


class Backend(Protocol):
    """The files of a store. Methods that read raise `FileNotFoundError` or another `OSError`."""

    url: str
    """The address that opens this backend again, also in another process."""
    scratch: Path
    """The local folder for work in progress and caches."""

    def check_writable(self) -> None:
        """Write a file into the root and delete it. Raises `StoreError`."""
        ...

    def folders(self) -> dict[str, str]:
        """Every folder of the root by name, with a version that changes when its record does; "" for no record."""
        ...

    def texts(self) -> list[str]:
        """The names of the texts beside the runs, sorted, see `TEXTS`."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        ...

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A file, opened to read and seek in."""
        ...

    def file(self, run_id: str, name: str) -> str:
        """The name below the root of a run's file, for example of `predictions.parquet`."""
        ...

    def files(self, run_id: str) -> dict[str, str]:
        """A run's files: by name within the run, the name below the root."""
        ...

    def publish(self, folder: Path, run_id: str) -> None:
        """Make a local folder the run's folder; may move it. Raises `StoreError` if the run is done with other
        results."""
        ...

    def put(self, file: Path, name: str) -> None:
        """Move a local file below `scratch` to a name in one step, replacing what is there."""
        ...

    def upload_checkpoint(self, folder: Path, name: str) -> None:
        """Make a local folder below `scratch` the only checkpoint under this name, for other machines to download."""
        ...

    def download_checkpoint(self, name: str, into: Path) -> None:
        """Copy the newest checkpoint under this name into a local folder, and delete other checkpoints in it."""
        ...

    def files_with_age(self, folder: str) -> dict[str, float]:
        """The names of the files below a folder ("": leftovers in the root), each with its age in seconds."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file or folder, if it is there."""
        ...


def cache_folder() -> Path:
    """The user's own folder for what stores keep on this machine that have no local folder to write to."""
    return Path(os.environ.get("HKDBENCH_CACHE") or "~/.cache/hkdbench").expanduser().absolute()


def already_done(run_id: str, url: str) -> str:
    """The error for a writer of other results for a finished run."""
    return (
        f"run {run_id} is already done in {url!r}: a finished run never changes; "
        "write to another store, or delete the run's folder first"
    )


def is_done(text: bytes) -> bool:
    """Whether the text of a record is that of a finished run."""
    try:
        record = parse_record(text.decode("utf-8"))
    except UnicodeDecodeError:
        return False
    return isinstance(record, Record) and record.status == "done"
