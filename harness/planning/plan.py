"""From a `RunConfig` to a `Plan`: everything that can be checked, estimated or named before training."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from harness import provenance, registry
from harness.api import Augmentation, Benchmark, Example, Method, Split, Stage
from harness.config import BY_RUNG, RunConfig, RungConfig
from harness.data import dataset as data
from harness.data import image_controls, order
from harness.data.dataset import _canonical, _dataset, load_data, settings_of
from harness.data.labels import TrainingExamples, divide
from harness.errors import ConfigError, near
from harness.evaluation.shifts import Asking
from harness.images import reading
from harness.models import ladders
from harness.planning.stages import PlannedStage, plan_stages, rung_of, steps_of_budget
from harness.planning.tuning import DirectTuning, trainer_of
from harness.versions import TRAINING

LEARNT_FROM: tuple[Split, ...] = ("train", "validation")
"""The splits that training reads."""


@dataclass(frozen=True)
class Plan:
    """A checked run. Only errors that need training to be found can still occur later."""

    config: RunConfig
    method: Method
    benchmark: Benchmark
    dataset: data.Dataset
    training: data.Dataset
    """The data that the run learns from: the benchmark's own, or the splits of `config.train_on`."""
    ladder: str
    rungs: dict[str, RungConfig]
    infos: dict[str, ladders.ModelInfo]
    stages: list[PlannedStage]
    published: data.Dataset
    """The benchmark's own examples. `dataset` is the same or, in a control, the same without their images."""
    learned: data.Dataset
    """The same for `training`: with its own images."""
    training_examples: TrainingExamples
    """What its stages learn from: the training examples with a gold, and the pool. Empty if it has no stages."""
    sources: dict[str, str]
    """The digests of the method's and the benchmarks' sources, as `method NAME` and `benchmark NAME`."""
    plugins: dict[str, str]
    """The `sources` that belong to third parties."""

    @property
    def code(self) -> dict[str, Any]:
        """The part of the identity that describes code: its version, and digests of plugins, which may change."""
        return {"training": TRAINING, "plugins": self.plugins}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the method, defaults included."""
        return asdict(self.method)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What identifies this run; where and how it is executed is left out."""
        return {
            **self.code,
            "method": self.config.method,
            "settings": self.settings,
            "benchmark": self.config.benchmark,
            "benchmark_settings": settings_of(self.benchmark),
            "data": [self.benchmark.revision, self.dataset.fingerprint],
            "skip_missing": self.config.skip_missing,
            "train_on": [
                self.training.benchmark.name,
                settings_of(self.training.benchmark),
                self.training.benchmark.revision,
                self.training.fingerprint,
            ]
            if self.training is not self.dataset
            else None,
            "ladder": {name: info.digest for name, info in self.infos.items()},
            "student": self.config.student,
            "seed": self.config.seed,
            "train": self.config.train.model_dump(mode="json"),
            "evaluate": self.config.evaluate.model_dump(mode="json"),
            **({"control": self.config.control} if self.config.control else {}),
        }

    @cached_property
    def run_id(self) -> str:
        """A readable name followed by the hash of the identity."""
        return run_name(self.identity)

    @property
    def student_parameters(self) -> int:
        return self.infos[self.config.student].parameters

    @property
    def budget(self) -> int:
        """The examples (with repeats) that the student learns from, in whole steps; 0 untrained."""
        return steps_of_budget(self.config.train) * self.config.train.batch_size if self.stages else 0

    @cached_property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The harness's augmentations of the training examples."""
        said = self.config.train.augmentations
        return self.method.augmentations() if said == "method" else said

    @cached_property
    def asking(self) -> Asking:
        """How the trained student is asked."""
        return Asking(self.method, self.config.evaluate, self.config.seed)

    def seed_of(self, stage: Stage) -> int:
        """The seed of the stage's random choices: the run's or, if the stage has one of its own, another for both."""
        if not stage.seed:
            return self.config.seed
        return random.Random(f"stage/{self.config.seed}/{stage.seed}").getrandbits(32)

    def batch_at(self, stage: Stage, position: int, size: int) -> list[tuple[int, Example]]:
        """`size` examples of the stage's data from a position on, each with its position."""
        c = self.config
        train = c.train
        return self.training_examples.batch_at(
            stage.data, self.seed_of(stage), position, size, train.labelled_share, train.questions_per_image
        )

    @cached_property
    def warnings(self) -> list[str]:
        """Warnings about settings that are allowed but rarely intended."""
        student = self.method.student
        found = [
            f"rung {name!r} is the hub model {rung.model!r} without a revision, so it may change; pin it with "
            "revision = 'COMMIT' in the ladder's file"
            for name in self.infos
            if (rung := self.rungs[name]).revision is None and not Path(rung.model).is_dir()
        ]
        train = self.config.train
        if self.stages and train.shares and train.gradient_checkpointing:
            found.append(
                "train.gradient_checkpointing leaves no cache of the prompt beginning that questions about an image "
                "share: each is passed separately in learners, though train.questions_per_image is "
                f"{train.questions_per_image}; turn it off: sharing saves memory too"
            )
        seen = (self.training_examples.pictured or self.training_examples).of("all")
        if self.stages and train.questions_per_image > 1 and len(order.by_image(seen)) == len(seen):
            found.append(
                f"train.questions_per_image is {train.questions_per_image}, but no image of "
                f"{self.training.benchmark.name!r} has two questions to train on: nothing is shared, and the order "
                "differs from that with 1"
            )
        for planned in self.stages:
            stage = planned.stage
            if student not in stage.roles:
                continue
            sizes = {name: self.infos[rung_of(self.stages, stage, name)].parameters for name in stage.roles}
            found += [
                f"stage {stage.name!r}: {name} has {size:,} parameters, fewer than the {sizes[student]:,} of the "
                f"{student} beside it; a ladder goes from the largest rung to the smallest"
                for name, size in sizes.items()
                if size < sizes[student]
            ]
        return found


def run_name(identity: Mapping[str, Any]) -> str:
    """The run id of a plan's identity."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    control = f"control-{identity['control']}-" if identity.get("control") else ""
    return control + "{method}-{student}-{benchmark}-s{seed}-".format_map(identity) + digest[:10]


def make(config: RunConfig) -> Plan:
    """Check the whole configuration. Raises `ConfigError`, `DataError` or `ModelError`."""
    for plugin in config.plugins:
        registry.load_plugin(plugin)
    name, settings = registry.resolve_preset(config.method, config.settings)
    config = config.model_copy(update={"method": name, "settings": settings})
    method = registry.make_method(config.method, config.settings)
    ladder = ladders.find(config.ladder)
    rungs = {rung.name: rung for rung in ladder.rungs}
    if config.student not in rungs:
        raise ConfigError(
            f"unknown student {config.student!r} on ladder {ladder.name!r}: {near(config.student, rungs)}"
        )
    for setting in BY_RUNG:
        for rung in getattr(config.train, f"{setting}_by_rung"):
            if rung not in rungs:
                raise ConfigError(f"train.{setting}_by_rung: unknown rung {rung!r}: {near(rung, rungs)}")
    if config.train.batch_size < config.cluster.workers:
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} is less than cluster.workers = {config.cluster.workers}; "
            "every worker needs at least one example a step"
        )
    stages = plan_stages(method, list(rungs), config)
    used = {w for s in stages for r in s.stage.roles.values() if isinstance(w := r.weights, str)} | {config.student}
    infos = {name: _inspect(rungs[name]) for name in rungs if name in used}
    for planned in stages:
        _check_cut(planned.stage, stages, config, infos, trainer_of(method, planned.stage))
        _check_offloaded(planned.stage, config)
        if "vocab" in trainer_of(method, planned.stage).needs(planned.stage.name):
            from harness.planning.compatibility import check_vocabularies  # it loads models

            check_vocabularies(method, stages, planned.stage, rungs)
    _check_writer(config, infos)
    reading.allow(config.max_image_pixels)
    dataset = load_data(config.benchmark, config.benchmark_settings, config.data_dir, config.skip_missing)
    learned = _training(config, method, dataset) if stages else dataset
    shown = _shown(dataset, config)
    training = shown if learned is dataset else _shown(learned, config)
    training_examples = _training_examples(method, stages, training, learned, config)
    classes = classes_of(type(method), type(dataset.benchmark), type(training.benchmark))
    sources = provenance.sources(classes)
    return Plan(
        config=config,
        method=method,
        benchmark=dataset.benchmark,
        dataset=shown,
        published=dataset,
        training=training,
        learned=learned,
        training_examples=training_examples,
        ladder=ladder.name,
        rungs=rungs,
        infos=infos,
        stages=stages,
        sources=sources,
        plugins={name: sources[name] for name, cls in classes.items() if not provenance.is_built_in(cls)},
    )


def for_stage(plan: Plan, stage: Stage) -> Plan:
    """The plan for training this stage: direct tuning depends neither on the method nor on its code."""
    if not stage.tuning:
        return plan
    plugins = {name: digest for name, digest in plan.plugins.items() if name.startswith("benchmark ")}
    return replace(plan, method=DirectTuning(), plugins=plugins)


def _training(config: RunConfig, method: Method, dataset: data.Dataset) -> data.Dataset:
    """The data to learn from, which must have a train and a validation split. Raises `ConfigError`."""
    if config.train_on is None:
        if config.train_on_settings or config.train_on_data_dir is not None:
            raise ConfigError("train_on_settings and train_on_data_dir go with train_on = 'BENCHMARK', which isn't set")
        offered = set(dataset.splits)
    else:
        settings = _canonical(config.train_on_settings)
        other = registry.make_benchmark(config.train_on, config.train_on_settings, config.train_on_data_dir)
        offered = set(other.splits)
    for split in LEARNT_FROM:
        if split not in offered:
            raise ConfigError(
                f"benchmark {config.train_on or config.benchmark!r} has no {split} split: method {method.name!r} "
                "learns, so name a benchmark to learn from with --set train_on=NAME (and, for published files, --set "
                "train_on_data_dir=FOLDER), or use a method that doesn't learn, like zero_shot"
            )
    if config.train_on is None:
        return dataset
    splits = tuple(split for split in (*LEARNT_FROM, "pool") if split in offered)
    return _dataset(config.train_on, settings, config.train_on_data_dir, config.skip_missing, splits)


def _training_examples(
    method: Method, stages: list[PlannedStage], training: data.Dataset, learned: data.Dataset, config: RunConfig
) -> TrainingExamples:
    """What the stages learn from. Raises `ConfigError` if there is nothing of the kind that a stage needs."""
    labels = config.train.labels
    if labels is not None and "train" not in training.splits:
        raise ConfigError(
            f"train.labels = {labels}: benchmark {training.benchmark.name!r} has no train split, whose golds it would "
            "withhold; leave it out"
        )
    if not stages:
        return TrainingExamples([], [])
    found = divide(training.splits, labels, config.seed)
    for planned in stages:
        if planned.stage.data != "labels" and not found.pool:
            raise ConfigError(
                f"method {method.name!r}, stage {planned.stage.name!r} learns from a pool of examples without labels, "
                f"and {training.benchmark.name!r} has none: withhold labels with train.labels = N (it has "
                f"{len(found.labelled)} training examples), or use a benchmark with a pool split"
            )
    if training is not learned:
        return replace(found, pictured=divide(learned.splits, labels, config.seed))
    return found


def _shown(dataset: data.Dataset, config: RunConfig) -> data.Dataset:
    """The data as the run sees them: without the images that belong to the questions if it is a control."""
    return image_controls.blinded(dataset, config.control, config.seed) if config.control else dataset


def _check_offloaded(stage: Stage, config: RunConfig) -> None:
    """Refuse offloading with nf4: weights are quantized on the device, so moving them there each time saves nothing."""
    frozen = [name for name, role in stage.roles.items() if not role.changes]
    if frozen and config.cluster.offload_frozen and config.train.frozen_weights == "nf4":
        raise ConfigError(
            "cluster.offload_frozen with train.frozen_weights = 'nf4': expected one of the two; frozen models in four "
            "bits stay on the device, or set frozen_weights = 'bf16'"
        )


def _check_cut(
    stage: Stage,
    planned: list[PlannedStage],
    config: RunConfig,
    infos: Mapping[str, ladders.ModelInfo],
    trainer: Method,
) -> None:
    """Refuse adapters and responses for models whose weights are sharded over the workers."""
    limit = config.cluster.shard_above
    if limit is None or config.cluster.workers < 2:
        return
    responds = "responses" in trainer.needs(stage.name)
    for name, role in stage.roles.items():
        rung = rung_of(planned, stage, name)
        if responds and infos[rung].parameters > limit:
            raise ConfigError(
                f"method {trainer.name!r} writes or reads responses, and rung {rung!r} is sharded over the workers "
                f"(cluster.shard_above = {limit}): expected whole models, because ranks write responses of different "
                "lengths; raise shard_above, or use smaller rungs"
            )
        if role.trainable and config.train.lora_of(rung) and infos[rung].parameters > limit:
            raise ConfigError(
                f"train.lora for rung {rung!r}, which is sharded over the workers (cluster.shard_above = {limit}): "
                "expected one of the two; raise shard_above, or give adapters only to other rungs (lora_by_rung)"
            )


def _check_writer(config: RunConfig, infos: Mapping[str, ladders.ModelInfo]) -> None:
    """Refuse a student that writes its answers while its weights are sharded over the workers."""
    limit = config.cluster.shard_above
    if config.evaluate.answer != "generate" or limit is None or config.cluster.workers < 2:
        return
    if infos[config.student].parameters > limit:
        raise ConfigError(
            f"evaluate.answer = 'generate', and student {config.student!r} is sharded over the workers "
            f"(cluster.shard_above = {limit}): expected a whole model, because ranks write answers of different "
            "lengths; raise shard_above, or use answer = 'options'"
        )


def classes_of(method: type[Method], *benchmarks: type[Benchmark]) -> dict[str, type]:
    """The classes whose code determines a run's numbers, with keys `method NAME` and `benchmark NAME`."""
    return {f"method {method.name}": method} | {f"benchmark {cls.name}": cls for cls in benchmarks}


@lru_cache(maxsize=64)
def _inspect(rung: RungConfig) -> ladders.ModelInfo:
    return ladders.inspect(rung)
