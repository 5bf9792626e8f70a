"""What the training loop knows about its processes: its rank, and how to exchange values with the other ranks.

`SingleProcess` is one process. `TorchGroup` is one rank of a `torch.distributed` group, as Ray Train (or torchrun)
sets it up. Neither imports ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from harness.errors import ConfigError
from harness.events import Event, OnEvent


class RankLost(RuntimeError):
    """Another rank is gone. The run itself didn't fail, and continues once the group is complete again."""


def rank_lost(error: BaseException) -> bool:
    """Whether an error means that another rank is gone. Gloo's errors are plain `RuntimeError`s."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text))


@dataclass(frozen=True)
class ShardCopy:
    """This rank's shard of a tensor, possibly on another device than the tensor (on the CPU, for example)."""

    local: Tensor
    like: DTensor
    """The sharded tensor, for its shape and how it is sharded."""

    @classmethod
    def of(cls, tensor: DTensor) -> ShardCopy:
        return cls(tensor.to_local(), tensor)

    def cpu(self) -> ShardCopy:
        """A copy on the CPU."""
        return ShardCopy(self.local.to("cpu", copy=True), self.like)

    def full_tensor(self) -> Tensor:
        """The full tensor, gathered on each rank. All ranks must call this."""
        mesh = self.like.device_mesh
        placed = DTensor.from_local(
            self.local.to(mesh.device_type),
            mesh,
            self.like.placements,
            run_check=False,
            shape=self.like.shape,
            stride=self.like.stride(),
        )
        return placed.full_tensor()


def full_tensor(tensor: Tensor | ShardCopy) -> Tensor:
    """The full tensor of a shard, gathered on each rank (all ranks must call this). Other tensors are unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor | ShardCopy) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A full tensor, sharded over the ranks in the same way as `like`."""
    if not isinstance(like, DTensor):
        return tensor
    # Every rank has the full tensor: nothing is sent.
    placed = tensor.to(like.device_mesh.device_type)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a model: the members of its outermost module lists that have weights."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


class ProcessGroup(Protocol):
    """One of `world` ranks that train a run together."""

    rank: int
    world: int
    device: torch.device
    report: OnEvent

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, wrapped so that a backward pass averages its gradients over the ranks."""
        ...

    def shard(self, module: nn.Module) -> None:
        """Shard the module's weights over the ranks, in place. All ranks must then run its forward passes together."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over the ranks, in place."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        ...


class HeldLock(Protocol):
    """What rank 0 holds while all ranks do something that no other process may do."""

    def release(self) -> None:
        """Let others have it."""
        ...


@contextmanager
def locked(
    ranks: ProcessGroup, acquire: Callable[[], HeldLock | None], on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold, on rank 0, the lock that `acquire` gives. It waits for some seconds, and gives None if they were too few.

    The other ranks wait too, but not in one endless collective: `on_wait` is called after each attempt that failed.
    """
    while True:
        lock = acquire() if ranks.rank == 0 else None
        if ranks.gather(lock is not None)[0]:
            break
        on_wait()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def silent(event: Event) -> None:
    """Report nothing."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use this number of threads for torch's operators, as Ray sets it for its workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(gpus: int) -> torch.device:
    """This process's device: the CPU, or its GPU if each worker has one. Raises `ConfigError` if there is no GPU."""
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"cluster.gpus_per_worker = {gpus}, but this machine has no GPU that torch {torch.__version__} can use; "
            "set it to 0, install torch with CUDA, or join a cluster that has GPUs with RAY_ADDRESS and --workers"
        )
    return torch.device("cuda")


class SingleProcess:
    """One process."""

    rank = 0
    world = 1

    def __init__(self, report: OnEvent = silent, device: torch.device | None = None) -> None:
        self.report = report
        self.device = device or torch.device("cpu")

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def shard(self, module: nn.Module) -> None:
        pass

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, value: Any) -> list[Any]:
        return [value]


class TorchGroup:
    """A rank of a process group."""

    def __init__(self, group: dist.ProcessGroup, report: OnEvent = silent, device: torch.device | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.world = dist.get_world_size(group)
        self.device = device or torch.device("cpu")
        self.report = report

    def wrap(self, module: nn.Module) -> nn.Module:
        ids = [self.device.index] if self.device.type == "cuda" else None
        # A method may leave parts of a model without gradients (a vision tower): find_unused_parameters.
        return DistributedDataParallel(
            module, device_ids=ids, process_group=self.group, forward_sync_buffers=False, find_unused_parameters=True
        )

    def shard(self, module: nn.Module) -> None:
        mesh = DeviceMesh.from_group(self.group, self.device.type)
        for block in _blocks(module):  # each is gathered only while it is used
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)

    def sum(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values
