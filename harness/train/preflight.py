"""Checks on a few examples before the first step, so that a run that would fail stops within seconds.

Each model in use is loaded once, separately, and tried (`harness.train.model_probe`). The method's losses are then
computed from the stored answers, stage by stage, without a model in memory. They must be finite, not zero, and have
a finite gradient.

Nothing of this is billed, and it doesn't affect the run: no random number is drawn from the run's generators.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from harness.api import Example, From, Need, Source, View
from harness.data import opening, order
from harness.errors import ConfigError, StepLocation
from harness.models import encoding, loading
from harness.models.distributed import ProcessGroup
from harness.models.scorer import Outputs
from harness.models.sequences import ReadTokens, padded
from harness.planning import memory
from harness.planning.plan import Plan
from harness.planning.stages import PlannedStage, rung_of
from harness.planning.tuning import trainer_of
from harness.record import Preflight, RungCheck
from harness.train.batches import MicroBatch
from harness.train.model_probe import Rung
from harness.train.step import StepView, initial, sums_of, updated
from harness.train.views import as_is, second_view, shown

EXAMPLES = 8
"""The largest number of examples that are tried, besides the one with the longest prompt (a micro-batch if smaller)."""

Answers = dict[tuple[str, View], Outputs]
"""The rungs' outputs for the examples, by rung and view. Also `read`, if a method needs responses: the logits (n, V) of
the first tokens of a response to each example."""


@dataclass(frozen=True)
class _Sample:
    """The examples that are tried."""

    positions: Sequence[int]
    first: Sequence[Example]
    second: Sequence[Example] | None
    """None: nothing is trained."""
    longest: Example
    image_groups: Sequence[Example]
    """Questions of which several share an image; empty: sharing is off."""
    unusual: Sequence[Example]
    """Those with the widest, tallest, largest and smallest image."""


def check(plan: Plan, encoders: Mapping[str, encoding.Encoder], ranks: ProcessGroup) -> Preflight:
    """Try every rung and every stage. Raises `ModelError`, `ConfigError` or `TrainingError` that says what to change.

    Each rank does the same on its own, with the same result.
    """
    clock = time.perf_counter()
    needed, room = memory.most_held(plan), memory.free(ranks.device)
    if needed > room:
        raise ConfigError(
            f"the run needs {needed / 2**30:.1f} GiB for weights and optimizers alone, but {ranks.device} has "
            f"{room / 2**30:.1f} GiB free; use smaller rungs, adapters (train.lora = {{rank = 16}}), fewer workers per "
            "machine, or a method with fewer models at once (`hkdbench plan` says what each needs)"
        )
    if plan.config.evaluate.thinking_tokens:
        encoders[plan.config.student].thinking()  # raises for a model that can't
    sample, warnings = _sample(plan), list(plan.warnings)
    rungs: dict[str, RungCheck] = {}
    answers: Answers = {}
    said: dict[str, list[list[int]]] = {}
    losses: dict[str, float] = {}
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        widths = {}
        for name in plan.infos:
            encoder = encoders[name]
            _check_options(encoder, plan, sample, warnings)
            tried = Rung(name, plan, encoder, ranks.device)
            rungs[name] = tried.check(sample.longest, sample.first)
            warnings += [note] if (note := encoder.tiling(rungs[name].image_tokens[1])) else []
            tried.check_images(sample.unusual)
            if sample.image_groups:
                alone = tried.why_alone(sample.image_groups)
                rungs[name] = rungs[name].model_copy(update={"shares_image": not alone})
                warnings += [alone] if alone else []
            widths[name] = loading.hidden_size(tried.vlm.config)
            needs = _needs(plan, name)
            outputs = needs - {"responses"}
            answers[name, "first"] = tried.answers(sample.first, outputs)
            if sample.second is not None:
                answers[name, "second"] = tried.answers(sample.second, outputs)
            if "responses" in needs:
                said[name], answers[name, "first"]["read"] = tried.responses(sample.first)
            del tried  # before the next one is loaded
        for planned in plan.stages:
            losses |= _rehearse(plan, planned, sample, answers, said, encoders, widths, ranks.device)
    return Preflight(
        examples=len(sample.first) + 1,
        seconds=time.perf_counter() - clock,
        rungs=rungs,
        losses=losses,
        memory_bytes=needed,
        memory_free=room,
        warnings=list(dict.fromkeys(warnings)),
    )


def _sample(plan: Plan) -> _Sample:
    """The first examples of training (or of scoring, if nothing is trained), and the longest one."""
    scored = [example for split in plan.dataset.splits.values() for example in split]
    learned = plan.training_examples.of("all") if plan.stages else []
    unusual = opening.extremes([*scored, *learned])
    longest = max(scored, key=lambda e: len(e.question) + len(e.context) + len(e.claim) + sum(map(len, e.options)))
    if not plan.stages:
        return _Sample([], scored[:EXAMPLES], None, longest, [], unusual)
    c = plan.config.train
    size = min(EXAMPLES, c.batch_size, c.micro_batch_size or c.batch_size)
    train = plan.training_examples.labelled
    batch = plan.training_examples.batch_at(
        "labels", plan.config.seed, 0, size, c.labelled_share, c.questions_per_image
    )
    positions = [at for at, _ in batch]
    first = [shown(plan, at, example).example for at, example in batch]
    other = second_view(plan, positions, first)
    several = [group for group in order.by_image(train) if len(group) > 1] if c.shares and size > 1 else []
    image_groups = [train[i] for group in several[:2] for i in group[: max(size // 2, 2)]][:size]
    return _Sample(positions, first, other, longest, image_groups, unusual)


def _needs(plan: Plan, rung: str) -> frozenset[Need]:
    """The outputs of the rung that the stages need besides the options."""
    wanted: frozenset[Need] = frozenset()
    for planned in plan.stages:
        if any(rung_of(plan.stages, planned.stage, role) == rung for role in planned.stage.roles):
            wanted |= trainer_of(plan.method, planned.stage).needs(planned.stage.name)
    return wanted


def _check_options(encoder: encoding.Encoder, plan: Plan, sample: _Sample, warnings: list[str]) -> None:
    """Every letter in use must have its own tokens. Options whose texts give the same tokens cause a warning."""
    splits = [*plan.dataset.splits.values(), *plan.training.splits.values()]
    encoder.check_letters(max(len(example.options) for split in splits for example in split))
    for example in (*sample.first, sample.longest):
        seen: dict[tuple[int, ...], str] = {}
        for option in example.options:
            tokens = tuple(encoder.processor.tokenizer.encode(option, add_special_tokens=False))
            if tokens in seen:
                warnings.append(
                    f"model {encoder.name!r}: its tokenizer makes the same tokens from the options {seen[tokens]!r} "
                    f"and {option!r} of example {example.id!r}"
                )
            seen[tokens] = option


# -------------------------------------------------------------------------------------------- losses


def withholds(source: Source, index: int) -> bool:
    """Whether a stage that learns from `source` would see the sample's example number `index` without its gold."""
    return source == "pool" or (source == "all" and index % 2 == 1)


@dataclass(frozen=True)
class _StoredAnswers:
    """A role whose rung has already answered; has the same interface as `harness.train.step.RoleOutputs`."""

    adapter: nn.Module | None
    by_view: Mapping[View, Outputs]
    encoder: encoding.Encoder
    said: Sequence[list[int]]
    """The tokens of a response to each example whose logits are stored."""

    def outputs(self, batch: MicroBatch, view: View, needs: Collection[Need]) -> Outputs:
        answers = self.by_view.get(view, self.by_view["first"])
        return {what: tensor.clone() for what, tensor in answers.items()}

    def respond(
        self, batch: MicroBatch, temperature: float, top_p: float, max_tokens: int, rows: Sequence[int]
    ) -> list[list[int]]:  # fmt: skip
        return [tokens[:max_tokens] if row in rows else [] for row, tokens in enumerate(self.said)]

    def read(self, batch: MicroBatch, tokens: Sequence[Sequence[int]]) -> ReadTokens:
        """A response of any length has the logits of the stored one, again and again."""
        logits_nv = self.by_view["first"]["read"]
        starts = itertools.accumulate((len(row) for row in self.said), initial=0)
        of_tokens = [
            start + at % len(stored)
            for start, stored, given in zip(starts, self.said, tokens, strict=False)
            for at in range(len(given))
        ]
        ids_bt, mask_bt = padded(tokens, batch.device)
        return ReadTokens(
            logits_nv[torch.tensor(of_tokens, dtype=torch.int64, device=batch.device)], lambda states_nv: states_nv,
            self.encoder.real, ids_bt, mask_bt, self.encoder.tokens, logits_nv.shape[1],
        )  # fmt: skip

    def adapt(self, inputs: Tensor) -> Tensor:
        assert self.adapter is not None
        outputs: Tensor = self.adapter(inputs)
        return outputs


def _rehearse(
    plan: Plan, planned: PlannedStage, sample: _Sample, answers: Answers, said: Mapping[str, list[list[int]]],
    encoders: Mapping[str, encoding.Encoder], widths: Mapping[str, int], device: torch.device,
) -> dict[str, float]:  # fmt: skip
    """The stage's loss terms on the stored answers of its rungs, by `stage.role.term`. Raises `TrainingError`."""
    stage, method = planned.stage, trainer_of(plan.method, planned.stage)
    location, needs = StepLocation(method.name, stage.name, 0), method.needs(stage.name)
    rung = {role: rung_of(plan.stages, stage, role) for role in stage.roles}
    adapters = method.adapters(stage.name, {role: widths[rung[role]] for role in stage.roles})
    modules = {role: adapter.to(device) for role, adapter in adapters.items()}
    learners = [name for name, role in stage.roles.items() if role.trainable]
    seen = [e.withheld() if withholds(stage.data, i) else e for i, e in enumerate(sample.first)]
    state = initial(method, stage.name, device)
    means: dict[str, float] = {}
    silent = set(learners)
    for progress in (0.0, 0.5):  # a term may start at zero and grow
        leaves: Answers = {
            (role, view): {
                what: tensor.clone().requires_grad_(role in learners) for what, tensor in answers[name, view].items()
            }
            for role, name in rung.items()
            for view in get_args(View)
            if (name, view) in answers
        }
        models = {
            role: _StoredAnswers(
                adapter=modules.get(role),
                by_view={v: out for (name, v), out in leaves.items() if name == role},
                encoder=encoders[rung[role]],
                said=said.get(rung[role], ()),
            )
            for role in stage.roles
        }
        batch = MicroBatch([as_is(e) for e in seen], lambda: seen, device, seeds=[e.id for e in seen])
        step = StepView(location, stage, progress, batch, models, needs, state)
        terms = step.terms(method.loss(step), learners)
        if step.refers and not any(example.response for example in plan.training_examples.labelled):
            raise ConfigError(
                f"method {method.name!r} learns from reference responses, and no training example of "
                f"{plan.training.benchmark.name!r} has one (Example.response); choose another benchmark or method"
            )
        if state:
            updated(location, method, state, [sums_of(step)], len(sample.first))
        for (role, term), value_b in terms.items():
            if not torch.isfinite(value_b).all():
                raise location.error(
                    f"preflight: loss term {role}.{term} is not finite on the first examples (progress {progress:g}); "
                    "lower the method's weights or temperature, or check the models"
                )
            if value_b.any():
                silent.discard(role)
            means.setdefault(f"{stage.name}.{role}.{term}", float(value_b.detach().mean()))
        torch.stack([value_b.sum() for value_b in terms.values()]).sum().backward()
        for (role, _), outputs in leaves.items():
            if any(t.grad is not None and not torch.isfinite(t.grad).all() for t in outputs.values()):
                raise location.error(
                    "a gradient is not finite though the loss is; lower train.lr or the method's weights "
                    f"(preflight, role {role!r})"
                )
        if not silent:
            return means
    if any(isinstance(role.weights, From) for role in stage.roles.values()):
        return means  # a tuned copy of the student answers here as the student does: they differ once it is tuned
    raise location.error(
        f"preflight: the loss of {', '.join(sorted(silent))} is zero on the first examples, so there is nothing to "
        "learn; expected a term above 0: is the teacher the student itself, or is a weight 0?"
    )
