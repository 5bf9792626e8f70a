"""NLVR (Suhr et al. 2017): is a human-written sentence true of an image of three boxes?

Published layout under `data_dir`: `dev/dev.json` (one JSON object per line) and
`dev/images/{directory}/dev-{identifier}-{k}.png`, k = 0..5; `train/` and `test/` likewise. An item pairs a sentence
with an image set: the same three boxes in six orders. Its identifier is `{sentence number}-{set number}`: a sentence
was written about four image sets, so there are up to 24 images per sentence number.

Splits without the published training set (`official_train` off). The development items are split by `directory`
(0-3 train, 4 validation, 5 test; with `official_test` 0-3 train, 4-5 validation and the published test set
as test). Each sentence number is in one directory, but some texts have several numbers and some image
sets are used for several sentences. So items that share a sentence number, a text (ignoring case and punctuation) or
a set of boxes are joined into components, and each component goes to the split of the directory that
most of its items are in (ties: the lowest). With `official_test`, development components that overlap the
test set are left out. No sentence and no image set is in two splits.

Splits with `official_train`: the published training set, the published development set as validation and the
published test set as test. As published they overlap: many short sentences were written several times, and some image
sets are in two parts. "disjoint" leaves out of train the items whose text or set of boxes is in dev or test, and of
dev those that the test set has: no sentence and no image set is in two splits (train 59,568 of 74,460 examples,
validation 4,938 of 5,934, test 5,940). "all" keeps them, for a comparison with figures from the literature.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from PIL import Image
from pydantic import Field

from benchmarks.shared.annotations import Row, choice, data_folder, image_in, items, new_id, shown, text
from harness.api import (
    Answer,
    Benchmark,
    ConfigError,
    DataError,
    Example,
    Figures,
    ImageSource,
    Scorer,
    Split,
    read_image,
)

ORDERS = 6
"""Images per item: its three boxes in every order."""
OPTIONS = ("True", "False")
QUESTION = "Is the claim true of the image?"

Layout = Literal["strip", "square", "boxes"]
Part = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class NLVR(Benchmark):
    """Each (item, order) is one example; `group` is the sentence number; categories: tower and scatter scenes.

    Raises `DataError` for files that are missing, damaged or inconsistent.
    """

    images_per_item: Annotated[int, Field(ge=1, le=ORDERS)] = ORDERS
    """Train examples per item, 1 to 6: its first orders."""
    layout: Layout = "strip"
    """square: the three boxes of the 400 x 100 strip in a 208 x 208 square, in reading order: the same boxes at twice
    the size for a model with a small square input. boxes: three images of 100 x 100, for a model that takes several."""
    official_test: bool = False
    """Use the published test set; the development set is then train and validation."""
    official_train: Literal["off", "disjoint", "all"] = "off"
    """Use the published training set, with the development set as validation and the published test set. disjoint:
    without the items whose sentence or image set is in a later split; all: with them."""

    name: ClassVar[str] = "nlvr"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    revision: ClassVar[str] = "nlvr1@1892484-2"
    licence: ClassVar[str] = "CC-BY-4.0"
    citation: ClassVar[str] = (
        "Alane Suhr, Mike Lewis, James Yeh, Yoav Artzi. A Corpus of Natural Language for Visual Reasoning. ACL 2017."
    )
    homepage: ClassVar[str] = "https://github.com/lil-lab/nlvr"
    obtain: ClassVar[str] = (
        "the folder nlvr of the repository, with dev/ (and test/, for official_test; train/ and test/, for "
        "official_train) in it"
    )
    published: ClassVar[Mapping[str, int]] = {"train": 4236, "validation": 888, "test": 810}
    needs_data_dir: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.images_per_item <= ORDERS:
            raise ConfigError(f"images_per_item = {self.images_per_item}: expected 1 to {ORDERS}")

    def load(self, split: Split) -> Iterable[Example]:
        """The examples of a split in the published order; an item's orders follow one another."""
        folder = data_folder(self, split)
        if self.official_train == "off":
            found = _split_dev(folder, self.official_test).get(split, [])
        else:
            found = _published(folder, split, disjoint=self.official_train == "disjoint")
        if not found:
            raise DataError(f"nlvr: the {split} split of {folder} is empty")
        orders = range(self.images_per_item if split == "train" else ORDERS)
        return [_example(item, _image_path(folder, item, k), k, self.layout) for item in found for k in orders]

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: accuracy over images, and consistency over sentences (see `figures`)."""
        return {"official": official}

    def names(self, example: Example) -> Sequence[str]:
        """The id, the published name of the image, and the item's identifier, which answers all of its orders."""
        item = example.id.removeprefix(example.source.removeprefix("nlvr/") + "-").rpartition("-")[0]
        return (example.id, f"{example.id}.png", item)


# ------------------------------------------------------------------------------------------- scoring


def figures(right: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Accuracy over judgements, and consistency: the fraction of sentences with no wrong judgement.

    `right` pairs a sentence number with whether the judgement was right. Both are fractions. Raises `DataError`
    if there is none. Source: the published `metrics_images.py` (which calls the accuracy "precision").
    """
    by_sentence: defaultdict[str, list[bool]] = defaultdict(list)
    for number, good in right:
        by_sentence[number].append(good)
    if not by_sentence:
        raise DataError("nlvr: no answers to score")
    judged = [good for answers in by_sentence.values() for good in answers]
    return {
        "accuracy": sum(judged) / len(judged),
        "consistency": sum(map(all, by_sentence.values())) / len(by_sentence),
    }


def official(answers: Sequence[Answer]) -> Figures:
    """As the published metrics_images.py: accuracy over images ("precision" there), consistency over sentences.

    An answer is right if it equals the label, ignoring case and trailing spaces. The original gives
    no figures if an answer is missing.
    """
    return figures((a.group, a.text.rstrip().lower() == a.options[a.gold].lower()) for a in answers)


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Item:
    part: Part
    identifier: str
    directory: str
    sentence: str
    label: bool
    boxes: str
    """The three boxes in a canonical order: equal for equal image sets."""
    tower: bool

    @property
    def number(self) -> str:
        """The sentence number: the same for the up to four items that one sentence was written about."""
        return self.identifier.partition("-")[0]

    @property
    def words(self) -> str:
        """The sentence without case and punctuation."""
        return " ".join(re.findall(r"[a-z0-9]+", self.sentence.lower()))


def _read(data_dir: Path, part: Part) -> list[_Item]:
    path = data_dir / part / f"{part}.json"
    # Answers to dev and test are scored without images; the training set is of no use without them.
    for needed in (path, path.parent / "images") if part == "train" else (path,):
        if not needed.exists():
            raise DataError(f"{needed}: does not exist: get nlvr/{part} of {NLVR.homepage} (the file and its images)")
    seen: dict[str, str] = {}
    found = []
    for where, row in items(path, layout="jsonl"):
        found.append(_parse(row, part, where))
        new_id(seen, found[-1].identifier, where)
    return found


def _parse(row: Row, part: Part, where: str) -> _Item:
    def name(key: str, pattern: str, expected: str) -> str:
        value = text(row, key, where)
        # Identifier and directory become file names, so only digits and a dash are allowed.
        if not re.fullmatch(pattern, value) or len(value) > 100:
            raise DataError(f"{where}: {key} is {shown(value)}, expected {expected}")
        return value

    boxes = row.get("structured_rep")
    try:
        tower = all(o["type"] == "square" and o["size"] == 20 for box in boxes for o in box)  # type: ignore[union-attr]
    except (TypeError, KeyError):
        raise DataError(f"{where}: structured_rep is not a list of boxes of objects") from None
    return _Item(
        part=part,
        identifier=name("identifier", r"[0-9]+-[0-9]+", "like '1572-0'"),
        directory=name("directory", r"[0-9]+", "a number as text, like '2'"),
        sentence=text(row, "sentence", where),
        label=choice(row, "label", where, ("true", "false")) == "true",
        boxes=json.dumps(sorted(_canonical(box) for box in boxes or ())),
        tower=tower,
    )


def _canonical(box: Iterable[Any]) -> str:
    return json.dumps(sorted(json.dumps(thing, sort_keys=True) for thing in box))


def _example(item: _Item, path: Path, order: int, layout: Layout) -> Example:
    images: dict[Layout, tuple[ImageSource, ...]] = {
        "strip": (path,),
        "square": (SquareImage(path),),
        "boxes": tuple(BoxImage(path, box) for box in range(3)),
    }
    first, *more = images[layout]
    return Example(
        id=f"{item.part}-{item.identifier}-{order}",
        group=item.number,
        image=first,
        more_images=tuple(more),
        question=QUESTION,
        claim=" ".join(item.sentence.split()),
        options=OPTIONS,
        gold=0 if item.label else 1,
        category="tower" if item.tower else "scatter",
        source=f"nlvr/{item.part}",
    )


def _image_path(data_dir: Path, item: _Item, order: int) -> Path:
    name = f"{item.part}-{item.identifier}-{order}.png"
    return image_in(data_dir, f"{item.part}/images/{item.directory}/{name}", f"nlvr: item {item.identifier!r}")


# -------------------------------------------------------------------------------------------- splits


def _published(data_dir: Path, split: Split, disjoint: bool) -> list[_Item]:
    """The published items of a split; `disjoint`: without those whose text or boxes a later split has."""
    parts: dict[Split, Part] = {"train": "train", "validation": "dev", "test": "test"}
    found = _read(data_dir, parts[split])
    if not disjoint:
        return found
    later = list(parts.values())[list(parts).index(split) + 1 :]
    held = [item for part in later for item in _read(data_dir, part)]
    texts, boxes = {item.words for item in held}, {item.boxes for item in held}
    return [item for item in found if item.words not in texts and item.boxes not in boxes]


def _split_dev(data_dir: Path, official_test: bool) -> dict[Split, list[_Item]]:
    items = _read(data_dir, "dev")
    if official_test:
        items += _read(data_dir, "test")
    splits: defaultdict[Split, list[_Item]] = defaultdict(list)
    for item, split in zip(items, _assign(items, official_test), strict=True):
        if split is not None:
            splits[split].append(item)
    return splits


def _assign(items: Sequence[_Item], official_test: bool) -> list[Split | None]:
    """The split of each item, None for a development item that must be left out."""
    components: defaultdict[int, list[int]] = defaultdict(list)
    for i, root in enumerate(_components(items)):
        components[root].append(i)
    splits: list[Split | None] = [None] * len(items)
    for members in components.values():
        dev = [i for i in members if items[i].part == "dev"]
        if len(dev) < len(members):
            for i in members:
                splits[i] = "test" if items[i].part == "test" else None
            continue
        directories = Counter(int(items[i].directory) for i in dev)
        most = max(sorted(directories), key=directories.__getitem__)
        for i in dev:
            splits[i] = _split_of(most, official_test)
    return splits


def _split_of(directory: int, official_test: bool) -> Split:
    if directory <= 3:
        return "train"
    return "validation" if directory == 4 or official_test else "test"


def _components(items: Sequence[_Item]) -> list[int]:
    """For each item the lowest index in its component: items joined by number, text or boxes."""
    parent = list(range(len(items)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, item in enumerate(items):
        for key in (("number " + item.part, item.number), ("text", item.words), ("boxes", item.boxes)):
            a, b = find(i), find(first.setdefault(key, i))
            parent[max(a, b)] = min(a, b)
    return [find(i) for i in range(len(items))]


# -------------------------------------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class SquareImage:
    """The three boxes of a strip in a square of two by two, in reading order; picklable."""

    path: Path

    def __call__(self) -> Image.Image:
        square = Image.new("RGB", (208, 208), (128, 128, 128))
        for box, corner in zip(_boxes(self.path), ((0, 0), (108, 0), (0, 108)), strict=True):
            square.paste(box, corner)
        return square


@dataclass(frozen=True, slots=True)
class BoxImage:
    """One of the three boxes of a strip; picklable."""

    path: Path
    box: int

    def __call__(self) -> Image.Image:
        return _boxes(self.path)[self.box]


def _boxes(path: Path) -> list[Image.Image]:
    """The three boxes of 100 x 100 px, from left to right."""
    strip = read_image(path)
    if strip.size != (400, 100):
        raise ValueError(f"{strip.width} x {strip.height} pixels, expected 400 x 100")
    return [strip.crop((left, 0, left + 100, 100)) for left in (0, 150, 300)]
