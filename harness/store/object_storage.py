"""A store in a bucket: S3 and compatible services, or any other fsspec filesystem.

Objects can't be renamed there, but a single object is replaced atomically. So a run's tables are uploaded
first, under a folder named by the hash of the new record, and `record.json` last: this upload is the
commit. Before it nobody sees the run; after it, readers find the tables by the hash of the record that they
read, so no reader mixes the files of two writers:

    <root>/<run_id>/record.json
    <root>/<run_id>/<first 16 hex digits of its sha256>/predictions.parquet, history.parquet, student/

A checkpoint of an unfinished run is uploaded to `.work/<run_id>/<its name>/` in the same way, its `state.json` last:
a run whose node is lost continues on another one.

On S3 the upload is conditional (the record must still be the one that we read, or absent), so of two writers one
wins and the other finds its record. On other filesystems two writers that finish a run at the same moment both
succeed, and the last one wins. A run that is executed is locked by an object, `harness.store.bucket.lease`.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from harness.buckets import failures
from harness.buckets.opening import filesystem, how_to_install, is_s3
from harness.errors import StoreError, first_line
from harness.paths import cache_folder
from harness.store.backend import PREDICTIONS, RECORD, REPRODUCED, TEXTS, RunLock, already_done, is_done, no_store
from harness.store.bucket import lease
from harness.store.local import Lock
from harness.store.local import acquire as acquire_file

LAST = "state.json"
"""The file of a checkpoint that is uploaded last: a checkpoint with it is complete."""


class ObjectStorage:
    """The backend of a URL like `s3://bucket/prefix`. Raises `StoreError` if no filesystem supports it."""

    at_once = 16

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.scratch = cache_folder() / f"store-{digest}"
        try:
            self.fs, self.root = filesystem(self.url)
        except (ValueError, ImportError) as error:
            raise StoreError(f"store {url!r} can't be opened: {first_line(error)}{how_to_install(url)}") from None
        self._conditional = is_s3(self.fs)
        # Else s3fs asks for a file's size first, which is a second request for each file.
        self._whole: dict[str, Any] = {"max_concurrency": 1} if self._conditional else {}
        self._attempts: dict[str, str] = {}
        """By run: the folder of the tables that belong to the record that was read last."""
        self._watched: lease.Watched = {}
        self._attested: list[str] | None = None

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def missing(self) -> str:
        with self._errors("can't be read"):
            if self.fs.exists(self.root):
                return ""
        parent, _, name = self.root.rpartition("/")
        try:
            beside = [path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(parent, detail=False)]
        except Exception:  # no such bucket, or its list isn't ours to see: no names to suggest
            beside = []
        above = self.url.removesuffix(name)
        return no_store(self.url, [above + one for one in get_close_matches(name, beside, n=3, cutoff=0.6)])

    def check_writable(self) -> None:
        name = f".tmp-probe-{uuid4().hex[:8]}"
        with self._errors("can't be written"):
            self.fs.pipe_file(self._at(name), b"")
            self.fs.rm_file(self._at(name))

    def folders(self) -> dict[str, str]:
        with self._errors("can't be read"):
            try:
                found = self.fs.find(self.root, detail=True)
            except FileNotFoundError:
                found = {}
        self._attested = []
        versions: dict[str, str] = {}
        answers: dict[str, str] = {}
        for path, info in sorted(found.items()):
            folder, _, rest = path[len(self.root) :].lstrip("/").partition("/")
            if folder == REPRODUCED:
                self._attested.append(f"{folder}/{rest}")
            changed = info.get("ETag") or info.get("LastModified") or info.get("created") or info.get("mtime")
            version = f"{changed}-{info['size']:x}".replace('"', "")
            if rest == RECORD:  # a folder without one is an upload in progress, or was killed
                versions[folder] = version
            elif rest.endswith(f"/{PREDICTIONS}"):
                answers[folder] = f"{answers.get(folder, '')}-{version}"
        return {folder: version + answers.get(folder, "") for folder, version in versions.items()}

    def texts(self) -> list[str]:
        with self._errors("can't be read"):
            found = {path for pattern in TEXTS for path in self.fs.glob(self._at(pattern))}
        return sorted(path[len(self.root) :].lstrip("/") for path in found)

    def attested(self) -> list[str]:
        if self._attested is None:
            self.folders()
        return self._attested or []

    def exists(self, name: str) -> bool:
        with self._errors("can't be read"):
            return bool(self.fs.exists(self._at(name)))

    def read(self, name: str) -> bytes:
        with self._errors("can't be read", absent=True):
            data: bytes = self.fs.cat_file(self._at(name), **self._whole)
        run_id, _, rest = name.partition("/")
        if rest == RECORD:
            self._attempts[run_id] = _attempt(data)
        return data

    def open(self, name: str) -> IO[bytes]:
        with self._errors("can't be read", absent=True):
            handle: IO[bytes] = self.fs.open(self._at(name), "rb")
        return handle

    def file(self, run_id: str, name: str) -> str:
        if name == RECORD:
            return f"{run_id}/{name}"
        if run_id not in self._attempts:
            self.read(f"{run_id}/{RECORD}")
        return f"{run_id}/{self._attempts[run_id]}/{name}"

    def files(self, run_id: str) -> dict[str, str]:
        attempt = f"{run_id}/{_attempt(self.read(f'{run_id}/{RECORD}'))}"
        found = {path[len(self._at(attempt)) + 1 :] for path in self.fs.find(self._at(attempt))}
        return {RECORD: f"{run_id}/{RECORD}"} | {name: f"{attempt}/{name}" for name in sorted(found)}

    def publish(self, folder: Path, run_id: str) -> None:
        self._attempts.pop(run_id, None)
        with self._errors("can't be written"):
            failures.persistently(lambda: self._publish(folder, run_id), self.url)

    def _publish(self, folder: Path, run_id: str) -> None:
        record = self._at(f"{run_id}/{RECORD}")
        text = (folder / RECORD).read_bytes()
        attempt = f"{run_id}/{_attempt(text)}"
        parts = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD)
        uploaded = False
        for _ in range(20):
            found, tag = self._current(record)
            if found is not None and is_done(found):
                if found == text and self._same_bytes(folder, parts, attempt):
                    return
                raise StoreError(already_done(run_id, self.url))
            if not uploaded:
                for part in parts:
                    self.fs.put_file(str(part), self._at(f"{attempt}/{part.relative_to(folder).as_posix()}"))
                uploaded = True
            if self._commit(record, text, found is not None, tag):
                return
        raise StoreError(f"run {run_id}: other writers keep replacing it; run it once at a time")

    def _current(self, path: str) -> tuple[bytes | None, str | None]:
        """A record and its ETag; None if there is none. The tag is read first, so that a later change is noticed."""
        try:
            tag = self.fs.info(path).get("ETag")
            return self.fs.cat_file(path, **self._whole), tag
        except FileNotFoundError:
            return None, None

    def _commit(self, path: str, text: bytes, replaces: bool, tag: str | None) -> bool:
        """Put the record if the old one is still the one that we read; False if another writer was faster."""
        condition: dict[str, Any] = {}
        if self._conditional:
            condition = {"IfMatch": tag} if replaces else {"IfNoneMatch": "*"}
        try:
            self.fs.pipe_file(path, text, **condition)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the record to be replaced is gone
            return False
        except OSError as error:
            if condition and error.errno in (errno.EINVAL, errno.EBUSY):  # 412 and 409
                return False
            raise
        return True

    def _same_bytes(self, folder: Path, parts: list[Path], attempt: str) -> bool:
        try:
            return all(self.read(f"{attempt}/{p.relative_to(folder).as_posix()}") == p.read_bytes() for p in parts)
        except FileNotFoundError:
            return False

    def current(self, name: str) -> tuple[bytes | None, str | None]:
        """An object's bytes and tag; None if there is none."""
        with self._errors("can't be read"):
            return self._current(self._at(name))

    def replace(self, name: str, text: bytes, found: bytes | None, tag: str | None) -> bool:
        """Write an object if it is still the one that was found; False if it isn't."""
        with self._errors("can't be written"):
            return self._commit(self._at(name), text, found is not None, tag)

    def lock(self, name: str, seconds: float) -> RunLock | None:
        held = acquire_file(self.scratch / name, seconds)
        if held is None:
            return None
        # With the lock of its file, this is the only process of the machine that asks the bucket.
        machine = lease.machine_of(self.scratch) if held.held else uuid4().hex
        try:
            shared = lease.acquire(self, name, machine, seconds, self._watched)
        except StoreError as error:
            failures.LOG.warning("no lock for all machines: %s", error)
            return held
        if shared is None:
            held.release()
            return None
        return _Both(held, shared)

    def put(self, file: Path, name: str) -> None:
        with self._errors("can't be written"):
            self.fs.put_file(str(file), self._at(name))
        file.unlink()

    def upload_checkpoint(self, folder: Path, name: str) -> None:
        there = f"{name}/{folder.name}"
        with self._errors("can't be written"):
            files = sorted(folder.iterdir(), key=lambda file: file.name == LAST)
            for file in files:
                self.fs.put_file(str(file), self._at(f"{there}/{file.name}"))
            for old in self._checkpoints(name):
                if old != folder.name:
                    self.fs.rm(self._at(f"{name}/{old}"), recursive=True)

    def _checkpoints(self, name: str) -> dict[str, set[str]]:
        """The files of each folder below a name."""
        try:
            found = self.fs.find(self._at(name))
        except FileNotFoundError:
            return {}
        folders: dict[str, set[str]] = {}
        for path in found:
            folder, _, file = path[len(self._at(name)) + 1 :].partition("/")
            folders.setdefault(folder, set()).add(file)
        return folders

    def download_checkpoint(self, name: str, into: Path) -> None:
        with self._errors("can't be read"):
            complete = {folder: files for folder, files in self._checkpoints(name).items() if LAST in files}
            newest = max(complete, default="")
            # Other checkpoints here may be older than those of another machine.
            for other in into.glob("checkpoint-*"):
                if other.name != newest:
                    shutil.rmtree(other, ignore_errors=True)
            if not newest or (into / newest).is_dir():
                return
            part = into / f".part-{newest}-{uuid4().hex[:8]}"
            part.mkdir(parents=True)
            for file in complete[newest]:
                self.fs.get_file(self._at(f"{name}/{newest}/{file}"), str(part / file))
            try:
                part.rename(into / newest)
            except OSError:  # another rank on this machine was faster
                shutil.rmtree(part)

    def files_with_age(self, folder: str) -> dict[str, float]:
        with self._errors("can't be read"):
            try:
                found = self.fs.find(self._at(folder), detail=True)
            except FileNotFoundError:
                return {}
        named = {path[len(self.root) :].lstrip("/"): info for path, info in found.items()}
        names = set(named) if folder else set(self._orphans(list(named)))
        return {name: _age(named[name]) for name in sorted(names)}

    def _orphans(self, names: list[str]) -> Iterator[str]:
        """Probes, and tables whose record was never written or was replaced: no reader uses them."""
        runs: dict[str, list[str]] = {}
        for name in names:
            run_id, slash, rest = name.partition("/")
            if name.startswith(".tmp-"):
                yield name
            elif slash and not name.startswith("."):
                runs.setdefault(run_id, []).append(rest)
        for run_id, files in runs.items():
            attempts = {file.partition("/")[0] for file in files} - {RECORD}
            current = ""
            if RECORD in files:
                if len(attempts) < 2:  # the usual case: no file has to be opened
                    continue
                current = _attempt(self.read(f"{run_id}/{RECORD}"))
            yield from (f"{run_id}/{file}" for file in files if file.partition("/")[0] not in (RECORD, current))

    def remove(self, name: str) -> None:
        try:
            self.fs.rm(self._at(name), recursive=True)
        except OSError:
            return

    @contextmanager
    def _errors(self, what: str, absent: bool = False) -> Iterator[None]:
        """Turn each filesystem's own errors (credentials, network, access) into one `StoreError`.

        `absent`: a `FileNotFoundError` is a valid answer, and passes through.
        """
        try:
            with failures.noted(self.url):
                yield
        except StoreError:
            raise
        except Exception as error:
            if absent and isinstance(error, FileNotFoundError):
                raise
            raise StoreError(f"store {self.url!r} {what}: {failures.reason(error, self.url)}") from None


@dataclass(frozen=True)
class _Both:
    """A lock of this machine, and the one that all machines see."""

    held: Lock
    shared: lease.Lease

    def release(self) -> None:
        self.shared.release()
        self.held.release()


def _attempt(record: bytes) -> str:
    return hashlib.sha256(record).hexdigest()[:16]


def _age(info: dict[str, Any]) -> float:
    """Seconds since an object was written; 0 if the filesystem doesn't say."""
    written = info.get("LastModified") or info.get("created") or info.get("mtime")
    if isinstance(written, datetime):
        return (datetime.now(UTC) - (written if written.tzinfo else written.replace(tzinfo=UTC))).total_seconds()
    return time.time() - written if isinstance(written, int | float) else 0.0
