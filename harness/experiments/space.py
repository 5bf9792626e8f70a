"""The space of a search: the settings in which its trials differ, and the points that Optuna draws from it.

Every search gets its points from Optuna through one function, `suggest`. This module imports neither torch nor ray.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from harness.config import Settings

Value = bool | int | float | str
Point = dict[str, Value]
"""A trial's settings by their full names, like `settings.alpha` and `train.lr`."""

REPEATS = 1000
"""A random search gives up after this number of known points in a row."""


class Dimension(Settings):
    """One setting of a space: one of `choice`, `uniform`, `log_uniform`, `integer`."""

    choice: tuple[Value, ...] | None = Field(None, min_length=1)
    """One of these values."""
    uniform: tuple[float, float] | None = None
    """A number between these ends."""
    log_uniform: tuple[float, float] | None = None
    """A number between these ends, with a uniform logarithm."""
    integer: tuple[int, int] | None = None
    """A whole number between these ends, both included."""
    steps: int | None = Field(None, ge=2)
    """The number of values of a range in a grid, including both ends."""
    when: dict[str, Value] = Field(default_factory=dict)
    """The setting is active only if settings named before it have these values; otherwise it keeps its default."""

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        given = [name for name in ("choice", "uniform", "log_uniform", "integer") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of choice, uniform, log_uniform and integer, got {given or 'none'}")
        if self.choice is None and not self.low < self.high:
            raise ValueError(f"{given[0]} = [{self.low:g}, {self.high:g}]: expected the smaller end first")
        if self.log_uniform is not None and self.low <= 0:
            raise ValueError(f"log_uniform = [{self.low:g}, {self.high:g}]: expected ends above 0")
        return self

    @property
    def low(self) -> float:
        """The lower end of a range."""
        return self._ends[0]

    @property
    def high(self) -> float:
        """The upper end of a range."""
        return self._ends[1]

    @property
    def _ends(self) -> tuple[float, float]:
        ends = self.uniform or self.log_uniform or self.integer
        assert ends is not None
        return ends

    def active(self, point: Mapping[str, Value]) -> bool:
        """Whether the setting is active at this point."""
        return all(name in point and point[name] == value for name, value in self.when.items())

    def values(self) -> tuple[Value, ...] | None:
        """The values of a grid; None for a range without `steps`."""
        if self.choice is not None:
            return self.choice
        if self.integer is not None and self.steps is None:
            return tuple(range(self.integer[0], self.integer[1] + 1))
        if self.steps is None:
            return None
        shares = [k / (self.steps - 1) for k in range(self.steps)]
        if self.log_uniform is not None:
            return tuple(float(self.low ** (1 - s) * self.high**s) for s in shares)
        linear = [self.low + (self.high - self.low) * s for s in shares]
        return tuple(dict.fromkeys(map(round, linear))) if self.integer is not None else tuple(linear)

    def ends(self) -> tuple[Value, ...]:
        """If these values are allowed, all others are: every choice, or both ends."""
        return self.choice if self.choice is not None else self.integer or self._ends


Space = Mapping[str, Dimension]


def suggest(space: Space, trial: Any) -> Point:
    """The settings that an Optuna trial suggests, in their order; inactive ones are left out."""
    point: Point = {}
    for name, dimension in space.items():
        if not dimension.active(point):
            continue
        if dimension.choice is not None:
            point[name] = trial.suggest_categorical(name, list(dimension.choice))
        elif dimension.integer is not None:
            point[name] = trial.suggest_int(name, *dimension.integer)
        else:
            log = dimension.log_uniform is not None
            point[name] = trial.suggest_float(name, dimension.low, dimension.high, log=log)
    return point


def random_points(space: Space, count: int, seed: int) -> list[Point]:
    """`count` different points, drawn at random; fewer if the space hardly has more."""
    from optuna.samplers import RandomSampler

    found: list[Point] = []
    repeats = 0
    draws = _draws(space, RandomSampler(seed=seed))
    while len(found) < count and repeats < REPEATS:
        point = next(draws)
        if point in found:
            repeats += 1
        else:
            found.append(point)
            repeats = 0
    return found


def grid_points(space: Space, seed: int) -> list[Point]:
    """All combinations of the values of a grid, in random order. Every dimension has `values`."""
    from optuna.samplers import GridSampler

    values = {name: list(dimension.values() or ()) for name, dimension in space.items()}
    draws = _draws(space, GridSampler(values, seed=seed))
    combinations = itertools.islice(draws, math.prod(map(len, values.values())))
    # Combinations that differ only in inactive settings are one point.
    return list({tuple(point.items()): point for point in combinations}.values())


def _draws(space: Space, sampler: Any) -> Iterator[Point]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    while True:
        yield suggest(space, study.ask())


def first_point(space: Space) -> Point:
    """A fixed point of the space: the lower end, or the first choice, of every active setting."""
    point: Point = {}
    for name, dimension in space.items():
        if dimension.active(point):
            point[name] = dimension.ends()[0]
    return point


def extreme_points(space: Space) -> Iterator[Point]:
    """For each setting its extreme values, together with only the settings that it depends on."""
    for name, dimension in space.items():
        for value in dimension.ends():
            yield _required(space, name) | {name: value}


def _required(space: Space, name: str) -> Point:
    """The values of the settings before it that make this one active."""
    point: Point = {}
    for other, value in space[name].when.items():
        point |= _required(space, other) | {other: value}
    return point


def format_point(point: Mapping[str, Value]) -> str:
    """A point as text: `alpha=1.5, train.lr=0.001`."""
    parts = [f"{n.removeprefix('settings.')}={f'{v:.4g}' if isinstance(v, float) else v}" for n, v in point.items()]
    return ", ".join(parts) or "the defaults"
