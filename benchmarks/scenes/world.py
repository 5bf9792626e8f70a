"""The generated scenes: pictures of 64 x 64 px, or larger, with coloured objects on a 4 x 4 grid.

Everything is derived from a seed: `stream(seed, split, index)` gives each example its own random stream, so any
example can be generated alone, and the same seed gives the same bytes. A `Scene` draws itself when called. A fact
(`Exists`, `Exactly`, `Relates`, `Has`) has its wording and knows whether it holds in a scene: True, False, or None
if its object isn't there (or isn't unique).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple, TypeVar

from PIL import Image, ImageDraw

T = TypeVar("T")

KINDS = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "moon",
    "arrow",
    "house",
    "tree",
    "fish",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SIZES = ("small", "large")
ROWS = ("top", "upper", "lower", "bottom")
COLUMNS = ("first", "second", "third", "fourth")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

HELD_OUT = frozenset((kind, (3 * kind + 1) % len(COLOURS)) for kind in range(len(KINDS)))
"""(kind, colour) pairs, one per kind, that only the `ood` split shows or names."""

SIDE, GRID = 64, 4
CELL = SIDE // GRID
PIXELS = (9, 15)
"""Width of a small and of a large object, px."""

_RGB = {
    "red": (214, 32, 36),
    "orange": (250, 142, 20),
    "yellow": (240, 215, 20),
    "green": (30, 150, 60),
    "blue": (40, 80, 220),
    "purple": (130, 40, 170),
    "pink": (250, 130, 190),
    "black": (25, 25, 25),
}
_GROUNDS = (
    (255, 255, 255),
    (240, 240, 236),
    (228, 234, 242),
    (244, 236, 222),
    (226, 238, 226),
    (218, 218, 218),
)


# ------------------------------------------------------------------------------------------- scenes


class Thing(NamedTuple):
    """An object: indices into KINDS, COLOURS, SIZES; its grid cell; its offset from the cell's centre, px."""

    kind: int
    colour: int
    size: int
    row: int
    column: int
    dx: int
    dy: int

    @property
    def noun(self) -> str:
        """Colour and kind in words: `red ring`."""
        return f"{COLOURS[self.colour]} {KINDS[self.kind]}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's content. Calling it draws the picture: `side` x `side` px, RGB.

    Places and sizes are in px of a picture of 64 x 64, and drawn to scale.
    """

    things: tuple[Thing, ...]
    ground: int = 0
    side: int = field(default=SIDE, repr=False)

    def __call__(self) -> Image.Image:
        image = Image.new("RGB", (self.side, self.side), _GROUNDS[self.ground])
        for thing in self.things:
            width = PIXELS[thing.size]
            x = thing.column * CELL + (CELL - width) // 2 + thing.dx
            y = thing.row * CELL + (CELL - width) // 2 + thing.dy
            sprite = _sprite(thing.kind, self._scaled(width))
            image.paste(_RGB[COLOURS[thing.colour]], (self._scaled(x), self._scaled(y)), sprite)
        return image

    def _scaled(self, pixels: int) -> int:
        return round(pixels * self.side / SIDE)


def stream(*key: str | int) -> random.Random:
    """The random stream of a key such as (seed, split, index): equal keys, equal streams, on any machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def below(rng: random.Random, count: int) -> int:
    """An integer from 0 to below `count`; several times as fast as `randrange`."""
    return int(rng.random() * count)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of the items; several times as fast as `choice`."""
    return items[int(rng.random() * len(items))]


def make_scene(rng: random.Random, fewest: int = 5, most: int = 8, novel: float = 0.0) -> Scene:
    """A scene of `fewest` to `most` things. With `novel` > 0 that fraction of them are held-out pairs.

    A scene has few colours and kinds, so that colours repeat, counts exceed one and a wrong colour is one that
    another object has.
    """
    count = fewest + below(rng, most - fewest + 1)
    colours = rng.sample(range(len(COLOURS)), 3 + below(rng, 3))
    kinds = rng.sample(range(len(KINDS)), 3 + below(rng, 4))
    known = [pair for kind in kinds for colour in colours if (pair := (kind, colour)) not in HELD_OUT]
    strange = sorted(HELD_OUT)
    things = []
    for cell in rng.sample(range(GRID * GRID), count):
        kind, colour = pick(rng, strange if novel and rng.random() < novel else known)
        things.append(place(rng, kind, colour, below(rng, 2), cell))
    return Scene(tuple(things), below(rng, len(_GROUNDS)))


def place(rng: random.Random, kind: int, colour: int, size: int, cell: int) -> Thing:
    """A thing somewhere in its cell (0-15, row by row): small ones move more."""
    shift = 1 if size else 3
    row, column = divmod(cell, GRID)
    dx, dy = below(rng, 2 * shift + 1) - shift, below(rng, 2 * shift + 1) - shift
    return Thing(kind, colour, size, row, column, dx, dy)


# ---------------------------------------------------------------------------------------- the sprites


@cache
def _sprite(kind: int, width: int) -> Image.Image:
    """The antialiased mask of a kind, width x width px, mode L; drawn 16 times as large (4 if large), then reduced."""
    scale = (16 if width <= 2 * max(PIXELS) else 4) * width
    mask = Image.new("L", (scale, scale), 0)
    draw = ImageDraw.Draw(mask)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * (scale - 1), y * (scale - 1)) for x, y in points]

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        draw.ellipse(at((x - r, y - r), (x + r, y + r)), fill=fill)

    match KINDS[kind]:
        case "circle":
            disc(0.5, 0.5, 0.48)
        case "square":
            draw.rectangle(at((0.06, 0.06), (0.94, 0.94)), fill=255)
        case "triangle":
            draw.polygon(at((0.5, 0.03), (0.99, 0.95), (0.01, 0.95)), fill=255)
        case "star":
            spikes = [
                (0.5 + r * math.sin(k * math.pi / 5), 0.53 - r * math.cos(k * math.pi / 5))
                for k, r in ((k, 0.53 if k % 2 == 0 else 0.21) for k in range(10))
            ]
            draw.polygon(at(*spikes), fill=255)
        case "ring":
            disc(0.5, 0.5, 0.5)
            disc(0.5, 0.5, 0.25, fill=0)
        case "cross":
            draw.rectangle(at((0.35, 0.02), (0.65, 0.98)), fill=255)
            draw.rectangle(at((0.02, 0.35), (0.98, 0.65)), fill=255)
        case "heart":
            disc(0.27, 0.3, 0.25)
            disc(0.73, 0.3, 0.25)
            draw.polygon(at((0.04, 0.4), (0.96, 0.4), (0.5, 0.97)), fill=255)
        case "moon":
            disc(0.48, 0.5, 0.49)
            disc(0.76, 0.42, 0.42, fill=0)
        case "arrow":
            draw.polygon(at((0.99, 0.5), (0.5, 0.03), (0.5, 0.97)), fill=255)
            draw.rectangle(at((0.01, 0.34), (0.52, 0.66)), fill=255)
        case "house":
            draw.polygon(at((0.5, 0.0), (1.0, 0.47), (0.0, 0.47)), fill=255)
            draw.rectangle(at((0.13, 0.47), (0.87, 0.98)), fill=255)
            draw.rectangle(at((0.4, 0.62), (0.62, 0.99)), fill=0)
        case "tree":
            disc(0.5, 0.31, 0.31)
            disc(0.24, 0.42, 0.2)
            disc(0.76, 0.42, 0.2)
            draw.rectangle(at((0.41, 0.55), (0.59, 0.99)), fill=255)
        case "fish":
            draw.ellipse(at((0.0, 0.2), (0.74, 0.8)), fill=255)
            draw.polygon(at((0.6, 0.5), (0.99, 0.14), (0.99, 0.86)), fill=255)
            disc(0.2, 0.42, 0.07, fill=0)
    return mask.resize((width, width), Image.Resampling.BOX)


# ------------------------------------------------------------------------------------------- editing


# --------------------------------------------------------------------------------------------- edits


Edit = Literal["recolour", "rekind", "resize", "swap", "drop", "copy", "move"]


def edited(rng: random.Random, scene: Scene, edit: Edit, target: int, novel: bool = False) -> Scene | None:
    """The scene after one change of its thing number `target`; None if the change isn't possible.

    New colours and kinds are those of another thing, so the change is a near miss; a held-out pair
    occurs only if `novel`.
    """
    things = list(scene.things)
    thing = things[target]
    match edit:
        case "recolour" | "rekind":
            name = "colour" if edit == "recolour" else "kind"
            pool = sorted({getattr(t, name) for t in things} - {getattr(thing, name)})
            if not pool:
                return None
            things[target] = thing = thing._replace(**{name: pick(rng, pool)})
            if not novel and (thing.kind, thing.colour) in HELD_OUT:
                return None
        case "resize":
            things[target] = place(rng, thing.kind, thing.colour, 1 - thing.size, thing.row * GRID + thing.column)
        case "swap":
            other = below(rng, len(things))
            two = things[other]
            things[target] = thing._replace(row=two.row, column=two.column)
            things[other] = two._replace(row=thing.row, column=thing.column)
        case "drop":
            del things[target]
        case "copy" | "move":
            free = sorted(set(range(GRID * GRID)) - {t.row * GRID + t.column for t in things})
            moved = place(rng, thing.kind, thing.colour, thing.size, pick(rng, free)) if free else None
            if moved is None:
                return None
            if edit == "move":
                things[target] = moved
            else:
                things.append(moved)
    return Scene(tuple(things), scene.ground)


def cells(scene: Scene) -> Iterator[tuple[int, Thing]]:
    """Each thing with the number of its cell (0-15, row by row)."""
    for thing in scene.things:
        yield thing.row * GRID + thing.column, thing
