"""Rankings cached beside a compacted catalogue: a table is computed only once per change.

A cached answer's name is a hash of everything that it depends on: the filters, the runs with their versions, and the
versions of the code (`harness.versions`); its first line is the hash of the others. It is never wrong, only missing. An
answer without a run that can't be read isn't cached, because that run may be readable later. A folder without a
catalogue has no cache: reading it writes nothing. Rankings of a packed store are in the user's cache
(`harness.paths.cache_folder`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from harness.leaderboard.schema import Filters, Ranking, Table
from harness.store import Store
from harness.store.backend import CATALOGUE
from harness.store.manifest import listing_key, manifests
from harness.versions import CATALOG, SCORING

FOLDER = f"{CATALOGUE}/cache"

M = TypeVar("M", bound=BaseModel)


class LeaderboardCache:
    """The cached answers to one query of a store."""

    def __init__(self, store: Store, filters: Filters, keep: bool = True) -> None:
        self.keep = keep
        self.stamps, self.problems = store.listed()
        self.folder: Path | None = None
        if not self.problems and ((names := manifests(store.backend)) or store.packed):
            self.folder = store.backend.scratch / FOLDER
            self.question = [store.url, filters.model_dump_json(), f"{SCORING} {CATALOG}"]
            self.key = _hash([*self.question, *names[-1:], listing_key(self.stamps)])

    def ranking(self) -> Ranking | None:
        """The full answer, if no run was added, changed or deleted since it was cached."""
        return self._get(self.key, Ranking) if self.folder else None

    def put_ranking(self, answer: Ranking) -> None:
        if self.folder and self.keep and not answer.broken:
            self._put(self.key, answer)

    def table(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]]) -> Table | None:
        """One table, if its runs are still the same."""
        return self._get(self._of(data_key, stamps), Table) if self.folder else None

    def put_table(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]], table: Table) -> None:
        if self.folder and self.keep and not table.broken:
            self._put(self._of(data_key, stamps), table)

    def _of(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]]) -> str:
        return _hash([*self.question, *data_key, *(part for pair in sorted(stamps) for part in pair)])

    def _get(self, key: str, model: type[M]) -> M | None:
        assert self.folder is not None
        try:
            digest, _, text = (self.folder / key).read_bytes().partition(b"\n")
            return model.model_validate_json(text) if digest == _digest(text) else None
        except (OSError, ValidationError):
            return None

    def _put(self, key: str, value: BaseModel) -> None:
        assert self.folder is not None
        temporary = self.folder / f".tmp-{uuid4().hex[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = value.model_dump_json().encode()
            temporary.write_bytes(_digest(text) + b"\n" + text)
            os.replace(temporary, self.folder / key)
        except OSError:  # a read-only store
            return


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
