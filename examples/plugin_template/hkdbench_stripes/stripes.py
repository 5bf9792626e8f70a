"""Which way do the stripes run? Pictures drawn on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from PIL import Image, ImageDraw

from harness.api import Benchmark, Example, Split

WAYS = ("across", "down")
OFFSET: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Striped:
    """A picture of white stripes on black, 64 px."""

    way: str
    gap: int
    start: int

    def __call__(self) -> Image.Image:
        image = Image.new("RGB", (64, 64))
        draw = ImageDraw.Draw(image)
        for at in range(self.start, 64, self.gap):
            draw.line((0, at, 63, at) if self.way == "across" else (at, 0, at, 63), fill="white", width=3)
        return image


@dataclass(frozen=True)
class Stripes(Benchmark):
    """True or false: the stripes run across."""

    name: ClassVar[str] = "stripes"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    revision: ClassVar[str] = "1"
    licence: ClassVar[str] = "CC0-1.0"
    citation: ClassVar[str] = "none"

    size: int = 32
    """Examples of each split."""

    def load(self, split: Split) -> Iterable[Example]:
        """`size` examples; no picture is in two splits."""
        for i in range(self.size):
            way, claimed = WAYS[i % 2], WAYS[i // 2 % 2]
            yield Example(
                id=f"{split}-{i}",
                group=f"{split}-{i}",
                image=Striped(way, 8 + i // 4 % 4, 3 * (i // 16) + OFFSET[split]),
                question="Is the claim true?",
                claim=f"the lines go {claimed}.",
                options=("True", "False"),
                gold=0 if way == claimed else 1,
                category=way,
                source="drawn",
            )
