"""What a sweep saves by paying for its teacher once.

    python -m benches.sweep_cache                  kept in benches/results/sweep_cache.json
    python -m benches.sweep_cache --examples 128 --out try.json

The same 16 trials of `offline_kd` (temperature x alpha x divergence) twice, each time as one `hkdbench sweep` on a
cluster of its own (or that of RAY_ADDRESS): with `train.cache` = off every trial tunes its teacher and forwards it
live; with auto one trial tunes it, and each example is forwarded once in all. CPU-seconds are those of the command's
whole process tree, Ray's own processes included, sampled every half second. Target: at least 3 times fewer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benches.common import RESULTS, header, keep
from harness.store import Store

TARGET = 3.0
SWEEP = """
name = "bench"
trials = 16
search = "grid"
benchmarks = ["scenes_hallucination"]
benchmark_settings = {{ scenes_hallucination = {{ train = {examples}, validation = 100, test = 8, ood = 8 }} }}
train = {{ examples = {examples}, precision = "{precision}", validations = 2, validation_examples = 100 }}
evaluate = {{ resamples = 100 }}
confirm = {{ top = 0 }}
[[methods]]
method = "offline_kd"
student = "S"
[methods.space]
"settings.temperature" = {{ choice = [1.0, 2.0, 4.0, 8.0] }}
"settings.alpha" = {{ choice = [0.5, 2.0] }}
"settings.divergence" = {{ choice = ["forward_kl", "jsd"] }}
"""


def look(roots: list[int], seen: dict[tuple[int, float], float]) -> None:
    """Note the CPU-seconds so far of these processes and their descendants."""
    for pid in roots:
        try:
            for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                times = one.cpu_times()
                seen[one.pid, one.create_time()] = times.user + times.system
        except psutil.Error:
            continue


def spent(command: list[str], head: int | None) -> tuple[float, float]:
    """CPU-seconds of a command with its descendants (and the head's), and its wall seconds. Ends where it fails."""
    roots = [] if head is None else [head]
    before: dict[tuple[int, float], float] = {}
    look(roots, before)
    clock, seen = time.monotonic(), dict(before)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        look([process.pid, *roots], seen)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return sum(seen.values()) - sum(before.values()), time.monotonic() - clock


def teachers(store: Store) -> dict[str, Any]:
    """What the trials billed for their teachers, summed, and the teachers' part of all FLOPs of training."""
    runs = [record for record in store.records() if record.kind == "run"]
    assert len(runs) == 16
    assert all(record.status == "done" for record in runs)
    tuned = [record.cost.roles["teacher.teacher"] for record in runs]
    frozen = [record.cost.roles["distil.teacher"] for record in runs]
    flops = sum(record.cost.train_flops for record in runs)
    return {
        "tuned_examples": sum(cost.trained for cost in tuned),
        "frozen_forwards": sum(cost.forwards for cost in frozen),
        "answers_of_others": sum(cost.shared for cost in frozen),
        "train_tflop": round(flops / 1e12, 3),
        "teachers_share_of_flops": round(sum(cost.flops for cost in (*tuned, *frozen)) / flops, 3),
        "runs_s": round(sum(record.cost.total_seconds for record in runs), 1),
        "validation_accuracies": sorted(round(r.metrics["validation"]["accuracy"].value, 4) for r in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1024, help="The training split and the budget: one pass.")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--head", type=int, help="With RAY_ADDRESS: the process of that cluster's head, counted too.")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep_cache.json")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"examples": arguments.examples, "target": TARGET}
    head = header()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.toml"
        file.write_text(SWEEP.format(examples=arguments.examples, precision=arguments.precision))
        for arm, cache in (("shared", "auto"), ("alone", "off")):
            root = Path(folder) / arm
            command = [sys.executable, "-m", "harness", "sweep", str(file), "--store", str(root), "--json"]
            cpu, wall = spent([*command, "--set", f"train.cache={cache}"], arguments.head)
            figures[arm] = {"cpu_s": round(cpu, 1), "wall_s": round(wall, 1)} | teachers(Store(root))
            print(arm, json.dumps(figures[arm]), flush=True)
    figures["times_fewer_cpu_seconds"] = round(figures["alone"]["cpu_s"] / figures["shared"]["cpu_s"], 2)
    assert figures["shared"]["frozen_forwards"] == arguments.examples
    figures["load_after"] = round(os.getloadavg()[0], 1)
    print(f"{figures['times_fewer_cpu_seconds']} times fewer CPU-seconds")
    keep(arguments.out, f"{arguments.examples} examples", figures | head)


if __name__ == "__main__":
    main()
