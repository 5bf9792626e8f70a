"""Rankings as they were last computed, kept beside a compacted catalogue: a table is computed once a change.

Those of a packed store, which never changes, are kept in the user's cache (`harness.store.backend.cache_folder`).

A kept answer is named by all that it depends on: the question, the runs with their stamps, and the code that
computes. It is never wrong, only absent. A folder without a catalogue keeps nothing: reading it writes nothing.
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

FOLDER = f"{CATALOGUE}/cache"

_CODE = (
    "stats/aggregate",
    "leaderboard/query",
    "leaderboard/names",
    "stats/bootstrap",
    "store/catalog",
    "leaderboard/extra_columns",
    "stats/distillation",
    "store/index",
    "leaderboard/inference",
    "stats/replicates",
    "stats/metrics",
    "leaderboard/overall",
    "stats/power",
    "leaderboard/leaderboard",
    "stats/rank_intervals",
    "leaderboard/schema",
    "stats/inference",
    "leaderboard/build",
)
"""The modules whose change may change an answer."""

M = TypeVar("M", bound=BaseModel)


class Memory:
    """What a store remembers of a question."""

    def __init__(self, store: Store, filters: Filters, keep: bool = True) -> None:
        self.keep = keep
        self.stamps = store.versions()
        self.folder: Path | None = None
        if (names := manifests(store.backend)) or store.packed:
            self.folder = store.backend.scratch / FOLDER
            self.question = [store.url, filters.model_dump_json(), _code()]
            self.key = _hash([*self.question, *names[-1:], listing_key(self.stamps)])

    def whole(self) -> Ranking | None:
        """The whole answer, where no run came, changed or went since it was kept."""
        return self._get(self.key, Ranking) if self.folder else None

    def keep_whole(self, answer: Ranking) -> None:
        if self.folder and self.keep:
            self._put(self.key, answer)

    def table(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]]) -> Table | None:
        """One table, where the runs in it are still the same."""
        return self._get(self._of(data_key, stamps), Table) if self.folder else None

    def keep_table(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]], table: Table) -> None:
        if self.folder and self.keep:
            self._put(self._of(data_key, stamps), table)

    def _of(self, data_key: Iterable[str], stamps: Iterable[tuple[str, str]]) -> str:
        return _hash([*self.question, *data_key, *(part for pair in sorted(stamps) for part in pair)])

    def _get(self, key: str, model: type[M]) -> M | None:
        assert self.folder is not None
        try:
            return model.model_validate_json((self.folder / key).read_bytes())
        except (OSError, ValidationError):
            return None

    def _put(self, key: str, value: BaseModel) -> None:
        assert self.folder is not None
        temporary = self.folder / f".tmp-{uuid4().hex[:8]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(value.model_dump_json(), encoding="utf-8")
            os.replace(temporary, self.folder / key)
        except OSError:  # a store that we may only read
            return


def _code() -> str:
    here = Path(__file__).parents[1]
    return _hash((here / f"{name}.py").read_text(encoding="utf-8") for name in _CODE)


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
