"""Questions of the tiny ladder's curriculum in the layout of the benchmarks: lettered options, captions, contexts.

Each function makes a question as (topic, prompt, one-word answer), or None if the scene has nothing suitable.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from benchmarks.scenes.claims import NAMES, falsified, named_claim, naming, random_fact
from benchmarks.scenes.facts import (
    Exactly,
    Exists,
    Fact,
    Has,
    Kindred,
    Relates,
    described,
    relations,
    said_of,
    true_exactly,
)
from benchmarks.scenes.short_questions import Question, checked_fact, named_topic, topic
from benchmarks.scenes.world import Scene, Thing

LETTERS = "ABCD"


def _letters(rng: random.Random, options: Sequence[str], gold: str) -> tuple[str, str]:
    """The lettered options, half the time in a random order, and the letter of the right one."""
    shuffled = rng.sample(options, len(options)) if rng.random() < 0.5 else list(options)
    lines = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, shuffled, strict=False))
    return f"{lines}\nAnswer:", LETTERS[shuffled.index(gold)]


def claim_letter(rng: random.Random, scene: Scene) -> Question | None:
    claim = checked_fact(rng, scene)
    if claim is None:
        return None
    options, letter = _letters(rng, ("True", "False"), str(claim[1]))
    return f"letter {topic(claim[0])}", f"Is it true?\nClaim: {claim[0].words()}.{options}", letter


def claim_word(rng: random.Random, scene: Scene) -> Question | None:
    """The layout without options: `true` or `false` as a word."""
    claim = checked_fact(rng, scene)
    if claim is None:
        return None
    return f"word {topic(claim[0])}", f"Is it true?\nClaim: {claim[0].words()}.\nAnswer:", str(claim[1]).lower()


def which_phrase(rng: random.Random, scene: Scene) -> Question | None:
    """Which of two to four phrases is true, or false."""
    wanted = rng.random() < 0.5
    facts = [random_fact(rng, scene) for _ in range(rng.randint(2, 4))]
    odd = facts[0] if facts[0] is None or wanted else falsified(rng, scene, facts[0])
    rest = [f if f is None or not wanted else falsified(rng, scene, f) for f in facts[1:]]
    phrases = [None if f is None else f.words() for f in (odd, *rest)]
    known = [p for p in phrases if p is not None]
    if len(set(known)) < len(phrases):
        return None
    options, letter = _letters(rng, rng.sample(known, len(known)), known[0])
    return "letter which", f"Which is {'true' if wanted else 'false'}?{options}", letter


def named_letter(rng: random.Random, scene: Scene) -> Question | None:
    named = named_claim(rng, scene)
    if named is None:
        return None
    options, letter = _letters(rng, ("True", "False", "Not Verifiable"), named[2])
    return f"letter {named_topic(named)}", f"Is it true?\nContext: {named[0]}\nClaim: {named[1]}.{options}", letter


def wrong_phrase(rng: random.Random, scene: Scene) -> Question | None:
    """A caption of two to four phrases of which one may be wrong; two or three of them are options, besides none."""
    options = rng.choice((2, 3, 3))
    facts = [random_fact(rng, scene, simple=0.7) for _ in range(options + rng.randrange(2))]
    gold = rng.randrange(options + 1)
    phrases = []
    for k, fact in enumerate(facts, start=1):
        said = falsified(rng, scene, fact) if fact is not None and k == gold else fact
        if said is None:
            return None
        phrases.append(said.words())
    if len(set(phrases)) < len(phrases):
        return None
    order = rng.sample(range(options), options)
    lines = "".join(f"\n{letter}. {phrases[k]}" for letter, k in zip("BCD", order, strict=False))
    letter = "A" if gold == 0 else "BCD"[order.index(gold - 1)]
    said_all = " ".join(f"{'' if p.startswith('the') else 'There is '}{p}." for p in rng.sample(phrases, len(phrases)))
    return "letter caption", f"Which phrase is wrong?\nCaption: {said_all}\nA. No hallucination{lines}\nAnswer:", letter


def both_statements(rng: random.Random, scene: Scene) -> Question | None:
    """Two named things, two statements: both true, neither, one, or one thing isn't there."""
    one, two = rng.sample(scene.things, 2)
    first, second = described(rng, scene, one), described(rng, scene, two)
    if first is None or second is None:
        return None
    facts: list[Fact] = [_has(rng, one, first), _has(rng, two, second)]
    if (draw := rng.random()) < 0.4:
        facts[0] = Relates(first, rng.choice(relations(one, two)), second)
        if draw < 0.15:
            facts[1] = true_exactly(rng, scene)
    verdict = rng.choice(("True", "False", "Partially True", "Not Verifiable"))
    wrong = {"False": (0, 1), "Partially True": (rng.randrange(2),)}.get(verdict, ())
    for k in wrong:
        if (false := falsified(rng, scene, facts[k])) is None:
            return None
        facts[k] = false
    names = rng.sample(NAMES, 2)
    named = [(names[0], first), (names[1], second)]
    parts = [_said(fact, dict(zip((first, second), names, strict=True))) for fact in facts]
    if verdict == "Not Verifiable":
        thing = rng.choice(scene.things)
        absent = falsified(rng, scene, Exists(Kindred(thing.colour, thing.kind)))
        if absent is None:
            return None
        at = rng.randrange(2)
        named[at] = (named[at][0], absent.what)
    rng.shuffle(parts)
    rng.shuffle(named)
    options, letter = _letters(rng, ("True", "False", "Partially True", "Not Verifiable"), verdict)
    context, claim = naming(rng, named), rng.choice((" and ", " while ")).join(parts)
    return (
        "letter both",
        f"Is the claim true?\nContext: {context}\nClaim: {claim}.{options}",
        letter,
    )


def _has(rng: random.Random, thing: Thing, what: Kindred) -> Has:
    name = rng.choice(said_of(what))
    return Has(what, name, getattr(thing, name))


def _said(fact: Fact, names: Mapping[Kindred, str]) -> str:
    match fact:
        case Relates(what, relation, other):
            return f"{names[what]} is {relation} {names[other]}"
        case Has(what):
            return f"{names[what]} {fact.predicate()}"
        case _:
            assert isinstance(fact, Exactly)
            return f"there {'is' if fact.count == 1 else 'are'} {fact.words()}"
