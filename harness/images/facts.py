"""What is known about an image's content, kept between runs so that no picture is opened twice for it.

Facts lie in one SQLite file. It may be deleted at any time; without one, all still works.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

_LAYOUT = "create table if not exists facts (key text primary key, fact text) without rowid;"
_WAIT_SECONDS = 10.0


class Facts:
    """Facts by key; safe for several threads and processes.

    A file that can't be opened or written (a full disk, a home without locks) keeps nothing and says nothing.
    """

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._new: dict[str, str] = {}
        self._db: sqlite3.Connection | None = None
        with suppress(OSError, sqlite3.Error):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=_WAIT_SECONDS, check_same_thread=False)
            self._db.executescript(_LAYOUT)

    def get(self, key: str) -> str | None:
        """What is known under a key."""
        with self._lock, suppress(sqlite3.Error):
            if self._db is not None:
                known = self._db.execute("select fact from facts where key = ?", (key,)).fetchone()
                return None if known is None else str(known[0])
        return None

    def put(self, key: str, fact: str) -> None:
        """Keep a fact, when the file is closed."""
        with self._lock:
            self._new[key] = fact

    def close(self) -> None:
        """Write what is new and close the file."""
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error), self._db:
                    self._db.executemany("insert or replace into facts values (?, ?)", self._new.items())
                self._db.close()
                self._db = None
