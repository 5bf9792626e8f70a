"""Examples with several images, wherever the harness looks at images; and videos, which aren't images."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from harness.api import Benchmark, DataError, Example, Split
from harness.data import corruptions, dataset, image_controls, leakage, opening
from harness.data.augmentation import augment
from harness.data.order import by_image
from harness.evaluation.shifts import content_free
from harness.train.teacher_cache import content
from helpers.common import picture


def saved(path: Path, colour: str) -> Path:
    Image.new("RGB", (8, 6), colour).save(path)
    return path


def example(name: str, *images: Path, group: str = "") -> Example:
    first, *more = images
    return Example(name, group or name, first, "q", f"claim {name}", ("a", "b"), 0, "c", "s", more_images=tuple(more))


@dataclass(frozen=True)
class Pairs(Benchmark):
    """Of the images in `data_dir`; the second of the test split is also in train, beside another first one."""

    name: ClassVar[str] = "pairs"
    task = "factuality"
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    revision: ClassVar[str] = "1"
    licence = citation = "none"

    def load(self, split: Split) -> Iterable[Example]:
        assert self.data_dir is not None
        red, blue, green = (self.data_dir / f"{colour}.png" for colour in ("red", "blue", "green"))
        return [example("t", red, blue)] if split == "train" else [example("e", green, blue), example("f", green)]


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    for colour in ("red", "blue", "green"):
        saved(tmp_path / f"{colour}.png", colour)
    return Pairs(data_dir=tmp_path)


def test_every_image_is_data(pairs: Pairs, tmp_path: Path) -> None:
    """Any of them changes the fingerprint and the key of cached answers, and so does their order."""
    before = dataset.load(pairs)
    (one,) = before.splits["train"]
    assert content(one) != content(replace(one, image=one.more_images[0], more_images=(one.image,)))
    assert content(one) != content(replace(one, more_images=()))
    fingerprint, answered = before.fingerprint, content(replace(one, question="?"))
    saved(tmp_path / "blue.png", "white")
    after = dataset.load(pairs)
    assert after.fingerprint != fingerprint
    assert content(replace(after.splits["train"][0], question="?")) != answered


def test_a_missing_or_damaged_one_is_told(pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train: example 't': image .*blue\.png can't be read: not an image"):
        opening.check(list(dataset.load(pairs).splits.items()), 10**6)
    kept = dataset.load(pairs, splits=("test",), skip_missing=True)
    assert ([e.id for e in kept.splits["test"]], kept.skipped) == (["f"], {"test": 1})
    (tmp_path / "blue.png").unlink()
    with pytest.raises(DataError, match="the images of 1 of 1 examples are missing"):
        dataset.load(pairs, splits=("train",))
    assert dataset.load(pairs, splits=("test",), skip_missing=True).skipped == {"test": 1}


def test_one_that_two_splits_share_is_a_leak(pairs: Pairs) -> None:
    held = dataset.load(pairs)
    assert leakage.exact(held) == {"train/test": {"image": 1}}
    (found,) = leakage.find(leakage.sides([held]))
    assert found.counts == {"text": 0, "image": 1, "both": 0, "near_text": 0, "near_image": 0}
    assert found.shown["image"] == [("t", "e")]


def test_controls_and_changes_reach_each(pairs: Pairs) -> None:
    one, two = dataset.load(pairs).splits["test"][0], dataset.load(pairs).splits["train"][0]

    def pixels(e: Example) -> list[bytes]:
        return [single.load_image().tobytes() for single in e.each_image()]

    grey = bytes([128] * 3)
    for plain in (content_free(one), *image_controls.without_image([one])):
        assert [set(zip(*[iter(p)] * 3, strict=True)) for p in pixels(plain)] == [{tuple(grey)}] * 2
    shuffled = image_controls.other_images([one, two], "s")
    assert [pixels(e) for e in shuffled] == [pixels(two), pixels(one)]
    with pytest.raises(DataError, match="has 2 images, and one of group 'f' has 1; expected equally many"):
        image_controls.other_images([one, replace(one, id="f", group="f", more_images=())], "s")
    damaged = pixels(corruptions.damaged(one, "occlusion", 3))
    changed = pixels(augment(one, random.Random(5), ["degrade"]))
    for before, after, also in zip(pixels(one), damaged, changed, strict=True):
        assert before not in (after, also)
    assert by_image([one, replace(one, id="x"), replace(one, id="y", more_images=())]) == [[0, 1], [2]]


@pytest.mark.parametrize("more", [[picture("red")], ("red.png",)])
def test_what_is_no_tuple_of_images_is_refused(more: Sequence[object]) -> None:
    from harness.data.example_checks import faults

    wrong = replace(example("e", Path("a.png")), more_images=more)  # type: ignore[arg-type]
    (said,) = faults(wrong, golds=True)
    assert said in ("more_images is of type list, expected a tuple", "image is of type str, expected a Path, bytes or "
                    "callable")  # fmt: skip


@pytest.mark.parametrize(
    "begins",
    [
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"\0\0\0\x14ftypqt  \0\0\0\0",
        b"\x1aE\xdf\xa3" + bytes(12),
        b"RIFF\0\0\0\0AVI LIST",
        b"\0\0\x01\xba" + bytes(12),
    ],
)
def test_a_video_is_refused_in_words(begins: bytes, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(begins + bytes(100))
    for image in (tmp_path / "film", begins + bytes(100)):
        with pytest.raises(DataError, match="example 'e': image .* is a video: models get pictures here; save the fra"):
            opening.check([("test", [replace(example("e", Path("x")), image=image)])], 10**6)
