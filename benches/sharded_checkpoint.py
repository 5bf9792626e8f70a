"""How much memory do a validation's best copy and a checkpoint take where a model is sharded over two ranks?

    python -m benches.sharded_checkpoint [--layers 24]

Two ways, in turn, in fresh processes: `sharded` is what the training loop does (each rank copies and gives its own
part; rank 0 writes tensors that are gathered one at a time), `gathered` is what it did before version 0.2 (each rank
gathers weights, best weights and optimizer moments, and holds them until rank 0 has written them). The figure is the
growth of a rank's peak resident memory over what it held before, in bytes and as a multiple of the model's size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from benches.common import RESULTS, header, keep
from harness import provenance
from harness.models.distributed import TorchGroup, full_tensor
from harness.train import run_state
from harness.train.learner import Learner
from harness.train.run_state import RunState

WIDTH = 1536
REPEATS = 3


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
    train = SimpleNamespace(lr_by_rung={}, lr=1e-3, weight_decay=0.0)
    plan: Any = SimpleNamespace(config=SimpleNamespace(train=train))
    learner = Learner(role, None, plan, ranks)
    scorer(torch.randn(4, WIDTH)).sum().backward()
    learner.update(1.0, 1.0)
    before = resident()
    provenance.reset_peak_memory()
    if way == "sharded":
        learner.keep_if_best(1.0)
        run_state.total_by_role = lambda *_: {}  # type: ignore[assignment]
        run_state.save(RunState(), folder / "work", ranks, 0, 1, {}, {"student": learner}, None)
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
    torch.save({"growth": (peak or 0) - before}, folder / f"{number}.pt")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=24)
    layers = parser.parse_args().layers
    size = layers * WIDTH * WIDTH * 4
    growth: dict[str, list[list[int]]] = {"sharded": [], "gathered": []}
    for _ in range(REPEATS):
        for way, found in growth.items():
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(rank, (way, layers, Path(folder)), nprocs=2)  # type: ignore[no-untyped-call]
                found.append([torch.load(Path(folder) / f"{n}.pt", weights_only=True)["growth"] for n in range(2)])
    result: dict[str, Any] = header() | {"model_bytes": size, "repeats": REPEATS}
    for way, found in growth.items():
        medians = [int(statistics.median(one[n] for one in found)) for n in range(2)]
        result[way] = {"growth_bytes": medians, "growth_models": [round(m / size, 2) for m in medians]}
    keep(RESULTS / "sharded_checkpoint.json", f"{layers} layers", result)
    print({way: result[way] for way in growth})


if __name__ == "__main__":
    main()
