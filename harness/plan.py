"""From a `RunConfig` to a `Plan`: everything that can be checked, priced or named before training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import harness
from harness import data, ladders, registry
from harness.api import Benchmark, From, Method, Stage
from harness.config import RunConfig, RungConfig
from harness.errors import ConfigError, near


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its length. `position` is where in the training order it starts."""

    stage: Stage
    steps: int
    position: int


@dataclass(frozen=True)
class Plan:
    """A checked run: nothing in it can be refused later but what only training can show."""

    config: RunConfig
    method: Method
    benchmark: Benchmark
    dataset: data.Dataset
    ladder: str
    rungs: dict[str, RungConfig]
    infos: dict[str, ladders.ModelInfo]
    stages: list[PlannedStage]
    code: str
    """sha256 over the training code, the method's and the benchmark's files."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the method, defaults included."""
        return asdict(self.method)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes this run this run: where and how it is executed is left out."""
        settings = asdict(self.benchmark)
        settings.pop("data_dir")
        return {
            "version": harness.__version__,
            "code": self.code,
            "method": self.config.method,
            "settings": self.settings,
            "benchmark": self.config.benchmark,
            "benchmark_settings": settings,
            "data": [self.benchmark.revision, self.dataset.fingerprint],
            "ladder": {name: info.digest for name, info in self.infos.items()},
            "student": self.config.student,
            "seed": self.config.seed,
            "train": self.config.train.model_dump(mode="json"),
            "evaluate": self.config.evaluate.model_dump(mode="json"),
        }

    @cached_property
    def run_id(self) -> str:
        """A name that a person can read, and the hash of the identity."""
        return run_name(self.identity)

    @property
    def student_parameters(self) -> int:
        return self.infos[self.config.student].parameters


def run_name(identity: Mapping[str, Any]) -> str:
    """The run id that belongs to a plan's identity."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return "{method}-{student}-{benchmark}-s{seed}-".format_map(identity) + digest[:10]


def make(config: RunConfig) -> Plan:
    """Check the configuration as a whole. Raises `ConfigError`, `DataError` or `ModelError`."""
    for plugin in config.plugins:
        registry.load_plugin(plugin)
    method = registry.make_method(config.method, config.settings)
    ladder = ladders.find(config.ladder)
    rungs = {rung.name: rung for rung in ladder.rungs}
    if config.student not in rungs:
        raise ConfigError(
            f"unknown student {config.student!r} on ladder {ladder.name!r}: {near(config.student, rungs)}"
        )
    for rung in config.train.lr_by_rung:
        if rung not in rungs:
            raise ConfigError(f"train.lr_by_rung: unknown rung {rung!r}: {near(rung, rungs)}")
    if config.train.batch_size < config.cluster.workers:
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} is less than cluster.workers = {config.cluster.workers}; "
            "every worker needs at least one example a step"
        )
    stages = plan_stages(method, list(rungs), config)
    used = {w for s in stages for r in s.stage.roles.values() if isinstance(w := r.weights, str)} | {config.student}
    infos = {name: _inspect(rungs[name]) for name in rungs if name in used}
    dataset = load_data(config.benchmark, config.benchmark_settings, config.data_dir)
    return Plan(
        config=config,
        method=method,
        benchmark=dataset.benchmark,
        dataset=dataset,
        ladder=ladder.name,
        rungs=rungs,
        infos=infos,
        stages=stages,
        code=code_digest(type(method), type(dataset.benchmark)),
    )


def plan_stages(method: Method, rungs: list[str], config: RunConfig) -> list[PlannedStage]:
    """The method's stages with their lengths, checked. Raises `ConfigError` naming the method and stage."""
    planned: list[PlannedStage] = []
    spent = 0.0
    for stage in method.stages(rungs, config.student):
        where = f"method {method.name!r}, stage {stage.name!r}"
        earlier = {p.stage.name: p.stage for p in planned}
        if stage.name in earlier:
            raise ConfigError(f"{where}: two stages have this name")
        if not stage.share > 0:
            raise ConfigError(f"{where}: share = {stage.share}; expected a number above 0")
        if not any(role.trainable for role in stage.roles.values()):
            raise ConfigError(f"{where}: no role is trainable; leave the stage out")
        for name, role in stage.roles.items():
            _check_weights(f"{where}, role {name!r}", role.weights, rungs, earlier)
        learns = method.student in stage.roles and stage.roles[method.student].trainable
        examples = max(round(stage.share * config.train.examples), 1)
        position = round(spent * config.train.examples) if learns else 0
        planned.append(PlannedStage(stage, -(-examples // config.train.batch_size), position))
        spent += stage.share if learns else 0
    if planned and abs(spent - 1) > 1e-6:
        raise ConfigError(
            f"method {method.name!r}: the stages in which {method.student!r} learns have shares that sum to "
            f"{spent:g}; the student budget is the same for all methods, so they must sum to 1"
        )
    if planned and method.student not in planned[-1].stage.roles:
        raise ConfigError(f"method {method.name!r}: the last stage has no role {method.student!r} to evaluate")
    if planned and (rung := rung_of(planned, planned[-1].stage, method.student)) != config.student:
        raise ConfigError(
            f"method {method.name!r}: its role {method.student!r} ends as rung {rung!r}, "
            f"not as the student {config.student!r}"
        )
    return planned


def rung_of(planned: list[PlannedStage], stage: Stage, role: str) -> str:
    """The rung whose architecture a stage's role has."""
    weights = stage.roles[role].weights
    if isinstance(weights, str):
        return weights
    earlier = next(p.stage for p in planned if p.stage.name == weights.stage)
    return rung_of(planned, earlier, weights.role)


def _check_weights(where: str, weights: str | From, rungs: list[str], earlier: dict[str, Stage]) -> None:
    if isinstance(weights, str):
        if weights not in rungs:
            raise ConfigError(f"{where}: unknown rung {weights!r}: {near(weights, rungs)}")
    elif weights.stage not in earlier:
        raise ConfigError(f"{where}: takes weights from stage {weights.stage!r}: {near(weights.stage, earlier)}")
    elif weights.role not in earlier[weights.stage].roles:
        raise ConfigError(
            f"{where}: stage {weights.stage!r} has no role {weights.role!r}: "
            f"{near(weights.role, earlier[weights.stage].roles)}"
        )


def code_digest(*classes: type) -> str:
    """sha256 over the code whose change may change the numbers: the harness's own, and the plug-ins' files."""
    digest = hashlib.sha256()
    for name in ("api.py", "data.py", "models.py", "train.py", "evaluate.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    for cls in classes:
        digest.update(registry.source_digest(cls).encode())
    return digest.hexdigest()


def load_data(benchmark: str, settings: Mapping[str, Any], data_dir: Path | None) -> data.Dataset:
    """The checked data of a benchmark with these settings. Raises `ConfigError` or `DataError`."""
    return _dataset(benchmark, json.dumps(settings, sort_keys=True), data_dir)


@lru_cache(maxsize=8)
def _dataset(name: str, settings: str, data_dir: Path | None) -> data.Dataset:
    """One copy a process: the runs of a suite share it."""
    return data.load(registry.make_benchmark(name, json.loads(settings), data_dir))


@lru_cache(maxsize=64)
def _inspect(rung: RungConfig) -> ladders.ModelInfo:
    return ladders.inspect(rung)
