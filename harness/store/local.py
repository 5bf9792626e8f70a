"""A store in a local folder, or in a folder that machines share.

A run appears atomically: its folder is written and flushed under a temporary name beside it and then renamed, by
one writer at a time.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from harness.errors import StoreError, first_line
from harness.store.backend import (
    CATALOGUE,
    PREDICTIONS,
    RECORD,
    REPRODUCED,
    TEXTS,
    already_done,
    is_done,
    near_paths,
    no_store,
)

if TYPE_CHECKING:
    from filelock import FileLock

JOB_FOLDER = "working_dir_files"
"""Where Ray unpacks the working directories of its jobs."""
LOCK = ".lock"
"""Locked by the process that is moving a run into a local store; the file itself is not deleted."""
LOCK_SECONDS = 60.0


POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds; it does nothing on a filesystem without locks."""

    path: Path | None = None
    held: FileLock | None = None

    def release(self) -> None:
        """Release it and delete its file."""
        if self.path is not None and self.held is not None:
            with suppress(OSError):  # the folder may be gone
                self.path.unlink()  # while it is held, so that a waiting process notices
            self.held.release()


def acquire(path: Path, seconds: float) -> Lock | None:
    """The lock of this file; None if another living process holds it for this number of seconds.

    It is a lock of the operating system (flock), which releases it when a process is killed. On a filesystem without
    locks, or one that is read-only, the lock does nothing: two processes may then do the same work.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, poll_interval=POLL_SECONDS, thread_local=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        return None
    except OSError:
        return Lock()
    return Lock(path, lock)


class LocalBackend:
    """The backend of a folder on this machine or on a shared disk."""

    at_once = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self.scratch = root

    def missing(self) -> str:
        if not self.exists("."):
            return no_store(self.url, near_paths(self.root))
        entries = list(self._entries())
        folders = [e.name for e in entries if _is_folder(e) and not e.name.startswith(".")]
        written = any(entry.name in (LOCK, ".work", CATALOGUE) for entry in entries)
        if written or not folders or any(_version(str(self.root / name)) for name in folders):
            return ""
        below = [str(self.root / name) for name in sorted(folders) if any((self.root / name).glob(f"*/{RECORD}"))]
        if below:
            return no_store(self.url, below[:3])
        return no_store(self.url, []) + f"; none of its {len(folders)} folders ({folders[0]}, ...) has a {RECORD}"

    def check_writable(self) -> None:
        probe = self.root / f".tmp-probe-{uuid4().hex[:8]}"
        if JOB_FOLDER in self.root.parts:
            raise StoreError(
                f"store {self.url!r} is in the Ray job's copy of the code, which Ray deletes after the job: give "
                "--store an absolute path that all nodes see, or a bucket (s3://bucket/prefix)"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"store {self.url!r} can't be written: {error.strerror or error}; expected a folder or "
                "a path where one can be created: choose another with --store or HKDBENCH_STORE"
            ) from None

    def folders(self) -> dict[str, str]:
        return {entry.name: _version(entry.path) for entry in self._entries() if _is_folder(entry)}

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.root) as entries:
                yield from entries
        except FileNotFoundError:  # no store yet: it is empty
            return
        except OSError as error:
            raise StoreError(
                f"store {self.url!r} can't be read: {error.strerror or error}; expected a folder of "
                "runs, or a packed store (.tar.xz): choose another with --store or HKDBENCH_STORE"
            ) from None

    def texts(self) -> list[str]:
        found = {path for pattern in TEXTS for path in self.root.glob(pattern)}
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())

    def attested(self) -> list[str]:
        try:
            return [f"{REPRODUCED}/{name}" for name in os.listdir(self.root / REPRODUCED)]
        except OSError:  # no run was trained again
            return []

    def exists(self, name: str) -> bool:
        try:
            return (self.root / name).exists()
        except OSError:  # it is there, and can't be looked at
            return True

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        return open(self.root / name, "rb")

    def file(self, run_id: str, name: str) -> str:
        return f"{run_id}/{name}"

    def files(self, run_id: str) -> dict[str, str]:
        folder = self.root / run_id
        found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
        return {name: f"{run_id}/{name}" for name in found}

    def publish(self, folder: Path, run_id: str) -> None:
        final, aside = self.root / run_id, self.root / f".tmp-{run_id}-{uuid4().hex[:8]}"
        flush(folder)
        with self._locked():
            if _is_done(final):
                if _same_files(folder, final):
                    return
                raise StoreError(already_done(run_id, self.url))
            if final.exists():
                os.rename(final, aside)
            os.rename(folder, final)
            _flush_folder(self.root)
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one writer at a time checks and replaces a run. The system releases the lock of a killed process."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.root / LOCK, timeout=LOCK_SECONDS, mode=0o666):  # other users write here too
                yield
        except Timeout:
            raise StoreError(
                f"store {self.url!r}: another process has held its {LOCK} for {LOCK_SECONDS:.0f} s, and moving a run "
                "takes less than 1 s: stop that process (or delete the file, if its machine is gone) and run again"
            ) from None

    def lock(self, name: str, seconds: float) -> Lock | None:
        return acquire(self.root / name, seconds)

    def put(self, file: Path, name: str) -> None:
        final = self.root / name
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(file, final)
        _flush_folder(final.parent)

    def upload_checkpoint(self, folder: Path, name: str) -> None:
        """Nothing to do: all processes that share the root see the checkpoint."""

    def download_checkpoint(self, name: str, into: Path) -> None:
        """Nothing to do: the checkpoint is already there."""

    def files_with_age(self, folder: str) -> dict[str, float]:
        base = self.root / folder if folder else self.root
        now, found = time.time(), {}
        for path in base.glob("*" if folder else ".tmp-*"):
            try:
                found[path.relative_to(self.root).as_posix()] = now - path.stat().st_mtime
            except OSError:  # gone meanwhile
                continue
        return found

    def remove(self, name: str) -> None:
        path = self.root / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError:  # another process deletes it too, or we have no permission
            return


@contextmanager
def room_for(folder: Path, what: str) -> Iterator[None]:
    """Within the context, where `what` is written to `folder`, an error of its disk (full, read-only) is a `StoreError`
    with the path. safetensors has an error of its own for them."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        found = re.search(r'message: "([^"]+)"', str(error))  # of safetensors: IoError(Os { code: 28, ... })
        reason = found[1] if found else getattr(error, "strerror", None) or first_line(error)
        with suppress(OSError):
            reason += f" ({shutil.disk_usage(folder.parent).free / 2**30:.1f} GiB are free)"
        raise StoreError(
            f"{what} can't be written to {folder}: {reason}; make room there (`hkdbench store gc`, `hkdbench cache "
            "rm`) or choose another store with --store; then the same command continues from the checkpoint before"
        ) from error


def _is_done(folder: Path) -> bool:
    try:
        return is_done((folder / RECORD).read_bytes())
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # it can't be looked at: reading it says why
        return True


def _version(folder: str) -> str:
    """Time and size of the record and of the predictions, which are what leaderboards are computed from."""
    try:
        found = os.stat(os.path.join(folder, RECORD))
    except OSError:
        return ""
    try:
        answers = os.stat(os.path.join(folder, PREDICTIONS))
    except OSError:
        return f"{found.st_mtime_ns:x}-{found.st_size:x}"
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{answers.st_mtime_ns:x}-{answers.st_size:x}"


def _same_files(a: Path, b: Path) -> bool:
    def files(folder: Path) -> dict[Path, int]:
        return {p.relative_to(folder): p.stat().st_size for p in folder.rglob("*") if p.is_file()}

    found = files(a)
    return found == files(b) and all((a / name).read_bytes() == (b / name).read_bytes() for name in found)


def flush(folder: Path) -> None:
    """Force a folder's files to disk, so that the rename can't come before them."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb+") as file:  # Windows flushes writable handles only
                os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows can't open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
