"""A step with fixed outputs, for tests of the losses of methods."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.api import Example, Method, Role, Stage
from harness.planning.tuning import trainer_of
from methods.losses import divergence

LADDER = ("L", "M", "S")
LOGITS = {
    "L": [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    "M": [[1.0, 0.5, 0.0], [0.3, 0.0, 2.0]],
    "student": [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]],
    "teacher": [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
    "anchor": [[0.5, 0.0, 0.0], [0.0, 0.0, 1.0]],
}
LOGITS |= {"learner": LOGITS["student"], "average": LOGITS["anchor"], "teacher_M_1": LOGITS["M"]}
LOGITS |= {f"teacher_L_{n}": [[z / n for z in row] for row in LOGITS["L"]] for n in (1, 2, 3)}
LABELS = torch.tensor([0, 2])
OPTIONS = torch.tensor([[True, True, True], [True, True, True]])
WIDTHS = {"L": 6, "M": 5, "student": 3, "teacher": 6, "anchor": 3}
WIDTHS |= {role: 6 if role.startswith("teacher") else 3 for role in LOGITS if role not in WIDTHS}
LAYERS = {"L": 6, "M": 4, "student": 2, "teacher": 6, "anchor": 2}


@dataclass
class FakeStep:
    """A step of two examples with fixed outputs; it counts the passes that were asked for."""

    stage_spec: Stage
    progress: float = 0.5
    needs: frozenset[str] = frozenset()
    adapters: Mapping[str, torch.nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.roles: Mapping[str, Role] = self.stage_spec.roles
        self.stage = self.stage_spec.name
        self.examples: Sequence[Example] = ()
        self.labels_b, self.options_bk = LABELS, OPTIONS
        self.given: dict[tuple[str, str, str], Tensor] = {}
        self.asked: set[tuple[str, str]] = set()

    @property
    def labelled_b(self) -> Tensor:
        return self.labels_b >= 0

    def _give(self, what: str, role: str, view: str, value: Tensor) -> Tensor:
        assert what == "options" or what in self.needs
        self.asked.add((role, view))
        return self.given.setdefault((role, view, what), value.requires_grad_(self.roles[role].trainable))

    def _random(self, what: str, role: str, view: str, *shape: int) -> Tensor:
        seed = zlib.crc32(f"{what} {role} {view}".encode())
        return self._give(what, role, view, torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, role: str, view: str = "first") -> Tensor:
        shift = 0.0 if view == "first" else 0.3
        return self._give("options", role, view, torch.tensor(LOGITS[role]) + torch.tensor([shift, 0.0, 0.0]))

    def hidden(self, role: str, view: str = "first") -> Tensor:
        return self._random("hidden", role, view, WIDTHS[role])

    def layers(self, role: str, view: str = "first") -> Tensor:
        return self._random("layers", role, view, LAYERS[role], WIDTHS[role])

    def vision(self, role: str, view: str = "first") -> Tensor:
        return self._random("vision", role, view, 16 if role == "student" else 7, WIDTHS[role])

    def vocab(self, role: str, view: str = "first") -> Tensor:
        return self._random("vocab", role, view, 9)

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        output: Tensor = self.adapters[role](inputs)
        return output


def fake(method: Method, stage: Stage, progress: float = 0.5) -> FakeStep:
    torch.manual_seed(0)
    method = trainer_of(method, stage)
    widths = {role: WIDTHS[role] for role in stage.roles}
    step = FakeStep(stage, progress, method.needs(stage.name), method.adapters(stage.name, widths))
    step.labels_b = torch.tensor({"labels": LABELS.tolist(), "all": [int(LABELS[0]), -1], "pool": [-1, -1]}[stage.data])
    return step


def stages(method: Method, ladder: Sequence[str] = LADDER, student: str = "S") -> dict[str, Stage]:
    return {stage.name: stage for stage in method.stages(ladder, student)}


def terms(method: Method, stage: str, progress: float = 0.5) -> dict[str, dict[str, Tensor]]:
    """The loss terms of the stage, after a check that each is one number an example for a learner."""
    spec = stages(method)[stage]
    step = fake(method, spec, progress)
    loss = trainer_of(method, spec).loss(step)
    assert set(loss) == {name for name, role in step.roles.items() if role.trainable}
    for named in loss.values():
        for term in named.values():
            assert term.shape == (2,)
            assert term.isfinite().all()
    return {role: dict(named) for role, named in loss.items()}


def d(teacher: str | Tensor, student: str, temperature: float = 2.0) -> Tensor:
    target = teacher if isinstance(teacher, Tensor) else torch.tensor(LOGITS[teacher])
    return divergence("forward_kl", target, torch.tensor(LOGITS[student]), LABELS, OPTIONS, temperature=temperature)


def learners(stage: Stage) -> list[str]:
    return [name for name, role in stage.roles.items() if role.trainable]
