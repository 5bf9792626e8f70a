"""A suite: methods x benchmarks x seeds at one budget, as a TOML file describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from harness.config import (
    ClusterConfig,
    DataFolder,
    EvaluateConfig,
    Label,
    RunConfig,
    RungConfig,
    Settings,
    TrackConfig,
    TrainConfig,
    parse,
)
from harness.errors import ConfigError
from harness.images.reading import MAX_PIXELS

SAME_IN_A_SUITE = {
    "examples": "the student budget is the same for all runs of a suite",
    "questions_per_image": "all runs of a suite see the examples in one order",
}
"""Training settings that a line can't change, and why."""
FLOPS_OF = "flops_of:"
"""Begins the tag of runs whose line has `flops_of`; their row's note in a table comes from it."""


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for at, value in enumerate(values) if value in values[:at]]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice; expected each once")
    return values


Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], AfterValidator(_once)]
"""Seeds, each once."""
Benchmarks = Annotated[tuple[str, ...], AfterValidator(_once)]
"""Names of benchmarks, each once."""


class SuiteRun(Settings):
    """One line of a suite: a method with its settings, for every benchmark and seed of the suite."""

    method: str
    student: str = "S"
    settings: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    """The training settings in which this line differs from the suite, like its own tuned `lr`; not budget or order."""
    train_by_benchmark: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The same for single benchmarks, if a line is tuned for each one."""
    evaluate: dict[str, Any] = Field(default_factory=dict)
    """The evaluation settings in which this line differs from the suite, like `shifts`."""
    benchmarks: Benchmarks = ()
    """The suite's benchmarks that this line is run on; empty: all of them."""
    benchmark_settings: dict[str, Any] = Field(default_factory=dict)
    """The benchmark's settings in which this line differs from the suite, like `label_noise`. Rows on other data are in
    a table of their own."""
    seeds: Seeds = ()
    """The seeds of this line, if they aren't the suite's."""
    tags: tuple[str, ...] = ()
    label: Label | None = None
    """What tables call these runs, like "KD on the pool". To rename finished runs, change it and run the suite."""
    control: Literal["text_only", "shuffled_image"] | None = None
    flops_of: str | None = None
    """The label of another line (its method, if it has none). This line then learns not from the suite's number of
    examples, but from as many as make its training cost the FLOPs of that line's, teachers included: a baseline at
    equal total compute. See `harness.experiments.equal_flops`."""
    examples: dict[str, int] = Field(default_factory=dict)
    """By benchmark: the budget that follows from `flops_of`. It is computed, not set."""


class ManyRuns(Settings):
    """The settings that the runs of a suite or of a sweep have in common."""

    benchmarks: Benchmarks = Field(min_length=1)
    """The benchmarks of all runs."""
    benchmark_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    data_dir: DataFolder | None = None
    skip_missing: bool = False
    max_image_pixels: int = Field(MAX_PIXELS, ge=1)
    train_on: str | None = None
    train_on_settings: dict[str, Any] = Field(default_factory=dict)
    train_on_data_dir: DataFolder | None = None
    ladder: str | tuple[RungConfig, ...] = "tiny"
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
    track: TrackConfig = TrackConfig()
    plugins: tuple[str, ...] = ()

    def shared(self, benchmark: str) -> dict[str, Any]:
        """The settings of a `RunConfig` on this benchmark."""
        own = {"benchmark": benchmark, "benchmark_settings": self.benchmark_settings.get(benchmark, {})}
        names = ManyRuns.model_fields.keys() - {"benchmarks", "benchmark_settings"}
        return own | {name: getattr(self, name) for name in names}


class SuiteConfig(ManyRuns):
    """Methods x benchmarks x seeds, at one budget."""

    name: str
    """Its runs are tagged `suite:NAME`."""
    seeds: Seeds = Field(min_length=1)
    """Every line is run with each of them."""
    runs: tuple[SuiteRun, ...] = Field(min_length=1)
    """The lines: methods with their settings."""

    def run_configs(self) -> list[RunConfig]:
        """One `RunConfig` per method, benchmark and seed. Seeds vary slowest, so that early results are complete."""
        if unknown := set(self.benchmark_settings) - set(self.benchmarks):
            raise ConfigError(
                f"benchmark_settings names {sorted(unknown)[0]!r}, which is not among the suite's "
                f"benchmarks ({', '.join(self.benchmarks)})"
            )
        for run in self.runs:
            for own in (run.train, *run.train_by_benchmark.values()):
                for name, why in SAME_IN_A_SUITE.items():
                    if name in own:
                        raise ConfigError(
                            f"runs: {run.method}: train.{name} = {own[name]!r}: {why}; set it in the suite's [train]"
                        )
            for setting in ("benchmarks", "train_by_benchmark"):
                if strange := set(getattr(run, setting)) - set(self.benchmarks):
                    raise ConfigError(
                        f"runs: {run.method}: {setting} names {sorted(strange)[0]!r}, which is not among the suite's "
                        f"benchmarks ({', '.join(self.benchmarks)})"
                    )
            if run.examples and not run.flops_of:
                raise ConfigError(
                    f"runs: {run.method}: examples = {run.examples}: a line's own budget is computed from flops_of = "
                    "'LABEL', so that it is one at equal FLOPs; set that, or the suite's train.examples"
                )
        if unpriced := [run for run in self.runs if run.flops_of and not run.examples]:
            raise ConfigError(
                f"runs: {unpriced[0].method}: flops_of = {unpriced[0].flops_of!r} has no number of examples yet: "
                "expected a suite that harness.experiments.equal_flops has priced"
            )
        found = [
            RunConfig(
                **self.shared(benchmark)
                | {
                    "method": run.method,
                    "settings": run.settings,
                    "benchmark_settings": self.benchmark_settings.get(benchmark, {}) | run.benchmark_settings,
                    "student": run.student,
                    "seed": seed,
                    "train": self._train(run, benchmark),
                    "evaluate": parse(
                        EvaluateConfig, self.evaluate.model_dump() | run.evaluate, f"runs: {run.method}: evaluate"
                    ),
                    "tags": (
                        *run.tags,
                        *((f"{FLOPS_OF}{run.flops_of}",) if run.flops_of else ()),
                        f"suite:{self.name}",
                    ),
                    "label": run.label,
                    "control": run.control,
                }
            )
            for seed in dict.fromkeys((*self.seeds, *(seed for run in self.runs for seed in run.seeds)))
            for benchmark in self.benchmarks
            for run in self.runs
            if benchmark in (run.benchmarks or self.benchmarks) and seed in (run.seeds or self.seeds)
        ]
        _each_once(found)
        return found

    def _train(self, run: SuiteRun, benchmark: str) -> TrainConfig:
        own = run.train | run.train_by_benchmark.get(benchmark, {})
        if run.flops_of:
            own = own | {"examples": run.examples[benchmark]}
        return parse(TrainConfig, self.train.model_dump() | own, f"runs: {run.method}: train")


def _each_once(configs: Sequence[RunConfig]) -> None:
    """Raise `ConfigError` if two lines of a suite give the same run: it would be trained once and listed twice."""
    seen: dict[str, RunConfig] = {}
    for config in configs:
        key = config.model_dump_json(exclude={"label", "tags", "cluster", "track"})
        first = seen.setdefault(key, config)
        if first is not config:
            names = " and ".join(dict.fromkeys(repr(one.label or one.method) for one in (first, config)))
            raise ConfigError(
                f"runs: two lines ({names}) give the same run of {config.method} on {config.benchmark} with seed "
                f"{config.seed}; expected each once: remove a line, or change one of them"
            )
