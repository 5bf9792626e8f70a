"""Some real training steps of a run, in this process: what a speed is measured on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from harness.config import RunConfig
from harness.errors import ConfigError
from harness.events import Event
from harness.models.distributed import SingleProcess, device
from harness.planning.plan import Plan, make
from harness.train import loop


@dataclass(frozen=True)
class StageSpeed:
    """A stage's steps: how many the run has, and how long one takes."""

    stage: str
    steps: int
    seconds: float
    """The median over the measured steps."""


def cut(plan: Plan, steps: int) -> Plan:
    """The plan with this number of steps in its shortest stage, and one validation."""
    config = plan.config
    if not plan.stages:
        raise ConfigError(f"method {config.method!r} trains nothing, so there is no step to measure; choose another")
    shortest = min(planned.stage.share for planned in plan.stages)
    examples = math.ceil(steps * config.train.batch_size / shortest)
    settings = config.train.model_copy(
        update={"examples": examples, "validations": 1, "validation_examples": 1, "cache": "off"}
    )
    return make(config.model_copy(update={"train": settings}))


def timed(config: RunConfig, steps: int, warm: int) -> list[StageSpeed]:
    """The time of a step of each stage, after `warm` steps that don't count; as long as it takes on this machine now.

    Raises `ConfigError` if nothing is trained, and what training raises.
    """
    whole = make(config)
    of_stage = {planned.stage.name: planned.steps for planned in whole.stages}
    seen: dict[str, list[float]] = {}

    def report(event: Event) -> None:
        if "losses" in event:  # up to 40 steps a stage, each one is reported
            seen.setdefault(event["stage"], []).append(time.perf_counter())

    plan = cut(whole, steps + warm)
    with TemporaryDirectory() as work:
        loop.train(plan, SingleProcess(report, device(config.cluster.gpus_per_worker)), Path(work))
    found = []
    for stage, at in seen.items():
        took = [after - before for before, after in pairwise(at)]
        found.append(StageSpeed(stage, of_stage[stage], median(took[warm - 1 : warm - 1 + steps])))
    return found


def seconds_of(speeds: list[StageSpeed]) -> float:
    """The seconds that all steps of the run take."""
    return sum(speed.steps * speed.seconds for speed in speeds)
