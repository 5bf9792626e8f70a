"""A model that is sharded over two ranks: each holds its part, also of the best weights and in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from harness.api import Role
from harness.config import RunConfig
from harness.models.distributed import ShardCopy, SingleProcess, TorchGroup, full_tensor
from harness.models.encoding import load_encoder
from harness.planning import plan
from harness.train import checkpoint, run_state
from harness.train.batches import MicroBatch
from harness.train.learner import Learner
from harness.train.role import RoleModel
from harness.train.run_state import RunState
from harness.train.views import as_is
from helpers.common import ToyConfig


def _learner(config: RunConfig, ranks: Any) -> tuple[plan.Plan, Learner]:
    made = plan.make(config)
    role = RoleModel("student", "S", made, ranks, load_encoder(made.rungs["S"]), None, Role("S", trainable=True))
    learner = Learner(role, None, made, ranks)
    examples = made.training.splits["train"][:4]
    outputs = role.outputs(MicroBatch([as_is(e) for e in examples], lambda: examples, ranks.device), "first", ())
    outputs["options"].logsumexp(-1).sum().backward()
    learner.update(1.0, 1.0)  # so that the optimizer has moments
    learner.keep_if_best(0.5)
    return made, learner


def _rank(rank: int, config: RunConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ranks = TorchGroup(dist.group.WORLD)  # type: ignore[arg-type]
    _, learner = _learner(config, ranks)
    parts = learner.save()
    sharded = [part for part in parts.values() if isinstance(part, ShardCopy)]
    most = 0

    def watched(tensors: dict[str, torch.Tensor], path: Path) -> None:
        nonlocal most
        most = max(most, sum(t.nbytes for t in tensors.values()))
        real(tensors, path)

    real, checkpoint.save_file = checkpoint.save_file, watched  # type: ignore[assignment]
    checkpoint.FILE_BYTES = 20_000
    run_state.save(RunState(), folder / "work", ranks, 0, 1, {"student": learner.role}, {"student": learner}, None)
    torch.save(
        {
            "full": sum(part.like.numel() for part in sharded),
            "own": sum(part.local.numel() for part in sharded),
            "best": all(isinstance(tensor, ShardCopy) for tensor in learner.best.values()),
            "largest": max(part.like.numel() * part.like.element_size() for part in sharded),
            "most": most,
            "weights": {name: full_tensor(part) for name, part in parts.items() if name.startswith("weights/")},
        },
        folder / f"{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_rank_holds_its_shard_only(toy_config: ToyConfig, tmp_path: Path) -> None:
    config = toy_config(cluster={"shard_above": 0}, train={"examples": 16, "validations": 1})
    mp.spawn(_rank, (config, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    said = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    full = said[0]["full"]
    assert full == said[1]["full"] > 100_000  # weights, best weights and two moments of each
    assert sum(one["own"] for one in said) == full
    assert all(0.45 < one["own"] / full < 0.55 for one in said)
    assert all(one["best"] for one in said)
    # Rank 0 writes the full tensors, gathered one at a time: a file's worth of them and no more.
    assert said[0]["most"] <= 20_000 + said[0]["largest"]
    assert said[1]["most"] == 0
    # One process goes on from what two wrote, and is where they were.
    _, alone = _learner(config, SingleProcess())
    state, saved = run_state.load(tmp_path / "work")
    assert saved is not None
    assert len(list((tmp_path / "work" / "checkpoint-000-00000001").glob("tensors-*.safetensors"))) > 5
    assert state.stage == 0
    assert run_state.restore(saved, {"student": alone.role}, {"student": alone}, SingleProcess()) == 1
    found = alone.role.scorer.vlm.state_dict()
    for name, tensor in said[0]["weights"].items():
        torch.testing.assert_close(found[name.removeprefix("weights/")], tensor, rtol=0, atol=0)
    assert alone.best_value == 0.5
