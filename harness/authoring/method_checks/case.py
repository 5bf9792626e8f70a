"""What the checks share: the method on a tiny benchmark and the tiny ladder, its loaded roles, and a monitored step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness import registry
from harness.api import Example, Method
from harness.config import RunConfig, TrainConfig
from harness.errors import StepLocation, TrainingError
from harness.models import encoding, loading
from harness.models.distributed import SingleProcess
from harness.planning import plan, stages
from harness.planning.plan import Plan, for_stage
from harness.planning.stages import PlannedStage
from harness.train import loop
from harness.train.batches import MicroBatch, response_seed
from harness.train.learner import Learner
from harness.train.role import RoleModel
from harness.train.step import StepView, Terms, initial
from harness.train.views import as_is, checked_second_view

BENCHMARK = "harness.authoring.method_checks.toy_benchmark"
BATCH = 5
"""Odd: two workers have 3 and 2 examples per step."""

PROGRESS = (0.0, 0.5, 0.99)


class Broken(AssertionError):
    """A violation of the contract by a method, and what to change."""


@dataclass
class Case:
    """A method under test: its name and settings, and the files or modules that define it.

    It is trained on the tiny ladder, with a full budget of 4 steps of 5 examples; half of the training examples are a
    pool without golds. What several checks need is computed once. An unknown name or invalid settings raise
    `ConfigError`.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    student: str = "S"

    @cached_property
    def plan(self) -> Plan:
        return self.planned()

    @property
    def method(self) -> Method:
        return self.plan.method

    def config(self, settings: Mapping[str, Any] | None = None) -> RunConfig:
        return RunConfig(
            method=self.name,
            settings=dict(self.settings if settings is None else settings),
            benchmark="contract_pictures",
            student=self.student,
            train=TrainConfig(examples=20, labels=0.5, batch_size=BATCH, validations=2, validation_examples=6),
            plugins=(BENCHMARK, *self.plugins),
        )

    def planned(self, settings: Mapping[str, Any] | None = None) -> Plan:
        """A plan with a new instance of the method, which shares no state with other instances."""
        return plan.make(self.config(settings))

    @cached_property
    def examples(self) -> list[Example]:
        """Two examples of each shape."""
        return self.plan.dataset.splits["train"][:8]

    @cached_property
    def live(self) -> list[LiveStage]:
        """Every stage with its models, slightly perturbed so that no two are equal, as after some training."""
        encoders = encoding.load_encoders({name: self.plan.rungs[name] for name in self.plan.infos})
        return [LiveStage(self.plan, planned, encoders) for planned in self.plan.stages]

    @cached_property
    def straight(self) -> loop.Trained:
        """The run from start to end, without interruption."""
        with TemporaryDirectory() as folder:
            return loop.train(self.planned(), SingleProcess(), Path(folder))


def method_class(case: Case) -> type[Method]:
    """The class of the method. Raises `ConfigError` if it can't be loaded."""
    for plugin in (BENCHMARK, *case.plugins):
        registry.load_plugin(plugin)
    return type(registry.make_method(case.name, case.settings))


class LiveStage:
    """A stage of the plan with its models loaded, ready for single steps."""

    def __init__(self, planned: Plan, stage: PlannedStage, encoders: Mapping[str, encoding.Encoder]) -> None:
        planned = for_stage(planned, stage.stage)
        self.plan, self.stage = planned, stage.stage
        self.roles: dict[str, RoleModel] = {}
        self.ran: dict[str, int] = {}
        for name, role in self.stage.roles.items():
            rung = stages.rung_of(planned.stages, self.stage, name)
            live = RoleModel(name, rung, planned, SingleProcess(), encoders[rung], None, role)
            _nudge(live.scorer, f"{self.stage.name}.{name}")
            live.scorer.register_forward_pre_hook(self._counter(name))
            self.roles[name] = live
        widths = {name: loading.hidden_size(role.scorer.vlm.config) for name, role in self.roles.items()}
        adapters = planned.method.adapters(self.stage.name, widths)
        self.learners = {
            name: Learner(role, adapters.get(name), planned, SingleProcess())
            for name, role in self.roles.items()
            if role.trainable
        }

    def _counter(self, name: str) -> Any:
        def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            self.ran[name] = self.ran.get(name, 0) + len(inputs[0]["input_ids"])

        return count

    @property
    def where(self) -> str:
        return f"stage {self.stage.name!r}"

    @property
    def location(self) -> StepLocation:
        return StepLocation(self.plan.method.name, self.stage.name, 0)

    def _withholds(self, example: Example) -> bool:
        """Whether the stage sees the example without its gold; with `data` = all, half of them."""
        return self.stage.data == "pool" or (self.stage.data == "all" and sum(example.id.encode()) % 2 == 1)

    def step(
        self, examples: Sequence[Example], progress: float = 0.5, state: Mapping[str, torch.Tensor] | None = None
    ) -> Tried:
        """One call of `loss` on these examples, by default with the initial state; without golds that are withheld.

        Raises `Broken` for everything that the train loop would refuse.
        """
        self.ran = {}
        examples = [e.withheld() if self._withholds(e) else e for e in examples]
        before = {name: role.cost.forwards for name, role in self.roles.items()}
        # The second view's random numbers depend only on the example, not on its batch.
        positions = [random.Random(example.id).randrange(2**31) for example in examples]
        needs, location = self.plan.method.needs(self.stage.name), self.location
        if state is None:
            state = initial(self.plan.method, self.stage.name, torch.device("cpu"))
        second = partial(checked_second_view, self.plan, location, positions, examples)
        seeds = [response_seed(self.plan, self.stage, at) for at in positions]
        batch = MicroBatch([as_is(e) for e in examples], second, torch.device("cpu"), seeds=seeds)
        micro = StepView(location, self.stage, progress, batch, self.roles, needs, state)
        try:
            terms = micro.terms(self.plan.method.loss(micro), self.learners)
        except TrainingError as error:
            raise Broken(str(error)) from None
        billed = {name: role.cost.forwards - before[name] for name, role in self.roles.items()}
        return Tried(micro, terms, billed, dict(self.ran))


@dataclass(frozen=True)
class Tried:
    """One step: its loss terms, and by role the number of billed examples and of examples really passed through it."""

    micro: StepView
    terms: Terms
    billed: Mapping[str, int]
    ran: Mapping[str, int]


@torch.no_grad()
def _nudge(scorer: torch.nn.Module, key: str) -> None:
    generator = torch.Generator().manual_seed(random.Random(key).getrandbits(63))
    for parameter in scorer.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.mul_(1 + 0.05 * noise)
