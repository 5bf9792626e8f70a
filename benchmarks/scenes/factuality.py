"""Is the claim true, given picture and context? Task 2 of the challenge, with generated scenes.

The context gives names to things ("Wug is the red ring"), the claim makes two statements about them, and only the
picture shows whether they are true: True (both), False (neither), Partially True (one of the two), or Not
Verifiable (a thing that the context names isn't in the picture). Context and claim are written for one picture,
and then that picture is edited until the verdict is right: so neither the words alone nor the picture alone say
anything about it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from benchmarks.scenes import claims, explanations, world
from benchmarks.scenes import curriculum as lessons
from benchmarks.scenes.base import WorldBenchmark
from benchmarks.scenes.facts import (
    Attribute,
    Exactly,
    Fact,
    Has,
    Kindred,
    Relates,
    described,
    relations,
    said_of,
    true_exactly,
    truths,
)
from benchmarks.scenes.world import Edit, Scene
from harness.api import Example, Split

VERDICTS = ("True", "False", "Partially True", "Not Verifiable")
_EDITS: tuple[Edit, ...] = ("swap", "move", "recolour", "rekind", "resize", "copy", "drop")
_EDITS_OF: dict[str, tuple[Edit, ...]] = {
    "row": ("swap", "move"),
    "column": ("swap", "move"),
    "size": ("resize",),
    "colour": ("recolour",),
    "kind": ("rekind",),
}
_OFTEN: dict[Attribute, int] = {"kind": 6, "colour": 6, "size": 4, "row": 1, "column": 1}
"""The relative frequency with which a claim is about an attribute that the context leaves open."""

Named = Sequence[tuple[str, Kindred]]


@dataclass(frozen=True)
class ScenesFactuality(WorldBenchmark):
    """Claims about named things in generated pictures, with a context; four verdicts."""

    name: ClassVar[str] = "scenes_factuality"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    revision: ClassVar[str] = "1"

    def example(self, split: Split, index: int) -> Example:
        """The example number `index` of a split; it doesn't depend on the others."""
        rng = world.stream(self.name, self.seed, split, index)
        gold = rng.randrange(4)
        tries = 0
        while True:
            if tries % 4 == 0:
                base = self.scene(rng, split)
            tries += 1
            if (made := _attempt(rng, base, gold, novel=split == "ood")) is not None:
                break
        scene, named, facts, category = made
        example = Example(
            id=f"{split}-{index}",
            group=f"{split}-{index}",
            image=scene,
            question="Is the claim true?",
            claim=_claim(rng, named, facts),
            options=VERDICTS,
            gold=gold,
            category=category,
            source=self.name,
            context=claims.naming(rng, rng.sample(list(named), len(named))),
        )
        example = self.noisy(example, split, rng)
        why = world.stream(self.name, self.seed, split, index, "why")
        names = {what: name for name, what in named}
        return replace(example, response=explanations.verdict(why, scene, names, facts, example.known_gold))

    def lessons(self) -> lessons.Curriculum:
        """The lessons with which `hkdbench pretrain` trains the tiny ladder; they share no picture with any split."""
        return lessons.Curriculum(seed=0)


def _attempt(rng: random.Random, scene: Scene, gold: int, novel: bool) -> tuple[Scene, Named, list[Fact], str] | None:
    """The picture to show, the named things, the claim's two facts and the category."""
    one, two = rng.sample(scene.things, 2)
    first, second = _called(rng, scene, one), _called(rng, scene, two)
    if first is None or second is None:
        return None
    names = rng.sample(claims.NAMES, 2)
    named = ((names[0], first), (names[1], second))
    # The claim is about both things, so that a missing one leaves the claim open.
    facts: list[Fact] = [_property(rng, one, first), _property(rng, two, second)]
    draw = rng.random()
    if draw < 0.4:
        facts[0] = Relates(first, world.pick(rng, relations(one, two)), second)
        if draw < 0.15:
            facts[1] = true_exactly(rng, scene)
    rng.shuffle(facts)
    odd = world.below(rng, 2)
    wanted = [[True, True], [False, False], [odd == 1, odd == 0]][gold] if gold < 3 else None
    for _ in range(12):
        shown = _edit(rng, scene, facts, wanted, (first, second), novel)
        if shown is None:
            continue
        holding = truths(facts, shown)
        lost = [what for what in (first, second) if what.only(shown) is None]
        if wanted is None and len(lost) == 1 and not lost[0].found(shown):
            part = next(fact for fact, truth in zip(facts, holding, strict=True) if truth is None)
            return shown, named, facts, _category(part)
        if holding == wanted and not lost:
            part = next((fact for fact, truth in zip(facts, holding, strict=True) if not truth), facts[odd])
            return shown, named, facts, _category(part)
    return None


def _called(rng: random.Random, scene: Scene, thing: world.Thing) -> Kindred | None:
    """The description of a thing in the context: preferably only its kind or colour, so that the other can be asked
    for."""
    if rng.random() < 0.6:
        what = world.pick(rng, (Kindred(kind=thing.kind), Kindred(colour=thing.colour)))
        if what.only(scene) is not None:
            return what
    return described(rng, scene, thing)


def _property(rng: random.Random, thing: world.Thing, what: Kindred) -> Has:
    """One of the attributes that the description leaves open."""
    open_ = said_of(what)
    (name,) = rng.choices(open_, [_OFTEN[attribute] for attribute in open_])
    return Has(what, name, getattr(thing, name))


def _edit(
    rng: random.Random,
    scene: Scene,
    facts: Sequence[Fact],
    wanted: Sequence[bool] | None,
    spoken: Sequence[Kindred],
    novel: bool,
) -> Scene | None:
    """The scene after edits that may give the wanted truths (None: edits that remove a thing of the claim)."""
    pick = world.pick
    if wanted is None:
        edit: Edit = pick(rng, ("recolour", "rekind"))
        return world.edited(rng, scene, edit, scene.things.index(pick(rng, spoken).found(scene)[0]), novel)
    wrong = [fact for fact, truth in zip(facts, wanted, strict=True) if not truth]
    if not wrong:
        return world.edited(rng, scene, pick(rng, _EDITS), world.below(rng, len(scene.things)), novel)
    shown: Scene | None = scene
    for fact in wrong:
        if shown is None:
            return None
        things: Sequence[world.Thing] = shown.things
        if isinstance(fact, Has):
            edits = _EDITS_OF[fact.attribute]
            things = fact.what.found(shown)
        elif isinstance(fact, Relates):
            edits = _EDITS_OF["row"]
            things = fact.what.found(shown) + fact.other.found(shown)
        else:
            edits = ("drop", "copy", "recolour", "rekind")
        if not things:
            return None
        shown = world.edited(rng, shown, pick(rng, edits), shown.things.index(pick(rng, things)), novel)
    return shown


def _category(fact: Fact) -> str:
    """The topic of the deciding part of the claim: the first false one, or any if all are true."""
    if isinstance(fact, Exactly):
        return "count"
    if isinstance(fact, Has):
        return {"kind": "object", "row": "relation", "column": "relation"}.get(fact.attribute, "attribute")
    return "relation"


def _claim(rng: random.Random, named: Named, facts: Sequence[Fact]) -> str:
    name = {what: name for name, what in named}
    parts = [explanations.part(fact, name) for fact in facts]
    text = rng.choice((" and ", " while ")).join(parts)
    return f"{text[0].upper()}{text[1:]}."
