"""How much memory do a validation's best copy and a checkpoint take where a model is sharded over two ranks?

    python -m benches.sharded_checkpoint [--layers 24] [--repeats 3]

Four ways, in turn, in fresh processes:

    sharded   what the training loop does: each rank copies and gives its own part; rank 0 writes tensors that are
              gathered one at a time
    gathered  what it did before version 0.2: each rank gathers weights, best weights and optimizer moments, and holds
              them until rank 0 has written them
    dcp       `torch.distributed.checkpoint`: each rank writes a file of its own shards
    dcp_full  `torch.distributed.checkpoint.state_dict` with full_state_dict and cpu_offload: rank 0 alone gets full
              tensors, and writes them

The figures are the growth of a rank's peak resident memory over what it held before, in bytes and as a multiple of the
model's size, and the wall seconds (compare them on an idle machine only).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

from benches.common import RESULTS, header, keep
from harness import provenance
from harness.models.distributed import TorchGroup, full_tensor
from harness.train import run_state
from harness.train.learner import Learner
from harness.train.run_state import RunState

WIDTH = 1536
WAYS = ("sharded", "gathered", "dcp", "dcp_full")


class Layers(nn.Module):
    """Stands for a scorer: a model of square layers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.vlm = nn.Sequential()
        self.vlm.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.vlm.blocks:  # type: ignore[union-attr]
            x = block(x).relu()
        return x


def resident() -> int:
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024


def rank(number: int, way: str, layers: int, folder: Path) -> None:
    """One rank: a step of training, then a best copy and a checkpoint one way."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    ranks = TorchGroup(dist.group.WORLD)  # type: ignore[arg-type]
    scorer = Layers(layers)
    ranks.shard(scorer)
    role: Any = SimpleNamespace(scorer=scorer, rung="L", sharded=True, lora=None, cost=0)
    train = SimpleNamespace(lr_of=lambda rung: 1e-3, weight_decay=0.0)
    plan: Any = SimpleNamespace(config=SimpleNamespace(train=train))
    learner = Learner(role, None, plan, ranks)
    scorer(torch.randn(4, WIDTH)).sum().backward()
    learner.update(1.0, 1.0)
    before = resident()
    provenance.reset_peak_memory()
    start = time.perf_counter()
    if way == "sharded":
        learner.keep_if_best(1.0)
        run_state.total_by_role = lambda *_: {}  # type: ignore[assignment]
        run_state.save(RunState(), folder / "work", ranks, 0, 1, {}, {"student": learner}, None)
    elif way.startswith("dcp"):
        learner.keep_if_best(1.0)
        options = StateDictOptions(full_state_dict=way == "dcp_full", cpu_offload=way == "dcp_full")
        weights, moments = get_state_dict(scorer, learner.optimizer, options=options)
        state = {"weights": weights, "optimizer": moments, "best": {n: t.like for n, t in learner.best.items()}}  # type: ignore[union-attr]
        if way == "dcp":
            dcp.save(state, checkpoint_id=folder / "work")
        elif number == 0:
            dcp.save(state | {"best": dict(weights)}, checkpoint_id=folder / "work", no_dist=True)
        dist.barrier()
    else:
        best = {name: full_tensor(t.detach()).clone() for name, t in scorer.vlm.state_dict().items()}
        weights = {name: full_tensor(t.detach()).clone() for name, t in scorer.vlm.state_dict().items()}
        moments = {
            f"{index}/{key}": full_tensor(value)
            for index, entry in learner.optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        if number == 0:
            from safetensors.torch import save_file

            (folder / "work").mkdir()
            parts = {"best": best, "weights": weights, "optimizer": moments}
            tensors = {f"{of}/{k}": t.contiguous() for of, part in parts.items() for k, t in part.items()}
            save_file(tensors, folder / "work" / "tensors.safetensors")
        dist.barrier()
    peak = provenance.peak_memory()
    torch.save({"growth": (peak or 0) - before, "seconds": time.perf_counter() - start}, folder / f"{number}.pt")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    size = asked.layers * WIDTH * WIDTH * 4
    taken: dict[str, list[list[dict[str, float]]]] = {way: [] for way in WAYS}
    for _ in range(asked.repeats):
        for way, found in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(rank, (way, asked.layers, Path(folder)), nprocs=2)  # type: ignore[no-untyped-call]
                found.append([torch.load(Path(folder) / f"{n}.pt", weights_only=True) for n in range(2)])
    result: dict[str, Any] = header() | {"model_bytes": size, "repeats": asked.repeats}
    for way, found in taken.items():
        medians = [int(statistics.median(one[n]["growth"] for one in found)) for n in range(2)]
        result[way] = {
            "growth_bytes": medians,
            "growth_models": [round(m / size, 2) for m in medians],
            "seconds": round(statistics.median(max(rank["seconds"] for rank in one) for one in found), 2),
        }
    keep(RESULTS / "sharded_checkpoint.json", f"{asked.layers} layers", result)
    print({way: result[way] for way in taken})


if __name__ == "__main__":
    main()
