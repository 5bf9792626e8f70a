"""Whether the FLOPs of a record are those of its plan.

Every training example is shown again as training showed it, and its prompt is counted as `harness.train.role` bills it:
2 FLOPs per parameter and token, forward. Models aren't loaded, their tokenizers are (and torch). How often a stage asks
a model about an example, once or in two views, follows from its losses, which aren't computed here: the FLOPs must fit
the number of forwards that is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.api import Example, Method
from harness.errors import ModelError, first_line
from harness.models import ladders
from harness.planning.plan import Plan, for_stage
from harness.planning.stages import PlannedStage, rung_of
from harness.planning.tuning import outputs_needed
from harness.record import Record, RoleCost
from harness.submission.bill import VIEWS

if TYPE_CHECKING:
    from harness.models.encoding import Encoder

ROUNDING = 1e-9
"""FLOPs are sums of many numbers, in the order of the batches."""
SIZES = ((64, 64), (33, 70), (640, 480), (300, 1200))
"""Sizes of pictures: if a processor makes equally many tokens of all, the pictures needn't be opened."""


def plan_flops(r: Record, plan: Plan) -> Iterator[tuple[str, bool]]:
    """FLOPs that aren't the plan's, and whether that is sure; else why they can't be computed."""
    from harness.models.encoding import load_encoders  # torch is loaded for runs that have a plan only

    try:
        encoders = load_encoders({name: plan.rungs[name] for name in plan.infos}) if plan.stages else {}
    except ModelError as error:
        yield f"FLOPs: the models' tokenizers can't be loaded: {first_line(error)}", False
        return
    counters = {name: _Counter(plan, name, encoder) for name, encoder in encoders.items()}
    for planned, stage in zip(plan.stages, r.stages, strict=True):
        if not stage.taken_over:
            shown = _ShownStage(for_stage(plan, planned.stage), planned)
            for name in planned.stage.roles:
                counter = counters[rung_of(plan.stages, planned.stage, name)]
                cost = r.cost.roles[f"{stage.name}.{name}"]
                if cost.generated > cost.wrote == 0 or cost.scored > cost.read == 0:
                    yield "FLOPs: an older record doesn't say how many responses were written and read", False
                elif counter.per_image is None:
                    yield "FLOPs: the models' tokens depend on the size of each picture", False
                elif (given := _expected(shown, name, counter, cost)) is not None:
                    yield f"{stage.name}.{name} was billed {cost.flops:.9g} FLOPs, the plan gives {given}", True


def _expected(shown: _ShownStage, name: str, counter: _Counter, cost: RoleCost) -> str | None:
    """The FLOPs that a role's forwards should have been billed; None if they were."""
    plan, role = shown.plan, shown.planned.stage.roles[name]
    stage, train = shown.planned.stage, plan.config.train
    passes = ladders.training_passes(train.lora_of(counter.rung) is not None) if role.trainable else 1
    as_asked = shown.first if role.changes or outputs_needed(plan.method, stage) else shown.plain
    own = counter.flops(as_asked)
    responses = _of_responses(shown, counter, cost, passes)
    billed, letters = (cost.flops - responses[0]) / passes, cost.forwards - cost.read
    if cost.recalled or cost.shared or letters not in (len(own), VIEWS * len(own)):
        spread = own + counter.flops(shown.second()) if letters else [0.0]
        low, high = (letters * bound(spread) for bound in (min, max))
    else:
        other = counter.flops(shown.second()) if letters > len(own) else []
        low = high = math.fsum(own) + math.fsum(other)
        if not other and not math.isclose(billed, low, rel_tol=ROUNDING):  # asked in the second view only
            second = math.fsum(counter.flops(shown.second()))
            low, high = (second, second) if math.isclose(billed, second, rel_tol=ROUNDING) else (low, high)
    if train.shares:  # the questions about a picture may share it
        low /= train.questions_per_image
    if type(plan.method).adapters is not Method.adapters:  # the method's own modules, of any size below the model's
        high *= 2
    low, high = passes * low + responses[0], passes * high + responses[1]
    if low * (1 - ROUNDING) <= cost.flops <= high * (1 + ROUNDING):
        return None
    return f"{low:.9g}" + (f" to {high:.9g}" if low != high else "")


def _of_responses(shown: _ShownStage, counter: _Counter, cost: RoleCost, passes: int) -> tuple[float, float]:
    """The least and the most FLOPs of the responses that a role wrote and read, by their recorded number and tokens.

    A step reads a response to each of its examples, but it may write some only.
    """
    if not (cost.wrote or cost.read):
        return 0.0, 0.0
    asked = sorted(counter.flops([example.explained() for example in shown.first]))
    token = ladders.forward_flops(counter.info, 1, 0)
    read = passes * (cost.read / len(asked) * math.fsum(asked) + cost.scored * token)
    if cost.wrote > len(asked):
        low, high = cost.wrote * asked[0], cost.wrote * asked[-1]
    else:
        low, high = math.fsum(asked[: cost.wrote]), math.fsum(asked[len(asked) - cost.wrote :])
    written = cost.generated * token
    return read + written + low, read + written + high


class _ShownStage:
    """The examples of a stage as its steps show them, in order."""

    def __init__(self, plan: Plan, planned: PlannedStage) -> None:
        from harness.train.views import shown

        self.plan, self.planned = plan, planned
        size = plan.config.train.batch_size
        steps = range(planned.position, planned.position + planned.steps * size, size)
        batches = [pair for at in steps for pair in plan.batch_at(planned.stage, at, size)]
        self.positions = [at for at, _ in batches]
        made = [shown(plan, at, example) for at, example in batches]
        self.first, self.plain = [one.example for one in made], [one.plain for one in made]
        self._second: list[Example] | None = None

    def second(self) -> list[Example]:
        """The second view of each, made when it is needed."""
        from harness.train.views import second_view

        if self._second is None:
            self._second = second_view(self.plan, self.positions, self.first)
        return self._second


class _Counter:
    """The FLOPs of a rung's forward pass of an example, from its prompt."""

    def __init__(self, plan: Plan, rung: str, encoder: Encoder) -> None:
        from harness.models.loading import load_config

        self.rung, self.encoder, self.info = rung, encoder, plan.infos[rung]
        self.lengths: dict[tuple[str, int], int] = {}
        """The tokens of prompts, by their text and their number of images."""
        sample = next(example for examples in plan.training.splits.values() for example in examples)
        found = {_image_tokens(encoder, load_config(plan.rungs[rung]), sample, size) for size in SIZES}
        self.per_image = found.pop() if len(found) == 1 else None
        """Tokens that the processor adds to those of the prompt, and patches; None: they differ between pictures."""

    def flops(self, examples: Sequence[Example]) -> list[float]:
        assert self.per_image is not None
        prompts = [(example.prompt(), len(example.images)) for example in examples]
        new = {prompt: e for prompt, e in zip(prompts, examples, strict=True) if prompt not in self.lengths}
        found = self.encoder.prompts(list(new.values())) if new else []
        self.lengths |= {prompt: len(ids) for prompt, ids in zip(new, found, strict=True)}
        more, patches = self.per_image
        return [
            ladders.forward_flops(self.info, self.lengths[prompt] + prompt[1] * more, prompt[1] * patches)
            for prompt in prompts
        ]


def _image_tokens(encoder: Encoder, config: Any, sample: Example, size: tuple[int, int]) -> tuple[float, float]:
    from PIL import Image

    from harness.models.scorer import token_counts

    example = replace(sample, image=lambda: Image.new("RGB", size), more_images=())
    tokens, patches = token_counts(config, encoder([example]))
    return tokens - len(encoder.prompts([example])[0]), patches
