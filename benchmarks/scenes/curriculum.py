"""What the tiny ladder learns before the benchmarks: many kinds of short questions about one picture.

`Curriculum.lesson(index, progress)` is pure data: a picture, the words that each cell of its grid shows (for
aligning image tokens with words), and questions as (topic, prompt, one-word answer). Prompts end in `?` or in
`Answer:`. The longer ones have the layout of the benchmarks, but change the words where the benchmarks change
the picture. The seeds are separate, so no lesson repeats a benchmark's picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from benchmarks.scenes import world
from benchmarks.scenes.claims import NAMES
from benchmarks.scenes.facts import Kindred
from benchmarks.scenes.layout_questions import (
    both_statements,
    claim_letter,
    claim_word,
    named_letter,
    which_phrase,
    wrong_phrase,
)
from benchmarks.scenes.short_questions import (
    Question,
    at_place,
    beside,
    check,
    compare,
    how_many,
    look_up,
    named_beside,
    named_check,
    named_property,
    named_relates,
    relates,
    simple_check,
)
from benchmarks.scenes.world import COLOURS, COLUMNS, KINDS, NUMBERS, ROWS, SIZES, Scene


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture, `cells` = (cell, its words), and (topic, prompt, answer) triples."""

    image: Callable[[], Image.Image]
    cells: tuple[tuple[int, tuple[str, ...]], ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Curriculum:
    """The questions in a seeded order: short checks first, later more and more in the benchmarks' layout."""

    seed: int = 0

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The word groups for a cell's token, which shows one word of each: colour, kind, size, row, column."""
        return COLOURS, KINDS, SIZES, ROWS, COLUMNS

    def words(self) -> tuple[str, ...]:
        """Every word of the scenes and benchmarks, lower case: each one is a single token."""
        plural = [Kindred(kind=k).words(plural=True) for k in range(len(KINDS))]
        names = [name.lower() for name in NAMES]
        return (*COLOURS, *KINDS, *plural, *SIZES, *ROWS, *COLUMNS, *NUMBERS, *names, *_OTHER_WORDS.split())

    def lesson(self, index: int, progress: float) -> Lesson:
        """The lesson number `index`; `progress` (0 to 1) is the progress of the pretraining."""
        rng = world.stream("lessons", self.seed, index)
        scene = world.make_scene(rng, fewest=3, most=10)
        cells = tuple(
            (cell, (COLOURS[t.colour], KINDS[t.kind], SIZES[t.size], ROWS[t.row], COLUMNS[t.column]))
            for cell, t in world.cells(scene)
        )
        if progress < 0.12:
            questions = [_ask(rng, scene, _FIRST) for _ in range(16)]
        else:
            long = 0 if progress < 0.3 else 2 if progress < 0.4 else 5
            short = _PLACES if progress < 0.3 else _SHORT
            questions = [_ask(rng, scene, short) for _ in range(16 - 2 * long)]
            questions += [_ask(rng, scene, _LONG) for _ in range(long)]
            rng.shuffle(questions)
        return Lesson(scene, cells, tuple(questions))


_Maker = Callable[[random.Random, Scene], Question | None]
_FIRST: tuple[tuple[_Maker, float], ...] = ((simple_check, 0.3), (look_up, 0.4), (at_place, 0.15), (compare, 0.15))
_PLACES: tuple[tuple[_Maker, float], ...] = (
    (check, 0.15),
    (look_up, 0.15),
    (compare, 0.05),
    (beside, 0.15),
    (relates, 0.15),
    (how_many, 0.05),
    (named_property, 0.12),
    (named_beside, 0.12),
    (named_relates, 0.06),
)
_SHORT: tuple[tuple[_Maker, float], ...] = (
    (check, 0.3),
    (look_up, 0.08),
    (at_place, 0.02),
    (beside, 0.05),
    (relates, 0.1),
    (how_many, 0.1),
    (named_property, 0.05),
    (named_beside, 0.1),
    (named_relates, 0.15),
    (named_check, 0.05),
)
_LONG: tuple[tuple[_Maker, float], ...] = (
    (claim_word, 0.05),
    (claim_letter, 0.05),
    (which_phrase, 0.1),
    (named_letter, 0.1),
    (wrong_phrase, 0.4),
    (both_statements, 0.3),
)


def _ask(rng: random.Random, scene: Scene, makers: Sequence[tuple[_Maker, float]]) -> Question:
    """A question of a random kind that fits this scene; as a fallback, what is at a position."""
    for _ in range(8):
        (maker,) = rng.choices([m for m, _ in makers], [w for _, w in makers])
        if (question := maker(rng, scene)) is not None:
            return question
    return at_place(rng, scene)


_OTHER_WORDS = """
a an the is are of there it true false partially not verifiable which what how many kind colour size row column
left right above below in thing things and called we call context claim caption answer no hallucination picture
shows image you can see here also with one next to lies besides contains has seen something wrong part does fit
holds at all this drawing stands while both find
"""
