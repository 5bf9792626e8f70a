"""All images that a run needs are opened once, in parallel, before it trains; what came out is kept by content.

Images that a benchmark draws are left out: they are code, not data.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL

from harness.api import DataError, Example
from harness.config import cache_folder
from harness.data.image_content import ContentHashes, each_image
from harness.images import reading
from harness.images.facts import Facts

OnOpened = Callable[[int, int], None]
"""Gets the number of images that were opened, and how many there are."""

LARGE = 20_000_000
"""Images of more pixels are opened one at a time: each takes some hundred MB."""
_REPORTS = 200
"""How many times progress is reported at most."""

_sizes: dict[Hashable, tuple[int, int]] = {}
"""The sizes of the images that this process knows, by `key_of`: the runs of a suite share them."""
_on_opened: ContextVar[OnOpened] = ContextVar("on_opened", default=lambda done, count: None)


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that was opened: its size as it is shown, or why it can't be used."""

    width: int = 0
    height: int = 0
    several: bool = False
    """It has several frames, of which the first is used."""
    problem: str = ""
    """Empty: none. Otherwise the end of a sentence about the image."""
    damaged: bool = False
    """The problem is the image's own: not that of a file that is missing or can't be reached, nor the image's size."""


@contextmanager
def reporting(on_opened: OnOpened) -> Iterator[None]:
    """Report the progress of everything that is opened within the context."""
    before = _on_opened.set(on_opened)
    try:
        yield
    finally:
        _on_opened.reset(before)


def open_all(examples: Iterable[Example]) -> dict[Hashable, Opened]:
    """Every image that the examples read, by `key_of`, opened if its content isn't known from before."""
    distinct = {key: e for e in each_image(examples) if (key := key_of(e)) is not None}
    if not distinct:
        return {}
    facts, on_opened = Facts(cache_folder() / "images" / "facts.sqlite"), _on_opened.get()
    every = max(1, len(distinct) // _REPORTS)
    found: dict[Hashable, Opened] = {}
    one_at_a_time = threading.Lock()
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        with ContentHashes() as hashes:
            every_opened = pool.map(lambda e: _open(e, hashes, facts, one_at_a_time), distinct.values())
            for key, opened in zip(distinct, every_opened, strict=True):
                found[key] = opened
                if not opened.problem:
                    _sizes[key] = opened.width, opened.height
                if len(found) % every == 0 or len(found) == len(distinct):
                    on_opened(len(found), len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
        facts.close()
    return found


def damaged(examples: Sequence[Example]) -> dict[str, str]:
    """The ids of the examples whose image is damaged, each with the reason.

    An image that is too large, or on a disk that doesn't answer, isn't damaged: `check` refuses it.
    """
    opened = open_all(examples)
    found: dict[str, str] = {}
    for e in each_image(examples):
        seen = opened.get(key_of(e))
        if seen is not None and seen.damaged:
            found.setdefault(e.id, seen.problem)
    return found


def check(splits: Sequence[tuple[str, Sequence[Example]]], max_pixels: int) -> list[str]:
    """Open the images of some splits, each with its name for errors; returns what the user should know.

    Raises `DataError` with the first example whose image can't be used, and says how many there are.
    """
    opened = open_all(e for _, examples in splits for e in examples)
    several: dict[Hashable, Example] = {}
    for where, examples in splits:
        wrong: list[tuple[Example, str, bool]] = []
        for e in each_image(examples):
            key = key_of(e)
            seen = opened.get(key)
            if seen is None or (wrong and wrong[-1][0].id == e.id):
                continue
            if seen.problem:
                wrong.append((e, seen.problem, seen.damaged))
            elif (pixels := seen.width * seen.height) > max_pixels:
                wrong.append((e, f"has {reading.too_large(pixels, max_pixels)}", False))
            elif seen.several:
                several.setdefault(key, e)
        if wrong:
            first, problem, _ = wrong[0]
            more = f"; so are those of {len(wrong) - 1} more of its {len(examples)} examples" if wrong[1:] else ""
            advice = "; leave such examples out with --skip-missing" if any(own for *_, own in wrong) else ""
            raise DataError(f"{where}: example {first.id!r}: image {first.image_name} {problem}{more}{advice}")
    if not several:
        return []
    example = next(iter(several.values()))
    return [
        f"{len(several)} images have several frames, of which the first is used, like {example.image_name} of example "
        f"{example.id!r}"
    ]


def key_of(example: Example) -> Hashable | None:
    """What stands for the example's (first) image here; None: it is drawn, or no image at all."""
    image = example.image
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if example.image_file is None and not hasattr(image, "stored"):
        return None
    try:
        hash(image)
    except TypeError:
        return f"{image!r}"
    return image


def extremes(examples: Iterable[Example]) -> list[Example]:
    """Up to four examples whose images a processor may not take: the widest, tallest, largest and smallest.

    Only the beginnings of files and bytes are read, if `open_all` hasn't read them in this process; an image that a
    callable makes of a file isn't looked at then.
    """
    sizes: dict[tuple[int, int], Example] = {}
    seen: set[Hashable] = set()
    for e in each_image(examples):
        key = key_of(e)
        if key is None or key in seen:
            continue
        seen.add(key)
        size = _sizes.get(key) or _header(e)
        if size is not None:
            _sizes[key] = size
            sizes.setdefault(size, e)
    if not sizes:
        return []
    wanted = {
        max(sizes, key=lambda s: s[0] / s[1]),
        max(sizes, key=lambda s: s[1] / s[0]),
        max(sizes, key=lambda s: s[0] * s[1]),
        min(sizes, key=lambda s: s[0] * s[1]),
    }
    return [e for size, e in sizes.items() if size in wanted]


def _header(example: Example) -> tuple[int, int] | None:
    try:
        if (encoded := _encoded(example)) is None:
            return None
        with reading.opened(encoded) as file:
            return file.size
    except Exception:  # what can't be read is told by `check`
        return None


def _encoded(example: Example) -> Path | bytes | None:
    """The encoded image, or None: a callable makes it of a file."""
    image = example.image
    if isinstance(image, Path | bytes):
        return image
    encoded: bytes | None = image.content() if hasattr(image, "content") and hasattr(image, "stored") else None
    return encoded


def _open(example: Example, hashes: ContentHashes, facts: Facts, one_at_a_time: threading.Lock) -> Opened:
    key = ""
    try:
        key = _fact_key(example, hashes)
        known = facts.get(key)
        if known is not None:
            return Opened(**json.loads(known))
        found = _decoded(example, one_at_a_time)
    except Exception as error:
        # An error with a number is the system's: a file that is gone, forbidden, or on a disk that doesn't answer.
        own = not isinstance(error, MemoryError | reading.TooLarge) and getattr(error, "errno", None) is None
        found = Opened(problem=reading.reason(error), damaged=own)
        if not own or not key:
            return found
    facts.put(key, json.dumps(asdict(found)))
    return found


def _decoded(example: Example, one_at_a_time: threading.Lock) -> Opened:
    """The image, decoded to the end as the run will do it."""
    several, large = False, False
    if (encoded := _encoded(example)) is not None:
        with reading.opened(encoded) as file:
            several = file.format != "MPO" and getattr(file, "is_animated", False)  # a camera's second view is no film
            large = file.width * file.height > LARGE
    if large:
        with one_at_a_time:
            image = reading.read(example.image)
    else:
        image = reading.read(example.image)
    return Opened(image.width, image.height, several)


def _fact_key(example: Example, hashes: ContentHashes) -> str:
    """What an opened image depends on: its content, what else makes the picture of it, and who reads it."""
    image, content = example.image, hashes.of(example.image)
    made = "" if isinstance(image, Path | bytes) or hasattr(image, "content") else f" {image!r}"
    return hashlib.sha256(f"opened {reading.READER} {PIL.__version__} {content}{made}".encode()).hexdigest()
