"""Two benchmarks that never change, for `scripts/golden_cases.py`: what is made of them is a matter of our code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import Image

from harness.api import Answer, Benchmark, Example, Split

SIZES: Mapping[Split, int] = {"train": 24, "validation": 8, "test": 40, "ood": 12}


@dataclass(frozen=True)
class Shade:
    """A picture of one shade of green, 64 px."""

    number: int

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (64, 64), (0, 12 * self.number, 0))


@dataclass(frozen=True)
class Fixed(Benchmark):
    """Yes or no: two questions about each image, and more often yes."""

    name: ClassVar[str] = "golden_yes_no"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test", "ood")
    revision: ClassVar[str] = "1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = "hkdbench"

    def load(self, split: Split) -> Iterator[Example]:
        """As many examples as `SIZES` says."""
        for i in range(SIZES[split]):
            yield Example(
                id=f"{split}-{i}",
                group=f"{split}-{i // 2}",
                image=Shade(i // 2),
                question="is it green ?" if i % 2 else "is it dark ?",
                claim="",
                options=self.options(i),
                gold=(0, 1, 0, 0, 1)[i % 5],
                category=("object", "count", "colour")[i % 3],
                source="golden",
            )

    def options(self, i: int) -> tuple[str, ...]:
        """Those of a question."""
        return ("yes", "no")

    def protocols(self) -> Mapping[str, Any]:
        """`official:right`: the share of images with both answers right."""
        return {"official": lambda answers: {"right": _both_right(answers)}}


@dataclass(frozen=True)
class Words(Fixed):
    """One of three words, which take turns."""

    name: ClassVar[str] = "golden_words"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"

    def options(self, i: int) -> tuple[str, ...]:
        """Those of a question."""
        words = ("red", "green", "blue")
        return words[i % 3 :] + words[: i % 3]


def _both_right(answers: Sequence[Answer]) -> float:
    right: dict[str, bool] = {}
    for a in answers:
        right[a.group] = right.get(a.group, True) and a.chosen == a.gold
    return sum(right.values()) / len(right)
