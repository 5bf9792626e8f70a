"""What the images of examples hold: a sha256 for each, so that data are known by their pictures and not by file names.

A file is read once. Its hash is kept in the user's cache (`HKDBENCH_CACHE` or `~/.cache/hkdbench`), in
`images/<hash of its folder>.json`, with a stamp: inode, size, and the times of its last change (mtime and ctime; nobody
can set the latter). A file with another stamp is read again, and so is one that changed just before it was read: within
a tick of the clock it may have changed again. The cache may be deleted at any time, and where it can't be written
nothing is kept. What is known about a content (`harness.data.opening`) lies beside, in `images/facts.sqlite`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Self
from uuid import uuid4

from harness.api import DataError, Example, ImageSource
from harness.images.reading import encoded
from harness.paths import cache_folder

SETTLED_NS = 2 * 10**9
"""A file that changed this shortly before it was read isn't kept: some file systems count time in steps of 2 s."""
READERS = 8
"""Threads that read files: they wait for the disk or the network most of the time."""

Kept = dict[str, tuple[str, str]]
"""Of a folder: by name its stamp and its sha256."""


@dataclass(frozen=True)
class _Source:
    """Encoded bytes that lie in files: the folder and the name under which their hash is kept, and how to read them."""

    folder: str
    name: str
    files: tuple[Path, ...]
    read: Callable[[], bytes] = field(compare=False)


class ContentHashes:
    """The hashes of images, for several threads; a context, at whose end new hashes are kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stamps: dict[tuple[Path, ...], tuple[str, bool]] = {}
        self._kept: dict[str, Kept] = {}
        self._new: dict[str, Kept] = defaultdict(dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for folder, hashes in self._new.items():
            _keep(folder, hashes)

    def of(self, image: ImageSource) -> str | None:
        """The sha256 of an encoded image, as a file has it. None: it is drawn when it is asked for.

        An image that is made from a file has that file's hash, after the name of the function that makes it. Raises
        what reading it raises.
        """
        source = _stored(image)
        return _content(image, None if source is None else self.of_stored(source))

    def of_stored(self, source: _Source) -> str:
        """The sha256 of what lies in files: kept, or read now."""
        stamped = self._stamps.get(source.files)
        if stamped is None:
            stamped = self._stamps[source.files] = _stamp(source.files)
        stamp, settled = stamped
        with self._lock:
            if source.folder not in self._kept:
                self._kept[source.folder] = _load(source.folder)
        known = self._kept[source.folder].get(source.name)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = hashlib.sha256(source.read()).hexdigest()
        if settled:
            with self._lock:
                self._new[source.folder][source.name] = stamp, digest
        return digest


def each_image(examples: Iterable[Example]) -> Iterator[Example]:
    """Each image of the examples, as an example of its own."""
    for example in examples:
        yield from example.each_image()


def contents(examples: Sequence[Example], needed: bool = True) -> list[str | None]:
    """For each example the hash of its (first) image, see `ContentHashes.of`.

    Raises `DataError` with the first example whose image can't be read. A file that isn't `needed` may be missing: its
    image has no hash.
    """
    sources: list[_Source | None] = []
    distinct: dict[_Source, Example] = {}
    for e in examples:
        try:
            source = _stored(e.image)
        except (OSError, ValueError) as error:
            raise _unreadable(e, error) from None
        if source is not None and not needed and not all(file.exists() for file in source.files):
            source = None
        if source is not None:
            distinct.setdefault(source, e)
        sources.append(source)
    found: dict[_Source, str] = {}
    with ContentHashes() as hashes, ThreadPoolExecutor(READERS) as pool:
        results = pool.map(hashes.of_stored, distinct)
        for source, e in distinct.items():
            try:
                found[source] = next(results)
            except (OSError, ValueError) as error:
                raise _unreadable(e, error, os.path.join(source.folder, source.name)) from None
    return [_content(e.image, found.get(of) if of else None) for e, of in zip(examples, sources, strict=True)]


def _unreadable(example: Example, error: Exception, where: str = "") -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"example {example.id!r}: image {where}{' ' if where else ''}can't be read: {reason}")


def _content(image: ImageSource, of_file: str | None) -> str | None:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if of_file is not None:
        made = not isinstance(image, Path) and not hasattr(image, "content")
        return f"{type(image).__qualname__} {of_file}" if made else of_file
    if hasattr(image, "content") and not hasattr(image, "stored"):  # drawn from what it says
        return hashlib.sha256(image.content()).hexdigest()
    return None


def _stored(image: ImageSource) -> _Source | None:
    """Where an image lies; None for bytes and for one that is drawn. See `harness.api.ImageSource`."""
    if isinstance(image, bytes):
        return None
    if not isinstance(image, Path) and hasattr(image, "content") and hasattr(image, "stored"):
        files, place = image.stored()
        return _Source(os.path.dirname(files[0]), f"{files[0].name} {place}", tuple(files), image.content)
    path = image if isinstance(image, Path) else getattr(image, "path", None)
    if not isinstance(path, Path):
        return None
    folder, name = os.path.split(os.path.abspath(path))
    return _Source(folder, name, (path,), lambda: encoded(path))


def _stamp(files: Iterable[Path]) -> tuple[str, bool]:
    """What changes with the files, and whether their last change is long enough ago for that to be certain."""
    parts, last = [], 0
    for file in files:
        stat = file.stat()
        parts.append(f"{stat.st_ino:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}")
        last = max(last, stat.st_mtime_ns, stat.st_ctime_ns)
    return " ".join(parts), time.time_ns() - last > SETTLED_NS


# ------------------------------------------------------------------------------------------- what is kept


def _file_of(folder: str) -> Path:
    return cache_folder() / "images" / f"{hashlib.sha256(folder.encode()).hexdigest()[:16]}.json"


def _load(folder: str) -> Kept:
    try:
        table = json.loads(_file_of(folder).read_bytes())
        return {name: (stamp, digest) for name, (stamp, digest) in table["hashes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: the files are read again
        return {}


def _keep(folder: str, hashes: Kept) -> None:
    """Add hashes to those of the folder. Of two processes that do so at once, the later one's are kept."""
    file = _file_of(folder)
    part = file.with_name(f".tmp-{file.name}-{uuid4().hex[:8]}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"folder": folder, "hashes": _load(folder) | hashes}), encoding="utf-8")
        os.replace(part, file)
