"""A packed store: a tar archive of a store's folder, compressed by xz as a whole. It is only read, into memory.

Compressed as a whole, since the files of many runs have much in common: ids, golds and categories of the same examples,
and most of their records. Any `tar` unpacks it. What a stranger's archive may hold is restricted: plain files, with the
names that a store has, each once, within a bound on their sum; xz has a checksum of all.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import tarfile
from pathlib import Path
from typing import IO, NoReturn

from harness.config import cache_folder
from harness.errors import StoreError, first_line
from harness.store.backend import LABELS, RECORD, REPRODUCED, SWEEPS, RunLock, near_paths, no_store

SUFFIX = ".tar.xz"
MOST_BYTES = 2 * 2**30
"""What the files of a packed store may have together: they are read into memory."""
_MOST_MEMORY = 2**28
"""What xz may take to unpack."""

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_RUN_FILE = re.compile(
    rf"{_WORD}/(record\.json|received\.json|predictions\.parquet|history\.parquet"
    rf"|student/{_WORD}\.(json|safetensors|jinja|txt))"
)
_TEXT = re.compile(
    rf"{re.escape(LABELS)}|{_WORD}\.(json|md)|{re.escape(SWEEPS)}/{_WORD}\.json"
    rf"|{re.escape(REPRODUCED)}/{_WORD}\.[0-9a-f]{{16}}\.json"
)


def is_kept(name: str) -> bool:
    """Whether a packed store may have a file of this name: of a run, of a sweep, or a text beside the runs."""
    return bool(_RUN_FILE.fullmatch(name) or _TEXT.fullmatch(name))


def members(path: Path) -> dict[str, bytes]:
    """All files of a packed store by name. Raises `StoreError` for one that is damaged, or no packed store."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(no_store(str(path), near_paths(path))) from None
    except OSError as error:
        _refuse(path, error.strerror or str(error))
    try:
        return _members(path, _unpacked(path, packed))
    except (lzma.LZMAError, tarfile.TarError, EOFError, ValueError) as error:
        _refuse(path, f"it is damaged: {first_line(error)}")


def _unpacked(path: Path, packed: bytes) -> bytes:
    """The tar archive: all of it, and nothing after it."""
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
    whole = reader.decompress(packed, MOST_BYTES + 1)
    if len(whole) > MOST_BYTES:
        _refuse(path, f"it unpacks to more than {MOST_BYTES:,} bytes")
    if not reader.eof:
        _refuse(path, "it is truncated")
    if reader.unused_data:
        _refuse(path, "something follows its end")
    return whole


def _members(path: Path, whole: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        for entry in archive:
            if not entry.isreg() or entry.issparse():
                _refuse(path, f"{entry.name[:100]!r} isn't a plain file")
            if not is_kept(entry.name):
                _refuse(path, f"{entry.name[:100]!r} isn't a file of a store")
            if entry.name in found:
                _refuse(path, f"it has {entry.name} twice")
            source = archive.extractfile(entry)
            assert source is not None
            found[entry.name] = source.read()
    return found


def _refuse(path: Path, why: str) -> NoReturn:
    raise StoreError(f"packed store {str(path)!r} can't be read: {why}; get it again, or pack it anew") from None


class PackedBackend:
    """The backend of a packed store. Raises `StoreError` for one that can't be read, and wherever it would be written.

    A file that was replaced is read again when its runs are listed.
    """

    at_once = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)
        self.scratch = path
        self._read_at: tuple[int, int] | None = None
        self._load()

    def _load(self) -> None:
        try:
            now = os.stat(self.path)
            stamp = now.st_mtime_ns, now.st_size
        except OSError:
            stamp = (0, 0)  # `members` says what is wrong
        if stamp == self._read_at:
            return
        self._files = members(self.path)
        of_run = {name.partition("/")[0]: data for name, data in self._files.items() if name.endswith(f"/{RECORD}")}
        self._versions = {run_id: hashlib.sha256(data).hexdigest()[:16] for run_id, data in of_run.items()}
        listing = "".join(f"{run_id} {version}\n" for run_id, version in sorted(self._versions.items()))
        self.scratch = cache_folder() / f"packed-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
        self._read_at = stamp

    def missing(self) -> str:
        """Nothing: a file that isn't there can't be opened."""
        return ""

    def check_writable(self) -> None:
        self._refuse_to_write()

    def _refuse_to_write(self) -> NoReturn:
        raise StoreError(
            f"store {self.url!r} is packed, so it can only be read: `hkdbench store unpack {self.path.name} DIR` makes "
            "a folder of it"
        )

    def folders(self) -> dict[str, str]:
        self._load()
        return dict(self._versions)

    def texts(self) -> list[str]:
        return sorted(name for name in self._files if _TEXT.fullmatch(name))

    def attested(self) -> list[str]:
        return [name for name in self._files if name.startswith(f"{REPRODUCED}/")]

    def exists(self, name: str) -> bool:
        return name in self._files or any(known.startswith(f"{name}/") for known in self._files)

    def read(self, name: str) -> bytes:
        if name not in self._files:
            raise FileNotFoundError(name)
        return self._files[name]

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.read(name))

    def file(self, run_id: str, name: str) -> str:
        return f"{run_id}/{name}"

    def files(self, run_id: str) -> dict[str, str]:
        start = f"{run_id}/"
        return {name.removeprefix(start): name for name in sorted(self._files) if name.startswith(start)}

    def publish(self, folder: Path, run_id: str) -> None:
        self._refuse_to_write()

    def lock(self, name: str, seconds: float) -> RunLock | None:
        self._refuse_to_write()

    def put(self, file: Path, name: str) -> None:
        self._refuse_to_write()

    def upload_checkpoint(self, folder: Path, name: str) -> None:
        self._refuse_to_write()

    def download_checkpoint(self, name: str, into: Path) -> None:
        """Nothing to do: there are no checkpoints."""

    def files_with_age(self, folder: str) -> dict[str, float]:
        """Nothing: there is neither a catalogue nor work in progress."""
        return {}

    def remove(self, name: str) -> None:
        self._refuse_to_write()
