"""The content of images as hashes, and what is known about a content, kept between runs.

Facts are kept by content in one SQLite file of the user's cache folder (`HKDBENCH_CACHE`, or `~/.cache/hkdbench`), so
that no picture is opened twice for them. A file's own hash is kept beside its size, times and inode: a file that has
changed, or two that were swapped, are read again. The cache may be deleted at any time; without one, all still works.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_LAYOUT = """
create table if not exists files (path text primary key, state text, hash text) without rowid;
create table if not exists facts (key text primary key, fact text) without rowid;
"""
_WAIT_SECONDS = 10.0


def content_hash(data: bytes) -> str:
    """sha256 of an encoded image, in hex."""
    return hashlib.sha256(data).hexdigest()


def cache_folder() -> Path:
    """Where the user's cache lies: `HKDBENCH_CACHE`, or hkdbench/ in XDG's cache folder."""
    own = os.environ.get("HKDBENCH_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hkdbench"


class ContentCache:
    """The hashes of files, and facts by content; safe for several threads and processes.

    A cache that can't be opened or written (a full disk, a home without locks) keeps nothing and says nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._new_files: dict[str, tuple[str, str]] = {}
        self._new_facts: dict[str, str] = {}
        self._db: sqlite3.Connection | None = None
        with suppress(OSError, sqlite3.Error):
            folder = folder or cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "images.sqlite", timeout=_WAIT_SECONDS, check_same_thread=False)
            self._db.executescript(_LAYOUT)

    def file_hash(self, path: Path) -> str:
        """`content_hash` of a file; it is read only if it isn't known or may have changed. Raises `OSError`."""
        found = path.stat()
        # The change time moves when a file is renamed or replaced; size and modification time alone needn't.
        state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        name = os.path.abspath(path)
        known = self._one("select state, hash from files where path = ?", name)
        if known is not None and known[0] == state:
            return str(known[1])
        digest = content_hash(path.read_bytes())
        with self._lock:
            self._new_files[name] = state, digest
        return digest

    def fact(self, key: str) -> str | None:
        """What is known under a key."""
        known = self._one("select fact from facts where key = ?", key)
        return None if known is None else str(known[0])

    def put(self, facts: Mapping[str, str]) -> None:
        """Keep facts by their keys, when `flush` is called."""
        with self._lock:
            self._new_facts.update(facts)

    def flush(self) -> None:
        """Write what is new."""
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error), self._db:
                    rows = [(path, state, digest) for path, (state, digest) in self._new_files.items()]
                    self._db.executemany("insert or replace into files values (?, ?, ?)", rows)
                    self._db.executemany("insert or replace into facts values (?, ?)", self._new_facts.items())
            self._new_files.clear()
            self._new_facts.clear()

    def close(self) -> None:
        """Write what is new and close the file."""
        self.flush()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _one(self, query: str, key: str) -> tuple[str, ...] | None:
        with self._lock, suppress(sqlite3.Error):
            if self._db is not None:
                found: tuple[str, ...] | None = self._db.execute(query, (key,)).fetchone()
                return found
        return None
