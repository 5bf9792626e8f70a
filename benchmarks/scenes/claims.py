"""Claims about scenes that may be false, and claims about things that a context names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.scenes import world
from benchmarks.scenes.facts import (
    Exactly,
    Exists,
    Fact,
    Has,
    Kindred,
    Relates,
    described,
    true_exactly,
    true_exists,
    true_has,
    true_relates,
)
from benchmarks.scenes.world import NUMBERS, RELATIONS, Scene

NAMES = ("Wug", "Dax", "Blick", "Toma", "Fep", "Zib", "Kiki", "Bouba")
"""Names that a context gives to things."""


def falsified(rng: random.Random, scene: Scene, fact: Fact) -> Fact | None:
    """A near miss: the fact with one word changed so that it is false in the scene; None if none was found."""
    for _ in range(8):
        wrong = _altered(rng, scene, fact)
        if wrong.holds(scene) is False and not is_held_out(wrong):
            return wrong
    return None


def _altered(rng: random.Random, scene: Scene, fact: Fact) -> Fact:
    other = rng.choice(scene.things)
    match fact:
        case Exists(what):
            colour, kind, size = what.colour, what.kind, what.size
            part = rng.randrange(3 if size is not None else 2)
            if part == 0:
                return Exists(replace(what, colour=other.colour))
            if part == 1:
                return Exists(replace(what, kind=other.kind))
            return Exists(Kindred(colour, kind, 1 - (size or 0)))
        case Exactly(count, what):
            return Exactly(min(max(count + rng.choice((-1, 1)), 0), len(NUMBERS) - 1), what)
        case Relates(what, _, two):
            return Relates(what, rng.choice(RELATIONS), two)
        case Has(what, attribute, value):
            if attribute in ("row", "column"):
                return Has(what, attribute, rng.randrange(world.GRID))
            return Has(what, attribute, 1 - value if attribute == "size" else getattr(other, attribute))


def is_held_out(fact: Fact) -> bool:
    pairs = [(fact.what.kind, fact.what.colour)]
    if isinstance(fact, Has):
        pairs.append((fact.value, fact.what.colour) if fact.attribute == "kind" else (fact.what.kind, fact.value))
        if fact.attribute not in ("kind", "colour"):
            pairs.pop()
    return any(pair in world.HELD_OUT for pair in pairs)


def random_fact(rng: random.Random, scene: Scene, simple: float = 0.0) -> Fact | None:
    if rng.random() < simple:
        return true_exists(rng, scene)
    draw = rng.random()
    if draw < 0.3:
        return true_exists(rng, scene)
    if draw < 0.45:
        return true_exactly(rng, scene)
    return true_relates(rng, scene) if draw < 0.75 else true_has(rng, scene)


def named_claim(rng: random.Random, scene: Scene) -> tuple[str, str, str] | None:
    """A context that names one or two things, a claim about a name, and its verdict.

    A sixth of the contexts names something that isn't in the picture: Not Verifiable.
    """
    fact: Fact | None = true_relates(rng, scene) if rng.random() < 0.4 else true_has(rng, scene)
    if fact is None:
        return None
    verdict = "True"
    if rng.random() < 0.5:
        wrong = falsified(rng, scene, fact)
        if wrong is None:
            return None
        fact, verdict = wrong, "False"
    if rng.random() < 1 / 6:
        thing = rng.choice(scene.things)
        absent = Exists(Kindred(thing.colour, thing.kind))
        wrong = falsified(rng, scene, absent)
        if wrong is None:
            return None
        fact, verdict = replace(fact, what=wrong.what), "Not Verifiable"
    first, second, *_ = rng.sample(NAMES, 2)
    named = [(first, fact.what)]
    if isinstance(fact, Relates):
        named.append((second, fact.other))
        said = f"{first} is {fact.relation} {second}"
    else:
        assert isinstance(fact, Has)
        said = f"{first} {fact.predicate()}"
        extra = described(rng, scene, rng.choice(scene.things))
        if extra is not None and extra != fact.what and rng.random() < 0.7:
            named.append((second, extra))
    rng.shuffle(named)
    return naming(rng, named), said, verdict


def naming(rng: random.Random, named: Sequence[tuple[str, Kindred]]) -> str:
    """The sentences that give things their names."""
    form = rng.choice(("{name} is the {words}.", "The {words} is called {name}.", "We call the {words} {name}."))
    return " ".join(form.format(name=name, words=what.words()) for name, what in named)
