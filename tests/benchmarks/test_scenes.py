"""The generated world: what it draws, that its golds are true, and that neither words nor pixels give them away."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import RidgeClassifier

from benchmarks.scenes import world
from benchmarks.scenes.base import WorldBenchmark
from benchmarks.scenes.claims import falsified
from benchmarks.scenes.curriculum import Curriculum
from benchmarks.scenes.facts import (
    Exactly,
    Exists,
    Fact,
    Has,
    Kindred,
    Relates,
    relations,
    true_exactly,
    true_exists,
    true_has,
    true_relates,
)
from benchmarks.scenes.factuality import VERDICTS, ScenesFactuality
from benchmarks.scenes.hallucination import NONE, ScenesHallucination
from benchmarks.scenes.world import Scene, Thing
from harness.api import ConfigError, Example, Split
from harness.data.dataset import load, settings_of

BENCHMARKS = (ScenesHallucination, ScenesFactuality)
RED, BLUE = world.COLOURS.index("red"), world.COLOURS.index("blue")
RING, STAR = world.KINDS.index("ring"), world.KINDS.index("star")

# A large red ring in the top left corner, a small blue star in the bottom row's second column, and a
# small red star right of that.
SCENE = Scene(
    (
        Thing(RING, RED, 1, 0, 0, 0, 0),
        Thing(STAR, BLUE, 0, 3, 1, 0, 0),
        Thing(STAR, RED, 0, 3, 2, 0, 0),
    )
)


def first(benchmark: WorldBenchmark, split: Split, count: int) -> list[Example]:
    return list(itertools.islice(benchmark.load(split), count))


# ------------------------------------------------------------------------------------------ pictures


def test_there_are_enough_kinds_colours_and_sizes() -> None:
    assert len(set(world.KINDS)) >= 12
    assert len(set(world.COLOURS)) == 8
    assert world.SIZES == ("small", "large")


def test_a_thing_is_drawn_in_its_cell_and_nowhere_else() -> None:
    picture = np.asarray(SCENE())
    assert picture.shape == (64, 64, 3)
    ground = picture[63, 0]
    painted = (picture != ground).any(-1)
    assert painted[0:16, 0:16].any()
    assert painted[48:64, 16:32].any()
    assert not painted[16:48].any()
    # The ring is hollow: its centre shows the ground, its left rim is red.
    assert not painted[8, 8]
    assert tuple(picture[8, 2]) == (214, 32, 36)


def test_a_larger_picture_is_the_same_picture() -> None:
    """Four times as large: each block of 4 x 4 px is on the whole what one px was."""
    large = replace(SCENE, side=256)()
    assert large.size == (256, 256)
    shrunk = np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - np.asarray(SCENE()).astype(int)).mean() < 1.5


@pytest.mark.parametrize("side", [64, 100, 448, 1024])
def test_pictures_have_the_side_that_is_set(side: int) -> None:
    """Questions and golds are those of 64 px."""
    (usual,), (sized,) = (first(ScenesFactuality(side=size), "test", 1) for size in (64, side))
    assert sized.load_image().size == (side, side)
    assert (sized.prompt(), sized.gold) == (usual.prompt(), usual.gold)


def test_the_usual_side_is_no_part_of_the_identity() -> None:
    """Runs that are older than the setting keep their ids."""
    assert "side" not in settings_of(ScenesFactuality())
    assert settings_of(ScenesFactuality(side=128))["side"] == 128
    assert settings_of(ScenesFactuality(test=5))["test"] == 5


@pytest.mark.parametrize("side", [0, 63, 1025])
def test_sides_have_limits(side: int) -> None:
    with pytest.raises(ConfigError, match=f"side={side}: expected a picture's side in px, 64 to 1024"):
        ScenesFactuality(side=side)


def test_every_sprite_looks_different() -> None:
    for size in (0, 1):
        drawn = {np.asarray(Scene((Thing(k, 0, size, 1, 1, 0, 0),))()).tobytes() for k in range(len(world.KINDS))}
        assert len(drawn) == len(world.KINDS)


def test_a_seed_gives_the_same_bytes_on_every_machine() -> None:
    scene = world.make_scene(world.stream(0, "test", 7))
    assert pickle.loads(pickle.dumps(scene)) == scene
    assert pickle.loads(pickle.dumps(scene))().tobytes() == scene().tobytes()
    assert hashlib.sha256(repr(scene).encode()).hexdigest()[:16] == "d2e06936325aa133"


# --------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("fact", "truth", "words"),
    [
        (Exists(Kindred(RED, RING)), True, "a red ring"),
        (Exists(Kindred(RED, RING, 0)), False, "a small red ring"),
        (Exists(Kindred(world.COLOURS.index("orange"), STAR)), False, "an orange star"),
        (Exactly(2, Kindred(kind=STAR)), True, "two stars"),
        (Exactly(1, Kindred(colour=RED)), False, "one red thing"),
        (Relates(Kindred(kind=RING), "above", Kindred(BLUE)), True, "the ring is above the blue thing"),
        (
            Relates(Kindred(kind=RING), "right of", Kindred(BLUE)),
            False,
            "the ring is right of the blue thing",
        ),
        # Two stars: "the star" doesn't say which. No fish: nothing to speak of.
        (Relates(Kindred(kind=STAR), "below", Kindred(kind=RING)), None, "the star is below the ring"),
        (Has(Kindred(kind=world.KINDS.index("fish")), "size", 0), None, "the fish is small"),
        (Has(Kindred(colour=BLUE), "kind", STAR), True, "the blue thing is a star"),
        (Has(Kindred(colour=BLUE), "row", 0), False, "the blue thing is in the top row"),
        (Has(Kindred(colour=BLUE), "column", 1), True, "the blue thing is in the second column"),
    ],
)
def test_a_fact_is_true_false_or_open(fact: Fact, truth: bool | None, words: str) -> None:
    assert fact.holds(SCENE) is truth
    assert fact.words() == words


def test_same_column_is_neither_left_nor_right() -> None:
    one, two = Thing(RING, RED, 0, 0, 2, 0, 0), Thing(STAR, RED, 0, 3, 2, 0, 0)
    assert relations(one, two) == ["above"]


@given(st.integers(0, 10_000))
def test_what_is_said_of_a_scene_is_true_of_it_and_its_near_miss_is_not(index: int) -> None:
    rng = world.stream("property", index)
    scene = world.make_scene(rng)
    for maker in (
        true_exists,
        true_exactly,
        true_relates,
        true_has,
    ):
        fact = maker(rng, scene)
        if fact is not None:
            assert fact.holds(scene) is True
            wrong = falsified(rng, scene, fact)
            assert wrong is None or wrong.holds(scene) is False


@given(st.integers(0, 10_000))
def test_scenes_keep_to_the_grid_and_held_out_pairs_to_novel_scenes(index: int) -> None:
    scene = world.make_scene(world.stream("grid", index), fewest=5, most=9)
    assert 5 <= len(scene.things) <= 9
    assert len({cell for cell, _ in world.cells(scene)}) == len(scene.things)
    assert not {(t.kind, t.colour) for t in scene.things} & world.HELD_OUT


# ---------------------------------------------------------------------------------------- benchmarks


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_splits_have_their_sizes_and_share_no_picture(kind: type[WorldBenchmark]) -> None:
    benchmark = kind(train=40, validation=20, test=30, ood=10, pool=15)
    splits = {split: list(benchmark.load(split)) for split in benchmark.splits}
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 40,
        "validation": 20,
        "test": 30,
        "ood": 10,
        "pool": 15,
    }
    assert "pool" not in load(kind(train=2, validation=2, test=2, ood=2)).splits
    pictures = [example.load_image().tobytes() for examples in splits.values() for example in examples]
    assert len(set(pictures)) == 115
    for examples in splits.values():
        assert len({example.id for example in examples}) == len(examples)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_an_example_can_be_made_alone_and_again(kind: type[WorldBenchmark]) -> None:
    benchmark = kind()
    assert first(benchmark, "test", 6)[5] == benchmark.example("test", 5)
    assert kind(seed=1).example("test", 5) != benchmark.example("test", 5)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_verdicts_are_balanced(kind: type[WorldBenchmark]) -> None:
    golds = Counter(example.gold for example in first(kind(), "test", 1000))
    # 1,000 draws of a quarter each: the standard deviation is 14.
    assert all(abs(golds[k] - 250) < 60 for k in range(4))


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_label_noise_is_in_train_only_and_of_the_stated_share(kind: type[WorldBenchmark]) -> None:
    clean = first(kind(label_noise=0.0), "train", 1000)
    noisy = first(kind(label_noise=0.2), "train", 1000)
    changed = [n for c, n in zip(clean, noisy, strict=True) if c.gold != n.gold]
    assert all(example.extra and example.extra["noisy"] for example in changed)
    assert abs(len(changed) - 200) < 60
    assert [e.claim for e in clean] == [e.claim for e in noisy]
    assert first(kind(label_noise=0.9), "test", 50) == first(kind(label_noise=0.0), "test", 50)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_wrong_settings_are_named(kind: type[WorldBenchmark]) -> None:
    with pytest.raises(ConfigError, match="train=0"):
        kind(train=0)
    with pytest.raises(ConfigError, match=r"label_noise=1\.5"):
        kind(label_noise=1.5)


def test_a_caption_holds_its_phrases_and_at_most_one_is_belied() -> None:
    for example in first(ScenesHallucination(), "test", 200):
        assert example.options[0] == NONE
        assert len(set(example.options)) == 4
        for phrase in example.options[1:]:
            assert phrase.lower() in example.claim.lower()
        assert example.category in {"none", "object", "attribute", "relation", "count"}
        assert (example.category == "none") == (example.gold == 0)
        truths = [parse(phrase).holds(example.image) for phrase in example.options[1:]]  # type: ignore[arg-type]
        assert truths == [k != example.gold for k in (1, 2, 3)]


def test_a_verdict_follows_from_picture_and_context() -> None:
    for example in first(ScenesFactuality(), "test", 200):
        assert example.options == VERDICTS
        truths = [fact.holds(example.image) for fact in resolved(example)]  # type: ignore[arg-type]
        expected = (
            "Not Verifiable" if None in truths else {2: "True", 1: "Partially True", 0: "False"}[truths.count(True)]
        )
        assert example.options[example.gold] == expected


def test_ood_shows_pairs_that_no_other_split_shows() -> None:
    for kind in BENCHMARKS:
        shown = {
            split: {(t.kind, t.colour) for e in first(kind(), split, 100) for t in e.image.things}  # type: ignore[union-attr]
            for split in ("train", "test", "ood")
        }
        assert not shown["train"] & world.HELD_OUT
        assert not shown["test"] & world.HELD_OUT
        assert len(shown["ood"] & world.HELD_OUT) > 6


# ------------------------------------------------------------------------------------------ shortcuts


def words_of(example: Example) -> dict[str, float]:
    """Words and pairs of words of claim, context and each option, distinguished by where they stand."""
    features: dict[str, float] = {}
    places = {"claim": example.claim, "context": example.context}
    places |= {f"option {k}": option for k, option in enumerate(example.options)}
    for place, text in places.items():
        words = text.lower().replace(".", "").split()
        for feature in [*words, *map(" ".join, itertools.pairwise(words))]:
            features[f"{place}: {feature}"] = 1.0
    return features


def pixels_of(example: Example) -> dict[str, float]:
    """The picture at 8 x 8 px, and how much there is of each of 64 colours."""
    picture = example.load_image()
    small = np.asarray(picture.resize((8, 8))).reshape(-1) / 255
    coarse = (np.asarray(picture) // 64 * np.array([16, 4, 1])).sum(-1)
    counts = np.bincount(coarse.reshape(-1), minlength=64) / 1024
    return {str(i): float(v) for i, v in enumerate([*small, *counts])}


@pytest.mark.parametrize("kind", BENCHMARKS)
@pytest.mark.parametrize("features", [words_of, pixels_of])
def test_words_alone_and_pixels_alone_stay_near_the_majority(kind, features) -> None:  # type: ignore[no-untyped-def]
    benchmark = kind(label_noise=0.0)
    train, test = first(benchmark, "train", 1200), first(benchmark, "test", 800)
    vectors = DictVectorizer()
    inputs = vectors.fit_transform(map(features, train))
    model = RidgeClassifier(alpha=30.0).fit(inputs, [e.gold for e in train])
    accuracy = model.score(vectors.transform(map(features, test)), [e.gold for e in test])
    majority = max(Counter(e.gold for e in test).values()) / len(test)
    # 800 guesses of 1 in 4 have a standard deviation of 0.015.
    assert accuracy < majority + 0.05


# ------------------------------------------------------------------------------------------- lessons


def test_lessons_answer_in_one_word_and_never_repeat_a_benchmark() -> None:
    curriculum = Curriculum()
    words = set(curriculum.words()) | {"a", "b", "c", "d"}
    known = [e for kind in BENCHMARKS for split in ("train", "test") for e in first(kind(), split, 200)]
    texts = {f"{e.context}\nClaim: {e.claim}" if e.context else e.claim for e in known}
    pictures = {e.image for e in known}
    for index, progress in itertools.product(range(30), (0.0, 0.2, 1.0)):
        lesson = curriculum.lesson(index, progress)
        assert lesson == curriculum.lesson(index, progress)
        for _, prompt, answer in lesson.questions:
            assert answer.lower() in words
            assert prompt.endswith(("?", "Answer:"))
            assert not any(text in prompt for text in texts)
        assert lesson.image not in pictures
        for cell, shown in lesson.cells:
            assert 0 <= cell < 16
            assert all(word in group for word, group in zip(shown, curriculum.groups, strict=True))


def test_true_and_false_are_asked_about_equally_often() -> None:
    curriculum = Curriculum()
    answers = Counter(answer for index in range(200) for _, _, answer in curriculum.lesson(index, 0.2).questions)
    assert 0.8 < answers["true"] / answers["false"] < 1.25


# ------------------------------------------------------- an independent reading of the words of a fact


def kindred(words: str) -> Kindred:
    """`the small red ring`, `two red things` and the like."""
    found: dict[str, int] = {}
    for word in words.split():
        for name, known in (("colour", world.COLOURS), ("kind", world.KINDS), ("size", world.SIZES)):
            for value, spelled in enumerate(known):
                if word in (spelled, f"{spelled}s", f"{spelled}es"):
                    found[name] = value
    return Kindred(**found)


def parse(phrase: str) -> Fact:
    for relation in world.RELATIONS:
        if f" is {relation} " in phrase:
            one, two = phrase.split(f" is {relation} ")
            return Relates(kindred(one), relation, kindred(two))
    number = phrase.split()[0]
    if number in world.NUMBERS:
        return Exactly(world.NUMBERS.index(number), kindred(phrase))
    return Exists(kindred(phrase))


def resolved(example: Example) -> list[Fact]:
    """The two facts that a claim states, with the context's names put in."""
    names: dict[str, str] = {}
    for sentence in example.context.rstrip(".").split(". "):
        if sentence.startswith("We call "):
            *thing, name = sentence.removeprefix("We call ").split()
        elif " is called " in sentence:
            described, name = sentence.split(" is called ")
            thing = described.split()
        else:
            name, described = sentence.split(" is ", 1)
            thing = described.split()
        names[name] = " ".join(thing).lower()
    facts: list[Fact] = []
    text = example.claim.rstrip(".").replace(" while ", " and ")
    for part in text.split(" and "):
        subject, _, rest = part.partition(" is ")
        if part.lower().startswith("there "):
            facts.append(parse(part.split(maxsplit=2)[2]))
        elif relation := next((r for r in world.RELATIONS if rest.startswith(r)), None):
            facts.append(Relates(kindred(names[subject]), relation, kindred(names[rest.split()[-1]])))
        else:
            facts.append(has(kindred(names[subject]), rest))
    return facts


def has(what: Kindred, said: str) -> Has:
    if said.endswith(" row"):
        return Has(what, "row", world.ROWS.index(said.split()[-2]))
    if said.endswith(" column"):
        return Has(what, "column", world.COLUMNS.index(said.split()[-2]))
    word = said.split()[-1]
    for name, known in (("colour", world.COLOURS), ("size", world.SIZES), ("kind", world.KINDS)):
        if word in known:
            return Has(what, name, known.index(word))  # type: ignore[arg-type]
    raise AssertionError(said)
