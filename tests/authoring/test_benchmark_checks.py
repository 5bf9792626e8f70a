"""`check-benchmark`: each mistake that an author can make is told with its mend, and a sound one passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.api import Answer, Benchmark, DataError, Example, Split
from harness.authoring import benchmark_checks
from harness.authoring.benchmark_checks import assert_sound, check, to_text
from harness.data.dataset import load
from harness.registry import make_benchmark
from helpers.common import Cli


@dataclass(frozen=True)
class Colour:
    """A picture of one colour."""

    value: int

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (8, 8), (self.value, 0, 0))


@dataclass(frozen=True)
class Sound(Benchmark):
    """Twelve questions a split, each about a picture of its own."""

    name = "sound"
    task = "factuality"
    splits = ("train", "validation", "test")
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"

    def load(self, split: Split) -> Iterable[Example]:
        start = {"train": 0, "validation": 60, "test": 120}[split]
        for k in range(12):
            image = Colour(start + k)
            yield Example(f"{k}", f"{split}{k}", image, "Is it so?", f"{split} {k}", ("yes", "no"), k % 2, "c", "toy")

    def protocols(self) -> Mapping[str, Callable[[Sequence[Answer]], dict[str, float]]]:
        return {"plain": lambda answers: {"right": sum(a.chosen == a.gold for a in answers) / len(answers)}}


def changed(**fields: Any) -> type[Sound]:
    """A benchmark like `Sound` whose third test example has these fields."""

    class Changed(Sound):
        """A toy."""

        def load(self, split: Split) -> Iterable[Example]:
            for k, example in enumerate(super().load(split)):
                yield replace(example, **fields) if split == "test" and k == 2 else example

    return Changed


def texts(benchmark: Benchmark, level: str) -> str:
    return "\n".join(f"{f.check}: {f.text}" for f in check(benchmark) if f.level == level)


def test_a_sound_benchmark_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_checks, "SLOW_IMAGE", float("inf"))
    assert_sound(Sound())
    found = check(Sound())
    assert {f.level for f in found} == {"ok"}
    told = to_text("sound", found)
    assert told.endswith("\nsound is sound")
    for said in (
        "test: 12 examples in",
        "test: 12 groups of 1 to 1 examples",
        "test: golds yes 6, no 6",
        "test: 12 opened",
        "plain on test, all right: right 1",
        "no image or text is in two splits",
    ):
        assert said in told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "schema: test: example '': id is empty"),
        ({"id": 1}, "ids: test: id '1' occurs twice; ids are unique in a split"),
        ({"id": "1"}, "ids: test: id '1' occurs twice; ids are unique in a split"),
        ({"group": None}, "schema: test: example '2': group is null, expected text"),
        ({"claim": None}, "schema: test: example '2': claim is null, expected text"),
        ({"claim": "", "question": " "}, "schema: test: example '2': it has neither question nor claim"),
        (
            {"options": ["yes", "no"]},
            "schema: test: example '2': options ['yes', 'no'], expected a tuple of texts",
        ),
        ({"options": ("yes", "yes ")}, "example '2': options 1 and 2 are both 'yes'; expected each once"),
        ({"options": ("yes",)}, "example '2': 1 options; expected 2 to 26"),
        ({"image": "a.png"}, "schema: test: example '2': image is of type str, expected a Path, bytes or callable"),
        ({"gold": 2}, "schema: test: example '2': gold 2 is not among its 2 options (0 to 1)"),
        ({"gold": True}, "schema: test: example '2': gold True (bool) is not among its 2 options (0 to 1)"),
        ({"group": "train3"}, "groups: group 'train3' is in train and test: put each group in one split only"),
        (
            {"image": Path("nowhere.png")},
            "images: test: images of 1 of 12 examples are missing, first nowhere.png of '2'",
        ),
        ({"image": b"not a picture"}, "images: test: example '2': image in memory can't be read"),
        ({"image": Colour(3)}, "leaks: 1 examples of test have an image of train; split by what examples share"),
        ({"image": lambda: Image.new("RGB", (8, 8))}, "pickle: test: examples can't be pickled"),
    ],
)
def test_a_mistake_in_one_example(fields: dict[str, Any], said: str) -> None:
    assert said in texts(changed(**fields)(), "fail")
    with pytest.raises(AssertionError) as raised:
        assert_sound(changed(**fields)())
    assert said in str(raised.value)


def test_a_shared_text_is_a_warning_only() -> None:
    assert "leaks: 1 examples of test have a text of train" in texts(changed(claim="Train 5!")(), "warn")
    assert_sound(changed(claim="Train 5!")())


def test_an_image_of_two_groups_is_told() -> None:
    class Twice(Sound):
        """A toy."""

        def load(self, split: Split) -> Iterable[Example]:
            yield from (replace(e, image=Path(f"{split}{e.gold}.png")) for e in super().load(split))

    assert "groups: test: groups 'test0' and 'test10' have one image (and 1 more)" in texts(Twice(), "warn")


@dataclass(frozen=True)
class Faulty(Sound):
    """A toy with one fault in its class or its loader."""

    fault: str = ""

    def load(self, split: Split) -> Iterable[Example]:
        examples = list(super().load(split))
        if self.fault == "crash":
            raise KeyError("caption")
        if self.fault == "refuses":
            raise DataError("toy.json line 3: no id")
        if self.fault == "empty" and split == "test":
            return []
        if self.fault == "shuffles":
            random.shuffle(examples)
        if self.fault == "dicts":
            return [{"id": "a"}]  # type: ignore[list-item]
        if self.fault == "unbalanced":
            return [replace(e, gold=0) for e in examples]
        return examples

    def protocols(self) -> Mapping[str, Callable[[Sequence[Answer]], dict[str, float]]]:
        faults: dict[str, Callable[[Sequence[Answer]], dict[str, float]]] = {
            "protocol": lambda answers: {"right": 1 / 0},
            "nan": lambda answers: {"right": float("nan")},
            "constant": lambda answers: {"right": 1.0},
        }
        return {"plain": faults[self.fault]} if self.fault in faults else {}


@pytest.mark.parametrize(
    ("fault", "level", "said"),
    [
        (
            "crash",
            "fail",
            "load: train: load() failed with KeyError: 'caption'; raise DataError with the file and the line",
        ),
        ("refuses", "fail", "load: train: toy.json line 3: no id"),
        ("empty", "fail", "load: test: no examples; leave the split out"),
        ("shuffles", "fail", "load: train: a second load() gives different examples or another order; seed it"),
        ("dicts", "fail", "schema: train: example number 0: a dict, expected an Example"),
        ("unbalanced", "warn", "balance: test: no gold at position 1"),
        (
            "unbalanced",
            "warn",
            "test: golds yes 12; this constant answer is above chance (50.0): the golds are not balanced",
        ),
        ("protocol", "fail", "protocols: protocol 'plain' fails on validation: ZeroDivisionError: division by zero"),
        ("nan", "fail", "protocols: protocol 'plain' on validation: ['right']: expected numbers"),
        (
            "constant",
            "warn",
            "protocols: protocol 'plain' on validation: all right and all wrong give the same figures",
        ),
    ],
)
def test_a_fault_of_the_loader(fault: str, level: str, said: str) -> None:
    assert said in texts(Faulty(fault=fault), level)


@pytest.mark.parametrize("options", [2, 3, 5, 7])
def test_equal_shares_are_balanced(options: int) -> None:
    """18 images with one claim for each option: a third of 54, computed in two ways, differs in the last bit."""

    class Even(Sound):
        def load(self, split: Split) -> Iterable[Example]:
            first = next(iter(super().load(split)))
            names = tuple("ABCDEFG"[:options])
            for k in range(18 * options):
                of_image = f"{split}-{k // options}"
                yield replace(first, id=f"{split}-{k}", group=of_image, options=names, gold=k % options)

    found = [finding for finding in benchmark_checks._balance(Even(), {"test": list(Even().load("test"))})]
    assert [(one.level, one.text.split(":")[0]) for one in found] == [("ok", "test")]
    assert "A 18, B 18" in found[0].text


def test_a_split_in_which_one_answer_is_always_right_is_not_called_ok() -> None:
    """Also where a single image leaves no interval."""
    examples = [replace(e, gold=0, group="one") for e in Sound().load("test")]
    (found,) = benchmark_checks._balance(Sound(), {"test": examples})
    assert (found.level, found.text) == ("warn", "test: no gold at position 1")


def test_faults_of_the_class() -> None:
    class Nameless(Sound):
        licence = " "
        task = "quiz"  # type: ignore[assignment]
        splits = ("train", "trian")  # type: ignore[assignment]
        needs_data_dir = True

    failed = texts(Nameless(), "fail")
    for said in ("licence is ' '", "task is 'quiz'", "splits are ('train', 'trian')", "none of them is scored"):
        assert said in failed
    warned = texts(Nameless(), "warn")
    for said in ("has no homepage", "has no docstring", "no train and validation split"):
        assert said in warned


@pytest.mark.parametrize("name", ["scenes_hallucination", "scenes_factuality"])
def test_the_generated_benchmarks_are_sound(name: str) -> None:
    assert_sound(make_benchmark(name, {"train": 60, "validation": 20, "test": 60, "ood": 20}))


@dataclass(frozen=True)
class Pooled(Sound):
    """The toy with a pool, whose examples have a gold or not."""

    splits = ("train", "validation", "test", "pool")
    pool_has_golds = True
    gold: bool = True
    size: int = 4

    def load(self, split: Split) -> Iterable[Example]:
        if split != "pool":
            return super().load(split)
        return [
            Example(f"p{k}", f"p{k}", Colour(200 + k), "Is it so?", f"pool {k}", ("yes", "no"),
                    k % 2 if self.gold else None, "c", "toy")
            for k in range(self.size)
        ]  # fmt: skip


class Unlabelled(Pooled):
    """Its pool has no golds."""

    pool_has_golds = False


def test_a_pool_has_golds_or_says_that_it_has_none() -> None:
    assert_sound(Pooled())
    assert_sound(Pooled(size=0))
    assert_sound(Unlabelled(gold=False))
    assert "pool: example 'p0': gold None is not among its 2 options" in texts(Pooled(gold=False), "fail")
    assert "gold 0, though pool_has_golds is False: expected None" in texts(Unlabelled(), "fail")
    with pytest.raises(DataError, match="no gold; a pool without golds must say so"):
        load(Pooled(gold=False))
    assert "pool" not in load(Pooled(size=0)).splits
    assert [e.gold for e in load(Unlabelled(gold=False)).splits["pool"]] == [None] * 4


def test_the_verb(cli: Cli, toy: str) -> None:
    """The toy has three pictures for all its splits: it is told so, with exit code 1."""
    said = cli("check-benchmark", "toy", "--plugin", toy)
    assert said.code == 1
    assert "\ntoy must change:\n" in said.out
    assert "examples of test have an image of train" in said.out
    found = cli("check-benchmark", "toy", "--plugin", toy, "--json").json
    assert {"check", "level", "text"} == set(found[0])
    assert cli("check-benchmark", "toyy", "--plugin", toy).code == 2
    assert cli("check-benchmark", "nlvr").code == 2
