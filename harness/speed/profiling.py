"""Where the time of a training step goes: runs some steps of each stage under torch's profiler, in this process.

The loop marks its parts with spans (`hkdbench:data`, ...). A part's time is that of its spans minus the nested spans.
Time outside all spans is `other`. On a GPU these are the times at which the CPU waits or launches work; the trace
shows the device's own times.

Beside them stands what the device could reach: the FLOPs of a second in a large matrix product, against those of the
steps; and what takes the most time without being a matrix product.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from harness.config import RunConfig
from harness.events import Event
from harness.models.distributed import SingleProcess, device
from harness.planning import cost
from harness.planning.plan import make
from harness.speed.steps import cut
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
    plan = cut(make(config), steps + warm)
    priced = {stage["name"]: stage for stage in cost.of(plan)["stages"]}
    flops = {name: sum(r["flops"] for r in stage["roles"].values()) / stage["steps"] for name, stage in priced.items()}
    limit = matrix_product(config)
    watch = _Watch(steps, warm, folder, flops, limit)
    with TemporaryDirectory() as work:
        loop.train(plan, SingleProcess(watch.report, device(config.cluster.gpus_per_worker)), Path(work))
    return {
        "method": plan.config.method,
        "benchmark": plan.config.benchmark,
        "student": plan.config.student,
        "batch_size": plan.config.train.batch_size,
        "steps": steps,
        "limit_flops": limit,
        "stages": watch.found,
    }


class _Watch:
    """Starts and stops profiles as the loop reports its steps."""

    def __init__(self, steps: int, warm: int, folder: Path | None, flops: Mapping[str, float], limit: float) -> None:
        """`flops`: of a step, by stage; `limit`: those of the device in a second."""
        self.steps, self.warm, self.folder, self.flops, self.limit = steps, warm, folder, flops, limit
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
        reached = self.flops[stage] * count / seconds
        return {
            "seconds_a_step": seconds / count,
            "flops": reached,
            "share_of_limit": reached / self.limit,
            "wastes": wastes(self.running, own, seconds),
            "parts": {part: own[part] / 1e6 / count for part in PARTS},
            "trace": str(trace) if trace else None,
        }


def matrix_product(config: RunConfig) -> float:
    """FLOPs in a second of a large matrix product in the run's precision on its device: the most that can be reached.

    As `cost.of` counts FLOPs, without those of attention's products: long prompts can come a little above it.
    """
    on = device(config.cluster.gpus_per_worker)
    size = 1024 if on.type == "cpu" else 8192
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=on, dtype=dtype) for _ in range(2))

    def seconds() -> float:
        start = time.perf_counter()
        a @ b
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        return time.perf_counter() - start

    seconds()
    return 2 * size**3 / min(seconds() for _ in range(10))


PRODUCTS = re.compile("mm$|bmm$|linear|conv|attention|einsum")
"""Operators that are or contain matrix products: the rest of a step's time is lost to them."""


def wastes(of: profile, parts: Mapping[str, float], seconds: float) -> list[dict[str, Any]]:
    """The three largest shares of the time that are no matrix products: waiting, Python, and operators by name.

    Operators: their own time on the device (`self`), without what they call.
    """
    gpu = torch.cuda.is_available()
    found = {"waiting for data": parts["data"] / 1e6, "communication": parts["communication"] / 1e6}
    operators = 0.0
    for event in of.key_averages():
        own = (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6
        if event.key.startswith(PREFIX) or (not gpu and not event.key.startswith(("aten::", "autograd::"))):
            continue
        operators += own
        if not PRODUCTS.search(event.key):
            found[event.key] = own
    found["Python and the harness"] = max(seconds - operators - found["waiting for data"], 0.0)
    largest = sorted(found.items(), key=lambda item: -item[1])[:3]
    return [{"what": what, "share": own / seconds} for what, own in largest]


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
        lines.append(
            f"  stage {stage['stage']}: {total * 1e3:.1f} ms per step, over {stage['steps']} steps: "
            f"{stage['flops'] / 1e9:,.1f} GFLOP/s, {100 * stage['share_of_limit']:.0f} % of a large matrix product's "
            f"{found['limit_flops'] / 1e9:,.1f}"
        )
        lines += [
            f"    {part:14} {seconds * 1e3:9.2f} ms  {100 * seconds / total:5.1f} %"
            for part, seconds in stage["parts"].items()
        ]
        lost = ", ".join(f"{waste['what']} {100 * waste['share']:.0f} %" for waste in stage["wastes"])
        lines.append(f"    the largest wastes: {lost}")
        if stage["trace"]:
            lines.append(f"    trace: {stage['trace']} (open it at ui.perfetto.dev)")
    return "\n".join(lines)
