"""What the benchmarks of the generated scenes share: their settings, their scenes, their label noise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from benchmarks.scenes import world
from harness.api import LATER, Benchmark, ConfigError, Example, Split

LARGEST_SIDE = 1024


@dataclass(frozen=True)
class WorldBenchmark(Benchmark):
    """Settings of a generated benchmark: sizes of its splits, its seed, and the fraction of wrong train labels."""

    train: int = 2000
    validation: int = 300
    test: int = 1000
    ood: int = 500
    pool: int = 0
    """Further examples to learn from, whose golds the harness withholds."""
    seed: int = 0
    label_noise: float = 0.15
    side: int = field(default=world.SIDE, metadata={LATER: True})
    """The side of a picture in px, 64 to 1024. At 64 a model of the Qwen-VL family sees four image tokens."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test", "ood", "pool")
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = "hkdbench, the generated world (this repository)"

    def __post_init__(self) -> None:
        for split in self.splits:
            fewest = 0 if split == "pool" else 1
            if getattr(self, split) < fewest:
                raise ConfigError(f"{split}={getattr(self, split)}: expected a number of examples of {fewest} or more")
        if not 0 <= self.label_noise < 1:
            raise ConfigError(f"label_noise={self.label_noise}: expected a fraction from 0 to below 1")
        if not world.SIDE <= self.side <= LARGEST_SIDE:
            raise ConfigError(f"side={self.side}: expected a picture's side in px, {world.SIDE} to {LARGEST_SIDE}")

    def load(self, split: Split) -> Iterator[Example]:
        """The examples of a split, generated one at a time; nothing is drawn yet."""
        if split not in self.splits:
            raise ConfigError(f"unknown split {split!r}: expected one of {', '.join(self.splits)}")
        for index in range(getattr(self, split)):
            yield self._sized(self.example(split, index))

    def example(self, split: Split, index: int) -> Example:
        """The example number `index` of a split; it doesn't depend on the others."""
        raise NotImplementedError

    def _sized(self, example: Example) -> Example:
        """The example with its picture in this size."""
        if self.side == world.SIDE:
            return example
        assert isinstance(example.image, world.Scene)
        return replace(example, image=replace(example.image, side=self.side))

    def scene(self, rng: random.Random, split: Split) -> world.Scene:
        """A scene of the split: `ood` is denser, and half of its things are pairs that occur nowhere else."""
        if split == "ood":
            return world.make_scene(rng, fewest=7, most=10, novel=0.5)
        return world.make_scene(rng, fewest=5, most=9)

    def noisy(self, example: Example, split: Split, rng: random.Random) -> Example:
        """In `train`, a fraction of the golds is replaced by another option, like errors of annotators."""
        if split != "train" or rng.random() >= self.label_noise:
            return example
        wrong = rng.choice([k for k in range(len(example.options)) if k != example.gold])
        return replace(example, gold=wrong, extra={**(example.extra or {}), "noisy": True})
