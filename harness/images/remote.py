"""Published files behind an address (`s3://...`, `hf://datasets/...`) as a local folder, whose images come when read.

    <cache>/data/<digest>.remote/files.sqlite   what lies at the address: size, version and time of every file
    <cache>/data/<digest>.remote/files/         the folder: whatever isn't an image is copied, an image is an empty
                                                (sparse) file of its size and time
    <cache>/data/objects/<aa>/<key>             images that were read. At most `HKDBENCH_DATA_GIB` GiB (default 50): the
                                                least recently used go first

`<cache>` is `HKDBENCH_CACHE` on the node's own disk: nodes share nothing. An image's key is made of the version that
the bucket states, which follows from the content (an ETag, a blob's id), and its size: equal images lie there once, and
a changed one is another. Where none is stated, of its address, size and time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from harness.buckets import failures
from harness.buckets.opening import filesystem, how_to_install
from harness.errors import ConfigError, DataError, first_line

MARK = ".remote"
"""The end of the name of a folder that stands for an address."""
IMAGES = frozenset({
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
})  # fmt: skip
"""Suffixes of the files that are fetched when they are read."""
AT_ONCE = 16
"""Threads that fetch: each waits for the network most of the time."""
LISTED_SECONDS = 120.0
"""What lies at an address is listed again after this time, by the next process: the workers of a node need one list."""
PAUSES = (1.0, 5.0, 20.0)
"""Seconds before each further attempt to fetch a file, while the connection fails."""
DEFAULT_GIB = 50.0
RIGHTS = "list and read"
OTHER = "give another --data-dir"

In = TypeVar("In")
Out = TypeVar("Out")


class _File(NamedTuple):
    """A file at an address."""

    size: int
    version: str
    """What the bucket states and changes with the content; "" if it states nothing."""
    time: float
    """When it was written, in seconds since 1970; 0 if unknown."""


# ------------------------------------------------------------------------------------------- the folder


@lru_cache(maxsize=64)
def folder_of(address: str, cache: Path) -> Path:
    """The local folder that stands for an address. Raises `ConfigError` or `DataError`."""
    home = cache.resolve() / "data" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}{MARK}"
    index = home / "files.sqlite"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):  # one process of the node lists and copies, the others use it
            if not (index.exists() and time.time() - index.stat().st_mtime < LISTED_SECONDS):
                _update(home, address)
    except OSError as error:
        raise DataError(f"data folder {address!r}: its copy in {home} can't be written: {error}") from None
    return home / "files"


def _update(home: Path, address: str) -> None:
    """List the address, and bring the folder to its state."""
    fs, root = _opened(address)
    found = _listed(fs, root, address)
    index = home / "files.sqlite"
    known = _read_index(index)
    changed = [name for name, file in found.items() if known.get(name) != file]
    for name in known.keys() - found.keys():
        (home / "files" / name).unlink(missing_ok=True)
    for folder in {str(PurePosixPath(name).parent) for name in changed}:
        (home / "files" / folder).mkdir(parents=True, exist_ok=True)

    def bring(name: str) -> None:
        path, file = home / "files" / name, found[name]
        part = path.with_name(f".part-{uuid4().hex[:8]}")
        if is_image(name):
            with part.open("wb") as empty:
                empty.truncate(file.size)
        else:
            with _errors(address):
                failures.persistently(
                    lambda: fs.get_file(f"{root}/{name}", str(part)), f"{address}/{name}", PAUSES, "fetched again"
                )
        if file.time:
            os.utime(part, (file.time, file.time))
        part.replace(path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(bring, changed):
            pass
    _write_index(index, address, found)


def _opened(address: str) -> tuple[Any, str]:
    try:
        return filesystem(address)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"data_dir = {address!r}: can't be opened: {first_line(error)}{how_to_install(address)}; expected a "
            "folder, s3://bucket/prefix, hf://datasets/OWNER/NAME or another address that fsspec knows"
        ) from None


def _listed(fs: Any, root: str, address: str) -> dict[str, _File]:
    """Every file at the address, by its name below it. Raises `DataError` if there is none."""
    with _errors(address):
        try:
            listed: dict[str, dict[str, Any]] = failures.persistently(
                lambda: fs.find(root, detail=True), address, PAUSES, "listed again"
            )
        except FileNotFoundError:
            listed = {}
    found = {}
    for path, info in listed.items():
        name = path[len(root) :].lstrip("/")
        if not name or name.endswith("/") or info.get("type") == "directory":
            continue
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
            raise DataError(f"data folder {address!r}: {name!r} is no name of a file in a folder; rename it there")
        found[name] = _File(int(info.get("size") or 0), version_of(info), _time(info))
    if not found:
        raise DataError(f"data folder {address!r} does not exist or is empty; expected the published files below it")
    return found


def version_of(info: Mapping[str, Any]) -> str:
    """What a filesystem states about a file that follows from its content: S3's ETag, a hub's blob id, ... or ""."""
    for name in ("ETag", "etag", "blob_id", "md5Hash", "content_md5"):
        if info.get(name):
            return str(info[name]).strip('"')
    return ""


def _time(info: Mapping[str, Any]) -> float:
    for name in ("LastModified", "last_modified", "created", "mtime"):
        written = info.get(name)
        if isinstance(written, datetime):
            return written.timestamp()
        if isinstance(written, int | float):
            return float(written)
    return 0.0


def is_image(name: str) -> bool:
    """Whether a file is an image, by its name: it is fetched when it is read."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def _read_index(index: Path) -> dict[str, _File]:
    with suppress(sqlite3.Error):
        db = sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True)
        try:
            return {name: _File(*file) for name, *file in db.execute("select name, size, version, time from files")}
        finally:
            db.close()
    return {}


def _write_index(index: Path, address: str, files: Mapping[str, _File]) -> None:
    part = index.with_name(f".part-{uuid4().hex[:8]}")
    db = sqlite3.connect(part)
    with db:
        db.execute("create table files (name text primary key, size int, version text, time real) without rowid")
        db.execute("create table about (address text)")
        db.execute("insert into about values (?)", (address,))
        db.executemany("insert into files values (?, ?, ?, ?)", ((name, *file) for name, file in files.items()))
    db.close()
    part.replace(index)


# ------------------------------------------------------------------------------------------- images


def is_remote(image: object) -> bool:
    """Whether an image is fetched when it is read: its file, or that of the image that it is made from, lies in a
    folder that stands for an address."""
    if isinstance(image, Path):
        return f"{MARK}{os.sep}" in str(image) and is_image(image.name)
    made_from = (getattr(image, name) for name in ("path", "source", "example", "image") if hasattr(image, name))
    return any(is_remote(one) for one in made_from)


def content(path: Path) -> bytes:
    """A file's bytes; those of an image in a folder that stands for an address from there, or from the cache.

    Raises `OSError` with a number: whether the image is damaged isn't known then.
    """
    if not is_remote(path):
        return path.read_bytes()
    home, _, rest = str(path).partition(f"{MARK}{os.sep}")
    name = PurePosixPath(Path(rest).relative_to("files")).as_posix()
    return _mirror(f"{home}{MARK}").content(name, path)


def each(work: Callable[[In], Out], items: Sequence[In], remote: bool) -> list[Out]:
    """`work` of each item, in order; of remote images several at a time."""
    if not remote or len(items) < 2:
        return [work(item) for item in items]
    return list(_pool().map(work, items))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, "hkdbench-images")


@lru_cache(maxsize=64)
def _mirror(home: str) -> _Mirror:
    return _Mirror(Path(home))


class _Mirror:
    """A folder that stands for an address, as this process reads it; for several threads."""

    def __init__(self, home: Path) -> None:
        self._db = sqlite3.connect(f"{(home / 'files.sqlite').as_uri()}?mode=ro", uri=True, check_same_thread=False)
        self._lock = Lock()
        ((self._address,),) = self._db.execute("select address from about")
        self._fs, self._root = _opened(self._address)
        self._objects = objects_of(home.parent)

    def content(self, name: str, path: Path) -> bytes:
        with self._lock:
            row = self._db.execute("select size, version, time from files where name = ?", (name,)).fetchone()
        if row is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        file, where = _File(*row), f"{self._address}/{name}"
        key = hashlib.sha256(json.dumps([file.version or where, file.size, file.version or file.time]).encode())
        known = self._objects.get(key.hexdigest(), file.size)
        if known is not None:
            return known
        with _errors(self._address, OSError):
            found: bytes = failures.persistently(lambda: self.fetched(name), where, PAUSES, "fetched again")
        if len(found) != file.size:
            raise OSError(errno.ESTALE, f"{where} changed while it was in use: {len(found)} bytes, not {file.size}")
        self._objects.put(key.hexdigest(), found)
        return found

    def fetched(self, name: str) -> bytes:
        """A file's bytes from its address."""
        found: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return found


@contextmanager
def _errors(address: str, kind: type[OSError] | type[DataError] = DataError) -> Iterator[None]:
    """Tell what the bucket answered, and what to change; a long wait is told while it lasts."""
    try:
        with failures.noted(address):
            yield
    except (DataError, ConfigError):
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and kind is OSError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from None
        text = f"data folder {address!r} can't be read: {failures.reason(error, address, RIGHTS, OTHER)}"
        raise (DataError(text) if kind is DataError else OSError(errno.EIO, text)) from None


# ------------------------------------------------------------------------------------------- the cache


class ImageCache:
    """Files by key in a folder, of a limited total size: the least recently used go first.

    Several processes may share it. Each looks at the total after it has added a hundredth of the limit, and then
    deletes down to nine tenths: between two looks there may be a little more than the limit.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root, self._limit = root, limit
        self._added = limit  # what is there from before isn't known
        self._lock = Lock()

    def get(self, key: str, size: int) -> bytes | None:
        """The bytes of a key; None if they aren't there, or not in this size."""
        path = self._root / key[:2] / key
        try:
            found = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return found if len(found) == size else None

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes; on a full disk nothing is kept."""
        path = self._root / key[:2] / key
        part = path.with_name(f".part-{uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        with self._lock:
            self._added += len(data)
            if self._added < self._limit / 100:
                return
            self._added = 0
        self._shrink()

    def _shrink(self) -> None:
        with suppress(OSError, Timeout), FileLock(self._root / ".lock", timeout=0):
            files = sorted((stat.st_mtime_ns, stat.st_size, path) for path, stat in self._files())
            size = sum(size for _, size, _ in files)
            if size <= self._limit:
                return
            for _, bytes_, path in files:
                if size <= 0.9 * self._limit:
                    break
                path.unlink(missing_ok=True)
                size -= bytes_

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self._root.glob("??"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        yield Path(entry.path), entry.stat()


@lru_cache(maxsize=8)
def objects_of(data: Path) -> ImageCache:
    """The cache of all addresses in `<cache>/data`."""
    text = os.environ.get("HKDBENCH_DATA_GIB") or str(DEFAULT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise ConfigError(f"HKDBENCH_DATA_GIB = {text!r}: expected a number of GiB above 0, for images from buckets")
    return ImageCache(data / "objects", int(limit * 2**30))
