"""Would worker processes of torch's DataLoader prepare batches faster than the loop's one thread?

    python -m benches.data_loader [--batches 40] [--side 448]      with --side: Qwen2.5-VL's processor, at that size

`thread` is what the training loop does: `harness.data.order.Prefetcher` makes the next batch in a thread. `workers` is
a `torch.utils.data.DataLoader` over the same batches with two worker processes, each two batches ahead, and tensors in
shared memory. Only encoded tensors are handed over there, so this is the least that a DataLoader would cost: the loop
also needs the examples themselves, whose identity the cache of frozen models' outputs relies on.

The consumer only takes batches, so the figures are the rates at which they are prepared: seconds until the first batch,
then batches per second and CPU seconds per batch of all processes. `one_process` is without any of this.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benches import qwen
from benches.common import RESULTS, header, keep
from harness.config import RunConfig
from harness.data.order import Prefetcher
from harness.models.encoding import Encoder, load_encoder
from harness.planning import plan
from harness.train.views import shown

BATCH = 32
REPEATS = 3
Inputs = dict[str, Tensor]


class Batches(Dataset[Inputs]):
    """The encoded batches of a stage, by step."""

    def __init__(self, planned: plan.Plan, encoder: Encoder, count: int) -> None:
        self.planned, self.encoder, self.count = planned, encoder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> Inputs:
        stage = self.planned.stages[0].stage
        batch = self.planned.batch_at(stage, step * BATCH, BATCH)
        return dict(self.encoder([shown(self.planned, at, example).example for at, example in batch]))


def _one_thread(worker: int = 0) -> None:
    torch.set_num_threads(1)


def thread(batches: Batches) -> Iterator[Inputs]:
    return Prefetcher(batches.__getitem__, range(len(batches)), _one_thread)


def workers(batches: Batches) -> Iterator[Inputs]:
    return iter(DataLoader(batches, batch_size=None, num_workers=2, prefetch_factor=2, worker_init_fn=_one_thread))


def one_process(batches: Batches) -> Iterator[Inputs]:
    return (batches[step] for step in range(len(batches)))


def _cpu() -> float:
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def measure(way: Callable[[Batches], Iterator[Inputs]], batches: Batches) -> dict[str, float]:
    cpu, start = _cpu(), time.perf_counter()
    made = way(batches)
    next(made)
    first = time.perf_counter() - start
    for _ in made:
        pass
    seconds = time.perf_counter() - start - first
    del made  # the workers end, and their CPU seconds are counted
    count = len(batches)
    return {"first_s": first, "batches_a_s": (count - 1) / seconds, "cpu_s_a_batch": (_cpu() - cpu) / count}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--side", type=int)
    asked = parser.parse_args()
    count: int = asked.batches
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        ladder = "tiny"
        if asked.side:
            ladder = str(qwen.build(Path(folder), {"S": qwen.small(64, 1, 1024, 64, 1, asked.side)}))
        train = {"examples": count * BATCH}
        config = RunConfig(method="finetune", benchmark="scenes_factuality", student="S", ladder=ladder, train=train)
        planned = plan.make(config)
        batches = Batches(planned, load_encoder(planned.rungs["S"]), count)
    of = f"images of {asked.side} px, Qwen2.5-VL's processor" if asked.side else "the tiny ladder's S, images of 64 px"
    ways = {"one_process": one_process, "thread": thread, "workers": workers}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            taken[name].append(measure(way, batches))
    result: dict[str, Any] = header() | {"batches": count, "batch_size": BATCH, "repeats": REPEATS}
    for name, found in taken.items():
        result[name] = {key: round(statistics.median(one[key] for one in found), 4) for key in found[0]}
    keep(RESULTS / "data_loader.json", of, result)
    print({name: result[name] for name in ways})


if __name__ == "__main__":
    main()
