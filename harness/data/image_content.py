"""What the images of examples hold: a sha256 for each, so that data are known by their pictures and not by file names.

A file is read once. Its hash is kept in the user's cache (`HKDBENCH_CACHE` or `~/.cache/hkdbench`), in
`images/<hash of its folder>.json`, with a stamp: inode, size, and the times of its last change (mtime and ctime; nobody
can set the latter). A file with another stamp is read again, and so is one that changed just before it was read: within
a tick of the clock it may have changed again. The cache may be deleted at any time, and where it can't be written
nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from harness.api import DataError, Example
from harness.config import cache_folder

ABSENT = "no file "
"""Before the name of a file that doesn't exist: answers may be imported without the images."""
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
    read: Callable[[], bytes]


def contents(examples: Sequence[Example]) -> list[str | None]:
    """For each example the sha256 of its encoded image, as a file has it. None: it is drawn when it is asked for.

    An image that is made from a file has that file's hash, after the name of the function that makes it. Raises
    `DataError` with the first example whose image can't be read.
    """
    sources: dict[int, _Source] = {}
    for e in examples:
        try:
            source = _stored(e)
        except (OSError, ValueError) as error:
            raise _unreadable(e, error) from None
        if source is not None:
            sources[id(e.image)] = source
    hashes = _hashes(sources, {id(e.image): e for e in reversed(examples)})
    return [_content(e, hashes.get(id(e.image))) for e in examples]


def _unreadable(example: Example, error: Exception, where: str = "") -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"example {example.id!r}: image {where}{' ' if where else ''}can't be read: {reason}")


def _content(example: Example, of_file: str | None) -> str | None:
    image = example.image
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if of_file is not None:
        made = not isinstance(image, Path) and not hasattr(image, "content")
        return f"{type(image).__qualname__} {of_file}" if made else of_file
    if hasattr(image, "content"):  # neither drawn nor in a file
        return hashlib.sha256(image.content()).hexdigest()
    return None


def _stored(example: Example) -> _Source | None:
    """Where an example's image lies; None for bytes and for one that is drawn. See `harness.api.ImageSource`."""
    image = example.image
    if isinstance(image, bytes):
        return None
    if not isinstance(image, Path) and hasattr(image, "content") and hasattr(image, "stored"):
        files, place = image.stored()
        return _Source(os.path.dirname(files[0]), f"{files[0].name} {place}", tuple(files), image.content)
    path = image if isinstance(image, Path) else getattr(image, "path", None)
    if not isinstance(path, Path):
        return None
    folder, name = os.path.split(os.path.abspath(path))
    return _Source(folder, name, (path,), path.read_bytes)


def _hashes(sources: Mapping[int, _Source], examples: Mapping[int, Example]) -> dict[int, str]:
    """The sha256 of each source: kept, or read now and kept if there is a cache."""
    stamps: dict[tuple[Path, ...], tuple[str, bool]] = {}
    kept: dict[str, Kept] = {}
    new: dict[str, Kept] = defaultdict(dict)
    found: dict[int, str] = {}
    unread: dict[tuple[str, str], list[int]] = defaultdict(list)
    try:
        for key, source in sources.items():
            if source.files not in stamps:
                stamps[source.files] = _stamp(source.files)
            if not stamps[source.files][0]:
                found[key] = f"{ABSENT}{source.name}"
                continue
            if source.folder not in kept:
                kept[source.folder] = _load(source.folder)
            known = kept[source.folder].get(source.name)
            if known is not None and known[0] == stamps[source.files][0]:
                found[key] = known[1]
            else:
                unread[source.folder, source.name].append(key)
        with ThreadPoolExecutor(READERS) as pool:
            keys = [same[0] for same in unread.values()]
            read = pool.map(lambda key: hashlib.sha256(sources[key].read()).hexdigest(), keys)
            for same in unread.values():
                key = same[0]
                digest = next(read)
                found |= dict.fromkeys(same, digest)
                stamp, settled = stamps[sources[key].files]
                if settled:
                    new[sources[key].folder][sources[key].name] = stamp, digest
    except (OSError, ValueError) as error:
        raise _unreadable(examples[key], error, os.path.join(sources[key].folder, sources[key].name)) from None
    for folder, hashes in new.items():
        _keep(folder, hashes)
    return found


def _stamp(files: Iterable[Path]) -> tuple[str, bool]:
    """What changes with the files, and whether their last change is long enough ago for that to be certain.

    Empty if one doesn't exist.
    """
    parts, last = [], 0
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError:
            return "", False
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
