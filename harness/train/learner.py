"""Roles whose weights change in a stage: learners with their optimizers, and moving averages of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function as span  # costs nothing without a profiler: see harness.speed.profiling

from harness.models import lora
from harness.models.distributed import ProcessGroup, ShardCopy, full_tensor, shard_like
from harness.planning.plan import Plan
from harness.train.checkpoint import part_of, under
from harness.train.role import RoleModel, State

Saved = dict[str, Tensor | ShardCopy]
"""Tensors by name; of sharded tensors, this rank's shard."""


class ChangingRole:
    """A role whose weights change, and the best of them on validation so far."""

    def __init__(self, role: RoleModel) -> None:
        self.role = role
        self.best_value = -1.0
        self.best: Saved = {}

    def keep_if_best(self, value: float) -> None:
        """Store the weights if their validation value is the best. With equal values the later ones win: more
        training."""
        if value >= self.best_value:
            self.best_value, self.best = value, self.weights()

    def weights(self) -> Saved:
        """A copy of the weights on the CPU (of sharded ones, this rank's shard). Tied tensors appear once per name.

        Of a role that learns with adapters, only the adapters.
        """
        vlm = self.role.scorer.vlm
        found = vlm.state_dict() if self.role.lora is None else lora.adapters(vlm)
        return {name: _copy(tensor.detach()) for name, tensor in found.items()}

    def final_weights(self) -> State:
        """The weights that it hands on: its best ones, with adapters merged. All ranks must call this."""
        best = {name: full_tensor(tensor).cpu() for name, tensor in self.best.items()}
        if self.role.lora is None:
            return best
        lora.load_adapters(self.role.scorer.vlm, best)
        return lora.merged(self.role.scorer.vlm)

    def save(self) -> Saved:
        """Everything that `restore` needs, by name. Nothing is gathered: each rank gives its shards of sharded
        tensors."""
        return under("weights", self.weights()) | under("best", self.best)

    def restore(self, saved: State, best_value: float) -> None:
        """Continue from the result of `save`, which may come from another number of ranks."""
        vlm = self.role.scorer.vlm
        current, weights = vlm.state_dict(), part_of(saved, "weights")
        if self.role.lora is None:
            vlm.load_state_dict({name: shard_like(tensor, current[name]) for name, tensor in weights.items()})
        else:
            lora.load_adapters(vlm, weights)
        self.best_value = best_value
        self.best = {
            name: _copy(shard_like(tensor, current[name])) if self.role.sharded else tensor
            for name, tensor in part_of(saved, "best").items()
        }


class Average(ChangingRole):
    """A role that follows a learner: theta' <- m theta' + (1 - m) theta after each of its optimizer steps.

    Of a learner with adapters, theta is the equivalent model without them.
    """

    def __init__(self, role: RoleModel, learner: Learner, decay: float) -> None:
        super().__init__(role)
        self.learner, self.decay = learner, decay
        self.parameters = dict(role.scorer.vlm.named_parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Follow the learner by one step. Sharded weights are averaged shard by shard."""
        own, other = self.role.scorer, self.learner.role.scorer
        for module in (*own.modules(), *other.modules()):
            if isinstance(module, FSDPModule):  # the last pass may have left full weights in place of the shards
                module.reshard()
        for name, tensor in (
            other.vlm.named_parameters() if self.learner.role.lora is None else lora.iter_merged(other.vlm)
        ):
            if name in self.parameters:  # a tied tensor is there once
                _local(self.parameters[name]).lerp_(_local(tensor), 1 - self.decay)


class Learner(ChangingRole):
    """The learning state of a trainable role."""

    def __init__(self, role: RoleModel, adapter: nn.Module | None, plan: Plan, ranks: ProcessGroup) -> None:
        super().__init__(role)
        self.parameters = {n: p for n, p in role.scorer.named_parameters() if p.requires_grad}
        if adapter is not None:
            adapter.to(ranks.device)
            self.parameters |= {f"adapter/{n}": p for n, p in adapter.named_parameters()}
            role.adapter = ranks.wrap(adapter)
        train = plan.config.train
        self.peak_lr = train.lr_of(role.rung)
        # Norms and biases don't decay, as usual. Sharded tensors and others can't be updated together.
        kinds: dict[tuple[bool, bool], list[Tensor]] = {}
        for parameter in self.parameters.values():
            kinds.setdefault((isinstance(parameter, DTensor), parameter.ndim <= 1), []).append(parameter)
        groups = [
            {"params": kinds[kind], "weight_decay": 0.0 if kind[1] else train.weight_decay} for kind in sorted(kinds)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, fused=True)

    # ------------------------------------------------------------------------------------------ learning

    @contextmanager
    def gradients(self, exchange: bool) -> Iterator[None]:
        """A forward and backward pass whose gradients are exchanged among the ranks, or held for a later exchange."""
        if self.role.sharded:
            self.role.scorer.set_requires_gradient_sync(exchange)  # type: ignore[operator]
        with ExitStack() as stack:
            for module in (self.role.module, self.role.adapter):
                if isinstance(module, DistributedDataParallel) and not exchange:
                    stack.enter_context(module.no_sync())
            yield

    def update(self, factor: float, clip: float) -> Tensor:
        """One optimizer step at `factor` of the peak learning rate. Returns the gradient norm before clipping."""
        with span("hkdbench:optimizer"):
            norm = self._clip(clip)
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * factor
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _clip(self, clip: float) -> Tensor:
        moved = [p for p in self.parameters.values() if p.grad is not None]
        if not self.role.sharded:
            return nn.utils.clip_grad_norm_(moved, clip)
        # An adapter's parameters aren't sharded: the two kinds can't be clipped together.
        kinds = [[p for p in moved if isinstance(p, DTensor) == sharded] for sharded in (True, False)]
        norms = [
            full_tensor(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds if kind
        ]
        norm: Tensor = torch.stack(norms).norm()
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, clip, norm)
        return norm

    # --------------------------------------------------------------------------------------- checkpoints

    def save(self) -> Saved:
        """The same, with the optimizer's state and the method's module."""
        moments = self.optimizer.state_dict()["state"]
        order = self._order()
        optimizer: Saved = {
            f"{order[index]}/{key}": _part(value) for index, entry in moments.items() for key, value in entry.items()
        }
        saved = super().save() | under("optimizer", optimizer)
        return saved | {n: p.detach() for n, p in self.parameters.items() if n.startswith("adapter/")}

    def restore(self, saved: State, best_value: float) -> None:
        """The same, with the optimizer's state and the method's module."""
        super().restore(saved, best_value)
        with torch.no_grad():
            for name, tensor in part_of(saved, "adapter").items():
                self.parameters[f"adapter/{name}"].copy_(tensor)
        optimizer = part_of(saved, "optimizer")
        state = {}
        for index, name in enumerate(self._order()):
            moments = part_of(optimizer, name)
            state[index] = {
                key: value if key == "step" else shard_like(value, self.parameters[name])
                for key, value in moments.items()
            }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})

    def _order(self) -> list[str]:
        """The parameters' names in the optimizer's order."""
        name_of = {id(p): n for n, p in self.parameters.items()}
        return [name_of[id(p)] for group in self.optimizer.param_groups for p in group["params"]]


def _part(tensor: Tensor) -> Tensor | ShardCopy:
    return ShardCopy.of(tensor) if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    """A tensor's data; of a sharded one, this rank's shard."""
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local


def _copy(tensor: Tensor) -> Tensor | ShardCopy:
    return ShardCopy.of(tensor).cpu() if isinstance(tensor, DTensor) else tensor.to("cpu", copy=True)
