"""The questions of a benchmark without the images that belong to them: what a student can learn from text alone.

A run with `control` trains *and* scores its student on such examples. A student that was trained with images and
then loses them gets unfamiliar inputs, and may score below what the text alone allows; one that was trained
without them is the fair measure. (`hkdbench robustness` removes the images from a trained student.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from PIL import Image

from harness.api import DataError, Example, Split
from harness.data.dataset import Dataset

Control = Literal["text_only", "shuffled_image"]


def grey() -> Image.Image:
    """An image without information: 224 x 224 px of middle grey."""
    return Image.new("RGB", (224, 224), (128, 128, 128))


def blinded(dataset: Dataset, control: Control, seed: int) -> Dataset:
    """The same questions about grey (`text_only`), or about images of other groups (`shuffled_image`)."""
    splits: dict[Split, list[Example]] = {
        split: without_image(examples) if control == "text_only" else other_images(examples, f"{seed}/{split}")
        for split, examples in dataset.splits.items()
    }
    shown = replace(dataset, splits=splits)
    vars(shown)["fingerprint"] = dataset.fingerprint  # the data are the same: its rows belong in the same table
    return shown


def without_image(examples: Sequence[Example]) -> list[Example]:
    """The examples with a grey image for each of theirs."""
    return [replace(e, image=grey, more_images=(grey,) * len(e.more_images)) for e in examples]


def other_images(examples: Sequence[Example], seed: str) -> list[Example]:
    """Each example with an image of another group; all examples of a group get theirs from the same other group.

    Raises `DataError` if there is only one group.
    """
    by_group: dict[str, list[Example]] = {}
    for e in examples:
        by_group.setdefault(e.group, []).append(e)
    if len(by_group) < 2:
        raise DataError("images can't be shuffled: all examples of the split have one group; expected at least two")
    order = random.Random(f"images/{seed}").sample(list(by_group), len(by_group))
    donor = dict(zip(order, [*order[1:], order[0]], strict=True))
    place: dict[str, int] = dict.fromkeys(by_group, 0)
    result = []
    for e in examples:
        images = by_group[donor[e.group]]
        first, *more = images[place[e.group] % len(images)].images
        if len(more) != len(e.more_images):
            raise DataError(
                f"images can't be shuffled: example {e.id!r} has {1 + len(e.more_images)} images, and one of group "
                f"{donor[e.group]!r} has {1 + len(more)}; expected equally many"
            )
        result.append(replace(e, image=first, more_images=tuple(more)))
        place[e.group] += 1
    return result
