"""A plugin for the tests: the question of the toy benchmark about published picture files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from harness.api import Benchmark, Example, Split

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220)}
COUNT = 12


@dataclass(frozen=True)
class Pictures(Benchmark):
    """What colour is the picture?"""

    name = "pictures"
    task = "factuality"
    splits = ("train", "validation", "test")
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"
    needs_data_dir = True

    def load(self, split: Split) -> Iterable[Example]:
        assert self.data_dir is not None
        for k in range(COUNT):
            yield Example(
                id=f"{split}-{k}",
                group=f"{split}-{k}",
                image=self.data_dir / f"{split}-{k}.bmp",
                question="what colour is it ?",
                claim="",
                options=tuple(COLOURS),
                gold=k % 3,
                category="all",
                source="pictures",
            )


def publish(folder: Path) -> Path:
    """Writes the files, all of one size."""
    folder.mkdir()
    for split in Pictures.splits:
        for k in range(COUNT):
            Image.new("RGB", (64, 64), list(COLOURS.values())[k % 3]).save(folder / f"{split}-{k}.bmp")
    return folder


def swap(folder: Path, one: str = "test-0", other: str = "test-1") -> None:
    """Two files change their names."""
    (folder / f"{one}.bmp").rename(folder / "aside.bmp")
    (folder / f"{other}.bmp").rename(folder / f"{one}.bmp")
    (folder / "aside.bmp").rename(folder / f"{other}.bmp")
