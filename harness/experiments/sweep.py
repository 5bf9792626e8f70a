"""A sweep: the settings under which methods do best on validation, searched with equal numbers of trials.

A search is one method of the sweep on one benchmark; its trials differ in the settings of the method's space. A trial
is trained once a seed and scored on validation alone. Then the best are trained again from fresh seeds, the one that
leads on validation wins, and only the winner is scored on test. This module imports neither torch nor ray;
`harness.experiments.ray_tune` runs the trials, `harness.experiments.selection` the rest.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness import registry
from harness.api import Split
from harness.config import ManyRuns, RunConfig, Settings, TrainConfig, parse, put
from harness.errors import ConfigError, near
from harness.record import Interval

if TYPE_CHECKING:
    from harness.planning.plan import Plan

Value = bool | int | float | str
Point = dict[str, Value]
"""A trial's settings by their whole names, like `settings.alpha` and `train.lr`."""

BUDGET = ("train.examples", "train.validations")
"""What must be the same for all trials: what they learn from, and how often that is looked at."""
DRAWS = 1000
"""How often a random search tries to find settings that it hasn't drawn yet."""


class Dimension(Settings):
    """One setting of a space: one of `choice`, `uniform`, `log_uniform`, `integer`."""

    choice: tuple[Value, ...] | None = Field(None, min_length=1)
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    steps: int | None = Field(None, ge=2)
    """Of a range in a grid: so many values, both ends included."""
    when: dict[str, Value] = Field(default_factory=dict)
    """The setting counts only where others, named before it, have these values; else it has its default."""

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
        """Whether the setting counts beside these."""
        return all(name in point and point[name] == value for name, value in self.when.items())

    def draw(self, rng: random.Random) -> Value:
        """A value at random."""
        if self.choice is not None:
            return rng.choice(self.choice)
        if self.integer is not None:
            return rng.randint(*self.integer)
        if self.uniform is not None:
            return rng.uniform(*self.uniform)
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))

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
        """The values that must be allowed for all others to be: every choice, or both ends."""
        return self.choice if self.choice is not None else self.integer or self._ends


class SweepMethod(Settings):
    """A method of the sweep: what is fixed, and the space of what isn't."""

    method: str
    student: str = "S"
    settings: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    """What this method's training has otherwise than the sweep's; not the budget."""
    space: dict[str, Dimension] = Field(min_length=1)


class Confirm(Settings):
    """What becomes of the best trials."""

    top: int = Field(1, ge=0)
    """So many of a search's trials are trained again from `seeds` and compared on validation; 0: none."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Fresh ones: no trial had them."""
    splits: tuple[Split, ...] = ("validation", "test", "ood")
    """What the winner is scored on."""


class SweepConfig(ManyRuns):
    """Methods x benchmarks, each searched with the same number of trials."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)
    trials: int = Field(ge=1)
    """Trials of each method on each benchmark."""
    search: Literal["random", "grid", "tpe"] = "random"
    """Draws at random | all combinations | Optuna's TPE, which learns from the trials before."""
    seed: int = 0
    """Of the search itself."""
    stop: Literal["none", "asha", "median"] = "none"
    """Whether trials that are behind on validation while training are stopped (arXiv 1810.05934; the median rule)."""
    grace: int = Field(1, ge=1)
    """Validations that every trial may have."""
    reduction: int = Field(3, ge=2)
    """Of `asha`: one of so many goes on."""
    metric: Literal["accuracy", "macro_f1", "micro_f1"] = "accuracy"
    """The figure of the validation split that decides. While training it is always the accuracy."""
    seeds: tuple[int, ...] = Field((100,), min_length=1)
    """A trial is trained from each; its score is the mean."""
    methods: tuple[SweepMethod, ...] = Field(min_length=1)
    confirm: Confirm = Confirm()

    def searches(self) -> list[Search]:
        """One a method and benchmark."""
        return [Search(self, line, benchmark) for benchmark in self.benchmarks for line in range(len(self.methods))]


@dataclass(frozen=True)
class Search:
    """The search for one method's settings on one benchmark."""

    sweep: SweepConfig
    line: int
    """Which of the sweep's methods."""
    benchmark: str

    @property
    def method(self) -> SweepMethod:
        """What the sweep says of the method."""
        return self.sweep.methods[self.line]

    @property
    def name(self) -> str:
        """A name for people and folders, unique in the sweep."""
        return f"{self.line + 1}-{self.method.method}-{self.method.student}-{self.benchmark}"

    def run(self, point: Mapping[str, Value], seed: int, splits: Sequence[Split], *tags: str) -> RunConfig:
        """The run with these settings, scored on these splits. Raises `ConfigError`."""
        s, m = self.sweep, self.method
        table: dict[str, Any] = {"settings": m.settings, "train": s.train.model_dump() | m.train}
        where = f"sweep {s.name!r}: {m.method} with {told(point)}"
        for name, value in point.items():
            put(table, name, value, where)
        return RunConfig(
            **s.shared(self.benchmark)
            | {
                "method": m.method,
                "settings": table["settings"],
                "student": m.student,
                "seed": seed,
                "train": parse(TrainConfig, table["train"], where),
                "evaluate": s.evaluate.model_copy(update={"splits": tuple(splits)}),
                "tags": (f"sweep:{s.name}", *tags),
            }
        )

    def trial(self, point: Mapping[str, Value], seed: int) -> RunConfig:
        """The run of a trial: no test split is scored."""
        return self.run(point, seed, ("validation",), "trial")


# ------------------------------------------------------------------------------------------------ outcome


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Model):
    """A trial as it ended: `stopped` while it was behind, `failed` with the reason."""

    number: int
    point: Point
    status: Literal["done", "stopped", "failed"]
    score: float | None = None
    """The mean over its seeds; of a stopped one, the newest accuracy on validation."""
    validations: int = 0
    """How many validations it got."""
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    """What its runs took, from model loading to scoring."""
    error: str | None = None


class Finalist(_Model):
    """One of the best trials, trained again from fresh seeds."""

    number: int
    """Its trial's."""
    point: Point
    runs: tuple[str, ...]
    score: float | None
    """The mean of the fresh seeds on validation; None where a run failed."""


class Outcome(_Model):
    """What a search found."""

    method: str
    student: str
    benchmark: str
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...] = ()
    winner: Finalist | None = None
    """The finalist that led on validation; its runs are those that are scored on all splits."""
    figures: dict[str, dict[str, Interval]] = {}
    """The winner's by split: the metric over its seeds."""


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials, best first; of equal ones the earlier."""
    done = [trial for trial in trials if trial.status == "done" and trial.score is not None]
    return sorted(done, key=lambda trial: -(trial.score or 0.0))


def learning(planned: Plan) -> list[str]:
    """The stages in which a run's student learns."""
    student = planned.method.student
    stages = [p.stage for p in planned.stages]
    return [stage.name for stage in stages if student in stage.roles and stage.roles[student].trainable]


def student_validations(planned: Plan) -> int:
    """How often a run's student is validated while training."""
    return len(learning(planned)) * planned.config.train.validations


# -------------------------------------------------------------------------------------------------- space


def points(search: Search) -> list[Point] | None:
    """The trials' settings in their order; None where the search finds them as it goes. Raises `ConfigError`."""
    sweep, space = search.sweep, search.method.space
    if sweep.search == "tpe":
        return None
    if sweep.search == "grid":
        return _grid(search)
    rng = random.Random(f"sweep/{sweep.seed}/{search.name}")
    found: list[Point] = []
    for _ in range(sweep.trials):
        drawn = next((p for p in itertools.islice(_draws(space, rng), DRAWS) if p not in found), None)
        if drawn is None:
            raise ConfigError(
                f"sweep {sweep.name!r}: the space of {search.method.method!r} has hardly more than {len(found)} "
                f"points, trials = {sweep.trials}: lower trials, or widen the space"
            )
        found.append(drawn)
    return found


def _draws(space: Mapping[str, Dimension], rng: random.Random) -> Iterator[Point]:
    while True:
        point: Point = {}
        for name, dimension in space.items():
            value = dimension.draw(rng)  # also where it doesn't count: one draw a name, whatever the others are
            if dimension.active(point):
                point[name] = value
        yield point


def _grid(search: Search) -> list[Point]:
    sweep, found = search.sweep, [Point()]
    for name, dimension in search.method.space.items():
        values = dimension.values()
        if values is None:
            raise ConfigError(
                f"sweep {sweep.name!r}: {search.method.method}: {name} is a range, and a grid needs its values: "
                "give it steps = N, or choice"
            )
        found = [q for p in found for q in ([p | {name: v} for v in values] if dimension.active(p) else [p])]
    if len(found) != sweep.trials:
        raise ConfigError(
            f"sweep {sweep.name!r}: the grid of {search.method.method!r} has {len(found)} points, trials = "
            f"{sweep.trials}: every method gets the same number; set trials = {len(found)}, or change the grid"
        )
    return found


def told(point: Mapping[str, Value]) -> str:
    """A point for a person: `alpha=1.5, train.lr=0.001`."""
    parts = [f"{n.removeprefix('settings.')}={f'{v:.4g}' if isinstance(v, float) else v}" for n, v in point.items()]
    return ", ".join(parts) or "the defaults"


# ------------------------------------------------------------------------------------------------- checks


def check(sweep: SweepConfig) -> None:
    """Everything that can be told without data: names, ranges, seeds. Raises `ConfigError`."""
    where = f"sweep {sweep.name!r}"
    if sweep.cluster.workers < 1:
        raise ConfigError(f"{where}: cluster.workers = 0: a sweep's trials run on Ray; expected at least 1")
    if unknown := set(sweep.benchmark_settings) - set(sweep.benchmarks):
        raise ConfigError(f"{where}: benchmark_settings: {near(sorted(unknown)[0], sweep.benchmarks)}")
    if sweep.confirm.top and (used := set(sweep.confirm.seeds) & set(sweep.seeds)):
        raise ConfigError(
            f"{where}: confirm.seeds has {sorted(used)[0]}, which the trials have too: expected fresh seeds, since "
            "the best of many trials owes some of its lead to its seed"
        )
    for search in sweep.searches():
        for name in [f"train.{key}" for key in search.method.train if f"train.{key}" in BUDGET]:
            raise ConfigError(
                f"{where}: {search.method.method}: {name} is the same for all: set it in the sweep's [train]"
            )
        before: list[str] = []
        for name, dimension in search.method.space.items():
            _check_name(search, name)
            for other in dimension.when:
                if other not in before:
                    raise ConfigError(
                        f"{where}: {search.method.method}: {name} counts when {other!r} has a value, which stands "
                        f"nowhere before it in the space: {near(other, before)}"
                    )
            before.append(name)
        for point in (p for found in (_corners, points) for p in found(search) or ()):  # single values first
            try:
                config = search.trial(point, sweep.seeds[0])
                registry.make_method(*registry.resolve_preset(config.method, config.settings))
            except ConfigError as error:
                raise ConfigError(f"{where}: {told(point)}: {error}") from None


def _check_name(search: Search, name: str) -> None:
    where, (kind, _, rest) = f"sweep {search.sweep.name!r}: {search.method.method}", name.partition(".")
    if name in BUDGET:
        raise ConfigError(f"{where}: {name} is the same for all trials: set it in the sweep's [train]")
    if kind == "settings":
        resolved, _ = registry.resolve_preset(search.method.method, {})
        entries = registry.methods()
        if resolved not in entries:
            raise ConfigError(f"{where}: unknown method: {near(resolved, entries)}")
        known = [f"settings.{field.name}" for field in fields(entries[resolved].load())]
    elif kind == "train":
        known = [f"train.{field}" for field in TrainConfig.model_fields if f"train.{field}" not in BUDGET]
        if rest.startswith("lr_by_rung."):
            return
    else:
        raise ConfigError(f"{where}: {name!r}: expected settings.NAME or train.NAME")
    if name not in known:
        raise ConfigError(f"{where}: the space names an unknown setting {name!r}: {near(name, known)}")


def _corners(search: Search) -> Iterator[Point]:
    """For each setting its extreme values, alone but for those that it depends on."""
    space = search.method.space
    for name, dimension in space.items():
        needed: Point = {}
        waiting = dict(dimension.when)
        while waiting:
            other, value = waiting.popitem()
            needed[other] = value
            waiting |= space[other].when
        for value in dimension.ends():
            yield needed | {name: value}
