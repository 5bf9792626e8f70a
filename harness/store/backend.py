"""What a store needs from the place where its files are stored: `Backend`, a local folder, a bucket or one file.

A backend uses names below its root ("run-1/record.json"), and can publish a run's folder atomically.
`harness.store.local` does this on a disk, `harness.store.object_storage` in a bucket. `harness.store.packed` only
reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Protocol, TypeVar

from harness.errors import StoreError
from harness.record import Record, read_record

STALE_SECONDS = 24 * 3600.0
"""A temporary file of this age was left behind by a killed writer."""
RECORD = "record.json"
PREDICTIONS = "predictions.parquet"
CATALOGUE = ".catalogue"
"""The folder of the compacted catalogue, see `harness.store.catalog`."""
LABELS = ".labels.json"
"""What finished runs are called now, where that isn't what their records say, see `Store.labels`."""
SWEEPS = ".sweeps"
"""The folder of what sweeps were asked and found, see `harness.experiments.selection`."""
REPRODUCED = ".reproduced"
"""The folder of what was found when runs were trained again, see `harness.store.checksums`."""


TEXTS = (LABELS, "*.json", "*.md", f"{SWEEPS}/*.json", f"{REPRODUCED}/*.json")
"""Patterns of the texts beside the runs."""


RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


AHEAD = 256
In = TypeVar("In")
Out = TypeVar("Out")


def checked_id(run_id: str) -> str:
    """The id, checked. Raises `StoreError` for one that could be a path."""
    if not RUN_ID.fullmatch(run_id):
        raise StoreError(
            f"run id {run_id!r}: expected at most 128 letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return run_id


@dataclass(frozen=True)
class Problem:
    """A run of the store with a record or file that can't be used, and why."""

    run_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.run_id}: {self.message}"


class RunLock(Protocol):
    """A lock that this process holds."""

    def release(self) -> None:
        """Let others have it."""
        ...


class Backend(Protocol):
    """The files of a store. Methods that read raise `FileNotFoundError` or another `OSError`."""

    url: str
    """The address that opens this backend again, also in another process."""
    scratch: Path
    """The local folder for work in progress and caches."""
    at_once: int
    """How many files are best read at once."""

    def missing(self) -> str:
        """Why there is no store here, with near names; empty if there is one, even without runs."""
        ...

    def check_writable(self) -> None:
        """Write a file into the root and delete it. Raises `StoreError`."""
        ...

    def folders(self) -> dict[str, str]:
        """Every folder of the root by name, with a version that changes with its record or predictions; "" for no
        record."""
        ...

    def texts(self) -> list[str]:
        """The names of the texts beside the runs, sorted, see `TEXTS`."""
        ...

    def attested(self) -> list[str]:
        """The names of the files in `REPRODUCED`; those of a bucket as of the last call of `folders`, without asking
        it again."""
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

    def lock(self, name: str, seconds: float) -> RunLock | None:
        """The lock of this name; None if another living process has held it for this number of seconds."""
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


def each(backend: Backend, work: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """`work` of each item, in order; several at a time where each takes the time of a request."""
    if backend.at_once == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(backend.at_once) as pool:
        for start in range(0, len(items), AHEAD):  # so that few results wait in memory
            yield from pool.map(work, items[start : start + AHEAD])


def no_store(url: str, near: Iterable[str]) -> str:
    """The error for an address without a store; `near` are similar ones that exist."""
    hint = " or ".join(map(repr, near))
    return (
        f"no store at {url!r}; {f'did you mean {hint}? ' if hint else ''}expected a folder of runs, s3://bucket/prefix "
        "or a packed store (.tar.xz): choose with --store or HKDBENCH_STORE; the first run creates one"
    )


def near_paths(path: Path) -> list[str]:
    """Existing paths that differ from one that doesn't in its first missing part only."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        names = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return []
    rest = path.relative_to(missing)
    found = [missing.parent / name / rest for name in get_close_matches(missing.name, names, n=3, cutoff=0.6)]
    return [str(one) for one in found if one.exists()]


def already_done(run_id: str, url: str) -> str:
    """The error for a writer of other results for a finished run."""
    return (
        f"run {run_id} is already done in {url!r}: a finished run never changes; "
        "write to another store, or delete the run's folder first"
    )


def is_done(text: bytes) -> bool:
    """Whether the text of a record is that of a finished run. A damaged one may be replaced."""
    record = read_record(text)
    return isinstance(record, Record) and record.status == "done"
