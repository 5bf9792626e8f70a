"""A disk cache of teachers' outputs and trained weights, for all runs that would compute the same again.

    <root>/<kind>/<aa>/<key>-<sum>.safetensors     an entry; aa: the first two digits of the key
    <root>/<kind>/<aa>/.part-*                      being written; never read
    <root>/<kind>/<aa>/<key>.lock                   locked by the process that is computing the entry

`key` is a sha256 of everything that the content depends on (`harness.train.teacher_cache`). `sum` is the beginning of
the file's own sha256, which is checked whenever the file is opened: a damaged entry is deleted and computed again.
Entries are written under a temporary name and renamed, so readers and writers need no lock. The lock only keeps two
processes from computing the same thing twice; it belongs to the operating system (flock), which releases it when a
process is killed. The least recently used entries are deleted to limit the size. This module imports torch only when
tensors are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from harness.errors import StoreError
from harness.store.local import Lock, acquire

if TYPE_CHECKING:
    from torch import Tensor

    from harness.config import ClusterConfig
    from harness.store.store import Store

Kind = Literal["answers", "stages"]
"""Shards of a frozen model's outputs; weights of trained teachers."""

CACHE = ".cache"
"""The folder below a store's root (for a bucket: below its local scratch folder)."""

DAY = 24 * 3600.0
SUM_DIGITS = 32


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: its kind and key, its size, and when it was last used (seconds since 1970)."""

    path: Path
    kind: str
    key: str
    bytes: int
    used: float

    @property
    def sound(self) -> bool:
        """Whether the file still matches the sha256 in its name."""
        try:
            return _digest(self.path) == self.path.stem.partition("-")[2]
        except OSError:
            return False

    def about(self) -> dict[str, Any]:
        """The description in the file's header; empty if it is damaged."""
        try:
            with self.path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                found: dict[str, Any] = json.loads(file.read(min(size, self.bytes)))["__metadata__"]
                return {"kind": self.kind, **json.loads(found["about"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


@dataclass(frozen=True)
class CachedTensors:
    """The content of an entry: memory-mapped tensors, and plain JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class Cache:
    """The cache below `root`, which the first write creates; its size is limited to `limit` bytes."""

    root: Path
    limit: int

    def get(self, kind: Kind, key: str) -> CachedTensors | None:
        """The entry of a key; None if there is no intact one. A damaged one is deleted."""
        from safetensors import SafetensorError, safe_open

        for path in self._folder(kind, key).glob(f"{key}-*.safetensors"):
            try:
                if _digest(path) == path.stem.partition("-")[2]:
                    with safe_open(path, framework="pt") as file:
                        # Mapped, not read: if the file is deleted meanwhile, its data live until the tensors are freed.
                        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                        state = json.loads(file.metadata()["state"])
                    os.utime(path)
                    return CachedTensors(tensors, state)
            except (OSError, SafetensorError, ValueError, KeyError):
                pass
            with suppress(OSError):
                path.unlink()
        return None

    def put(
        self, kind: Kind, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Store an entry. If the disk is full or read-only, nothing is stored and the run continues.

        `about` is what `cache ls` shows; `state` is what `get` returns besides the tensors.
        """
        from safetensors.torch import save_file

        folder = self._folder(kind, key)
        part = folder / f".part-{os.getpid()}-{uuid4().hex[:8]}"
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.touch()
            mode = part.stat().st_mode  # as the umask has it: safetensors' own files are for their owner alone
            save_file(on_cpu, part, {"about": json.dumps(about), "state": json.dumps(state)})
            part.chmod(mode)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(folder / f"{key}-{_digest(part)}.safetensors")
            self.shrink()
        except Exception as error:  # safetensors has its own error for a full disk
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
                raise

    def acquire(self, kind: Kind, key: str, seconds: float) -> Lock | None:
        """The lock for computing an entry; None if another living process holds it for this number of seconds."""
        return acquire(self._folder(kind, key) / f"{key}.lock", seconds)

    def entries(self) -> list[CacheEntry]:
        """All entries, least recently used first. Raises `StoreError` if the folder can't be read."""
        found = []
        try:
            for path in self.root.glob("*/??/*-*.safetensors"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    key = path.stem.partition("-")[0]
                    found.append(CacheEntry(path, path.parent.parent.name, key, stat.st_size, stat.st_mtime))
        except OSError as error:
            raise StoreError(f"cache {str(self.root)!r} can't be read: {error.strerror or error}") from None
        return sorted(found, key=lambda entry: entry.used)

    def shrink(self) -> list[CacheEntry]:
        """Delete the least recently used entries until the rest fits, and leftovers of killed writers; returns those
        deleted."""
        entries = self.entries()
        size, dropped = sum(entry.bytes for entry in entries), []
        for entry in entries[:-1]:  # the newest stays, however large: its run needs it
            if size <= self.limit:
                break
            entry.path.unlink(missing_ok=True)
            size -= entry.bytes
            dropped.append(entry)
        for part in self.root.glob("*/??/.part-*"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > DAY:
                    part.unlink()
        return dropped

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key[:2]


def cache_of(store: Store, cluster: ClusterConfig) -> Cache:
    """The cache that the runs of a store share on this machine."""
    return Cache(store.backend.scratch / CACHE, int(cluster.cache_gib * 2**30))


def key_of(parts: Mapping[str, Any]) -> str:
    """The key of an entry that depends on these plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:SUM_DIGITS]
