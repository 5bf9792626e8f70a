"""Where the time of a training step goes: runs some steps of each stage under torch's profiler, in this process.

The loop marks its parts with spans (`hkdbench:data`, ...). A part's time is that of its spans minus the nested spans.
Time outside all spans is `other`. On a GPU these are the times at which the CPU waits or launches work; the trace
shows the device's own times.
"""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from harness.config import RunConfig
from harness.errors import ConfigError
from harness.events import Event
from harness.models.distributed import SingleProcess, device
from harness.planning.plan import Plan, make
from harness.train import loop

PREFIX = "hkdbench:"
PARTS = ("data", "vision", "language", "loss", "backward", "optimizer", "communication", "other")
Span = tuple[str, float, float]
"""Name, start and end in microseconds."""


def measure(config: RunConfig, steps: int, warm: int, folder: Path | None = None) -> dict[str, Any]:
    """Seconds per step of each part, by stage. A trace of each stage for Perfetto is written to `folder`.

    Each stage is shortened to `warm` + `steps` steps or a few more; the warm-up steps aren't counted. Raises
    `ConfigError` if nothing is trained.
    """
    plan = _cut(config, steps + warm)
    watch = _Watch(steps, warm, folder)
    with TemporaryDirectory() as work:
        loop.train(plan, SingleProcess(watch.report, device(config.cluster.gpus_per_worker)), Path(work))
    return {
        "method": plan.config.method,
        "benchmark": plan.config.benchmark,
        "student": plan.config.student,
        "batch_size": plan.config.train.batch_size,
        "steps": steps,
        "stages": watch.found,
    }


def _cut(config: RunConfig, steps: int) -> Plan:
    """The plan with this number of steps in its shortest stage, and one validation."""
    plan = make(config)
    if not plan.stages:
        raise ConfigError(f"method {config.method!r} trains nothing, so there is no step to profile; choose another")
    shortest = min(planned.stage.share for planned in plan.stages)
    examples = math.ceil(steps * config.train.batch_size / shortest)
    settings = config.train.model_copy(update={"examples": examples, "validations": 1, "cache": "off"})
    return make(config.model_copy(update={"train": settings}))


class _Watch:
    """Starts and stops profiles as the loop reports its steps."""

    def __init__(self, steps: int, warm: int, folder: Path | None) -> None:
        self.steps, self.warm, self.folder = steps, warm, folder
        self.found: list[dict[str, Any]] = []
        self.running: profile | None = None
        self.begun = (0, 0.0)

    def report(self, event: Event) -> None:
        if "losses" not in event:
            return
        step = event["step"]
        if self.running is None and step >= self.warm and event["stage"] not in [s["stage"] for s in self.found]:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.running = profile(activities=[ProfilerActivity.CPU, *gpu])
            self.running.__enter__()
            self.begun = step, time.perf_counter()
        elif self.running is not None and (step >= self.begun[0] + self.steps or step == event["steps"]):
            seconds, count = time.perf_counter() - self.begun[1], step - self.begun[0]
            self.running.__exit__(None, None, None)
            self.found.append({"stage": event["stage"], "steps": count} | self._result(seconds, count, event["stage"]))
            self.running = None

    def _result(self, seconds: float, count: int, stage: str) -> dict[str, Any]:
        assert self.running is not None
        spans = [
            (event.name.removeprefix(PREFIX), event.time_range.start, event.time_range.end)
            for event in self.running.events() or ()
            if event.name.startswith(PREFIX) and "CPU" in str(event.device_type)
        ]
        own = {part: 0.0 for part in PARTS} | exclusive(spans)
        own["other"] = max(seconds * 1e6 - sum(own.values()), 0.0)
        trace = None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            trace = self.folder / f"trace-{re.sub(r'[^A-Za-z0-9._-]', '_', stage)}.json"
            self.running.export_chrome_trace(str(trace))
        return {
            "seconds_a_step": seconds / count,
            "parts": {part: own[part] / 1e6 / count for part in PARTS},
            "trace": str(trace) if trace else None,
        }


def exclusive(spans: Iterable[Span]) -> dict[str, float]:
    """The time of each name's spans, minus the spans nested within them; spans are nested or disjoint."""
    totals: dict[str, float] = defaultdict(float)
    around: list[Span] = []
    for name, start, end in sorted(spans, key=lambda span: (span[1], -span[2])):
        while around and around[-1][2] <= start:
            around.pop()
        totals[name] += end - start
        if around:
            totals[around[-1][0]] -= end - start
        around.append((name, start, end))
    return dict(totals)


def to_text(found: dict[str, Any]) -> str:
    """The result of `measure` as text."""
    lines = [f"{found['method']} on {found['benchmark']}, student {found['student']}, batches of {found['batch_size']}"]
    for stage in found["stages"]:
        total = stage["seconds_a_step"]
        lines.append(f"  stage {stage['stage']}: {total * 1e3:.1f} ms per step, over {stage['steps']} steps")
        lines += [
            f"    {part:14} {seconds * 1e3:9.2f} ms  {100 * seconds / total:5.1f} %"
            for part, seconds in stage["parts"].items()
        ]
        if stage["trace"]:
            lines.append(f"    trace: {stage['trace']} (open it at ui.perfetto.dev)")
    return "\n".join(lines)
