"""Which phrase of the caption is hallucinated? Task 1 of the challenge, with generated scenes.

A caption is written for one picture, and is true of it. The example shows that picture after an edit
that makes exactly one of three phrases false, or none of them: so the words alone say nothing about the answer.
The edit is a near miss (a colour that another object has, two objects that swap places). Option A is always
"No hallucination"; the other three are phrases of the caption.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from benchmarks.scenes import explanations, world
from benchmarks.scenes.base import WorldBenchmark
from benchmarks.scenes.facts import Exactly, Exists, Fact, Relates, true_exactly, true_exists, true_relates, truths
from benchmarks.scenes.world import Edit, Scene
from harness.api import Example, Split

NONE = "No hallucination"
_EDITS: dict[type[Fact], tuple[Edit, ...]] = {
    Exists: ("recolour", "rekind", "resize"),
    Relates: ("swap", "move"),
    Exactly: ("drop", "copy", "recolour", "rekind"),
}


@dataclass(frozen=True)
class ScenesHallucination(WorldBenchmark):
    """Captions of generated pictures with at most one hallucinated phrase; four options."""

    name: ClassVar[str] = "scenes_hallucination"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    revision: ClassVar[str] = "1"

    def example(self, split: Split, index: int) -> Example:
        """The example number `index` of a split; it doesn't depend on the others."""
        rng = world.stream(self.name, self.seed, split, index)
        gold = world.below(rng, 4)
        while (made := _attempt(rng, self.scene(rng, split), gold, novel=split == "ood")) is None:
            pass
        scene, caption, facts, category = made
        example = Example(
            id=f"{split}-{index}",
            group=f"{split}-{index}",
            image=scene,
            question="Which phrase is wrong?",
            claim=caption,
            claim_label="Caption",
            options=(NONE, *(fact.words() for fact in facts)),
            gold=gold,
            category=category,
            source=self.name,
        )
        example = self.noisy(example, split, rng)
        why = world.stream(self.name, self.seed, split, index, "why")
        return replace(example, response=explanations.wrong_phrase(why, scene, facts, example.known_gold))


def _attempt(
    rng: random.Random, scene: Scene, gold: int, novel: bool
) -> tuple[Scene, str, tuple[Fact, ...], str] | None:
    """The picture to show, the caption, the facts of its phrases, the category; None if the scene isn't suitable."""
    facts = _facts(rng, scene)
    if facts is None:
        return None
    wanted = [gold != k for k in (1, 2, 3)] + [True] * (len(facts) - 3)
    for _ in range(12):
        edit, target = _near_miss(rng, scene, facts[gold - 1] if gold else world.pick(rng, facts))
        shown = world.edited(rng, scene, edit, target, novel)
        if shown is not None and truths(facts, shown) == wanted:
            caption = write(rng, facts)
            return (
                shown,
                caption,
                tuple(facts[:3]),
                _category(facts[gold - 1], edit) if gold else "none",
            )
    return None


def _facts(rng: random.Random, scene: Scene) -> list[Fact] | None:
    """Three different facts for the options, and often a fourth for the caption only."""
    facts: list[Fact] = []
    makers = rng.choices((_one, true_relates, true_exactly), (0.6, 0.2, 0.2), k=rng.randint(3, 4))
    for maker in makers:
        fact = maker(rng, scene)
        if fact is None or fact in facts:
            return None
        facts.append(fact)
    return facts


def _one(rng: random.Random, scene: Scene) -> Exists | None:
    """A thing that is the only one of its description, so that one edit makes the phrase false."""
    fact = true_exists(rng, scene)
    return fact if fact.what.only(scene) is not None else None


def _near_miss(rng: random.Random, scene: Scene, fact: Fact) -> tuple[Edit, int]:
    """An edit that affects the fact, and the index of the thing that it changes."""
    edit = world.pick(rng, _EDITS[type(fact)])
    things = list(fact.what.found(scene))
    if isinstance(fact, Relates):
        things += fact.other.found(scene)
    # Another thing may increase a count by changing into one of its kind.
    if not things or (isinstance(fact, Exactly) and rng.random() < 0.4):
        things = list(scene.things)
    return edit, scene.things.index(world.pick(rng, things))


def _category(fact: Fact, edit: Edit) -> str:
    if isinstance(fact, Relates):
        return "relation"
    if isinstance(fact, Exactly):
        return "count"
    return "object" if edit == "rekind" else "attribute"


def write(rng: random.Random, facts: Sequence[Fact]) -> str:
    """A caption of one to four sentences that says each of the facts, in a random order."""
    shuffled = rng.sample(list(facts), len(facts))
    nouns = [fact.words() for fact in shuffled if not isinstance(fact, Relates)]
    clauses = [fact.words() for fact in shuffled if isinstance(fact, Relates)]
    sentences = [_show(rng, part) for part in _portions(rng, nouns)] + [
        _tell(rng, part) for part in _portions(rng, clauses)
    ]
    rng.shuffle(sentences)
    return " ".join(sentences)


def _portions(rng: random.Random, words: Sequence[str]) -> Iterator[Sequence[str]]:
    """The words in portions of one or two."""
    at = 0
    while at < len(words):
        size = rng.randint(1, 2)
        yield words[at : at + size]
        at += size


def _show(rng: random.Random, nouns: Sequence[str]) -> str:
    what = " and ".join(nouns)
    verb = "is" if what.startswith(("a ", "an ", "one ")) else "are"
    form = world.pick(
        rng,
        (
            "There {verb} {what}.",
            "The picture shows {what}.",
            "You can see {what}.",
            "We find {what}.",
            "Here {verb} {what}.",
        ),
    )
    return form.format(verb=verb, what=what)


def _tell(rng: random.Random, clauses: Sequence[str]) -> str:
    text = world.pick(rng, (" and ", " while ")).join(clauses)
    return f"{text[0].upper()}{text[1:]}."
