"""What is wrong with an example, in words: for `run`, which refuses the first one, and for `check-benchmark`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.api import Example

MAX_OPTIONS = 26
"""Options are lettered A to Z."""


def faults(e: Example, golds: bool) -> Iterator[str]:
    """What makes an example useless, each in a few words (`gold 7 is not among its 3 options (0 to 2)`).

    `golds`: it must have a gold; otherwise it must have none.
    """
    for name in ("id", "group", "category", "source", "question", "claim", "context", "claim_label"):
        value = getattr(e, name)
        if not isinstance(value, str):
            empty = ' ("" for none)' if name in ("claim", "context") else ""
            yield f"{name} is {_said(value)}, expected text{empty}"
        elif not _writable(value):
            yield f"{name} {value!r} has half a surrogate pair, expected text in Unicode"
    yield from _options(e)
    if not golds:
        if e.gold is not None:
            yield f"gold {e.gold!r}, though pool_has_golds is False: expected None"
    elif type(e.gold) is not int or not 0 <= e.gold < len(e.options):
        kind = "" if e.gold is None or type(e.gold) is int else f" ({type(e.gold).__name__})"
        yield f"gold {e.gold!r}{kind} is not among its {len(e.options)} options (0 to {len(e.options) - 1})"
    if e.response is not None and (not isinstance(e.response, str) or not e.response.strip()):
        yield f"response {_said(e.response)}, expected text, or None for none"
    elif e.response is not None and not _writable(e.response):
        yield f"response {e.response!r} has half a surrogate pair, expected text in Unicode"
    if not isinstance(e.more_images, tuple):
        yield f"more_images is of type {type(e.more_images).__name__}, expected a tuple"
        return
    for image in e.images:
        if not isinstance(image, Path | bytes) and not callable(image):
            yield f"image is of type {type(image).__name__}, expected a Path, bytes or callable"


def _options(e: Example) -> Iterator[str]:
    if not isinstance(e.options, tuple):
        yield f"options {e.options!r}, expected a tuple of texts"
        return
    if not 2 <= len(e.options) <= MAX_OPTIONS:
        yield f"{len(e.options)} options; expected 2 to {MAX_OPTIONS}"
    for place, option in enumerate(e.options, 1):
        if not isinstance(option, str):
            yield f"option {place} is {_said(option)}, expected text: give str(...) of it"
            return
        if not option.strip():
            yield f"option {place} is empty; expected a text that can be chosen"
            return
        if not _writable(option):
            yield f"option {place} {option!r} has half a surrogate pair, expected text in Unicode"
            return
    seen: dict[str, int] = {}
    for place, option in enumerate(e.options, 1):
        first = seen.setdefault(option.strip(), place)
        if first != place:
            yield f"options {first} and {place} are both {option.strip()!r}; expected each once"
            return


def _said(value: object) -> str:
    """The value with its type; nothing is `null`, as in the files that examples come from."""
    return "null" if value is None else f"{value!r} ({type(value).__name__})"


def _writable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
