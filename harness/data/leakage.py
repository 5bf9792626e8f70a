"""Duplicates between splits: the same or nearly the same images and texts, within a benchmark and across several.

Two examples share a *text* if claim and context (the question, if there is no claim) and example-specific options
have the same words, ignoring case and punctuation; an *image* if it has the same pixels; *both* if they share
text, image and the question: they are the same example. Short template texts ("Is there a dog?") naturally recur: a
shared text alone isn't necessarily a leak.

Near duplicates are searched by banding, so that splits needn't be compared pair by pair:
- texts: MinHash over runs of three words, confirmed if the runs' Jaccard index is at least 0.8. One changed
  word of 25 passes, one of 24 doesn't: in short texts a word is a difference of meaning;
- images: a 64-bit difference hash (dHash) within 3 bits, confirmed if thumbnails of 16 x 16 px differ by at
  most 6 of 255 on average and 48 in any cell and channel. The hash sees no colour and few details on a plain
  background, so it only proposes candidates. Measured on the generated scenes (64 px): of 2,000 pictures no two are
  near duplicates (21 pairs are within 3 bits, all with a cell 190 or more apart), and the search finds the same
  picture again after JPEG 90 (100 %), JPEG 50 (95 %), noise of +-6 (100 %), blur of 1 px (96 %), twice (99 %) or half
  (87 %) the size. NLVR: the nearest two different pictures have a cell 84 apart. A cropped, turned or mirrored
  picture isn't found.

Memory: 64 signature bytes per text or 776 bytes per distinct image; the images are read one at a time.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from harness.api import Benchmark, Example
from harness.data.dataset import Dataset
from harness.data.image_content import each_image
from harness.data.near_duplicates import Fingerprint, dhash, near_images, near_texts, thumbnail

KINDS = ("text", "image", "both", "near_text", "near_image")
SHOWN = 3
"""The number of examples shown for each kind."""

Side = tuple[str, Sequence[Example]]
"""A split's name, `benchmark/split`, and its examples."""


class Shared(BaseModel):
    """The duplicates of examples of the split `first` in the split `second`: how many, and some of them."""

    model_config = ConfigDict(frozen=True)

    first: str
    second: str
    examples: int
    """The number of examples of `second`."""
    counts: dict[str, int]
    """For each kind of duplicate that was searched: the number of examples of `second` with a duplicate in `first`.
    Near duplicates exclude exact ones."""
    shown: dict[str, list[tuple[str, str]]]
    """Some of them: the ids in `first` and in `second`."""


# --------------------------------------------------------------------------------------- the search


def sides(datasets: Iterable[Dataset]) -> list[Side]:
    """All splits of all benchmarks by name."""
    return [(f"{d.benchmark.name}/{split}", examples) for d in datasets for split, examples in d.splits.items()]


def texts_of(benchmarks: Iterable[Benchmark]) -> list[Side]:
    """All splits of all benchmarks by name, as the loaders return them; missing images aren't checked."""
    return [(f"{b.name}/{split}", list(b.load(split))) for b in benchmarks for split in b.splits]


def find(
    sides: Sequence[Side],
    near: bool = True,
    pictures: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Shared]:
    """The duplicates of each pair of splits. `near=False`: only exact ones. `pictures=False`: no image is read.

    Raises `DataError` for an image that can't be read.
    """
    found: dict[tuple[int, int], _Found] = {pair: _Found() for pair in combinations(range(len(sides)), 2)}
    owner_n = np.repeat(np.arange(len(sides)), [len(examples) for _, examples in sides])
    everything = [e for _, examples in sides for e in examples]
    ids = [e.id for e in everything]
    texts = [text for _, examples in sides for text in texts_in(examples)]
    keys: dict[str, Sequence[Hashable]] = {"text": texts}
    if pictures:
        progress("images")
        singles, of_image = _singles(everything)
        images, prints = _images(singles, near)
        for pair, a, b in _equal(images, owner_n[of_image]):
            found[pair].add("image", int(of_image[a]), int(of_image[b]))
        asked = [normal(e.question) for e in everything]
        keys["both"] = list(zip(texts, _by_example(everything, images), asked, strict=True))
    for kind, values in keys.items():
        for pair, a, b in _equal(values, owner_n):
            found[pair].add(kind, a, b)
    if near:
        progress("near texts")
        for a, b in near_texts(texts, owner_n):
            found[int(owner_n[a]), int(owner_n[b])].add("near_text", a, b)
    if near and pictures:
        progress("near images")
        for a, b in near_images(images, prints, owner_n[of_image]):
            first, second = int(of_image[a]), int(of_image[b])
            found[int(owner_n[first]), int(owner_n[second])].add("near_image", first, second)
    kinds = [k for k in KINDS if (near or "near" not in k) and (pictures or k.endswith("text"))]
    return [
        Shared(
            first=sides[a][0],
            second=sides[b][0],
            examples=len(sides[b][1]),
            counts={kind: len(one.hit[kind]) for kind in kinds},
            shown={k: [(ids[i], ids[j]) for j, i in list(one.hit[k].items())[:SHOWN]] for k in kinds if one.hit[k]},
        )
        for (a, b), one in found.items()
    ]


@dataclass
class _Found:
    """For each kind the examples of the second split, each with one equal example of the first."""

    hit: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, kind: str, first: int, second: int) -> None:
        exact = kind.removeprefix("near_")
        if kind == exact or second not in self.hit[exact]:
            self.hit[kind].setdefault(second, first)


def _equal(values: Sequence[Hashable], owner_n: NDArray[Any]) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Every example with an equal value in an earlier split: the pair of splits, and one example of each."""
    first: dict[Hashable, dict[int, int]] = defaultdict(dict)  # value -> split -> its first example
    for index, (value, owner) in enumerate(zip(values, owner_n.tolist(), strict=True)):
        if value is None or value == "":
            continue
        for other, at in first[value].items():
            if other != owner:
                yield (other, owner), at, index
        first[value].setdefault(owner, index)


# --------------------------------------------------------------------------------------------- texts


def texts_in(examples: Sequence[Example]) -> list[str]:
    """The text of each example of a split that shouldn't occur in others, normalised.

    Claim and context, or the question if there is no claim; also the options, in alphabetical order, if the
    split's examples have different ones (captions to choose from).
    """
    own = len({e.options for e in examples}) > 1
    parts = ((e.claim or e.question, e.context, *(sorted(e.options) if own else ())) for e in examples)
    return [normal(" ".join(part)) for part in parts]


def normal(text: str) -> str:
    """Its words in lower case, separated by one space; compatible characters (width, ligatures) are unified."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


# -------------------------------------------------------------------------------------------- images


def _images(examples: Sequence[Example], near: bool) -> tuple[list[str], dict[str, Fingerprint]]:
    """For each example the hash of its pixels, and the fingerprint of each distinct image (`near` only)."""
    known: dict[Hashable, str] = {}
    prints: dict[str, Fingerprint] = {}
    keys = []
    for example in examples:
        source = _source(example)
        key = known.get(source) if source is not None else None
        if key is None:
            image = example.load_image()
            key = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
            if source is not None:
                known[source] = key
            if near and key not in prints:
                prints[key] = Fingerprint(dhash(image), thumbnail(image))
        keys.append(key)
    return keys, prints


def _source(example: Example) -> Hashable | None:
    """A key that shows without reading that two examples use the same image; None if there is none."""
    image = example.image
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=16).digest()
    try:
        hash(image)
    except TypeError:
        return None
    return image


def _drawn(example: Example) -> Hashable | None:
    """A key of an image that is no file; None for a file that isn't there."""
    return None if isinstance(example.image, Path) else _source(example)


# ---------------------------------------------------------------------------- exact duplicates


def exact(dataset: Dataset) -> dict[str, dict[str, int]]:
    """The exact duplicates between a benchmark's own splits, found without decoding images, for a run's record.

    By pair of splits, `train/test`, and kind; pairs and kinds without any are left out. Images are compared by
    their encoded bytes, drawn images by the function that draws them. So the same picture in two formats isn't found;
    `find` finds it.
    """
    return _exact(_ById(dataset), None)


def exact_between(first: Dataset, second: Dataset) -> dict[str, dict[str, int]]:
    """The same between two benchmarks: by pair, the split of `first` and that of `second`, like `train/test`."""
    return _exact(_ById(first), _ById(second))


@dataclass(frozen=True)
class _ById:
    """A dataset as a cache key: two keys are equal if they are the same object."""

    dataset: Dataset

    def __hash__(self) -> int:
        return id(self.dataset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.dataset is self.dataset


@lru_cache(maxsize=8)
def _exact(held: _ById, other: _ById | None) -> dict[str, dict[str, int]]:
    own = list(held.dataset.splits.items())
    sides = own + (list(other.dataset.splits.items()) if other else [])
    names = [name for name, _ in sides]
    everything = [e for _, examples in sides for e in examples]
    owner_n = np.repeat(np.arange(len(names)), [len(examples) for _, examples in sides])
    texts = [text for _, examples in sides for text in texts_in(examples)]
    known = [key for of in (held.dataset, *([other.dataset] if other else ())) for key in _image_keys(of)]
    singles, of_image = _singles(everything)
    images = [_drawn(e) if key is None else key for e, key in zip(singles, known, strict=True)]
    of_text = np.arange(len(everything))
    both = [
        None if None in seen else (text, seen, e.question)
        for text, seen, e in zip(texts, _by_example(everything, images), everything, strict=True)
    ]
    result: dict[str, dict[str, int]] = {}
    for kind, values, at in (("text", texts, of_text), ("image", images, of_image), ("both", both, of_text)):
        hits: dict[tuple[int, int], set[int]] = defaultdict(set)
        for pair, _, b in _equal(values, owner_n[at]):
            hits[pair].add(int(at[b]))
        for (a, b), hit in sorted(hits.items()):
            if other and not a < len(own) <= b:
                continue
            result.setdefault(f"{names[a]}/{names[b]}", {})[kind] = len(hit)
    return result


def _image_keys(dataset: Dataset) -> Iterator[str | None]:
    for of_split in dataset.image_contents.values():
        for of_example in of_split:
            yield from of_example


def _singles(examples: Sequence[Example]) -> tuple[list[Example], NDArray[Any]]:
    """Each image of the examples as an example of its own, and the indices of the examples that they belong to."""
    return list(each_image(examples)), np.repeat(np.arange(len(examples)), [len(e.images) for e in examples])


def _by_example(examples: Sequence[Example], of_images: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    """What stands for each image, by example."""
    every = iter(of_images)
    return [tuple(next(every) for _ in e.images) for e in examples]


# ------------------------------------------------------------------------------------ text


def to_text(found: Sequence[Shared]) -> str:
    """`find`'s result as text: one line per pair of splits with duplicates, and examples below it."""
    lines = []
    for shared in found:
        hit = {kind: count for kind, count in shared.counts.items() if count}
        if not hit:
            continue
        counts = ", ".join(f"{count} {kind}" for kind, count in hit.items())
        lines.append(f"{shared.second} ({shared.examples} examples) shares with {shared.first}: {counts}")
        lines += [
            f"  {kind:10} {', '.join(f'{b} = {a}' for a, b in shared.shown[kind])}{', ...' if count > SHOWN else ''}"
            for kind, count in hit.items()
        ]
    if not found:
        return "one split: there is nothing to compare; name a second benchmark, or settings with more splits"
    clean = sum(not any(shared.counts.values()) for shared in found)
    looked = f"looked for: {', '.join(found[0].counts)}"
    if left := [kind for kind in KINDS if kind not in found[0].counts]:
        looked += f"; not for: {', '.join(left)}"
    lines.append(f"{clean} of {len(found)} pairs of splits share nothing ({looked}).")
    return "\n".join(lines)
