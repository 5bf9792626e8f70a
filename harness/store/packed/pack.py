"""Writes a store into one file, and makes a folder of one again."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from harness.errors import ConfigError, StoreError
from harness.store.backend import Problem
from harness.store.local import flush
from harness.store.packed.archive import MOST_BYTES, SUFFIX, is_kept, members
from harness.store.store import Store

PRESET = 6
"""Of xz: 9 takes twice the time for 1 % less."""


@dataclass(frozen=True)
class Packed:
    """What was packed."""

    runs: int
    broken: tuple[str, ...]
    """Runs without a sound record, which were left out."""
    files: int
    bytes_before: int
    bytes: int


def pack(store: Store, out: Path, with_students: bool = False) -> Packed:
    """Write records, predictions and history of all runs, and the texts beside them, into one file: the same bytes
    for the same content.

    Work in progress, caches and the catalogue stay out, and so do trained students unless they are asked for. Raises
    `ConfigError` for a name that isn't a packed store's, `StoreError` for a store that is empty or too large.
    """
    if not out.name.endswith(SUFFIX):
        raise ConfigError(f"{str(out)!r}: expected a name that ends in {SUFFIX}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{str(out)!r}: its folder isn't there; make it first")
    sound: list[str] = []
    broken: list[str] = []
    for run_id in store.ids():
        (broken if isinstance(store.load(run_id), Problem) else sound).append(run_id)
    if not sound:
        raise StoreError(f"store {store.url!r} has no runs to pack: choose one with --store")
    there = dict(_names(store, sound, with_students))
    temporary = out.with_name(f".tmp-{out.name}-{uuid4().hex[:8]}")
    try:
        size = _write(store, there, temporary)
        os.replace(temporary, out)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{str(out)!r} can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return Packed(len(sound), tuple(broken), len(there), size, out.stat().st_size)


def _names(store: Store, run_ids: list[str], with_students: bool) -> Iterator[tuple[str, str]]:
    """What is packed: the name in the archive, and the name in the store."""
    for run_id in run_ids:
        for name, there in store.backend.files(run_id).items():
            if is_kept(f"{run_id}/{name}") and (with_students or "/" not in name):
                yield f"{run_id}/{name}", there
    yield from ((name, name) for name in store.backend.texts() if is_kept(name))


def _write(store: Store, there: dict[str, str], path: Path) -> int:
    """The files without owner and time, those of one kind together, since they have most in common; their size."""
    size = 0
    with (
        lzma.open(path, "wb", preset=PRESET) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(there, key=lambda name: (name.rpartition("/")[2], name)):
            data = store.backend.read(there[name])
            size += len(data)
            if size > MOST_BYTES:
                raise StoreError(
                    f"store {store.url!r} has more than {MOST_BYTES:,} bytes, too much for a file that is read into "
                    "memory: pack the runs of some suites only, or keep it as a folder or in a bucket"
                )
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return size


def unpack(file: Path, folder: Path) -> int:
    """Make a store's folder of a packed store, whole or not at all; the number of files.

    Raises `StoreError` for a file that can't be read and for a folder that isn't empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(
            f"{str(folder)!r} isn't an empty folder: name another, or add the runs to the store there with "
            f"`hkdbench store merge {file} --store {folder}`"
        )
    found = members(file)
    temporary = folder.with_name(f".tmp-{folder.name}-{uuid4().hex[:8]}")
    try:
        for name, data in found.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        flush(temporary)
        if folder.exists():
            folder.rmdir()
        os.rename(temporary, folder)
    except OSError as error:
        raise StoreError(f"{str(folder)!r} can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(found)
