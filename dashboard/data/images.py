"""The examples that runs answered, loaded from their benchmark, and their images, loaded when a page shows them.

Only the command line sets the folder of the files (`dashboard.options`). A generated benchmark generates its images
again. Nothing is downloaded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from dashboard import options
from harness import registry
from harness.api import Example, Split
from harness.errors import DataError, UserError
from harness.record import Record

MOST = 50_000
"""At most this many examples of a split are loaded."""
LARGEST, SMALLEST = 640, 256
"""Limits of an image's longer side in pixels: larger images are shrunk, smaller ones enlarged by a whole factor."""
Key = tuple[str, str, str, Path | None]
"""Benchmark, revision, settings as JSON, folder of the files."""


def key(record: Record) -> Key:
    """The key of the examples that a run answered. Raises `UserError` if they aren't available."""
    name, seen = record.benchmark, record.data
    if seen is None:
        raise DataError(f"the run has status {record.status!r} and no answers")
    if name not in registry.benchmarks():
        raise DataError(f"benchmark {name!r} is unknown: it needs the plugin that defines it")
    folder = options.data_dir(name)
    given = record.config.get("benchmark_settings", {})
    settings = dict(given) if isinstance(given, Mapping) else {}
    if folder is not None:  # local files replace the repository
        settings = {k: v for k, v in settings.items() if k not in ("repo", "repo_revision")}
    elif settings.get("repo"):
        raise DataError(
            f"the run read {name} from the repository {settings['repo']}, and the dashboard downloads nothing"
        )
    elif registry.benchmarks()[name].load().needs_data_dir:
        raise DataError(f"the dashboard wasn't given the files of {name}")
    return name, seen.revision, json.dumps(settings, sort_keys=True), folder


def examples(of: Key, split: str) -> Mapping[str, Example]:
    """The examples of a split by id, at most `MOST`. Raises `UserError`."""
    found: Mapping[str, Example] = _examples(of, split)
    return found


@st.cache_resource(max_entries=3, show_spinner="Looking up the examples…")
def _examples(of: Key, split: Split) -> Mapping[str, Example]:
    name, revision, settings, folder = of
    benchmark = registry.make_benchmark(name, json.loads(settings), folder)
    if benchmark.revision != revision:
        raise DataError(f"{name} is now at revision {benchmark.revision}, but the run used {revision}")
    try:
        return {example.id: example for example in islice(benchmark.load(split), MOST)}
    except UserError:
        raise
    except Exception as error:  # a benchmark may be a plugin: its error becomes a message, too
        raise DataError(f"{name}, split {split!r}: its loader failed: {type(error).__name__}: {error}") from error


def fits(example: Example, row: Any) -> bool:
    """Whether an example is the one that was answered: same gold answer, group and category."""
    return (example.gold, example.group, example.category) == (row["gold"], row["group"], row["category"])


def picture(of: Key, split: str, id_: str) -> tuple[bytes, tuple[int, int]] | str:
    """An example's image, or several in a row, as WebP with its original size, or an error message."""
    shown: tuple[bytes, tuple[int, int]] | str = _picture(of, split, id_)
    return shown


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """One image as it is; several in a row with white between them."""
    if len(images) == 1:
        return images[0]
    gap = max(image.width for image in images) // 20
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


@st.cache_data(max_entries=128, show_spinner=False)
def _picture(of: Key, split: str, id_: str) -> tuple[bytes, tuple[int, int]] | str:
    try:
        image = _side_by_side([one.load_image() for one in _examples(of, split)[id_].each_image()])
    except DataError as error:
        return str(error)
    except Exception as error:
        return f"the image can't be read: {type(error).__name__}: {error}"
    size = image.size
    if max(size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    elif (times := SMALLEST // max(size)) > 1:
        image = image.resize((times * size[0], times * size[1]), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=90, lossless=max(size) < SMALLEST)
    return out.getvalue(), size
