"""One step of training as a method sees it, the models at work in it, and the checks of the contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.profiler import record_function as span  # free where nobody profiles: see harness.train.profiling

from harness.api import Example, Need, Stage, View
from harness.errors import TrainingError
from harness.models import lora, quantization, scorer, shared_prefix
from harness.models.distributed import Io, cut_like, whole
from harness.models.ladders import forward_flops, training_passes
from harness.planning.plan import Plan
from harness.record import RoleCost
from harness.train.checkpoint import part_of, under

State = dict[str, Tensor]
Asked = frozenset[tuple[str, View]]
"""The forward passes of a step: role and view."""
Terms = dict[tuple[str, str], Tensor]
"""Loss terms (B,) by role and name."""


@dataclass(frozen=True)
class Place:
    """Where in a run something happens."""

    method: str
    stage: str
    step: int

    def error(self, text: str) -> TrainingError:
        return TrainingError(
            f"method {self.method!r}, stage {self.stage!r}, step {self.step}: {text}", self.stage, self.step
        )


class LiveRole:
    """A model at work in a stage: its weights, its optimizer and adapter if it learns, its bill."""

    def __init__(self, name: str, rung: str, plan: Plan, io: Io, encoder: scorer.Encoder, weights: State | None,
                 trainable: bool) -> None:  # fmt: skip
        self.name, self.rung, self.trainable, self.encoder = name, rung, trainable, encoder
        precision = plan.config.train.precision_of(rung)
        train = plan.config.train
        self.kept = train.storage_of(rung, trainable)
        """How its own weights are kept."""
        self.began, self.of = weights, plan.rungs[rung]
        vlm = quantization.load(self.of, self.kept, precision, weights)
        self.scorer = scorer.OptionScorer(vlm, encoder.letters, precision)
        self.lora = train.lora_of(rung) if trainable else None
        """Its adapters' settings: they alone learn."""
        if self.lora is not None:
            lora.insert(self.scorer.vlm, self.lora, rung)
        if trainable and train.gradient_checkpointing:
            self.scorer.vlm.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        limit = plan.config.cluster.shard_above
        self.cut = io.world > 1 and limit is not None and plan.infos[rung].parameters > limit
        """Whether the weights are cut over the ranks: every rank must then make the same forward passes."""
        if self.cut:
            io.cut(self.scorer.train(trainable).requires_grad_(trainable))
        if plan.config.cluster.offload_frozen and not trainable and not self.cut:
            quantization.offload(self.scorer, io.device)
        else:
            self.scorer.to(io.device)
        self.scorer.train(trainable)
        if self.lora is None:
            self.scorer.requires_grad_(trainable)
        self.module = io.wrap(self.scorer) if trainable and not self.cut else self.scorer
        self.adapter: nn.Module | None = None
        self.remembered: dict[int, scorer.Outputs] = {}
        """What a frozen role answered about examples before, by their identity: rows of `models.Outputs`."""
        self.info = plan.infos[rung]
        self.cost = RoleCost()
        self.best_value = -1.0
        self.best: State = {}

    def prepare(self, adapter: nn.Module | None, plan: Plan, io: Io) -> None:
        """Make the optimizer of a learner, for its model and its adapter."""
        self.parameters = {n: p for n, p in self.scorer.named_parameters() if p.requires_grad}
        if adapter is not None:
            adapter.to(io.device)
            self.parameters |= {f"adapter/{n}": p for n, p in adapter.named_parameters()}
            self.adapter = io.wrap(adapter)
        train = plan.config.train
        self.peak_lr = train.lr_by_rung.get(self.rung, train.lr)
        # Norms and biases don't decay, as is usual. What is cut and what isn't can't be updated together.
        kinds: dict[tuple[bool, bool], list[Tensor]] = {}
        for parameter in self.parameters.values():
            kinds.setdefault((isinstance(parameter, DTensor), parameter.ndim <= 1), []).append(parameter)
        groups = [
            {"params": kinds[kind], "weight_decay": 0.0 if kind[1] else train.weight_decay} for kind in sorted(kinds)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, fused=True)

    @property
    def wrapped(self) -> list[nn.parallel.DistributedDataParallel]:
        """The modules whose gradients are exchanged."""
        return [m for m in (self.module, self.adapter) if isinstance(m, nn.parallel.DistributedDataParallel)]

    def forward(self, batch: scorer.Batch, needs: Collection[Need]) -> scorer.Outputs:
        start = time.perf_counter()
        # Weights that are cut are put together in a pass, and used later: not in inference mode.
        idle = not self.trainable and not self.cut
        with span("hkdbench:language"), torch.inference_mode(idle), torch.set_grad_enabled(self.trainable):
            outputs: scorer.Outputs = self.module(batch, needs)
        if not self.trainable:
            outputs = {what: tensor.clone() for what, tensor in outputs.items()}  # fit for a loss's backward pass
        flops = forward_flops(self.info, *scorer.token_counts(self.scorer.vlm.config, batch))
        self.bill(len(outputs["options"]), flops, time.perf_counter() - start, trained=self.trainable)
        return outputs

    def adapt(self, inputs: Tensor) -> Tensor:
        assert self.adapter is not None
        start = time.perf_counter()
        outputs: Tensor = self.adapter(inputs)
        size = sum(p.numel() for p in self.adapter.parameters())
        self.bill(0, 2.0 * size * (inputs.numel() // inputs.shape[-1]), time.perf_counter() - start, trained=True)
        return outputs

    def bill(self, examples: int, flops: float, seconds: float, trained: bool) -> None:
        c = self.cost
        more = {
            "forwards": c.forwards + examples,
            "trained": c.trained + (examples if trained else 0),
            "flops": c.flops + flops * (training_passes(self.lora is not None) if trained else 1),
            "seconds": c.seconds + seconds,
        }
        self.cost = c.model_copy(update=more)

    def recall(self, examples: int, shared: int = 0) -> None:
        """Note examples that it wasn't forwarded for: their answers were kept, `shared` of them by another run."""
        c = self.cost
        self.cost = c.model_copy(update={"recalled": c.recalled + examples, "shared": c.shared + shared})

    def update(self, factor: float, clip: float) -> Tensor:
        """One optimizer step at `factor` of the peak learning rate; the gradient's norm before it is clipped."""
        with span("hkdbench:optimizer"):
            norm = self._clip(clip)
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * factor
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _clip(self, clip: float) -> Tensor:
        moved = [p for p in self.parameters.values() if p.grad is not None]
        if not self.cut:
            return nn.utils.clip_grad_norm_(moved, clip)
        # An adapter's parameters aren't cut: the two kinds can't be taken together.
        kinds = [[p for p in moved if isinstance(p, DTensor) == cut] for cut in (True, False)]
        norms = [whole(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds if kind]
        norm: Tensor = torch.stack(norms).norm()
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, clip, norm)
        return norm

    def exchange(self, now: bool) -> None:
        """Whether the next backward pass exchanges gradients of weights that are cut; others: see `wrapped`."""
        if self.cut:
            self.scorer.set_requires_gradient_sync(now)  # type: ignore[operator]

    def weights(self) -> State:
        """A copy of the weights on the CPU; tied tensors stay one each by name. Where they're cut, for all ranks.

        Of a role that learns with adapters these alone.
        """
        found = self.scorer.vlm.state_dict() if self.lora is None else lora.adapters(self.scorer.vlm)
        return {k: whole(v.detach()).to("cpu", copy=True) for k, v in found.items()}

    def outcome(self) -> State:
        """The weights that it leaves to others: a learner's best, adapters merged."""
        if not self.trainable:
            return self.began or dict(scorer.load_vlm(self.of).state_dict())
        if self.lora is None:
            return self.best
        lora.load_adapters(self.scorer.vlm, self.best)
        return lora.merged(self.scorer.vlm)

    def keep_if_best(self, value: float) -> None:
        """Of two equal ones the later is kept: it has learned longer."""
        if value >= self.best_value:
            self.best_value, self.best = value, self.weights()

    def save(self) -> State:
        moments = self.optimizer.state_dict()["state"]
        order = self._order()
        optimizer = {
            f"{order[index]}/{key}": whole(value) for index, entry in moments.items() for key, value in entry.items()
        }
        saved = under("weights", self.weights()) | under("best", self.best) | under("optimizer", optimizer)
        return saved | {n: p.detach() for n, p in self.parameters.items() if n.startswith("adapter/")}

    def restore(self, saved: State, best_value: float) -> None:
        current, kept = self.scorer.vlm.state_dict(), part_of(saved, "weights")
        if self.lora is None:
            self.scorer.vlm.load_state_dict({k: cut_like(v, current[k]) for k, v in kept.items()})
        else:
            lora.load_adapters(self.scorer.vlm, kept)
        with torch.no_grad():
            for name, tensor in part_of(saved, "adapter").items():
                self.parameters[f"adapter/{name}"].copy_(tensor)
        self.best, self.best_value = part_of(saved, "best"), best_value
        optimizer = part_of(saved, "optimizer")
        state = {}
        for i, name in enumerate(self._order()):
            moments = part_of(optimizer, name)
            state[i] = {k: v if k == "step" else cut_like(v, self.parameters[name]) for k, v in moments.items()}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})

    def _order(self) -> list[str]:
        """The parameters' names in the optimizer's order."""
        name_of = {id(p): n for n, p in self.parameters.items()}
        return [name_of[id(p)] for group in self.optimizer.param_groups for p in group["params"]]


class MicroStep:
    """The `harness.api.Step` of one micro-batch."""

    def __init__(self, place: Place, stage: Stage, progress: float, examples: Sequence[Example],
                 second: Callable[[], Sequence[Example]], live: Mapping[str, LiveRole], needs: frozenset[Need],
                 device: torch.device, inputs: Mapping[str, scorer.Batch] | None = None,
                 sharing: Collection[str] = ()) -> None:  # fmt: skip
        """`inputs`: what is encoded already of the first view, by the encoder's fingerprint. `sharing`: the encoders
        whose questions of one image share it."""
        self.stage, self.roles, self.progress, self.examples = stage.name, stage.roles, progress, tuple(examples)
        self._place, self._second, self._live, self._needs, self._device = place, second, live, needs, device
        self._encoded_before, self._sharing = inputs or {}, sharing
        self._inputs: dict[tuple[str, View], scorer.Batch] = {}
        self._outputs: dict[tuple[str, View], scorer.Outputs] = {}
        self._given: list[tuple[str, Tensor, int]] = []
        self.labels_b = self._give("labels_b", torch.tensor([example.gold for example in examples], device=device))

    @cached_property
    def options_bk(self) -> Tensor:
        sizes = torch.tensor([len(example.options) for example in self.examples], device=self._device)
        return self._give("options_bk", torch.arange(int(sizes.max()), device=self._device) < sizes[:, None])

    def forward(self, role: str, view: View = "first") -> Tensor:
        return self._forwarded(role, view)["options"]

    def hidden(self, role: str, view: View = "first") -> Tensor:
        return self._declared("hidden", role, view)

    def vision(self, role: str, view: View = "first") -> Tensor:
        return self._declared("vision", role, view)

    def vocab(self, role: str, view: View = "first") -> Tensor:
        return self._declared("vocab", role, view)

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        live = self._role(role)
        if live.adapter is None:
            raise self._place.error(f"role {role!r} has no adapter; give it a module in adapters()")
        return live.adapt(inputs)

    def _declared(self, need: Need, role: str, view: View) -> Tensor:
        if need not in self._needs:
            raise self._place.error(f"step.{need}({role!r}) is not declared; add {need!r} to what needs() gives")
        return self._forwarded(role, view)[need]

    def _role(self, role: str) -> LiveRole:
        if role not in self._live:
            raise self._place.error(f"no role {role!r} in this stage; it has {', '.join(self._live)}")
        return self._live[role]

    def _forwarded(self, role: str, view: View) -> scorer.Outputs:
        if (role, view) not in self._outputs:
            live = self._role(role)
            outputs = self._recalled(live) if view == "first" and live.remembered else None
            outputs = outputs or live.forward(self._encoded(live.encoder, view), self._needs)
            if "vocab" in outputs:
                outputs["vocab"] = live.encoder.real(outputs["vocab"])
            self._outputs[role, view] = {
                what: self._give(f"the {what} of role {role!r}", tensor) for what, tensor in outputs.items()
            }
        return self._outputs[role, view]

    def _recalled(self, live: LiveRole) -> scorer.Outputs | None:
        """What the role answered before, and a pass for the other examples alone; None where all are others."""
        known = [live.remembered.get(id(example)) for example in self.examples]
        new = [example for example, row in zip(self.examples, known, strict=True) if row is None]
        if len(new) == len(known):
            return None
        live.recall(len(known) - len(new))
        fresh: Iterator[scorer.Outputs] = iter(())
        if new:
            outputs = live.forward(self._made(live.encoder, new), self._needs)
            fresh = ({what: tensor[at] for what, tensor in outputs.items()} for at in range(len(new)))
        rows = [next(fresh) if found is None else found for found in known]
        options_bk = torch.full(self.options_bk.shape, scorer.ABSENT, device=self._device)
        for row_k, example, row in zip(options_bk, self.examples, rows, strict=True):
            row_k[: len(example.options)] = row["options"][: len(example.options)]
        return {"options": options_bk} | {what: torch.stack([row[what] for row in rows]) for what in self._needs}

    def _encoded(self, encoder: scorer.Encoder, view: View) -> scorer.Batch:
        key = encoder.fingerprint, view
        if key not in self._inputs:
            ready = self._encoded_before.get(encoder.fingerprint) if view == "first" else None
            with span("hkdbench:data"):
                examples = self.examples if view == "first" else self._second_view()
                self._inputs[key] = self._made(encoder, examples, ready)
        return self._inputs[key]

    def _made(
        self, encoder: scorer.Encoder, examples: Sequence[Example], ready: scorer.Batch | None = None
    ) -> scorer.Batch:
        batch = ready or shared_prefix.encoded(encoder, examples, encoder.fingerprint in self._sharing)
        return {k: v.to(self._device, non_blocking=True) for k, v in batch.items()}

    def _second_view(self) -> Sequence[Example]:
        views = self._second()
        for example, view in zip(self.examples, views, strict=True):
            if view.options != example.options:
                raise self._place.error(
                    f"second_view() gave example {example.id!r} the options {view.options}; expected "
                    f"{example.options}, at the same letters: the views' answers are compared"
                )
        return views

    # --------------------------------------------------------------------------------------- contract

    @property
    def asked(self) -> Asked:
        """The forward passes so far."""
        return frozenset(self._outputs)

    def terms(self, losses: Any, learners: Collection[str]) -> Terms:
        """What `Method.loss` gave, by (role, term); a `TrainingError` says what it should have given."""
        self._check_unchanged()
        if not isinstance(losses, Mapping) or set(losses) != set(learners):
            got = sorted(losses) if isinstance(losses, Mapping) else type(losses).__name__
            raise self._place.error(
                f"loss() gave {got}; expected one entry for each trainable role: {sorted(learners)}"
            )
        terms: Terms = {}
        for role, named in losses.items():
            if not isinstance(named, Mapping) or not named:
                raise self._place.error(
                    f"the loss of role {role!r} is {type(named).__name__}; expected named terms, "
                    "like {'ce': tensor of one number an example}"
                )
            for name, term in named.items():
                if not isinstance(term, Tensor) or term.shape != self.labels_b.shape:
                    shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
                    raise self._place.error(
                        f"loss term {role}.{name} is {shape}; expected ({len(self.labels_b)},), one number an "
                        "example (the harness takes the mean)"
                    )
                terms[role, name] = term
            if not any(term.requires_grad for term in named.values()):
                raise self._place.error(
                    f"no gradient comes from the loss of role {role!r}; make it from step.forward({role!r})"
                )
        return terms

    def _give(self, name: str, tensor: Tensor) -> Tensor:
        self._given.append((name, tensor, tensor._version))
        return tensor

    def _check_unchanged(self) -> None:
        """Torch counts how often a tensor was changed in place, through its views too."""
        if changed := [name for name, tensor, version in self._given if tensor._version != version]:
            raise self._place.error(f"loss() changed {', '.join(changed)} in place; change a copy (tensor.clone())")


def check_alike(place: Place, io: Io, stage: Stage, asked: Sequence[Asked]) -> None:
    """Raise where micro-batches or ranks were forwarded differently: the ranks would wait for each other for ever.

    `asked` is that of this rank's micro-batches. All ranks must call this at the same time.
    """
    if len(set(asked)) > 1:
        text = " and ".join(sorted({_told(one) for one in asked}))
        raise place.error(f"loss() forwarded {text} in one step; forward the same roles for every micro-batch")
    if io.world == 1:
        return
    passes: list[tuple[str, View]] = [(role, view) for role in stage.roles for view in get_args(View)]
    count = io.sum(torch.tensor([float(one in asked[-1]) for one in passes], device=io.device)).tolist()
    if some := [one for one, n in zip(passes, count, strict=True) if 0 < n < io.world]:
        raise place.error(f"loss() forwarded {_told(some)} on some workers only; forward the same roles on every one")


def _told(passes: Iterable[tuple[str, View]]) -> str:
    return ", ".join(sorted(role if view == "first" else f"{role} (second view)" for role, view in passes)) or "no role"


def total(costs: Sequence[RoleCost]) -> RoleCost:
    return RoleCost(
        forwards=sum(c.forwards for c in costs),
        trained=sum(c.trained for c in costs),
        recalled=sum(c.recalled for c in costs),
        shared=sum(c.shared for c in costs),
        flops=sum(c.flops for c in costs),
        seconds=sum(c.seconds for c in costs),
    )


def bill_backward(learners: Mapping[str, LiveRole], seconds: float) -> None:
    """Share the seconds of the joint backward pass among the roles by their forward FLOPs."""
    flops = {name: role.info.parameters for name, role in learners.items()}
    for name, role in learners.items():
        role.bill(0, 0.0, seconds * flops[name] / sum(flops.values()), trained=False)
