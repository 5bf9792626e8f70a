"""The data half of the contract: examples, answers, and what a benchmark is. Plugins import it from `harness.api`."""

from __future__ import annotations

import numbers
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from PIL import Image

from harness.errors import DataError
from harness.images import reading

Split = Literal["train", "validation", "test", "ood", "pool"]
"""`pool` has examples to learn from without a gold: see `train.labels`."""
ImageSource = Path | bytes | Callable[[], Image.Image]
"""A file, encoded bytes, or a picklable callable that draws the image when it is called.

A callable that reads a file should have an attribute `path`, one that decodes bytes from elsewhere a method
`encoded() -> bytes`: the harness then checks beforehand that the image exists and can be read."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one image, with answer options.

    `id` is unique in its split. `group` names the image, or the set of images that belong together: the
    unit of clustered statistics. `claim` is the caption or claim to be judged, `context` a text that
    comes with it (empty: none). `gold` is an index into `options`, or None where it is withheld: in the pool, and in
    what a method is asked at test time. `extra` holds data that only the benchmark's own protocols read.

    Ids and groups, categories and sources that a file gives as numbers become text, a gold that is numpy's an int.
    """

    id: str
    group: str
    image: ImageSource
    question: str
    claim: str
    options: tuple[str, ...]
    gold: int | None
    category: str
    source: str
    context: str = ""
    extra: Mapping[str, Any] | None = None
    claim_label: str = "Claim"
    """The label of `claim` in the prompt."""
    judged: InitVar[str | None] = None
    """Deprecated: the former name of `claim_label`."""

    def __post_init__(self, judged: str | None) -> None:
        if judged is not None:
            warnings.warn("Example(judged=...) is now Example(claim_label=...)", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "claim_label", judged)
        for name in ("id", "group", "category", "source"):
            if type(getattr(self, name)) is not str:
                object.__setattr__(self, name, _text(getattr(self, name)))
        if isinstance(self.group, str) and not self.group.isascii():  # the names of one image are one group
            object.__setattr__(self, "group", unicodedata.normalize("NFC", self.group))
        if type(self.gold) is not int and isinstance(self.gold, numbers.Integral) and not isinstance(self.gold, bool):
            object.__setattr__(self, "gold", int(self.gold))

    def prompt(self) -> str:
        """The text that every model gets with the image: question, context, claim, options."""
        lines = [self.question]
        if self.context:
            lines.append(f"Context: {self.context}")
        if self.claim:
            lines.append(f"{self.claim_label}: {self.claim}")
        lines += [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False)]
        return "\n".join([*lines, "Answer with the letter."])

    def load_image(self) -> Image.Image:
        """The image as RGB, see `harness.images.reading`. Raises `DataError` with the example's id if it is missing,
        broken or too large."""
        try:
            return reading.read(self.image)
        except DataError:
            raise
        except Exception as error:  # a damaged file can fail in a dozen ways, a benchmark's own callable in any
            raise DataError(f"example {self.id!r}: image {self.image_name} {reading.reason(error)}") from None

    @property
    def image_file(self) -> Path | None:
        """The file that the image is read from; None: it is in memory, or drawn."""
        path = self.image if isinstance(self.image, Path) else getattr(self.image, "path", None)
        return path if isinstance(path, Path) else None

    @property
    def image_name(self) -> str:
        """The image's file for an error message."""
        return str(self.image_file or "in memory")

    def reordered(self, order: Sequence[int]) -> Example:
        """The same question with option `order[k]` at letter k."""
        gold = None if self.gold is None else tuple(order).index(self.gold)
        return replace(self, options=tuple(self.options[k] for k in order), gold=gold)

    @property
    def known_gold(self) -> int:
        """The gold. Raises `DataError` where it is withheld."""
        if self.gold is None:
            raise DataError(f"example {self.id!r} has no gold: expected one with a gold, not one of the pool")
        return self.gold

    def withheld(self) -> Example:
        """The same question without anything that may tell its answer: gold, category, and the data of protocols."""
        return replace(self, gold=None, category="", extra=None)


def _text(value: Any) -> Any:
    """A file's name or number as text: 7, 7.0 and numpy's 7 are "7". Nothing, NaN and the like stay as they are."""
    if isinstance(value, str):
        return str(value)  # numpy has a type of its own
    if isinstance(value, numbers.Integral):
        return str(bool(value) if isinstance(value, bool) else int(value))
    if isinstance(value, numbers.Real) and value == value:
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """A scored example as a protocol sees it: the question, the right answer, the model's answer.

    `text` is the answer as it was given: the chosen option's text if options were scored, the raw text
    if a model generated text. `chosen` is an index into `options`; -1: the text could not be read as an option.
    """

    id: str
    group: str
    category: str
    options: tuple[str, ...]
    gold: int
    chosen: int
    text: str
    extra: Mapping[str, Any] | None = None


Figures = Mapping[str, float | None]
"""The figures of a protocol, by name. None: undefined for these answers, as in the original code."""
Scorer = Callable[[Sequence[Answer]], Figures]
"""A scoring protocol. Its docstring says where its original is, what it does, and when it has no figure."""


@dataclass(frozen=True)
class Benchmark:
    """A task with its data. Subclass it as a frozen dataclass: the fields are the benchmark's settings.

    `revision` must change whenever the examples or their scoring change: it is part of every run's identity.
    `data_dir` is the folder of the published files (None for a generated benchmark).
    """

    data_dir: Path | None = None

    name: ClassVar[str]
    task: ClassVar[Literal["hallucination", "factuality"]]
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    revision: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str] = ""
    obtain: ClassVar[str] = ""
    """How to get the published files, and how they must be arranged in `data_dir`."""
    positive: ClassVar[str] = ""
    """The positive option for the protocols' precision, recall and F1 (empty: none)."""
    published: ClassVar[Mapping[str, int]] = {}
    """Sizes of the published splits, for use when the data can't be counted."""
    needs_data_dir: ClassVar[bool] = False
    pool_has_golds: ClassVar[bool] = True
    """Whether the examples of a `pool` split have a gold. The harness withholds it; if False, there is none."""
    unanswered: ClassVar[Mapping[str, Literal["left out", "wrong"]]] = {}
    """Protocols that can score a subset of the answers, and how they treat the missing ones. The others need all."""

    def load(self, split: Split) -> Iterable[Example]:
        """The examples of a split in a fixed order. Images aren't read yet. Raises `DataError`."""
        raise NotImplementedError

    def protocols(self) -> Mapping[str, Scorer]:
        """Named scoring protocols besides the harness's own metrics. Each gives figures by name."""
        return {}

    def asked(self, protocol: str, example: Example) -> bool:
        """Whether the protocol's original uses this example. If not, it needs no answer to it."""
        return True

    def names(self, example: Example) -> Sequence[str]:
        """The names that a file of predictions may use for the example. One name may stand for several examples."""
        return (example.id,)
