"""A sweep: the settings with which methods are best on validation, searched with equal numbers of trials.

A search is one method of the sweep on one benchmark; its trials differ in the settings of the method's space. A trial
is trained once per seed and scored only on validation. Then the best trials are trained again with fresh seeds, the
best of these on validation wins, and only the winner is scored on test. This module imports neither torch nor ray;
`harness.experiments.ray_tune` runs the trials, `harness.experiments.selection` the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import Field

from harness import registry
from harness.api import Split
from harness.config import RunConfig, Settings, TrainConfig, parse
from harness.errors import ConfigError, near
from harness.experiments.space import (
    Dimension,
    Point,
    Value,
    extreme_points,
    first_point,
    format_point,
    grid_points,
    random_points,
)
from harness.settings import put
from harness.suite import ManyRuns, Seeds

BUDGET = ("train.examples", "train.validations")
"""What must be the same for all trials: the training data, and how often they are validated."""


class SweepMethod(Settings):
    """A method of the sweep: its fixed settings, and the space of the others."""

    method: str
    student: str = "S"
    settings: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    """The training settings in which this method differs from the sweep; not the budget."""
    space: dict[str, Dimension] = Field(min_length=1)
    """The settings that are searched, by name: `settings.NAME` of the method, `train.NAME` of the training."""


class Confirm(Settings):
    """How the best trials are confirmed."""

    top: int = Field(1, ge=0)
    """How many of a search's trials are trained again with `seeds` and compared on validation; 0: none."""
    seeds: Seeds = Field((0, 1, 2), min_length=1)
    """None of them may be a seed of the trials."""
    splits: tuple[Split, ...] = ("validation", "test", "ood")
    """The splits that the winner is scored on."""


class SweepConfig(ManyRuns):
    """Methods x benchmarks, each searched with the same number of trials."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)
    """A store has one sweep of a name."""
    trials: int = Field(ge=1, le=100_000)
    """Trials of each method on each benchmark."""
    search: Literal["random", "grid", "tpe"] = "random"
    """Random points | all combinations | Optuna's TPE, which learns from the earlier trials."""
    seed: int = Field(0, ge=0, lt=2**32)
    """The seed for drawing the points, the same for every search."""
    stop: Literal["none", "asha", "median"] = "none"
    """Whether trials that are behind on validation are stopped during training (arXiv 1810.05934; the median rule)."""
    grace: int = Field(1, ge=1, le=10_000)
    """The number of validations that every trial gets at least."""
    reduction: int = Field(3, ge=2, le=1000)
    """For `asha`: one in this number continues."""
    metric: Literal["accuracy", "macro_f1", "micro_f1"] = "accuracy"
    """The validation figure that decides. During training it is always the accuracy."""
    seeds: Seeds = Field((100,), min_length=1)
    """A trial is trained with each of them; its score is the mean."""
    methods: tuple[SweepMethod, ...] = Field(min_length=1)
    """The methods that are searched, each with the same number of trials."""
    confirm: Confirm = Confirm()
    """How the winner is found among the best trials."""

    def searches(self) -> list[Search]:
        """One per method and benchmark."""
        return [Search(self, line, benchmark) for benchmark in self.benchmarks for line in range(len(self.methods))]


@dataclass(frozen=True)
class Search:
    """The search for one method's settings on one benchmark."""

    sweep: SweepConfig
    line: int
    """The index of the method in the sweep."""
    benchmark: str

    @property
    def method(self) -> SweepMethod:
        """The method's part of the sweep."""
        return self.sweep.methods[self.line]

    @property
    def name(self) -> str:
        """A readable name, also for folders, unique in the sweep."""
        return f"{self.line + 1}-{self.method.method}-{self.method.student}-{self.benchmark}"

    def run(self, point: Mapping[str, Value], seed: int, splits: Sequence[Split], *tags: str) -> RunConfig:
        """The run with these settings, scored on these splits. Raises `ConfigError`."""
        s, m = self.sweep, self.method
        table: dict[str, Any] = {"settings": m.settings, "train": s.train.model_dump() | m.train}
        where = f"sweep {s.name!r}: {m.method} with {format_point(point)}"
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
        """The run of a trial: the test split isn't scored."""
        return self.run(point, seed, ("validation",), "trial")


# -------------------------------------------------------------------------------------------------- space


def points(search: Search) -> list[Point] | None:
    """The trials' settings in order; None if each depends on the earlier trials. Raises `ConfigError`."""
    sweep, space = search.sweep, search.method.space
    where = f"sweep {sweep.name!r}"
    if sweep.search == "tpe":
        return None
    if sweep.search == "random":
        found = random_points(space, sweep.trials, sweep.seed)
        if len(found) < sweep.trials:
            raise ConfigError(
                f"{where}: the space of {search.method.method!r} has hardly more than {len(found)} points, trials = "
                f"{sweep.trials}: lower trials, or widen the space"
            )
        return found
    if endless := [name for name, dimension in space.items() if dimension.values() is None]:
        raise ConfigError(
            f"{where}: {search.method.method}: {endless[0]} is a range, and a grid needs its values: give it "
            "steps = N, or choice"
        )
    found = grid_points(space, sweep.seed)
    if len(found) != sweep.trials:
        raise ConfigError(
            f"{where}: the grid of {search.method.method!r} has {len(found)} points, trials = {sweep.trials}: every "
            f"method gets the same number; set trials = {len(found)}, or change the grid"
        )
    return found


def points_to_plan(search: Search) -> list[Point]:
    """Points to plan before the search: its own if they are known, else any point of the space."""
    return points(search) or [first_point(search.method.space)]


# ------------------------------------------------------------------------------------------------- checks


def check(sweep: SweepConfig) -> None:
    """Check everything that needs no data: names, ranges, seeds. Raises `ConfigError`."""
    where = f"sweep {sweep.name!r}"
    if sweep.cluster.workers < 1:
        raise ConfigError(f"{where}: cluster.workers = 0: a sweep's trials run on Ray; expected at least 1")
    if unknown := set(sweep.benchmark_settings) - set(sweep.benchmarks):
        raise ConfigError(f"{where}: benchmark_settings: {near(sorted(unknown)[0], sweep.benchmarks)}")
    if sweep.confirm.top and (used := set(sweep.confirm.seeds) & set(sweep.seeds)):
        raise ConfigError(
            f"{where}: confirm.seeds has {sorted(used)[0]}, which the trials have too: expected fresh seeds, since "
            "the best of many trials was partly lucky with its seed"
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
                        f"{where}: {search.method.method}: {name} depends on {other!r}, which doesn't come before it "
                        f"in the space: {near(other, before)}"
                    )
            before.append(name)
        for point in extreme_points(search.method.space):  # first, because each of them changes only one setting
            _check_point(search, point)
        for point in points(search) or ():
            _check_point(search, point)


def _check_point(search: Search, point: Point) -> None:
    """Check that the method and the training allow these settings."""
    try:
        config = search.trial(point, search.sweep.seeds[0])
        registry.make_method(*registry.resolve_preset(config.method, config.settings))
    except ConfigError as error:
        raise ConfigError(f"sweep {search.sweep.name!r}: {format_point(point)}: {error}") from None


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
