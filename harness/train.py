"""The train loop: stages, roles, optimizers, validation, checkpoints, billing. It imports no ray.

A stage trains its roles together. Every optimizer step takes one global batch, cut among the ranks and,
within a rank, into micro-batches; per-example losses are divided by the global batch size, so that the
cut changes nothing but rounding. State is written at each validation: a run that is started again goes
on from there and ends in the same bits.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import checkpoint, data, models
from harness.api import Example, From, Stage
from harness.checkpoint import Checkpoint, part_of, under
from harness.evaluate import score
from harness.io import Io
from harness.ladders import forward_flops
from harness.plan import Plan, PlannedStage, rung_of
from harness.record import RoleCost, RoleRecord, StageRecord
from harness.results import TrainingError

POINTS_A_STAGE = 40
"""How many times a stage's mean losses are written to the history."""

State = dict[str, Tensor]


@dataclass
class Trained:
    """What training leaves: the student, and what it took."""

    student: models.OptionScorer
    encoder: models.Encoder
    stages: list[StageRecord] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    costs: dict[str, RoleCost] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    resumed: int = 0


class LiveRole:
    """A model at work in a stage: its weights, its optimizer if it learns, its bill."""

    def __init__(self, name: str, rung: str, plan: Plan, io: Io, encoder: models.Encoder, weights: State | None,
                 trainable: bool) -> None:  # fmt: skip
        self.name, self.rung, self.trainable, self.encoder = name, rung, trainable, encoder
        self.scorer = models.OptionScorer(
            models.load_vlm(plan.rungs[rung]), encoder.letters, plan.config.train.precision
        )
        if weights is not None:
            self.scorer.vlm.load_state_dict(weights)
        self.scorer.to(io.device).train(trainable).requires_grad_(trainable)
        self.module = io.wrap(self.scorer) if trainable else self.scorer
        self.info = plan.infos[rung]
        self.cost = RoleCost()
        self.best_value = -1.0
        self.best: State = {}
        if trainable:
            train = plan.config.train
            self.peak_lr = train.lr_by_rung.get(rung, train.lr)
            parameters = [p for p in self.scorer.parameters() if p.requires_grad]
            # Norms and biases don't decay, as is usual.
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
            self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, fused=True)

    def forward(self, batch: models.Batch) -> Tensor:
        start = time.perf_counter()
        with torch.set_grad_enabled(self.trainable):
            logits: Tensor = self.module(batch)
        flops = forward_flops(self.info, *models.token_counts(self.scorer.vlm.config, batch))
        self.bill(len(logits), flops, time.perf_counter() - start, trained=self.trainable)
        return logits

    def bill(self, examples: int, flops: float, seconds: float, trained: bool) -> None:
        c = self.cost
        self.cost = RoleCost(
            forwards=c.forwards + examples,
            trained=c.trained + (examples if trained else 0),
            flops=c.flops + flops * (3 if trained else 1),
            seconds=c.seconds + seconds,
        )

    def update(self, factor: float, clip: float) -> None:
        """One optimizer step at `factor` of the peak learning rate."""
        nn.utils.clip_grad_norm_([p for p in self.scorer.parameters() if p.grad is not None], clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> State:
        """A copy of the weights on the CPU; tied tensors stay one each by name."""
        return {k: v.detach().to("cpu", copy=True) for k, v in self.scorer.vlm.state_dict().items()}

    def keep_if_best(self, value: float) -> None:
        """Of two equal ones the later is kept: it has learned longer."""
        if value >= self.best_value:
            self.best_value, self.best = value, self.weights()

    def save(self) -> State:
        names = [n for n, p in self.scorer.named_parameters() if p.requires_grad]
        moments = self.optimizer.state_dict()["state"]
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        name_of = {id(p): n for n, p in self.scorer.named_parameters()}
        assert len(order) == len(names)
        optimizer = {
            f"{name_of[id(order[index])]}/{key}": value
            for index, entry in moments.items()
            for key, value in entry.items()
        }
        return under("weights", self.weights()) | under("best", self.best) | under("optimizer", optimizer)

    def restore(self, saved: State, best_value: float) -> None:
        self.scorer.vlm.load_state_dict(part_of(saved, "weights"))
        self.best, self.best_value = part_of(saved, "best"), best_value
        optimizer = part_of(saved, "optimizer")
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        name_of = {id(p): n for n, p in self.scorer.named_parameters()}
        state = {i: part_of(optimizer, name_of[id(p)]) for i, p in enumerate(order)}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})


class MicroStep:
    """The `harness.api.Step` of one micro-batch."""

    def __init__(self, stage: Stage, progress: float, examples: Sequence[Example], live: Mapping[str, LiveRole],
                 device: torch.device) -> None:  # fmt: skip
        self.stage, self.roles, self.progress, self.examples = stage.name, stage.roles, progress, examples
        self._live, self._device = live, device
        self._inputs: dict[str, models.Batch] = {}
        self._logits: dict[str, Tensor] = {}
        self.labels_b = torch.tensor([example.gold for example in examples], device=device)

    @property
    def options_bk(self) -> Tensor:
        sizes = torch.tensor([len(example.options) for example in self.examples], device=self._device)
        return torch.arange(int(sizes.max()), device=self._device) < sizes[:, None]

    def forward(self, role: str) -> Tensor:
        if role not in self._live:
            raise KeyError(f"no role {role!r} in stage {self.stage!r}: {', '.join(self._live)}")
        if role not in self._logits:
            self._logits[role] = self._live[role].forward(self._encoded(self._live[role].encoder))
        return self._logits[role]

    def _encoded(self, encoder: models.Encoder) -> models.Batch:
        key = encoder.fingerprint
        if key not in self._inputs:
            batch = encoder(self.examples)
            self._inputs[key] = {k: v.to(self._device, non_blocking=True) for k, v in batch.items()}
        return self._inputs[key]


def train(plan: Plan, io: Io, work: Path) -> Trained:
    """Run the plan's stages, from the newest checkpoint under `work` if there is one."""
    by_rung = encoders(plan)
    saved = checkpoint.latest(work)
    state = saved.state if saved else {}
    outputs = {k: part_of(saved.tensors, f"output/{k}") for k in state.get("outputs", [])} if saved else {}
    student = plan.config.student
    run = _Run(plan, io, work, by_rung, outputs)
    if saved:
        run.history = state["history"]
        run.stages = [StageRecord(**s) for s in state["stages"]]
        run.costs = {k: RoleCost(**c) for k, c in state["costs"].items()}
        run.seconds = defaultdict(float, state["seconds"])
        run.resumed = state["resumed"] + 1
    for index, planned in enumerate(plan.stages):
        if index >= state.get("stage", 0):
            # A checkpoint at step 0 holds what earlier stages left, and nothing of this one.
            middle = saved if saved and index == state["stage"] and state["step"] > 0 else None
            run.stage(index, planned, middle)
    letters, precision = by_rung[student].letters, plan.config.train.precision
    scorer = models.OptionScorer(models.load_vlm(plan.rungs[student]), letters, precision)
    if plan.stages:
        scorer.vlm.load_state_dict(run.outputs[f"{plan.stages[-1].stage.name}.{plan.method.student}"])
    scorer.to(io.device).eval()
    return Trained(scorer, by_rung[student], run.stages, run.history, run.costs, dict(run.seconds), run.resumed)


class _Run:
    def __init__(self, plan: Plan, io: Io, work: Path, encoders: dict[str, models.Encoder],
                 outputs: dict[str, State]) -> None:  # fmt: skip
        self.plan, self.io, self.work, self.encoders, self.outputs = plan, io, work, encoders, outputs
        self.history: list[dict[str, Any]] = []
        self.stages: list[StageRecord] = []
        self.costs: dict[str, RoleCost] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.resumed = 0
        self._validation: dict[str, list[tuple[list[Example], models.Batch]]] = {}

    def stage(self, index: int, planned: PlannedStage, saved: Checkpoint | None) -> None:
        """Train one stage, from `saved` where it holds this stage's middle."""
        plan, stage, train = self.plan, planned.stage, self.plan.config.train
        torch.manual_seed(_seed(plan, stage.name))
        roles = {name: self._open(name, planned) for name in stage.roles}
        learners = {name: role for name, role in roles.items() if role.trainable}
        first = 0
        if saved:
            first = saved.state["step"]
            for name, role in learners.items():
                role.restore(part_of(saved.tensors, f"role/{name}"), saved.state["best"][name])
            if self.io.rank == 0:  # the saved bill is that of all ranks
                for name, cost in saved.state["role_costs"].items():
                    roles[name].cost = RoleCost(**cost)
            torch.set_rng_state(saved.tensors["rng"])
        marks = {math.ceil(planned.steps * k / train.validations) for k in range(1, train.validations + 1)}
        every = max(planned.steps // POINTS_A_STAGE, 1)
        sums: dict[tuple[str, str], Tensor] = {}
        counted = 0
        clock = time.perf_counter()
        for step in range(first, planned.steps):
            progress = step / planned.steps
            position = planned.position + step * train.batch_size
            self._step(stage, step, progress, position, roles, learners, sums)
            counted += 1
            factor = _lr_factor(step, planned.steps, train.warmup)
            for role in learners.values():
                role.update(factor, train.clip)
            done = step + 1
            if done % every == 0 or done in marks:
                self._log(stage.name, done, planned.steps, sums, counted * train.batch_size)
                sums, counted = {}, 0
            if done in marks:
                self.seconds["train"] += time.perf_counter() - clock
                self._validate(stage.name, done, planned.steps, learners)
                if done < planned.steps:
                    self._save(index, done, learners, roles)
                clock = time.perf_counter()
        self._close(index, planned, roles)

    def _open(self, name: str, planned: PlannedStage) -> LiveRole:
        spec = planned.stage.roles[name]
        weights = self.outputs[f"{spec.weights.stage}.{spec.weights.role}"] if isinstance(spec.weights, From) else None
        rung = rung_of(self.plan.stages, planned.stage, name)
        return LiveRole(name, rung, self.plan, self.io, self.encoders[rung], weights, spec.trainable)

    def _step(self, stage: Stage, step: int, progress: float, position: int, roles: Mapping[str, LiveRole],
              learners: Mapping[str, LiveRole], sums: dict[tuple[str, str], Tensor]) -> None:  # fmt: skip
        """Forward and backward of this rank's part of one global batch; loss sums by role and term."""
        plan, io, train = self.plan, self.io, self.plan.config.train
        batch = data.batch_at(plan.training.splits["train"], plan.config.seed, position, train.batch_size)
        mine = [batch[i] for i in range(len(batch)) if i % io.world == io.rank]
        size = train.micro_batch_size or len(mine)
        chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
        for number, chunk in enumerate(chunks):
            examples = [
                plan.method.augment(example, random.Random(f"augment/{plan.config.seed}/{at}")) for at, example in chunk
            ]
            micro = MicroStep(stage, progress, examples, roles, io.device)
            with ExitStack() as stack:
                if number < len(chunks) - 1:  # gradients are exchanged once a step, with the last micro-batch
                    for role in learners.values():
                        if isinstance(role.module, nn.parallel.DistributedDataParallel):
                            stack.enter_context(role.module.no_sync())
                terms = _checked(plan, stage, step, micro, plan.method.loss(micro), learners)
                total = torch.stack([term.sum() for term in terms.values()]).sum() / train.batch_size
                if not torch.isfinite(total):
                    bad = ", ".join(f"{r}.{t}" for (r, t), v in terms.items() if not torch.isfinite(v).all())
                    raise TrainingError(
                        f"method {plan.method.name!r}, stage {stage.name!r}, step {step}: the loss is not finite "
                        f"({bad or 'sum'}); lower train.lr or the method's weights",
                        stage.name,
                        step,
                    )
                start = time.perf_counter()
                (total * io.world).backward()  # DDP averages over the ranks; the loss is already a global mean
                _bill_backward(learners, time.perf_counter() - start)
            for key, term in terms.items():
                value = term.detach().sum()
                sums[key] = sums[key] + value if key in sums else value

    def _log(self, stage: str, step: int, steps: int, sums: dict[tuple[str, str], Tensor], count: int) -> None:
        keys = sorted(sums)
        values = self.io.sum(torch.stack([sums[key] for key in keys])) / count
        latest = {}
        for (role, term), value in zip(keys, values.tolist(), strict=True):
            self._note(stage, step, steps, role, f"loss/{term}", value)
            latest[f"{role}.{term}"] = value
        self.io.report({"stage": stage, "step": step, "steps": steps, "losses": latest})

    def _note(self, stage: str, step: int, steps: int, role: str, term: str, value: float) -> None:
        row = {"stage": stage, "step": step, "progress": step / steps, "role": role, "term": term, "value": value}
        self.history.append(row)

    def _validate(self, stage: str, step: int, steps: int, learners: Mapping[str, LiveRole]) -> None:
        start = time.perf_counter()
        for name, role in learners.items():
            role.scorer.eval()
            right = torch.zeros(2, dtype=torch.float64)
            for examples, batch in self._validation_batches(role.encoder):
                chosen = score(role.scorer, batch, self.io.device).argmax(-1)
                gold = torch.tensor([example.gold for example in examples])
                right += torch.tensor([(chosen == gold).sum(), len(gold)], dtype=torch.float64)
            role.scorer.train()
            hits, count = self.io.sum(right).tolist()
            self._note(stage, step, steps, name, "validation/accuracy", hits / count)
            role.keep_if_best(hits / count)
        self.seconds["validation"] += time.perf_counter() - start

    def _validation_batches(self, encoder: models.Encoder) -> list[tuple[list[Example], models.Batch]]:
        """This rank's part of the validation examples, encoded once."""
        key = encoder.fingerprint
        if key not in self._validation:
            config = self.plan.config
            examples = self.plan.training.splits["validation"][: config.train.validation_examples]
            mine = examples[self.io.rank :: self.io.world]
            size = config.evaluate.batch_size
            chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
            self._validation[key] = [(chunk, encoder(chunk)) for chunk in chunks]
        return self._validation[key]

    def _close(self, index: int, planned: PlannedStage, roles: Mapping[str, LiveRole]) -> None:
        """Hand on the weights that later stages, or the evaluation, take from this one."""
        plan, stage = self.plan, planned.stage
        bill = self._bill(roles)
        for name, role in roles.items():
            key = f"{stage.name}.{name}"
            self.costs[key] = bill[name]
            wanted = any(
                From(stage.name, name) == r.weights for later in plan.stages for r in later.stage.roles.values()
            )
            if wanted or (index == len(plan.stages) - 1 and name == plan.method.student):
                self.outputs[key] = role.best if role.trainable else role.weights()
        self.stages.append(
            StageRecord(
                name=stage.name,
                share=stage.share,
                steps=planned.steps,
                examples=planned.steps * plan.config.train.batch_size,
                roles={
                    n: RoleRecord(
                        weights=w if isinstance(w := stage.roles[n].weights, str) else f"{w.stage}.{w.role}",
                        trainable=role.trainable,
                        parameters=role.info.parameters,
                    )
                    for n, role in roles.items()
                },
                best={n: role.best_value for n, role in roles.items() if role.trainable},
            )
        )
        self._save(index + 1, 0, {}, {})

    def _save(self, stage: int, step: int, learners: Mapping[str, LiveRole], roles: Mapping[str, LiveRole]) -> None:
        bill = self._bill(roles)
        if self.io.rank == 0:
            tensors: State = {"rng": torch.get_rng_state()}
            for name, role in learners.items():
                tensors |= under(f"role/{name}", role.save())
            for key, output in self.outputs.items():
                tensors |= under(f"output/{key}", output)
            state = {
                "stage": stage,
                "step": step,
                "outputs": list(self.outputs),
                "best": {name: role.best_value for name, role in learners.items()},
                "role_costs": {name: cost.model_dump() for name, cost in bill.items()},
                "history": self.history,
                "stages": [s.model_dump() for s in self.stages],
                "costs": {k: c.model_dump() for k, c in self.costs.items()},
                "seconds": dict(self.seconds),
                "resumed": self.resumed,
            }
            checkpoint.save(self.work, stage, step, Checkpoint(tensors, state))
        self.io.gather(None)  # no rank runs ahead of the state that is written

    def _bill(self, roles: Mapping[str, LiveRole]) -> dict[str, RoleCost]:
        """What the roles have cost so far on all ranks together."""
        ranks = self.io.gather({name: role.cost for name, role in roles.items()})
        return {name: _total([rank[name] for rank in ranks]) for name in roles}


def _checked(
    plan: Plan, stage: Stage, step: int, micro: MicroStep, losses: Any, learners: Mapping[str, LiveRole]
) -> dict[tuple[str, str], Tensor]:
    """The loss terms by (role, term), or a `TrainingError` that says what the method should return."""
    where = f"method {plan.method.name!r}, stage {stage.name!r}, step {step}"
    if not isinstance(losses, Mapping) or set(losses) != set(learners):
        got = sorted(losses) if isinstance(losses, Mapping) else type(losses).__name__
        raise TrainingError(
            f"{where}: loss() gave {got}; expected one entry for each trainable role: {sorted(learners)}",
            stage.name,
            step,
        )
    terms = {}
    for role, named in losses.items():
        if not isinstance(named, Mapping) or not named:
            raise TrainingError(
                f"{where}: the loss of role {role!r} is {type(named).__name__}; expected named terms, "
                "like {'ce': tensor of one number an example}",
                stage.name,
                step,
            )
        for name, term in named.items():
            if not isinstance(term, Tensor) or term.shape != (len(micro.examples),):
                shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
                raise TrainingError(
                    f"{where}: loss term {role}.{name} is {shape}; expected ({len(micro.examples)},), one number an "
                    "example (the harness takes the mean)",
                    stage.name,
                    step,
                )
            terms[role, name] = term
    return terms


def _total(costs: Sequence[RoleCost]) -> RoleCost:
    return RoleCost(
        forwards=sum(c.forwards for c in costs),
        trained=sum(c.trained for c in costs),
        flops=sum(c.flops for c in costs),
        seconds=sum(c.seconds for c in costs),
    )


def _bill_backward(learners: Mapping[str, LiveRole], seconds: float) -> None:
    """Share the seconds of the joint backward pass among the roles by their forward FLOPs."""
    flops = {name: role.info.parameters for name, role in learners.items()}
    for name, role in learners.items():
        role.bill(0, 0.0, seconds * flops[name] / sum(flops.values()), trained=False)


def _lr_factor(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` of the steps, then half a cosine to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _seed(plan: Plan, stage: str) -> int:
    return random.Random(f"torch/{plan.config.seed}/{stage}").getrandbits(63)


def encoders(plan: Plan) -> dict[str, models.Encoder]:
    """An encoder for each rung in use; rungs that encode alike share one."""
    found: dict[str, models.Encoder] = {}
    by_print: dict[str, models.Encoder] = {}
    for name in plan.infos:
        encoder = models.load_encoder(plan.rungs[name])
        found[name] = by_print.setdefault(encoder.fingerprint, encoder)
    return found
