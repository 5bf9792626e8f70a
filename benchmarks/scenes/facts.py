"""Facts about scenes: existence, counts, positions, attributes; whether they are true, and their wording."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.scenes.world import COLOURS, COLUMNS, KINDS, NUMBERS, RELATIONS, ROWS, SIZES, Scene, Thing, below, pick


@dataclass(frozen=True, slots=True)
class Kindred:
    """A description: every given part must match (indices as in `Thing`)."""

    colour: int | None = None
    kind: int | None = None
    size: int | None = None

    def found(self, scene: Scene) -> list[Thing]:
        """The things of the scene that match."""
        colour, kind, size = self.colour, self.kind, self.size
        return [
            t
            for t in scene.things
            if (colour is None or t.colour == colour)
            and (kind is None or t.kind == kind)
            and (size is None or t.size == size)
        ]

    def only(self, scene: Scene) -> Thing | None:
        """The one thing that matches; None if none or several do."""
        found = self.found(scene)
        return found[0] if len(found) == 1 else None

    def words(self, plural: bool = False) -> str:
        """`small red ring`, `red thing`, `rings`."""
        noun = "thing" if self.kind is None else KINDS[self.kind]
        if plural and noun != "fish":
            noun += "es" if noun == "cross" else "s"
        parts = [] if self.size is None else [SIZES[self.size]]
        if self.colour is not None:
            parts.append(COLOURS[self.colour])
        return " ".join([*parts, noun])

    def a(self) -> str:
        """The words with their article: `an orange ring`."""
        words = self.words()
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True, slots=True)
class Exists:
    """There is such a thing."""

    what: Kindred

    def holds(self, scene: Scene) -> bool | None:
        return bool(self.what.found(scene))

    def words(self) -> str:
        return self.what.a()


@dataclass(frozen=True, slots=True)
class Exactly:
    """There are exactly this many of them."""

    count: int
    what: Kindred

    def holds(self, scene: Scene) -> bool | None:
        return len(self.what.found(scene)) == self.count

    def words(self) -> str:
        return f"{NUMBERS[self.count]} {self.what.words(plural=self.count != 1)}"


@dataclass(frozen=True, slots=True)
class Relates:
    """One thing is left of, right of, above or below the other: by column, or by row."""

    what: Kindred
    relation: str
    other: Kindred

    def holds(self, scene: Scene) -> bool | None:
        one, two = self.what.only(scene), self.other.only(scene)
        return None if one is None or two is None else related(one, self.relation, two)

    def words(self) -> str:
        return f"the {self.what.words()} is {self.relation} the {self.other.words()}"


Attribute = Literal["kind", "colour", "size", "row", "column"]


@dataclass(frozen=True, slots=True)
class Has:
    """A thing has this kind, colour, size, row or column."""

    what: Kindred
    attribute: Attribute
    value: int

    def holds(self, scene: Scene) -> bool | None:
        one = self.what.only(scene)
        return None if one is None else getattr(one, self.attribute) == self.value

    def predicate(self) -> str:
        """The predicate: `is red`, `is a ring`, `is in the top row`."""
        match self.attribute:
            case "kind":
                return f"is {Kindred(kind=self.value).a()}"
            case "colour":
                return f"is {COLOURS[self.value]}"
            case "size":
                return f"is {SIZES[self.value]}"
            case "row":
                return f"is in the {ROWS[self.value]} row"
            case "column":
                return f"is in the {COLUMNS[self.value]} column"

    def words(self) -> str:
        return f"the {self.what.words()} {self.predicate()}"


Fact = Exists | Exactly | Relates | Has


def related(one: Thing, relation: str, two: Thing) -> bool:
    """Whether `one` has this relation to `two`. In the same column neither is left of the other."""
    match relation:
        case "left of":
            return one.column < two.column
        case "right of":
            return one.column > two.column
        case "above":
            return one.row < two.row
        case _:
            return one.row > two.row


def relations(one: Thing, two: Thing) -> list[str]:
    """The relations of `one` to `two`: one or two of the four."""
    return [relation for relation in RELATIONS if related(one, relation, two)]


def truths(facts: Sequence[Fact], scene: Scene) -> list[bool | None]:
    """Whether each of the facts is true in the scene."""
    return [fact.holds(scene) for fact in facts]


def described(rng: random.Random, scene: Scene, thing: Thing, sized: float = 0.0) -> Kindred | None:
    """A description that matches only this thing of the scene; None if there is none (`sized`: fraction with size)."""
    ways = [
        Kindred(kind=thing.kind),
        Kindred(colour=thing.colour),
        Kindred(thing.colour, thing.kind),
        Kindred(thing.colour, thing.kind),
    ]
    if rng.random() < sized:
        ways = [replace(way, size=thing.size) for way in ways]
    start = below(rng, len(ways))
    return next((way for way in ways[start:] + ways[:start] if len(way.found(scene)) == 1), None)


def true_exists(rng: random.Random, scene: Scene, sized: float = 0.5) -> Exists:
    """The existence of one of the scene's things, by colour and kind, and for a fraction of them by size."""
    thing = pick(rng, scene.things)
    return Exists(Kindred(thing.colour, thing.kind, thing.size if rng.random() < sized else None))


def true_exactly(rng: random.Random, scene: Scene) -> Exactly:
    """The count of a kind, a colour, or both; counts above one have priority."""
    for tries in range(8):
        thing = pick(rng, scene.things)
        what = pick(rng, (Kindred(kind=thing.kind), Kindred(colour=thing.colour), Kindred(thing.colour, thing.kind)))
        count = len(what.found(scene))
        if count < len(NUMBERS) and (count > 1 or tries > 5):
            return Exactly(count, what)
    return Exactly(count, what) if count < len(NUMBERS) else Exactly(0, Kindred(kind=0, colour=0))


def true_relates(rng: random.Random, scene: Scene) -> Relates | None:
    """The relation of two things; None if no two can be uniquely described."""
    for _ in range(6):
        one, two = rng.sample(scene.things, 2)
        what, other = described(rng, scene, one), described(rng, scene, two)
        if what is not None and other is not None:
            return Relates(what, pick(rng, relations(one, two)), other)
    return None


def true_has(rng: random.Random, scene: Scene, attribute: Attribute | None = None) -> Has | None:
    """A property of a thing that is described without it; None if nothing can be uniquely described."""
    for _ in range(6):
        thing = pick(rng, scene.things)
        if (what := described(rng, scene, thing)) is None:
            continue
        name = attribute or pick(rng, said_of(what))
        if name in said_of(what):
            return Has(what, name, getattr(thing, name))
    return None


def said_of(what: Kindred) -> list[Attribute]:
    """The attributes that the description leaves open."""
    open_: list[Attribute] = ["size", "row", "column"]
    if what.kind is None:
        open_.append("kind")
    if what.colour is None:
        open_.append("colour")
    return open_
