"""Short explanations of the answers to questions about scenes: the reference responses of the generated benchmarks.

An explanation of the right answer is true of the picture. One of a wrong label (label noise) is as wrong as the label,
because the annotator who gave the label would have written it: explanations say nothing that the labels don't.
Options are named by their text. Every word is a token of the tiny ladder.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.scenes import claims
from benchmarks.scenes.facts import Exactly, Exists, Fact, Has, Kindred, Relates, relations, truths
from benchmarks.scenes.world import INVERSE, NUMBERS, Scene

MANY = (*NUMBERS, "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Numbers of things that a scene can have."""


def wrong_phrase(rng: random.Random, scene: Scene, phrases: Sequence[Fact], answer: int) -> str:
    """Why the phrase number `answer` (from 1) of a caption is wrong, or why none is (0).

    `rng` is only used if the answer is wrong.
    """
    if answer == 0:
        return "No part of the caption is wrong."
    fact = phrases[answer - 1]
    if isinstance(fact, Relates):
        return f"In the caption {fact.words()}, in the picture {_instead(rng, scene, fact)}."
    return f"The caption has {fact.words()}, the picture has {_instead(rng, scene, fact)}."


def verdict(
    rng: random.Random, scene: Scene, names: Mapping[Kindred, str], facts: Sequence[Fact], answer: int
) -> str:  # fmt: skip
    """Why a claim of two facts about named things is True (0), False (1), Partially True (2) or Not Verifiable (3).

    `rng` is only used if the answer is wrong.
    """
    if answer == 3:
        lost = next((what for what in names if not what.found(scene)), None) or next(iter(names))
        return f"{names[lost]} is not in the picture, there is no {lost.words()}."
    found = truths(facts, scene)
    mixed = found if set(found) == {True, False} else [True, False]
    said = [[True, True], [False, False], mixed][answer]
    parts = []
    for fact, true in zip(facts, said, strict=True):
        parts.append(f"it is {'true' if true else 'false'} that {part(fact, names)}")
        if not true and fact.holds(scene) is not None:
            parts.append(part(_corrected(scene, fact) or claims.falsified(rng, scene, fact) or fact, names))
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def part(fact: Fact, names: Mapping[Kindred, str]) -> str:
    """What a claim says of a fact about named things."""
    match fact:
        case Relates(what, relation, other):
            return f"{names[what]} is {relation} {names[other]}"
        case Has(what):
            return f"{names[what]} {fact.predicate()}"
        case Exactly(count, what):
            number = f"{MANY[count]} {what.words(plural=count != 1)}"
            return f"there {'is' if count == 1 else 'are'} {number}"
        case Exists():
            return f"there is {fact.words()}"


def _instead(rng: random.Random, scene: Scene, fact: Fact) -> str:
    """What the picture has where a caption has a false fact."""
    if fact.holds(scene):  # a wrong label
        wrong = claims.falsified(rng, scene, fact)
        return wrong.words() if wrong else "something other"
    match fact:
        case Exists(what):
            return _nearest(scene, what).a()
        case Exactly(_, what):
            count = len(what.found(scene))
            return f"{MANY[count]} {what.words(plural=count != 1)}"
    found = _corrected(scene, fact)
    return found.words() if found else "something other"


def _corrected(scene: Scene, fact: Fact) -> Fact | None:
    """The fact as it is in the scene; None if it is true or can't be said."""
    if fact.holds(scene) is not False:
        return None
    match fact:
        case Relates(what, relation, other):
            one, two = what.only(scene), other.only(scene)
            assert one is not None
            assert two is not None
            true = relations(one, two)
            return replace(fact, relation=INVERSE[relation] if INVERSE[relation] in true else true[0]) if true else None
        case Has(what, attribute):
            return replace(fact, value=getattr(what.only(scene), attribute))
        case Exactly(_, what):
            return replace(fact, count=len(what.found(scene)))
        case Exists(what):
            return Exists(_nearest(scene, what))


def _nearest(scene: Scene, what: Kindred) -> Kindred:
    """The thing of the scene that is most like a description, in its terms; of equals the first."""

    def alike(thing: object) -> int:
        pairs = [(getattr(thing, name), getattr(what, name)) for name in ("colour", "kind", "size")]
        return sum(one == other for one, other in pairs)

    thing = max(scene.things, key=alike)
    return Kindred(thing.colour, thing.kind, None if what.size is None else thing.size)
