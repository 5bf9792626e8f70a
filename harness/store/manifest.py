"""The manifests of a catalogue: which files make up a state of it. Quick to load; see `harness.store.catalog`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.store.local import CATALOGUE, Place
from harness.versions import CATALOG

DataKey = tuple[str, str, str]
"""What runs must share to be ranked together: benchmark, revision, fingerprint."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Model):
    """A file of answers."""

    file: str
    runs: int


class TableFiles(_Model):
    """The files of the runs on one data."""

    benchmark: str
    revision: str
    fingerprint: str
    examples: str
    parts: tuple[Part, ...]

    @property
    def data_key(self) -> DataKey:
        return self.benchmark, self.revision, self.fingerprint


class Manifest(_Model):
    """One state of the catalogue."""

    version: int
    resamples: int
    runs: str
    count: int
    tables: tuple[TableFiles, ...]

    @property
    def files(self) -> set[str]:
        """The names of all files of this state."""
        return {self.runs} | {f for t in self.tables for f in (t.examples, *(part.file for part in t.parts))}


def manifests(place: Place) -> list[str]:
    """The names of the manifests, oldest first."""
    found = (name.rpartition("/")[2] for name in place.ages(CATALOGUE))
    return sorted(name for name in found if name.endswith(".json") and not name.startswith("."))


def load(place: Place, name: str) -> Manifest | None:
    """A manifest; None where it is gone, damaged or of another version."""
    try:
        manifest = Manifest.model_validate_json(place.read(f"{CATALOGUE}/{name}"))
    except (ValidationError, OSError):
        return None
    return manifest if manifest.version == CATALOG else None


def newest(place: Place) -> Manifest | None:
    """The newest manifest that this version reads."""
    return next((found for name in reversed(manifests(place)) if (found := load(place, name))), None)


def listing_key(stamps: Mapping[str, str]) -> str:
    """Digest of a listing: equal as long as no run was added, replaced or deleted."""
    digest = hashlib.blake2b(digest_size=16)
    for run_id in sorted(stamps):
        digest.update(f"{run_id}\0{stamps[run_id]}\n".encode())
    return digest.hexdigest()
