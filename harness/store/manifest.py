"""The manifests of a catalogue: which files make up a state of it. Quick to load; see `harness.store.catalog`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.store.backend import CATALOGUE, Backend
from harness.versions import CATALOG

DataKey = tuple[str, str, str]
"""What runs must have in common to be ranked together: benchmark, revision, fingerprint."""


_STRICT = ConfigDict(extra="forbid", frozen=True)


class Part(BaseModel):
    """A file of answers."""

    model_config = _STRICT

    file: str
    runs: int


class TableFiles(BaseModel):
    """The files of the runs on the same data."""

    model_config = _STRICT

    benchmark: str
    revision: str
    fingerprint: str
    examples: str
    parts: tuple[Part, ...]

    @property
    def data_key(self) -> DataKey:
        return self.benchmark, self.revision, self.fingerprint


class Manifest(BaseModel):
    """One state of the catalogue."""

    model_config = _STRICT

    version: int
    resamples: int
    runs: str
    count: int
    tables: tuple[TableFiles, ...]

    @property
    def files(self) -> set[str]:
        """The names of all files of this state."""
        return {self.runs} | {f for t in self.tables for f in (t.examples, *(part.file for part in t.parts))}


NAMED = 32
"""Digits of the sha256 in a file's name."""


def name_of(kind: str, data: bytes, suffix: str) -> str:
    """The name of a file of the catalogue: it ends in the hash of its content."""
    return f"{kind}-{hashlib.sha256(data).hexdigest()[:NAMED]}{suffix}"


def is_named(name: str, data: bytes) -> bool:
    """Whether these bytes are those that were written under the name."""
    return name.partition(".")[0].endswith(f"-{hashlib.sha256(data).hexdigest()[:NAMED]}")


def manifests(backend: Backend) -> list[str]:
    """The names of the manifests, oldest first."""
    found = (name.rpartition("/")[2] for name in backend.files_with_age(CATALOGUE))
    return sorted(name for name in found if name.endswith(".json") and not name.startswith("."))


def load(backend: Backend, name: str) -> Manifest | None:
    """A manifest; None if it is missing, damaged or of another version."""
    try:
        data = backend.read(f"{CATALOGUE}/{name}")
        manifest = Manifest.model_validate_json(data)
    except (ValidationError, OSError):
        return None
    return manifest if manifest.version == CATALOG and is_named(name, data) else None


def newest(backend: Backend) -> Manifest | None:
    """The newest manifest that this version can read."""
    return next((found for name in reversed(manifests(backend)) if (found := load(backend, name))), None)


def listing_key(versions: Mapping[str, str]) -> str:
    """Digest of a listing: equal as long as no run was added, replaced or deleted."""
    digest = hashlib.blake2b(digest_size=16)
    for run_id in sorted(versions):
        digest.update(f"{run_id}\0{versions[run_id]}\n".encode())
    return digest.hexdigest()
