"""What the harness costs beside the training itself: in the loop, around one run, around a run of a suite.

    python -m benches.overhead                       all three parts, kept in benches/results/overhead.json
    python -m benches.overhead --only loop --steps 8 --repeats 2 --out try.json

loop   `harness.train.loop` against a plain PyTorch loop that does the same steps, in one process, in turn. Both are
       timed from the first step to the last: loading, validation and checkpoints are in neither.
run    With a cluster up: the wall time of `hkdbench run`, less what the run says its work took.
suite  With a cluster up: the same for the runs of a `hkdbench suite`, which one worker group takes in turn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benches.common import RESULTS, header, keep
from harness.api import Example
from harness.config import RunConfig
from harness.models import encoding, loading, scorer
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store
from harness.train.loop import train

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"loop": 1.05, "run": 15.0, "suite": 3.0}
"""The loop's ratio; seconds beyond a run's own work; seconds a run in a suite."""

Weights = dict[str, Tensor]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts this process's own work: the one to use on a machine that others use too."""


# ------------------------------------------------------------------------------------------------ the loop


def bare_loop(planned: Plan, clock: Clock) -> tuple[float, Weights]:
    """Tune the student as a person would write it by hand; seconds of the steps, and the final weights.

    It takes from the harness what both must share to do the same work: the model as a scorer of options,
    and the encoder that makes its inputs.
    """
    config = planned.config.train
    rung = planned.rungs[planned.config.student]
    encode = encoding.load_encoder(rung)
    model = scorer.OptionScorer(loading.load_vlm(rung), encode.letters).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.lr_by_rung.get(rung.name, config.lr),
        fused=True,
    )
    steps = math.ceil(config.examples / config.batch_size)
    warmup = config.warmup * steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = shuffled(planned.dataset.splits["train"], planned.config.seed, config.batch_size)
    start = clock()
    for _ in range(steps):
        examples = next(batches)
        labels = torch.tensor([example.gold for example in examples])
        loss = nn.functional.cross_entropy(model(encode(examples))["options"], labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return clock() - start, dict(model.vlm.state_dict())


def shuffled(examples: list[Example], seed: int, size: int) -> Iterator[list[Example]]:
    """Batches of reshuffled epochs, in the harness's order; a batch may reach into the next epoch."""
    batch: list[Example] = []
    epoch = 0
    while True:
        for index in random.Random(f"order/{seed}/{epoch}").sample(range(len(examples)), len(examples)):
            batch.append(examples[index])
            if len(batch) == size:
                yield batch
                batch = []
        epoch += 1


def harness_loop(planned: Plan, clock: Clock) -> tuple[float, Weights]:
    """The same by `harness.train.loop`: the seconds that it bills as training, and the final weights."""
    timed = patch("harness.train.loop.time", SimpleNamespace(perf_counter=clock))
    with timed, tempfile.TemporaryDirectory() as work:
        trained = train(planned, SingleProcess(), Path(work))
    return trained.seconds["train"], dict(trained.student.vlm.state_dict())


def furthest(a: Weights, b: Weights) -> float:
    """The largest difference between two models' weights."""
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def loop_plan(rung: str, steps: int) -> Plan:
    """`finetune` of a rung, with one validation of one example: it comes last, so the last weights are kept."""
    batch = RunConfig.model_fields["train"].default.batch_size
    return plan.make(
        RunConfig.model_validate(
            {
                "method": "finetune",
                "benchmark": "scenes_hallucination",
                "student": rung,
                "train": {"examples": steps * batch, "validations": 1, "validation_examples": 1},
                "cluster": {"workers": 0},
            }
        )
    )


def measure_loop(rung: str, steps: int, repeats: int, clock: str) -> dict[str, Any]:
    """Both loops in turn, each first every other time, after one short round to warm up."""
    torch.set_num_threads(1)
    warm = loop_plan(rung, 2)
    for loop in (harness_loop, bare_loop):
        loop(warm, CLOCKS[clock])
    planned = loop_plan(rung, steps)
    pairs = []
    apart = 0.0
    for repeat in range(repeats):
        loops = (harness_loop, bare_loop) if repeat % 2 == 0 else (bare_loop, harness_loop)
        done = {loop: loop(planned, CLOCKS[clock]) for loop in loops}
        (ours, our_weights), (bare, bare_weights) = done[harness_loop], done[bare_loop]
        apart = max(apart, furthest(our_weights, bare_weights))
        pairs.append((ours, bare))
    ratios = sorted(ours / bare for ours, bare in pairs)
    return {
        "rung": rung,
        "steps": steps,
        "batch_size": planned.config.train.batch_size,
        "threads": 1,
        "clock": clock,
        "harness_seconds": [round(ours, 3) for ours, _ in pairs],
        "bare_seconds": [round(bare, 3) for _, bare in pairs],
        "ratio": round(median(ratios), 4),
        "ratio_range": [round(ratios[0], 4), round(ratios[-1], 4)],
        "weights_apart": apart,
    }


# ------------------------------------------------------------------------------------ runs on a cluster


@contextmanager
def cluster(cpus: int) -> Iterator[dict[str, str]]:
    """A Ray cluster on this machine that lives as long as the block; the environment that joins it."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    with tempfile.TemporaryDirectory(prefix="hkd-", ignore_cleanup_errors=True) as folder:
        # "local": not whatever cluster another process of this machine has started
        context = ray.init("local", num_cpus=cpus, _temp_dir=folder, log_to_driver=False, logging_level="ERROR")
        try:
            yield {**os.environ, "RAY_ADDRESS": context.address_info["gcs_address"], "PYTHONPATH": str(ROOT)}
        finally:
            ray.shutdown()


def hkdbench(arguments: list[str], environment: dict[str, str]) -> tuple[float, list[tuple[float, str]]]:
    """Seconds from start to end of the command, and what it said on standard error, with the second it came.

    Raises `RuntimeError` with its words where it fails.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "harness", *arguments]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = [(time.perf_counter() - start, line.rstrip()) for line in process.stderr]
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join(line for _, line in said))
    return time.perf_counter() - start, said


def measure_run(environment: dict[str, str], examples: int, repeats: int) -> dict[str, Any]:
    """Beyond its work: wall seconds of `hkdbench run` less the record's `total_seconds` (train and score)."""
    rows = []
    for seed in range(repeats):
        with tempfile.TemporaryDirectory(prefix="hkd-") as folder:
            what = "run --method finetune --benchmark scenes_hallucination --student S --workers 1"
            rest = ["--seed", str(seed), "--store", folder, "--set", f"train.examples={examples}"]
            wall, _ = hkdbench([*what.split(), *rest], environment)
            (record,) = work_of(folder)
            rows.append({"wall": round(wall, 2), "work": round(record.cost.total_seconds, 2)})
    beyond = [row["wall"] - row["work"] for row in rows]
    return {"examples": examples, "runs": rows, "seconds_beyond": round(median(beyond), 2)}


SUITE = """\
name = "overhead"
seeds = [0, 1, 2, 3]
benchmarks = ["scenes_hallucination", "scenes_factuality"]
[train]
examples = {examples}
[[runs]]
method = "finetune"
student = "S"
"""


def measure_suite(environment: dict[str, str], examples: int, lanes: int) -> dict[str, Any]:
    """Overhead a run among 8 small runs of one suite, `lanes` at a time.

    seconds_a_run   (wall of the command - first "began" - sum of the runs' work / lanes) / runs. What comes
                    before the first "began" is the start, which the part `run` measures. What is left over is
                    all that isn't a run's own work: taking the next run, planning it, writing its record, a
                    lane that waits for the other at the end, closing the group, the table.
    seconds_in_lane (last end - first "began" - sum of work / lanes) / (runs / lanes): how much longer each run
                    of a lane takes than its work, without the closing of the group and the table.
    """
    with tempfile.TemporaryDirectory(prefix="hkd-") as folder:
        file = Path(folder) / "suite.toml"
        file.write_text(SUITE.format(examples=examples))
        wall, said = hkdbench(["suite", str(file), "--store", f"{folder}/store"], environment)
        work = [record.cost.total_seconds for record in work_of(f"{folder}/store")]
    began = [second for second, line in said if line.startswith("began")]
    ended = [second for second, line in said if line.startswith("done")]
    runs = len(work)
    assert len(began) == len(ended) == runs
    share = sum(work) / lanes
    return {
        "examples": examples,
        "lanes": lanes,
        "wall": round(wall, 2),
        "first_began": round(began[0], 2),
        "last_ended": round(ended[-1], 2),
        "began": [round(second, 2) for second in began],
        "ended": [round(second, 2) for second in ended],
        "work": [round(seconds, 2) for seconds in work],
        "seconds_a_run": round((wall - began[0] - share) / runs, 2),
        "seconds_in_lane": round((ended[-1] - began[0] - share) / (runs / lanes), 2),
    }


def work_of(store: str) -> list[Record]:
    """The records of the trained runs in a store."""
    return [record for record in Store(store).records() if record.kind == "run"]


# ------------------------------------------------------------------------------------------ command line


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead of the harness.")
    parser.add_argument("--only", choices=["loop", "run", "suite"], help="one part; default: all three")
    parser.add_argument("--rungs", default="S,L", help="rungs whose loops are timed")
    parser.add_argument("--steps", type=int, default=64, help="steps of each timed loop")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of timed loops")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of the loops; cpu: for a busy machine")
    parser.add_argument("--runs", type=int, default=3, help="repeats of the single run")
    parser.add_argument("--examples", type=int, default=256, help="training examples of the runs on the cluster")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="of the cluster: one a lane")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    options = parser.parse_args()
    parts = [options.only] if options.only else ["loop", "run", "suite"]

    def finish(part: str, where: dict[str, Any], figures: dict[str, Any], value: float) -> None:
        keep(options.out, part, {"target": TARGETS[part], "met": value <= TARGETS[part], **figures, "where": where})
        print(json.dumps({part: figures}, indent=1), flush=True)

    if "loop" in parts:
        where = header()
        names = options.rungs.split(",")
        rungs = {rung: measure_loop(rung, options.steps, options.repeats, options.clock) for rung in names}
        finish("loop", where, {"rungs": rungs}, max(rung["ratio"] for rung in rungs.values()))
    if set(parts) & {"run", "suite"}:
        with cluster(options.cpus) as environment:
            if "run" in parts:
                where = header()
                run = measure_run(environment, options.examples, options.runs)
                finish("run", where, run, run["seconds_beyond"])
            if "suite" in parts:
                where = header()
                suite = measure_suite(environment, options.examples, options.cpus)
                finish("suite", where, suite, suite["seconds_a_run"])


if __name__ == "__main__":
    main()
