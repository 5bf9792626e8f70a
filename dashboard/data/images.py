"""The examples behind the answers: looked up in their benchmark, and their images, read when a page shows them.

Where the files lie only the command line says (`dashboard.options`); a generated benchmark makes its images anew.
Nothing is fetched from a network.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
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
"""So many examples of a split are looked through for those that are to be shown."""
LARGEST, SMALLEST = 640, 256
"""Pixels of an image's longer side: it is made smaller, or larger in whole steps."""
Key = tuple[str, str, str, Path | None]
"""Benchmark, revision, its settings as JSON, the folder of its files."""


def key(record: Record) -> Key:
    """What finds the examples that a run was asked. Raises `UserError`, in words, where they can't be had."""
    name, seen = record.benchmark, record.data
    if seen is None:
        raise DataError(f"the run is {record.status} and was asked nothing")
    if name not in registry.benchmarks():
        raise DataError(f"benchmark {name!r} isn't here: it came with a plugin")
    folder = options.data_dir(name)
    given = record.config.get("benchmark_settings", {})
    settings = dict(given) if isinstance(given, Mapping) else {}
    if folder is not None:  # the files are here: not from a repository
        settings = {k: v for k, v in settings.items() if k not in ("repo", "repo_revision")}
    elif settings.get("repo"):
        raise DataError(f"the run read {name} from the repository {settings['repo']}, and this page fetches nothing")
    elif registry.benchmarks()[name].load().needs_data_dir:
        raise DataError(f"the files of {name} aren't at hand")
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
        raise DataError(f"{name} is at revision {benchmark.revision} now, the run saw {revision}")
    try:
        return {example.id: example for example in islice(benchmark.load(split), MOST)}
    except UserError:
        raise
    except Exception as error:  # a benchmark is a plugin: what it didn't foresee is still said in one line
        raise DataError(f"{name}, split {split!r}: its loader failed: {type(error).__name__}: {error}") from error


def fits(example: Example, row: Any) -> bool:
    """Whether an example is still the one that was answered: same gold, group and category."""
    return (example.gold, example.group, example.category) == (row["gold"], row["group"], row["category"])


def picture(of: Key, split: str, id_: str) -> tuple[bytes, tuple[int, int]] | str:
    """An example's image as WebP, and its size; or what is wrong with it."""
    shown: tuple[bytes, tuple[int, int]] | str = _picture(of, split, id_)
    return shown


@st.cache_data(max_entries=128, show_spinner=False)
def _picture(of: Key, split: str, id_: str) -> tuple[bytes, tuple[int, int]] | str:
    try:
        image = _examples(of, split)[id_].load_image()
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
