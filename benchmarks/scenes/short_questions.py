"""Short questions of the tiny ladder's curriculum: what a picture shows, and what a context calls it.

Each function makes a question as (topic, prompt, one-word answer), or None if the scene has nothing suitable.
"""

from __future__ import annotations

import random

from benchmarks.scenes import world
from benchmarks.scenes.claims import NAMES, falsified, named_claim, naming, random_fact
from benchmarks.scenes.facts import (
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
from benchmarks.scenes.world import COLOURS, COLUMNS, KINDS, NUMBERS, RELATIONS, ROWS, SIZES, Scene, Thing

Question = tuple[str, str, str]


def topic(fact: Fact) -> str:
    return "place" if isinstance(fact, Has) and fact.attribute in ("row", "column") else type(fact).__name__.lower()


def checked_fact(rng: random.Random, scene: Scene) -> tuple[Fact, bool] | None:
    """A fact and whether it is true: half of them are."""
    fact = random_fact(rng, scene)
    if fact is None or rng.random() < 0.5:
        return None if fact is None else (fact, True)
    wrong = falsified(rng, scene, fact)
    return None if wrong is None else (wrong, False)


def check(rng: random.Random, scene: Scene) -> Question | None:
    claim = checked_fact(rng, scene)
    if claim is None:
        return None
    text = claim[0].words()
    if isinstance(claim[0], Relates) and rng.random() < 0.3:
        # The first thing in its own sentence: an easier step on the way.
        text = text.replace(" is ", "? it is ")
    return f"check {topic(claim[0])}", f"{text}?", "true" if claim[1] else "false"


def simple_check(rng: random.Random, scene: Scene) -> Question | None:
    """Only what a single thing shows: its existence, colour, size, kind."""
    fact: Fact = true_exists(rng, scene, sized=0.2)
    if rng.random() < 0.5:
        return f"check {topic(fact)}", f"{fact.words()}?", "true"
    wrong = falsified(rng, scene, fact)
    return None if wrong is None else (f"check {topic(fact)}", f"{wrong.words()}?", "false")


def look_up(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring row?` top; `the red thing kind?` ring."""
    fact = true_has(rng, scene)
    if fact is None:
        return None
    values = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "row": ROWS, "column": COLUMNS}[fact.attribute]
    return f"what {fact.attribute}", f"the {fact.what.words()} {fact.attribute}?", values[fact.value]


def at_place(rng: random.Random, scene: Scene) -> Question:
    """`top row second column kind?` ring."""
    thing = rng.choice(scene.things)
    name, values = rng.choice((("kind", KINDS), ("colour", COLOURS), ("size", SIZES)))
    return "at", f"{ROWS[thing.row]} row {COLUMNS[thing.column]} column {name}?", values[getattr(thing, name)]


def compare(rng: random.Random, scene: Scene) -> Question:
    """`second column is left of fourth column?` true: the meaning of the relations, without the picture."""
    (one, relation, other), truth = _side(rng, None)
    return "compare", f"{one} is {relation} {other}?", truth


def beside(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring is above the lower row?` true: half of a relation between two things."""
    thing = rng.choice(scene.things)
    if (what := described(rng, scene, thing)) is None:
        return None
    (_, relation, other), truth = _side(rng, thing)
    return "beside", f"the {what.words()} is {relation} the {other}?", truth


def _side(rng: random.Random, thing: Thing | None) -> tuple[tuple[str, str, str], str]:
    """A row or column (the thing's, or any), a relation and another one; and whether it is true: half of them are."""
    names, noun, forward, backward = rng.choice(
        ((COLUMNS, "column", "left of", "right of"), (ROWS, "row", "above", "below"))
    )
    at = rng.randrange(world.GRID) if thing is None else getattr(thing, noun)
    other = rng.randrange(world.GRID)
    true = [relation for relation, holds in ((forward, at < other), (backward, at > other)) if holds]
    false = [relation for relation in (forward, backward) if relation not in true]
    relation = rng.choice(true if true and rng.random() < 0.6 else false)
    said = f"{names[at]} {noun}", relation, f"{names[other]} {noun}"
    return said, "true" if relation in true else "false"


def relates(rng: random.Random, scene: Scene) -> Question | None:
    """`the red ring is left of the blue star?`, half of them in two sentences."""
    fact: Fact | None = true_relates(rng, scene)
    answer = "true"
    if fact is not None and rng.random() < 0.5:
        fact, answer = falsified(rng, scene, fact), "false"
    if fact is None:
        return None
    text = fact.words()
    return "check relates", f"{text.replace(' is ', '? it is ') if rng.random() < 0.5 else text}?", answer


def how_many(rng: random.Random, scene: Scene) -> Question:
    """`how many red things?` two."""
    fact = true_exactly(rng, scene)
    return "count", f"how many {fact.what.words(plural=True)}?", NUMBERS[fact.count]


def named_check(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug is small?` true."""
    named = named_claim(rng, scene)
    return None if named is None else (named_topic(named), f"{named[0]} {named[1]}?", named[2].split()[-1].lower())


def named_property(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug row?` top: what a name stands for, and where."""
    fact = true_has(rng, scene)
    if fact is None:
        return None
    values = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "row": ROWS, "column": COLUMNS}[fact.attribute]
    name, said = _with_name(rng, scene, fact.what)
    return "named what", f"{said} {name} {fact.attribute}?", values[fact.value]


def named_beside(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Wug is above the lower row?` true: half of a relation of a named thing."""
    thing = rng.choice(scene.things)
    if (what := described(rng, scene, thing)) is None:
        return None
    (_, relation, other), truth = _side(rng, thing)
    name, said = _with_name(rng, scene, what)
    return "named beside", f"{said} {name} is {relation} the {other}?", truth


def named_relates(rng: random.Random, scene: Scene) -> Question | None:
    """`Wug is the red ring. Dax is the blue star. Wug is above Dax?` false; sometimes only one of them has a name."""
    fact: Fact | None = true_relates(rng, scene)
    answer = "true"
    if fact is not None and rng.random() < 0.5:
        fact, answer = falsified(rng, scene, fact), "false"
    if not isinstance(fact, Relates):
        return None
    one, two = rng.sample(NAMES, 2)
    named = [(one, fact.what), (two, fact.other)]
    said = [one, two]
    if (alone := rng.random()) < 0.4:
        keep = 0 if alone < 0.2 else 1
        said[1 - keep] = f"the {named[1 - keep][1].words()}"
        named = [named[keep]]
    rng.shuffle(named)
    return "named relates", f"{naming(rng, named)} {said[0]} is {fact.relation} {said[1]}?", answer


def _with_name(rng: random.Random, scene: Scene, what: Kindred) -> tuple[str, str]:
    """A name for a thing, and the context that gives it; often another thing has a name, too."""
    name, other = rng.sample(NAMES, 2)
    named = [(name, what)]
    if rng.random() < 0.6 and (extra := described(rng, scene, rng.choice(scene.things))) not in (None, what):
        assert extra is not None
        named.append((other, extra))
    rng.shuffle(named)
    return name, naming(rng, named)


def named_topic(named: tuple[str, str, str]) -> str:
    return "named relates" if any(relation in named[1] for relation in RELATIONS) else "named"
