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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function as span

from harness.api import Example, From, Stage
from harness.data import dataset
from harness.errors import first_line
from harness.evaluation.predict import batches_of, score
from harness.evaluation.scoring import TrainingError
from harness.models import scorer as models
from harness.models import shared_prefix, vocabulary
from harness.models.distributed import Io
from harness.planning import memory
from harness.planning.plan import Plan, PlannedStage, for_stage, rung_of
from harness.record import Preflight, RoleCost, RoleRecord, StageRecord
from harness.store.tensor_cache import Cache, Found
from harness.train import checkpoint, preflight, teacher_cache
from harness.train.checkpoint import Checkpoint, part_of, under
from harness.train.step import Asked, LiveRole, MicroStep, Place, State, bill_backward, check_alike, total

__all__ = ["Trained", "TrainingError", "encoders", "train"]

POINTS_A_STAGE = 40
"""How many times a stage's mean losses are written to the history."""


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
    preflight: Preflight | None = None


def train(
    plan: Plan, io: Io, work: Path, cache: Cache | None = None, kept: Callable[[Path], None] | None = None
) -> Trained:
    """Run the plan's stages, from the newest checkpoint under `work` if there is one.

    With `train.cache` = auto, `cache` is where this run and others keep what they can share. `kept` is told the
    folder of each checkpoint, on rank 0.
    """
    by_rung = encoders(plan)
    saved = checkpoint.latest(work)
    state = saved.state if saved else {}
    outputs = {k: part_of(saved.tensors, f"output/{k}") for k in state.get("outputs", [])} if saved else {}
    student = plan.config.student
    run = _Run(plan, io, work, by_rung, outputs, cache if plan.config.train.cache == "auto" else None, kept)
    run.answers = part_of(saved.tensors, "answers") if saved else {}
    if saved:
        run.history = state["history"]
        run.stages = [StageRecord(**s) for s in state["stages"]]
        run.costs = {k: RoleCost(**c) for k, c in state["costs"].items()}
        run.seconds = defaultdict(float, state["seconds"])
        run.resumed = state["resumed"] + 1
        run.preflight = Preflight(**found) if (found := state["preflight"]) else None
    else:
        run.preflight = preflight.check(plan, by_rung, partial(shown, plan), partial(second_view, plan), io)
    for index, planned in enumerate(plan.stages):
        if index >= state.get("stage", 0):
            # A checkpoint at step 0 holds what earlier stages left, and nothing of this one.
            middle = saved if saved and index == state["stage"] and state["step"] > 0 else None
            run.stage(index, planned, middle)
    letters, precision = by_rung[student].letters, plan.config.train.precision_of(student)
    scorer = models.OptionScorer(models.load_vlm(plan.rungs[student]), letters, precision)
    if plan.stages:
        scorer.vlm.load_state_dict(run.outputs[f"{plan.stages[-1].stage.name}.{plan.method.student}"])
    scorer.to(io.device).eval()
    return Trained(
        scorer, by_rung[student], run.stages, run.history, run.costs, dict(run.seconds), run.resumed, run.preflight
    )


@dataclass(frozen=True)
class _Part:
    """What one forward pass of a step is given: examples as they are shown, their positions, and model inputs."""

    positions: list[int]
    examples: list[Example]
    inputs: Mapping[str, models.Batch]
    """By the encoder's fingerprint."""


class _Run:
    def __init__(self, plan: Plan, io: Io, work: Path, encoders: dict[str, models.Encoder],
                 outputs: dict[str, State], cache: Cache | None,
                 kept: Callable[[Path], None] | None) -> None:  # fmt: skip
        self.whole, self.io, self.work, self.encoders, self.outputs = plan, io, work, encoders, outputs
        self.plan, self.cache, self.kept = plan, cache, kept
        self.history: list[dict[str, Any]] = []
        self.stages: list[StageRecord] = []
        self.costs: dict[str, RoleCost] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.resumed = 0
        self.preflight: Preflight | None = None
        self.answers: teacher_cache.Answers = {}
        caches = plan.config.train.cache == "auto"
        self.asked = teacher_cache.asked(plan, shown) if caches else {}
        self.sharing: frozenset[str] = frozenset()
        """Of the stage: the encoders whose models pass an image through once for its questions."""
        self._validation: dict[tuple[str, bool], list[tuple[list[Example], models.Batch]]] = {}

    def stage(self, index: int, planned: PlannedStage, saved: Checkpoint | None) -> None:
        """Train one stage, from `saved` where it holds this stage's middle; or take over another run's outcome."""
        self.plan = for_stage(self.whole, planned.stage)
        key = teacher_cache.stage_key(self.plan, planned, self.outputs, self.io) if self.cache else None
        if self.cache is None or key is None:
            self._train(index, planned, saved)
            return
        with teacher_cache.turn(self.cache, "stages", key, self.io):
            # What was begun here is billed here.
            found = None if saved else teacher_cache.taken_over(self.cache, key, self.io)
            if found is not None:
                self._take_over(index, planned, found)
                return
            learners = self._train(index, planned, saved)
            if self.io.rank == 0:
                tensors = {f"{name}/{k}": t for name, role in learners.items() for k, t in role.outcome().items()}
                rows = [row for row in self.history if row["stage"] == planned.stage.name]
                state = {"stage": self.stages[-1].model_dump(), "history": rows}
                about = {"method": self.plan.method.name, "stage": planned.stage.name, "seed": self.plan.config.seed}
                self.cache.put("stages", key, tensors, about, state)

    def _take_over(self, index: int, planned: PlannedStage, found: Found) -> None:
        """Go on from a stage that another run has trained: its weights, record and history; no bill."""
        stage = planned.stage
        for name, role in stage.roles.items():
            self.costs[f"{stage.name}.{name}"] = RoleCost()
            if role.trainable:
                self.outputs[f"{stage.name}.{name}"] = part_of(found.tensors, name)
        self.stages.append(StageRecord(**found.state["stage"] | {"taken_over": True}))
        self.history += found.state["history"]
        self.io.report({"stage": stage.name, "step": planned.steps, "steps": planned.steps})
        self._save(index + 1, 0, {}, {})

    def _train(self, index: int, planned: PlannedStage, saved: Checkpoint | None) -> dict[str, LiveRole]:
        plan, stage, train = self.plan, planned.stage, self.plan.config.train
        torch.manual_seed(_seed(plan, stage.name))
        roles = {name: self._open(name, planned) for name in stage.roles}
        learners = {name: role for name, role in roles.items() if role.trainable}
        adapters = self._adapters(stage, roles)
        for name, role in learners.items():
            role.prepare(adapters.get(name), plan, self.io)
        if any(role.cut for role in roles.values()) and train.batch_size % self.io.world:
            raise Place(plan.method.name, stage.name, 0).error(
                f"train.batch_size = {train.batch_size} over {self.io.world} workers: with cluster.shard_above every "
                "worker must have as many examples as the others; choose a multiple"
            )
        self.sharing = self._sharing(roles)
        for name, role in roles.items():
            if not role.trainable and not role.cut:  # ranks that recall an answer would leave the others waiting
                self._remember(name, role, stage)
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
        used = {role.encoder.fingerprint: role.encoder for role in roles.values() if not role.remembered}
        positions = [planned.position + step * train.batch_size for step in range(first, planned.steps)]
        ahead = dataset.Ahead(
            partial(self._parts, used), positions, partial(torch.set_num_threads, torch.get_num_threads())
        )
        sums: dict[tuple[str, str], Tensor] = {}
        counted = 0
        clock = time.perf_counter()
        for step in range(first, planned.steps):
            progress = step / planned.steps
            try:
                with span("hkdbench:data"):
                    parts = next(ahead)
                self._step(stage, step, progress, parts, roles, learners, sums)
            except RuntimeError as error:
                if memory.exhausted(error):
                    raise Place(plan.method.name, stage.name, step).error(
                        f"out of memory on {self.io.device}: {first_line(error)}; change one or more of: "
                        f"{'; '.join(memory.suggestions(plan))}"
                    ) from None
                raise
            counted += 1
            factor = _lr_factor(step, planned.steps, train.warmup)
            norms = torch.stack([role.update(factor, train.clip) for role in learners.values()])
            if not norms.isfinite().all():
                raise Place(plan.method.name, stage.name, step).error(
                    "a gradient is not finite though the loss is; lower train.lr or the method's weights"
                )
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
        return learners

    def _open(self, name: str, planned: PlannedStage) -> LiveRole:
        spec = planned.stage.roles[name]
        weights = self.outputs[f"{spec.weights.stage}.{spec.weights.role}"] if isinstance(spec.weights, From) else None
        rung = rung_of(self.plan.stages, planned.stage, name)
        return LiveRole(name, rung, self.plan, self.io, self.encoders[rung], weights, spec.trainable)

    def _remember(self, name: str, role: LiveRole, stage: Stage) -> None:
        """Give a frozen role the answers that its weights gave before, or will be asked for."""
        source = teacher_cache.source(self.plan, stage, name)
        asked = self.asked.get(source)
        if not asked or not asked.examples:
            return
        needs = asked.fitting(models.vocabulary(role.scorer.vlm.config))
        if not self.plan.method.needs(stage.name) <= needs:
            return
        if f"{source}/options" not in self.answers:
            size, share = self.plan.config.evaluate.batch_size, role.encoder.fingerprint in self.sharing
            found = teacher_cache.answers(role, asked.examples, needs, size, self.io, self.cache, share)
            self.answers |= under(source, found)
        rows = {what: tensor.to(self.io.device) for what, tensor in part_of(self.answers, source).items()}
        role.remembered = {
            id(example): {what: tensor[at] for what, tensor in rows.items()}
            for at, example in enumerate(asked.examples)
        }

    def _adapters(self, stage: Stage, roles: Mapping[str, LiveRole]) -> Mapping[str, nn.Module]:
        """The method's own modules of the stage, the same on all ranks whatever else was drawn."""
        widths = {name: models.width(role.scorer.vlm.config) for name, role in roles.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self.plan, f"{stage.name}/adapters"))
            adapters = self.plan.method.adapters(stage.name, widths)
        if strange := [name for name in adapters if name not in roles or not roles[name].trainable]:
            learners = [name for name, role in roles.items() if role.trainable]
            raise Place(self.plan.method.name, stage.name, 0).error(
                f"adapters() gave one for {strange}; expected only trainable roles, of {learners}"
            )
        return adapters

    def _sharing(self, roles: Mapping[str, LiveRole]) -> frozenset[str]:
        """The encoders all of whose models can pass an image once for its questions, by fingerprint."""
        train, found = self.plan.config.train, self.preflight
        alone = {
            role.encoder.fingerprint
            for role in roles.values()
            if not (train.shares and found is not None and found.rungs[role.rung].shares_image)
            or (role.trainable and train.gradient_checkpointing)
            or role.cut  # ranks must make the same passes, and may have other images
        }
        return frozenset(role.encoder.fingerprint for role in roles.values()) - alone

    def _encoded(self, encoder: models.Encoder, examples: Sequence[Example]) -> models.Batch:
        return shared_prefix.encoded(encoder, examples, encoder.fingerprint in self.sharing)

    def _parts(self, used: Mapping[str, models.Encoder], position: int) -> list[_Part]:
        """This rank's part of the global batch at a position, in micro-batches, encoded by the encoders in use."""
        plan, io, train = self.plan, self.io, self.plan.config.train
        batch = plan.batch_at(position, train.batch_size)
        mine = dataset.share_of(batch, io.rank, io.world, train.questions_per_image)
        size = train.micro_batch_size or len(mine)
        found = []
        for chunk in (mine[i : i + size] for i in range(0, len(mine), size)):
            examples = [shown(plan, at, example) for at, example in chunk]
            inputs = {fingerprint: self._encoded(encoder, examples) for fingerprint, encoder in used.items()}
            if io.device.type == "cuda":  # pinned, they are copied while the device works
                inputs = {of: {k: v.pin_memory() for k, v in batch.items()} for of, batch in inputs.items()}
            found.append(_Part([at for at, _ in chunk], examples, inputs))
        return found

    def _step(self, stage: Stage, step: int, progress: float, parts: Sequence[_Part], roles: Mapping[str, LiveRole],
              learners: Mapping[str, LiveRole], sums: dict[tuple[str, str], Tensor]) -> None:  # fmt: skip
        """Forward and backward of this rank's part of one global batch; loss sums by role and term."""
        plan, io, train = self.plan, self.io, self.plan.config.train
        place, needs = Place(plan.method.name, stage.name, step), plan.method.needs(stage.name)
        asked: list[Asked] = []
        for number, part in enumerate(parts):
            second = partial(second_view, plan, part.positions, part.examples)
            micro = MicroStep(
                place, stage, progress, part.examples, second, roles, needs, io.device, part.inputs, self.sharing
            )
            last = number == len(parts) - 1
            for role in learners.values():
                role.exchange(last)
            with ExitStack() as stack:
                if not last:  # gradients are exchanged once a step, with the last micro-batch
                    for role in learners.values():
                        for module in role.wrapped:
                            stack.enter_context(module.no_sync())
                with span("hkdbench:loss"):
                    terms = micro.terms(plan.method.loss(micro), learners)
                asked.append(micro.asked)
                if last:
                    with span("hkdbench:communication"):
                        check_alike(place, io, stage, asked)
                loss = torch.stack([term.sum() for term in terms.values()]).sum() / train.batch_size
                if not torch.isfinite(loss):
                    bad = ", ".join(f"{r}.{t}" for (r, t), v in terms.items() if not torch.isfinite(v).all())
                    raise place.error(
                        f"the loss is not finite ({bad or 'sum'}); lower train.lr or the method's weights"
                    )
                start = time.perf_counter()
                with span("hkdbench:backward"):
                    (loss * io.world).backward()  # DDP averages over the ranks; the loss is already a global mean
                bill_backward(learners, time.perf_counter() - start)
            for key, term in terms.items():
                value = term.detach().sum()
                sums[key] = sums[key] + value if key in sums else value

    def _log(self, stage: str, step: int, steps: int, sums: dict[tuple[str, str], Tensor], count: int) -> None:
        keys = sorted(sums)
        with span("hkdbench:communication"):
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
        start, found = time.perf_counter(), {}
        for name, role in learners.items():
            role.scorer.eval()
            right = torch.zeros(2, dtype=torch.float64)
            batches = self._validation_batches(role.encoder)
            if role.cut:  # a rank with fewer batches than another takes part in its passes all the same
                most = max(self.io.gather(len(batches)))
                for _ in range(most - len(batches)):
                    score(role.scorer, batches[0][1], self.io.device)
            for examples, batch in batches:
                chosen = score(role.scorer, batch, self.io.device).argmax(-1)
                gold = torch.tensor([example.gold for example in examples])
                right += torch.tensor([(chosen == gold).sum(), len(gold)], dtype=torch.float64)
            role.scorer.train()
            hits, count = self.io.sum(right).tolist()
            self._note(stage, step, steps, name, "validation/accuracy", hits / count)
            role.keep_if_best(hits / count)
            found[name] = hits / count
        self.seconds["validation"] += time.perf_counter() - start
        self.io.report({"stage": stage, "step": step, "steps": steps, "validation": found})

    def _validation_batches(self, encoder: models.Encoder) -> list[tuple[list[Example], models.Batch]]:
        """This rank's part of the validation examples, encoded once."""
        key = encoder.fingerprint, encoder.fingerprint in self.sharing
        if key not in self._validation:
            config, io = self.plan.config, self.io
            examples = self.plan.training.splits["validation"][: config.train.validation_examples]
            size = config.evaluate.batch_size
            if encoder.fingerprint in self.sharing:
                chunks = [[examples[i] for i in part] for part in batches_of(examples, size, io.rank, io.world)]
            else:
                mine = examples[io.rank :: io.world]
                chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
            self._validation[key] = [(chunk, self._encoded(encoder, chunk)) for chunk in chunks]
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
                self.outputs[key] = role.outcome()
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
                mix=vocabulary.mix(plan, planned, self.encoders),
            )
        )
        self._save(index + 1, 0, {}, {})

    def _save(self, stage: int, step: int, learners: Mapping[str, LiveRole], roles: Mapping[str, LiveRole]) -> None:
        bill = self._bill(roles)
        # Weights that are cut over the ranks are put together by all of them.
        saved = {name: role.save() for name, role in learners.items() if role.cut or self.io.rank == 0}
        if self.io.rank == 0:
            tensors: State = {"rng": torch.get_rng_state()}
            for name, part in saved.items():
                tensors |= under(f"role/{name}", part)
            for key, output in self.outputs.items():
                tensors |= under(f"output/{key}", output)
            tensors |= under("answers", self.answers)
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
                "preflight": self.preflight.model_dump() if self.preflight else None,
            }
            folder = checkpoint.save(self.work, stage, step, Checkpoint(tensors, state))
            if self.kept:
                self.kept(folder)
        self.io.gather(None)  # no rank runs ahead of the state that is written

    def _bill(self, roles: Mapping[str, LiveRole]) -> dict[str, RoleCost]:
        """What the roles have cost so far on all ranks together."""
        ranks = self.io.gather({name: role.cost for name, role in roles.items()})
        return {name: total([rank[name] for rank in ranks]) for name in roles}


def _lr_factor(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` of the steps, then half a cosine to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def shown(plan: Plan, at: int, example: Example) -> Example:
    """The training example at position `at` as the method wants it shown."""
    seed, train = plan.config.seed, plan.training.splits["train"]
    rng = random.Random(f"swap/{seed}/{at}")
    if rng.random() < plan.method.swap_rate() and (gold := plan.training.benchmark.swap_gold(example)) is not None:
        other = next((e for e in rng.choices(train, k=16) if e.group != example.group), None)
        example = replace(example, image=other.image, gold=gold) if other else example
    return plan.method.augment(example, random.Random(f"augment/{seed}/{at}"))


def second_view(plan: Plan, positions: Sequence[int], examples: Sequence[Example]) -> list[Example]:
    """The examples at these positions, as shown, once more in another form."""
    return [
        plan.method.second_view(example, random.Random(f"second/{plan.config.seed}/{at}"))
        for at, example in zip(positions, examples, strict=True)
    ]


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
