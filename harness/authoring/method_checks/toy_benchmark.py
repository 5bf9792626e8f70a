"""The benchmark of `check-method`: pictures of one colour, and questions of every shape.

Small, generated, and mixed within a batch: two to four options, texts of several lengths, with and
without context, a leading "No hallucination", and verdicts. A method that assumes one shape fails here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image

from harness.api import Benchmark, Example, Split

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220), "yellow": (230, 210, 40)}
SIZES: dict[Split, int] = {"train": 40, "validation": 8, "test": 8}


@dataclass(frozen=True)
class Plain:
    """A picture of one colour, 64 px."""

    colour: str

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (64, 64), COLOURS[self.colour])


@dataclass(frozen=True)
class Pictures(Benchmark):
    """What colour is the picture, asked in four ways; a reference response to four of five questions."""

    name = "contract_pictures"
    task = "factuality"
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"

    def load(self, split: Split) -> Iterable[Example]:
        """The split's examples; the four kinds of questions alternate. No id or image group is in two splits."""
        for i in range(SIZES[split]):
            colour = list(COLOURS)[i // 4 % 4]
            ask = (_names, _with_context, _caption, _claim)[i % 4]
            example = ask(i, colour, f"{split}-{i}", f"{split}-{i // 2}")
            yield replace(example, response=f"The picture is {colour}." if i % 5 else None)


def _turned(i: int, options: list[str]) -> list[str]:
    """The options in another order for each example: the letter alone says nothing."""
    shift = i // 16 % len(options)
    return options[shift:] + options[:shift]


def _names(i: int, colour: str, id_: str, group: str) -> Example:
    options = tuple(_turned(i, list(COLOURS)))
    return Example(
        id_, group, Plain(colour), "what colour is it ?", "", options, options.index(colour), "names", "drawn"
    )


def _with_context(i: int, colour: str, id_: str, group: str) -> Example:
    others = [name for name in COLOURS if name != colour][:2]
    options = tuple(_turned(i, [colour, *others]))
    return Example(
        id=id_,
        group=group,
        image=Plain(colour),
        question="Which of the three is right?",
        claim="The picture has one colour.",
        options=options,
        gold=options.index(colour),
        category="context",
        source="drawn",
        context="The picture hangs in a room. The room has one window and one door.",
    )


def _caption(i: int, colour: str, id_: str, group: str) -> Example:
    said = colour if i % 8 == 2 else list(COLOURS)[(list(COLOURS).index(colour) + 1) % 4]
    return Example(
        id=id_,
        group=group,
        image=Plain(colour),
        question="Which part of the caption is wrong?",
        claim=f"A {said} picture of one colour.",
        options=("No hallucination", said, "picture", "one colour"),
        gold=0 if said == colour else 1,
        category="caption",
        source="drawn",
        claim_label="Caption",
    )


def _claim(i: int, colour: str, id_: str, group: str) -> Example:
    said = colour if i % 8 == 3 else "green" if colour == "red" else "red"
    return Example(
        id=id_,
        group=group,
        image=Plain(colour),
        question="Is the claim true?",
        claim=f"It is {said}.",
        options=("True", "False"),
        gold=0 if said == colour else 1,
        category="claim",
        source="drawn",
    )
