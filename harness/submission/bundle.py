"""A run as one zip file: how it is written, and how it is read if it comes from somebody else.

The layout is restricted on purpose: no bytes before, after or between the members, at most 40 members, names from a
fixed set, plain files, stored or deflated, each of a bounded size that the manifest states with its sha256.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import DataError, StoreError, first_line
from harness.record import first_fault
from harness.store import Store
from harness.store.backend import RECORD
from harness.store.schemas import TABLES

MANIFEST = "manifest.json"
MIB = 2**20

MOST_MEMBERS = 40
MOST_DIRECTORY = 16 * 1024
"""The maximum size in bytes of the zip's central directory."""
MOST_RECORD = 16 * MIB
MOST_TEXT = 64 * MIB
MOST_TABLE = 512 * MIB
MOST_TENSORS = 2048 * MIB - 1
MOST_RATIO = 100
"""The maximum ratio of decompressed to compressed bytes."""


_STRICT = ConfigDict(extra="forbid", frozen=True)


class Member(BaseModel):
    """A file of the run."""

    model_config = _STRICT

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BundleManifest(BaseModel):
    """manifest.json: the content of the zip file."""

    model_config = _STRICT

    format: Literal["hkdbench run"] = "hkdbench run"
    version: Literal[1] = 1
    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    files: dict[str, Member]


def refuse(file: Path, why: str) -> NoReturn:
    """Raise a `DataError` with the reason why a file isn't added."""
    raise DataError(f"{file.name} is refused: {why}")


_STUDENT = re.compile(r"student/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(json|safetensors|jinja|txt)")
EXPECTED = "record.json, predictions.parquet, history.parquet, and student/*.safetensors, .json, .jinja, .txt"


def kind(name: str) -> str:
    """The type of a file by its name: json, parquet, safetensors, ..."""
    return name.rpartition(".")[2]


def limit(name: str) -> int:
    """The maximum size in bytes of a file of this name; 0: a bundle has no such file."""
    if name in (MANIFEST, RECORD):
        return MOST_RECORD
    if name in {f"{table}.parquet" for table in TABLES}:
        return MOST_TABLE
    if _STUDENT.fullmatch(name):
        return MOST_TENSORS if kind(name) == "safetensors" else MOST_TEXT
    return 0


# ------------------------------------------------------------------------------------------- writing


def write(path: Path, store: Store, run_id: str, present: Mapping[str, str]) -> BundleManifest:
    """Write the files of a run (by name, their names in the store) and the manifest. Raises `StoreError`."""
    members = {}
    with zipfile.ZipFile(path, "w") as archive:
        for name, there in sorted(present.items()):
            with store.backend.open(there) as source:
                size = source.seek(0, os.SEEK_END)
                if size > limit(name):
                    raise StoreError(f"run {run_id}: {name} has {size} bytes, more than the {limit(name)} to be sent")
                source.seek(0)
                digest = hashlib.sha256()
                with archive.open(_entry(name, size), "w") as target:
                    while block := source.read(MIB):
                        digest.update(block)
                        target.write(block)
            members[name] = Member(bytes=size, sha256=digest.hexdigest())
        manifest = BundleManifest(run_id=run_id, files=members)
        text = manifest.model_dump_json(indent=1).encode()
        archive.writestr(_entry(MANIFEST, len(text)), text)
    return manifest


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    """A zip entry without machine and time; tables and tensors are already compressed."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_STORED if kind(name) in ("parquet", "safetensors") else zipfile.ZIP_DEFLATED
    entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    entry.file_size = size
    return entry


# ------------------------------------------------------------------------------------------- reading


def unpack(file: Path, folder: Path) -> BundleManifest:
    """Write the members to `folder/<run id>`, as listed in the manifest. Raises `DataError`."""
    try:
        offset = _directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = _entries(file, archive, offset)
            manifest = _manifest(file, archive, entries)
            target = folder / manifest.run_id
            target.mkdir()
            for name, member in manifest.files.items():
                path = target / name
                path.parent.mkdir(exist_ok=True)
                digest = hashlib.sha256()
                with path.open("xb") as writer:
                    for block in _blocks(archive, entries[name]):
                        digest.update(block)
                        writer.write(block)
                if (path.stat().st_size, digest.hexdigest()) != (member.bytes, member.sha256):
                    refuse(file, f"{name} isn't the file in the manifest (its size or sha256 differs)")
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, struct.error) as error:
        refuse(file, f"it can't be read: {first_line(error)}")
    return manifest


def _directory(file: Path) -> int:
    """The offset of the central directory, from the zip's end record, which must be the end of the file."""
    if not file.is_file():
        raise DataError(f"{file}: no such file" if not file.exists() else f"{file}: not a file")
    size = file.stat().st_size
    with file.open("rb") as source:
        source.seek(max(0, size - 22))
        end = source.read(22)
    if len(end) < 22 or end[:4] != b"PK\x05\x06":
        refuse(file, "it isn't a zip file that `hkdbench pack` wrote, or it is truncated")
    _, disk, first_disk, here, count, length, offset, comment = struct.unpack("<4s4H2LH", end)
    if disk or first_disk or comment or here != count or offset + length != size - 22:
        refuse(file, "it isn't a zip file that `hkdbench pack` wrote: it has parts, a comment or other data")
    if count > MOST_MEMBERS or length > MOST_DIRECTORY:
        refuse(file, f"it has {count} members in a list of {length} bytes; expected at most {MOST_MEMBERS}")
    return int(offset)


def _entries(file: Path, archive: zipfile.ZipFile, offset: int) -> dict[str, zipfile.ZipInfo]:
    """The members by name; all are plain files with expected names. Raises `DataError`."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name, mode = entry.filename, entry.external_attr >> 16
        if name != entry.orig_filename or limit(name) == 0:
            refuse(file, f"it holds {entry.orig_filename[:100]!r}; expected {EXPECTED} and {MANIFEST}")
        if name in entries:
            refuse(file, f"it holds {name} twice")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            refuse(file, f"{name} isn't a plain file but a link or a device")
        if entry.flag_bits & 0x1:
            refuse(file, f"{name} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse(file, f"{name} is compressed by method {entry.compress_type}; expected stored or deflated")
        if entry.file_size > limit(name):
            refuse(file, f"{name} has {entry.file_size} bytes; expected at most {limit(name)}")
        if entry.file_size > max(64 * 1024, MOST_RATIO * entry.compress_size):
            refuse(file, f"{name} decompresses {entry.compress_size} bytes to {entry.file_size}: too many for a run")
        entries[name] = entry
    # Each member has a header of 30 bytes and its name: so no bytes are between members, and none overlap.
    if sum(30 + len(name) + entry.compress_size for name, entry in entries.items()) != offset:
        refuse(file, "its members don't fill it: there is other data between them, or they overlap")
    return entries


def _blocks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The decompressed bytes of a member: never more than it declares, because zipfile stops there and compares the
    CRC."""
    with archive.open(entry) as source:
        while block := source.read(MIB):
            yield block


def _manifest(file: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> BundleManifest:
    if MANIFEST not in entries:
        refuse(file, f"it has no {MANIFEST}: expected a file that `hkdbench pack` wrote")
    try:
        manifest = BundleManifest.model_validate_json(b"".join(_blocks(archive, entries[MANIFEST])))
    except ValidationError as error:
        refuse(file, f"{MANIFEST}: {first_fault(error)}")
    if manifest.files.keys() | {MANIFEST} != entries.keys() or MANIFEST in manifest.files:
        refuse(file, f"its members ({', '.join(entries)}) aren't those of its manifest ({', '.join(manifest.files)})")
    for name in (RECORD, "predictions.parquet"):
        if name not in manifest.files:
            refuse(file, f"it has no {name}")
    return manifest
