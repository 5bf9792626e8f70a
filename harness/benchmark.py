"""The data half of the contract: examples, answers, and what a benchmark is. Plugins import it from `harness.api`."""

from __future__ import annotations

import csv
import io
import numbers
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

The harness identifies data by the bytes of their images, and opens all encoded images of a run before it starts.
A callable that makes its image from a file has an attribute `path`: the harness then also checks beforehand that the
file exists. One whose encoded image is a part of other files, like a cell of a table, has `content() -> bytes`, the
image as a file of its own would hold it, and `stored() -> (files, place)`: the files that hold it (`Sequence[Path]`),
so that it isn't read each time, and its place in them (`str`).
A drawn image has none of these: it follows from the benchmark's code, revision and settings, and isn't opened. Neither
it nor a response beside it is part of the fingerprint of the data. If a
setting changes the pictures alone, neither ids nor texts, give it a `content` that returns what it is drawn from."""


LETTER = "Answer with the letter."
"""The last line of a prompt that is answered by a letter."""
SENTENCE = "Why? Answer in one sentence."
"""The last line of a prompt that is answered by a response."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question about an image, or about several, with answer options.

    `id` is unique in its split. `group` names the image, or the set of images that belong together: the
    unit of clustered statistics. `image` is the first image, `more_images` are those that follow it; a model sees them
    in this order before the text. `claim` is the caption or claim to be judged, `context` a text that comes with it
    (empty: none). `gold` is an index into `options`, or None where it is withheld: in the pool, and in what a method
    is asked at test time. `extra` holds data that only the benchmark's own protocols read.
    `response` is a reference response in words, like a short explanation of the answer; None: there is none, or it is
    withheld together with the gold. It names options by their text, not by their letters, because options are shuffled.

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
    more_images: tuple[ImageSource, ...] = ()
    """The second image and those after it."""
    judged: InitVar[str | None] = None
    """Deprecated: the former name of `claim_label`."""
    response: str | None = None
    instruction: str = LETTER
    """The last line of the prompt, which the harness sets: it asks for a letter, or for a response."""

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
        """The text that every model gets behind its images: question, context, claim, options."""
        lines = [self.question]
        if self.context:
            lines.append(f"Context: {self.context}")
        if self.claim:
            lines.append(f"{self.claim_label}: {self.claim}")
        lines += [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False)]
        return "\n".join([*lines, self.instruction])

    def explained(self) -> Example:
        """The same question, to be answered in a sentence instead of by a letter."""
        return replace(self, instruction=SENTENCE)

    def load_image(self) -> Image.Image:
        """The (first) image as RGB, see `harness.images.reading`.

        Raises `DataError` with the example's id if it is missing, broken or too large.
        """
        try:
            return reading.read(self.image)
        except DataError:
            raise
        except Exception as error:  # a damaged file can fail in a dozen ways, a benchmark's own callable in any
            read = error.filename if isinstance(error, OSError) else None  # by a callable, which names no file itself
            name = str(self.image_file or read or self.image_name)
            raise DataError(f"example {self.id!r}: image {name} {reading.reason(error)}") from None

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """All of its images."""
        return (self.image, *self.more_images)

    def each_image(self) -> tuple[Example, ...]:
        """The same question about each of its images alone, for code that only looks at images."""
        if not self.more_images:
            return (self,)
        return tuple(replace(self, image=image, more_images=()) for image in self.images)

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
        """The same question without what may tell its answer: gold, response, category, source, protocols' data."""
        return replace(self, gold=None, response=None, category="", source="", extra=None)


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


LATER = "later"
"""Marks a field that came to a benchmark when runs existed: `field(default=..., metadata={LATER: True})`. At its
default it isn't part of a run's identity."""


@dataclass(frozen=True)
class Benchmark:
    """A task with its data. Subclass it as a frozen dataclass: the fields are the benchmark's settings.

    `revision` must change whenever the examples or their scoring change: it is part of every run's identity.
    `data_dir` is the folder of the published files (None for a generated benchmark).
    """

    data_dir: Path | None = None

    name: ClassVar[str]
    """What `--benchmark` and tables call it."""
    task: ClassVar[Literal["hallucination", "factuality"]]
    """The task under which tables list it."""
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    """The splits that `load` has."""
    revision: ClassVar[str]
    """The version of examples and scoring."""
    licence: ClassVar[str]
    """Of the data."""
    citation: ClassVar[str]
    """Whom a user cites."""
    homepage: ClassVar[str] = ""
    """Where the data are from."""
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

    def answered_by(self, row: Mapping[str, Any]) -> Sequence[str]:
        """The names that a row of the authors' own answer file stands for; default: none, its id is the name.

        `row` has the columns of the file. A row answers the examples that have one of these names.
        """
        return ()

    def not_asked(self) -> Iterable[str]:
        """Names of published items that the benchmark doesn't ask: answers to them are passed over. Default: none."""
        return ()


# ------------------------------------------------------------------------------------------ text files


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or else Windows-1252, with a warning.

    Other bytes raise `DataError`, with the line: damaged UTF-8, UTF-16, and what can hardly be Windows-1252 (Cyrillic,
    Chinese, ...). Raises `OSError` if the file can't be read.
    """
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: not UTF-8 text but UTF-16; save it as UTF-8")
    try:
        return raw.decode().lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fault = f"{path}: line {line}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
    if _UTF8.search(raw) or _NOT_1252.search(raw):
        raise DataError(fault)
    warnings.warn(f"{path}: not UTF-8 from line {line} on; read as Windows-1252", stacklevel=2)
    return raw.decode("cp1252")


_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A character of UTF-8: a file that has some was written as UTF-8, and is damaged."""
_NOT_1252 = re.compile(rb"[\x00\x81\x8d\x8f\x90\x9d\xfe\xff]|[\x80-\xff]{3}")
"""Bytes that Windows-1252 doesn't have or texts don't use; three such letters in a row are another alphabet."""


def csv_rows(text: str, delimiter: str = "") -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV text, each with the number of its last line; fields may have any length.

    Without `delimiter` it is the one of comma, semicolon and tab that the first line has most often. Raises `csv.Error`
    with the line.
    """
    csv.field_size_limit(2**31 - 1)  # of the whole process; the default is 131,072 characters
    first = text.partition("\n")[0]
    marks = sorted(",;\t", key=lambda mark: -first.count(mark))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or marks[0], strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from None
