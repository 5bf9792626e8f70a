"""The leak check: what counts as the same, and that a planted duplicate of each kind is found, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from harness import registry
from harness.api import Benchmark, Example, ImageSource
from harness.data import leakage, near_duplicates
from harness.data.dataset import Dataset, load
from helpers.common import Cli


@dataclass(frozen=True)
class Blobs:
    """A picture of eight coloured rectangles, from a seed."""

    seed: int

    def __call__(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        pixels = np.full((96, 128, 3), rng.integers(0, 256, 3), dtype=np.uint8)
        for _ in range(8):
            top, left = rng.integers(0, 72), rng.integers(0, 96)
            pixels[top : top + rng.integers(12, 40), left : left + rng.integers(12, 40)] = rng.integers(0, 256, 3)
        return Image.fromarray(pixels)


def example(id_: str, claim: str, image: ImageSource, **fields: Any) -> Example:
    return Example(id_, id_, image, "Is it true?", claim, ("yes", "no"), 0, "c", "toy", **fields)


def dataset(**splits: list[Example]) -> Dataset:
    return Dataset(Benchmark(), splits)  # type: ignore[arg-type]


def png(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def of(found: list[leakage.Shared]) -> dict[str, dict[str, int]]:
    return {f"{s.first}~{s.second}": {k: n for k, n in s.counts.items() if n} for s in found if any(s.counts.values())}


# --------------------------------------------------------------------------------------------- texts

WORDS = [f"w{k}" for k in range(40)]


def test_the_same_words() -> None:
    assert leakage.normal("  The RED,  ring's\tﬁne! ") == leakage.normal("the red ring s fine")
    one, two = example("a", "", b""), example("a", "Claim.", b"", context="Context")
    assert leakage.texts_in([one, two]) == ["is it true", "claim context"]
    captions = [replace(one, options=("a cat", "A dog!")), replace(one, options=("a fox", "a cat"))]
    assert leakage.texts_in(captions) == ["is it true a dog a cat", "is it true a cat a fox"]


@pytest.mark.parametrize(("length", "near"), [(12, 0), (24, 0), (25, 1), (40, 1)])
def test_one_changed_word_is_near_in_long_texts_only(length: int, near: int) -> None:
    """n words are n + 2 runs of three; a changed word changes three: (n - 1) / (n + 5) is 0.8 at 25."""
    words = WORDS[:length]
    for at in (0, length // 2, length - 1):
        other = " ".join([*words[:at], "changed", *words[at + 1 :]])
        found = leakage.find([("a", [example("1", " ".join(words), Blobs(1))]), ("b", [example("2", other, Blobs(2))])])
        assert found[0].counts == {"text": 0, "image": 0, "both": 0, "near_text": near, "near_image": 0}


def test_what_is_near_is_so_by_definition() -> None:
    """The banding may miss a pair, but what it gives has the Jaccard index that it says."""
    rng = np.random.default_rng(0)
    pairs = 0
    for _ in range(100):
        first = [f"w{k}" for k in rng.integers(0, 30, rng.integers(3, 60))]
        second = [word if rng.random() > 0.03 else f"w{rng.integers(0, 30)}" for word in first]
        texts = [" ".join(first), " ".join(second)]
        for a, b in near_duplicates.near_texts(texts, np.asarray([0, 1])):
            assert (a, b) == (0, 1)
            padded = [["^", "^", *words, "$", "$"] for words in (first, second)]
            ours, theirs = ({tuple(words[k : k + 3]) for k in range(len(words) - 2)} for words in padded)
            assert len(ours & theirs) / len(ours | theirs) >= near_duplicates.JACCARD
            assert texts[0] != texts[1]
            pairs += 1
    assert pairs > 10


def test_most_pairs_at_the_threshold_are_found() -> None:
    """200 texts of 30 words with one changed: Jaccard 0.83, found with 99 %."""
    rng = np.random.default_rng(0)
    texts = [[f"v{k}" for k in rng.integers(0, 5000, 30)] for _ in range(200)]
    others = [[*text[:10], "changed", *text[11:]] for text in texts]
    both = [" ".join(t) for t in texts + others]
    found = set(near_duplicates.near_texts(both, np.repeat([0, 1], 200)))
    assert found <= {(k, k + 200) for k in range(200)}
    assert len(found) >= 190


# -------------------------------------------------------------------------------------------- images


def jpeg(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(png(image, "JPEG", quality=70))).convert("RGB")


def larger(image: Image.Image) -> Image.Image:
    return image.resize((200, 150), Image.Resampling.LANCZOS)


def noisy(image: Image.Image) -> Image.Image:
    change = np.random.default_rng(0).integers(-6, 7, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + change).clip(0, 255).astype(np.uint8))


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1))


@pytest.mark.parametrize("change", [jpeg, larger, noisy, blurred])
def test_the_same_picture_again_is_found(change: Callable[[Image.Image], Image.Image]) -> None:
    """60 pictures and what a re-upload makes of them: at least 9 of 10 are found, and no other pair."""
    first = [example(f"a{k}", f"one {k}", Blobs(k)) for k in range(60)]
    second = [example(f"b{k}", f"two {k}", png(change(Blobs(k)()))) for k in range(60)]
    (shared,) = leakage.find([("a", first), ("b", second)])
    assert shared.counts["near_image"] >= 54
    assert shared.counts["image"] == shared.counts["text"] == 0
    assert all(a[1:] == b[1:] for a, b in shared.shown["near_image"])
    assert len(shared.shown["near_image"]) == leakage.SHOWN


def test_one_other_colour_is_another_picture() -> None:
    """The difference hash is blind to it; the thumbnail isn't."""
    plain, other = (Image.new("RGB", (64, 64), (200, 200, 200)) for _ in range(2))
    plain.paste((200, 0, 0), (20, 20, 36, 36))
    other.paste((0, 106, 0), (20, 20, 36, 36))
    assert bin(near_duplicates.dhash(plain) ^ near_duplicates.dhash(other)).count("1") <= near_duplicates.BITS
    found = leakage.find([("a", [example("1", "x", png(plain))]), ("b", [example("2", "y", png(other))])])
    assert of(found) == {}


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=3, unique=True))
def test_hashes_within_three_bits_share_a_band(value: int, flipped: list[int]) -> None:
    other = value
    for bit in flipped:
        other ^= 1 << bit
    one, two = near_duplicates.bands_of(np.asarray([value, other], dtype=np.uint64))
    assert (one == two).any()


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [example(f"a{k}", f"one {k}", Blobs(k % 3)) for k in range(9)]
    second = [example(f"b{k}", f"two {k}", png(blurred(Blobs(k % 3)()))) for k in range(6)]
    whole = leakage.find([("a", first), ("b", second)])
    assert whole[0].counts["near_image"] == 6  # each counts, though three pictures stand behind them
    monkeypatch.setattr(near_duplicates, "_PAIRS", 1)
    monkeypatch.setattr(near_duplicates, "SIDE", 1)  # blocks of one pair
    assert leakage.find([("a", first), ("b", second)]) == whole


# --------------------------------------------------------------------------------------- exact ones


def test_exact_duplicates_by_hand(tmp_path: Path) -> None:
    """`test` has one example with a text of `train`, one with an image, one with both; `ood` shares with `test`."""
    (tmp_path / "one.png").write_bytes(png(Blobs(1)()))
    (tmp_path / "copy.png").write_bytes(png(Blobs(1)()))
    data = dataset(
        train=[example("t1", "A red ring.", tmp_path / "one.png"), example("t2", "Two cats", Blobs(2))],
        test=[
            example("e1", "a RED ring", Blobs(3)),
            example("e2", "Nothing like it", tmp_path / "copy.png"),
            example("e3", "two cats!", Blobs(2)),
            example("e4", "alone", Blobs(4)),
        ],
        ood=[example("o1", "alone", Blobs(5))],
    )
    expected = {"train/test": {"text": 2, "image": 2, "both": 1}, "test/ood": {"text": 1}}
    assert leakage.exact(data) == expected
    found = leakage.find([(name, examples) for name, examples in data.splits.items()], near=False)
    assert of(found) == {pair.replace("/", "~"): counts for pair, counts in expected.items()}
    assert found[0].shown["both"] == [("t2", "e3")]
    assert "test (4 examples) shares with train: 2 text, 2 image, 1 both" in leakage.to_text(found)
    assert "1 of 3 pairs of splits share nothing" in leakage.to_text(found)


def test_another_format_of_a_picture_is_found_by_its_pixels() -> None:
    image = Blobs(1)()
    data = dataset(train=[example("t", "x", png(image))], test=[example("e", "y", png(image, "BMP"))])
    assert leakage.exact(data) == {}
    assert of(leakage.find(list(data.splits.items()), near=False)) == {"train~test": {"image": 1}}


def test_the_generated_benchmarks_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"train": 150, "validation": 50, "test": 150, "ood": 50}
    made = [load(registry.make_benchmark(f"scenes_{job}", sizes)) for job in ("factuality", "hallucination")]
    assert all(leakage.exact(data) == {} for data in made)
    assert of(leakage.find(leakage.sides(made))) == {}


# ------------------------------------------------------------------------------------------ the verb

PLUGIN = '''
from dataclasses import dataclass, replace
from pathlib import Path
from harness.api import Benchmark, Example
from PIL import Image

def red():
    return Image.new("RGB", (32, 32), (200, 0, 0))

def blue():
    return Image.new("RGB", (32, 32), (0, 0, 200))

@dataclass(frozen=True)
class {cls}(Benchmark):
    """A toy."""
    name = "{name}"; task = "factuality"; splits = ("train", "test"); revision = "1"; licence = "x"; citation = "x"
    def load(self, split):
        image, claim = red if split == "train" else {image}, "{name} " + split
        yield Example(split, split, image, "?", claim, ("a", "b"), 0, "c", "s")
'''


def test_leaks_between_two_benchmarks(cli: Cli, tmp_path: Path) -> None:
    for name, image in (("leak_a", "blue"), ("leak_b", "red")):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(cls=name.title().replace("_", ""), name=name, image=image))
    args = [x for name in ("leak_a", "leak_b") for x in ("--benchmark", name, "--plugin", tmp_path / f"{name}.py")]
    said = cli("leaks", *args)
    assert said.code == 0
    assert "leak_b/test (1 examples) shares with leak_a/train: 1 image" in said.out
    assert "leak_b/test (1 examples) shares with leak_b/train: 1 image" in said.out
    rows = cli("leaks", *args, "--exact", "--json").json
    assert [row["counts"]["image"] for row in rows if row["first"] == "leak_a/train"] == [0, 1, 1]
    assert "near_image" not in rows[0]["counts"]
    assert set(cli("leaks", *args, "--texts", "--json").json[0]["counts"]) == {"text", "near_text"}
    checked = cli("check-benchmark", "leak_b", "--plugin", tmp_path / "leak_b.py")
    assert checked.code == 1
    assert "1 examples of test have an image of train" in checked.out


def test_leaks_of_what_is_not_there(cli: Cli, tmp_path: Path) -> None:
    assert cli("leaks").code == 2
    assert "did you mean 'nlvr'" in cli("leaks", "--benchmark", "nlvrr").err
    said = cli(
        "leaks", "--benchmark", "nlvr", "--benchmark", "scenes_factuality", "--data-dir", "x=1", "--data-dir", "y"
    )
    assert said.code == 2
    assert "expected NAME=FOLDER" in said.err


def test_what_two_benchmarks_share(tmp_path: Path) -> None:
    """Only pairs across the two: what `first` shares within itself is its own affair."""
    first = dataset(train=[example("a", "A red ring.", Blobs(1))], validation=[example("b", "a red ring", Blobs(2))])
    second = dataset(test=[example("c", "a RED ring", Blobs(2)), example("d", "alone", Blobs(3))])
    assert leakage.exact_between(first, second) == {
        "train/test": {"text": 1},
        "validation/test": {"text": 1, "image": 1, "both": 1},
    }
    assert leakage.exact_between(second, first) == {
        "test/train": {"text": 1},
        "test/validation": {"text": 1, "image": 1, "both": 1},
    }


def test_a_run_that_learned_elsewhere_tells_what_the_two_share(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    """`exam` is the toy's test split. A control sees no image: what the data share is looked for all the same."""
    args = ["--benchmark", "exam", "--set", "train_on=toy", "--set", "control=text_only", "--store", tmp_path]
    record = cli("run", *toy_run, *args, "--json").json
    expected = {"text": 24, "image": 24, "both": 24}
    assert record["data"]["leaks"] == {}
    assert record["trained_on"]["data"]["leaks"] == {"train/validation": expected}
    assert record["trained_on"]["leaks"] == {"train/test": expected, "validation/test": expected}
    shown = cli("show", record["run_id"], "--store", tmp_path).out
    assert "toy/train and exam/test: examples of the second with a duplicate in the first: 24 text" in shown
    plugin = toy_run[toy_run.index("--plugin") + 1]
    found = cli("leaks", record["run_id"][:-2], "--store", tmp_path, "--plugin", plugin, "--exact", "--json").json
    pairs = {(one["first"], one["second"]): one["counts"] for one in found}
    assert pairs["toy/train", "exam/test"] == expected
    assert set(pairs) >= {("toy/train", "toy/test"), ("toy/test", "exam/test")}


def test_a_runs_record_carries_the_exact_ones(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    """The toy shows three pictures everywhere, and asks the same question of each."""
    said = cli("run", *toy_run, "--store", tmp_path, "--json").json
    assert said["data"]["leaks"]["train/test"] == {"text": 24, "image": 24, "both": 24}
    assert (
        "train/test: examples of the second with a duplicate in the first: 24 text"
        in cli("show", said["run_id"], "--store", tmp_path).out
    )
