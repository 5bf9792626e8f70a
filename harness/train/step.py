"""One step of training as a method sees it (`harness.api.Step`), and the checks of the contract."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, get_args

import torch
from torch import Tensor, nn

from harness.api import Method, Need, Responses, Stage, TokenScores, View
from harness.errors import StepLocation
from harness.models.distributed import ProcessGroup
from harness.models.encoding import Encoder
from harness.models.scorer import Outputs
from harness.models.sequences import padded
from harness.train.batches import MicroBatch

if TYPE_CHECKING:
    from harness.models.sequences import ReadTokens

MOST_READ = 8
"""How many sets of responses a role can read in a step."""

ForwardPasses = frozenset[tuple[str, str]]
"""What the roles did in a step: role, and a view, `responds`, or `reads` with the number of its set of responses."""
Terms = dict[tuple[str, str], Tensor]
"""Loss terms (B,) by role and name."""


class RoleOutputs(Protocol):
    """What a step needs from a role: a model, or its stored answers."""

    @property
    def adapter(self) -> nn.Module | None:
        """The method's own module on top of it."""
        ...

    def outputs(self, batch: MicroBatch, view: View, needs: Collection[Need]) -> Outputs:
        """Its outputs for a micro-batch."""
        ...

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer."""
        ...

    def respond(
        self, batch: MicroBatch, temperature: float, top_p: float, max_tokens: int, rows: Sequence[int]
    ) -> list[list[int]]:  # fmt: skip
        """The tokens of its responses to some rows; none for the others."""
        ...

    def read(self, batch: MicroBatch, tokens: Sequence[Sequence[int]]) -> ReadTokens:
        """The responses as it reads them."""
        ...

    def adapt(self, inputs: Tensor) -> Tensor:
        """The inputs passed through its adapter."""
        ...


class StepView:
    """The `harness.api.Step` of one micro-batch."""

    def __init__(self, location: StepLocation, stage: Stage, progress: float, batch: MicroBatch,
                 roles: Mapping[str, RoleOutputs], needs: frozenset[Need],
                 state: Mapping[str, Tensor] = MappingProxyType({})) -> None:  # fmt: skip
        self.stage, self.roles, self.progress, self.examples = stage.name, stage.roles, progress, batch.examples
        self._location, self._batch, self._models, self._needs = location, batch, roles, needs
        self._outputs: dict[tuple[str, View], Outputs] = {}
        self._given: list[tuple[str, Tensor, int]] = []
        self._responses: dict[tuple[Any, ...], Responses] = {}
        self._read: dict[str, list[tuple[Responses, ReadTokens]]] = {}
        self.state = MappingProxyType({n: self._give(f"state {n!r}", tensor) for n, tensor in state.items()})
        self.observed: dict[str, Tensor] = {}
        """The observed rows (B, ...) by name."""
        golds = [-1 if example.gold is None else example.gold for example in batch.examples]
        self.labels_b = self._give("labels_b", torch.tensor(golds, device=batch.device))

    @cached_property
    def labelled_b(self) -> Tensor:
        return self._give("labelled_b", self.labels_b >= 0)

    @cached_property
    def options_bk(self) -> Tensor:
        device = self._batch.device
        sizes = torch.tensor([len(example.options) for example in self.examples], device=device)
        return self._give("options_bk", torch.arange(int(sizes.max()), device=device) < sizes[:, None])

    @cached_property
    def draws_b(self) -> Tensor:
        draws = [random.Random(f"draws/{seed}").random() for seed in self._batch.seeds]
        return self._give("draws_b", torch.tensor(draws, dtype=torch.float64, device=self._batch.device))

    def forward(self, role: str, view: View = "first") -> Tensor:
        return self._forwarded(role, view)["options"]

    def hidden(self, role: str, view: View = "first") -> Tensor:
        return self._declared("hidden", role, view)

    def layers(self, role: str, view: View = "first") -> Tensor:
        return self._declared("layers", role, view)

    def vision(self, role: str, view: View = "first") -> Tensor:
        return self._declared("vision", role, view)

    def vocab(self, role: str, view: View = "first") -> Tensor:
        return self._declared("vocab", role, view)

    def references(self, role: str) -> Responses:
        self._check_responses("references", role)
        encoder = self._role(role).encoder
        texts = [example.response for example in self.examples]
        return self._kept((role,), lambda: [[] if text is None else encoder.response(text) for text in texts])

    def respond(
        self, role: str, *, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int = 64,
        only_b: Tensor | None = None,
    ) -> Responses:  # fmt: skip
        self._check_responses("respond", role)
        if not (temperature >= 0 and 0 < top_p <= 1 and max_tokens >= 1):
            raise self._location.error(
                f"step.respond({role!r}, temperature={temperature}, top_p={top_p}, max_tokens={max_tokens}); expected "
                "temperature 0 or more, top_p above 0 up to 1, and 1 token or more"
            )
        asked = range(len(self.examples)) if only_b is None else only_b.nonzero()[:, 0].tolist()
        key = role, temperature, top_p, max_tokens, tuple(asked)
        model = self._role(role)
        return self._kept(key, lambda: model.respond(self._batch, temperature, top_p, max_tokens, asked))

    def sequence(self, role: str, responses: Responses) -> TokenScores:
        self._check_responses("sequence", role)
        model, read = self._role(role), self._read.setdefault(role, [])
        for known, found in read:
            if known is responses:
                return found
        if len(read) == MOST_READ:
            raise self._location.error(f"step.sequence({role!r}) of more than {MOST_READ} sets of responses; use fewer")
        tokens = [ids[there].tolist() for ids, there in zip(responses.ids_bt, responses.mask_bt, strict=True)]
        encoder = self._role(responses.role).encoder
        if model.encoder.tokens != encoder.tokens:
            tokens = [model.encoder.response(encoder.said(ids)) if ids else [] for ids in tokens]
        found = model.read(self._batch, tokens)
        read.append((responses, found))
        return found

    def _check_responses(self, door: str, role: str) -> None:
        if "responses" not in self._needs:
            raise self._location.error(
                f"step.{door}({role!r}) is not declared; add 'responses' to the result of needs()"
            )

    def _kept(self, key: tuple[Any, ...], make: Callable[[], list[list[int]]]) -> Responses:
        if key not in self._responses:
            self._responses[key] = Responses(key[0], *padded(make(), self._batch.device))
        return self._responses[key]

    def observe(self, name: str, values: Tensor) -> None:
        if not self.state:
            raise self._location.error(f"step.observe({name!r}) in a stage without state; give its values in state()")
        if name in self.observed:
            raise self._location.error(f"step.observe({name!r}) a second time in one loss(); give both another name")
        if not isinstance(values, Tensor) or values.shape[:1] != self.labels_b.shape:
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise self._location.error(
                f"step.observe({name!r}) of {shape}; expected ({len(self.labels_b)}, ...), one row per example (the "
                "harness takes the sum)"
            )
        self.observed[name] = values.detach()

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        model = self._role(role)
        if model.adapter is None:
            raise self._location.error(f"role {role!r} has no adapter; give it a module in adapters()")
        return model.adapt(inputs)

    def _declared(self, need: Need, role: str, view: View) -> Tensor:
        if need not in self._needs:
            raise self._location.error(f"step.{need}({role!r}) is not declared; add {need!r} to the result of needs()")
        return self._forwarded(role, view)[need]

    def _role(self, role: str) -> RoleOutputs:
        if role not in self._models:
            raise self._location.error(f"no role {role!r} in this stage; it has {', '.join(self._models)}")
        return self._models[role]

    def _forwarded(self, role: str, view: View) -> Outputs:
        if (role, view) not in self._outputs:
            outputs = self._role(role).outputs(self._batch, view, self._needs - {"responses"})
            self._outputs[role, view] = {
                what: self._give(f"the {what} of role {role!r}", tensor) for what, tensor in outputs.items()
            }
        return self._outputs[role, view]

    # --------------------------------------------------------------------------------------- contract

    @property
    def forward_passes(self) -> ForwardPasses:
        """The forward passes so far."""
        wrote = {(key[0], "responds") for key in self._responses if len(key) > 1}
        read = {(role, f"reads {n}") for role, sets in self._read.items() for n in range(len(sets))}
        return frozenset({*self._outputs, *wrote, *read})

    @property
    def refers(self) -> bool:
        """Whether reference responses were asked for."""
        return any(len(key) == 1 for key in self._responses)

    def terms(self, losses: Any, learners: Collection[str]) -> Terms:
        """The result of `Method.loss`, by (role, term). A `TrainingError` says what it should have returned."""
        self._check_unchanged()
        if not isinstance(losses, Mapping) or set(losses) != set(learners):
            got = sorted(losses) if isinstance(losses, Mapping) else type(losses).__name__
            raise self._location.error(
                f"loss() returned {got}; expected one entry for each trainable role: {sorted(learners)}"
            )
        terms: Terms = {}
        for role, named in losses.items():
            if not isinstance(named, Mapping) or not named:
                raise self._location.error(
                    f"the loss of role {role!r} is {type(named).__name__}; expected named terms, "
                    "like {'ce': tensor of one number per example}"
                )
            for name, term in named.items():
                if not isinstance(term, Tensor) or term.shape != self.labels_b.shape:
                    shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
                    raise self._location.error(
                        f"loss term {role}.{name} is {shape}; expected ({len(self.labels_b)},), one number per "
                        "example (the harness takes the mean)"
                    )
                terms[role, name] = term
            if not any(term.requires_grad for term in named.values()):
                raise self._location.error(
                    f"the loss of role {role!r} has no gradient; compute it from step.forward({role!r}) or "
                    f"step.sequence({role!r}, ...)"
                )
        return terms

    def _give(self, name: str, tensor: Tensor) -> Tensor:
        self._given.append((name, tensor, tensor._version))
        return tensor

    def _check_unchanged(self) -> None:
        """Torch counts in-place changes of a tensor, also through its views."""
        if changed := [name for name, tensor, version in self._given if tensor._version != version]:
            raise self._location.error(f"loss() changed {', '.join(changed)} in place; change a copy (tensor.clone())")


def check_same_forwards(
    location: StepLocation, ranks: ProcessGroup, stage: Stage, by_batch: Sequence[ForwardPasses]
) -> None:
    """Raise if micro-batches or ranks made different forward passes: the ranks would wait for each other forever.

    `by_batch` has the passes of each of this rank's micro-batches. All ranks must call this at the same time.
    """
    if len(set(by_batch)) > 1:
        text = " and ".join(sorted({_text(passes) for passes in by_batch}))
        raise location.error(f"loss() forwarded {text} in one step; forward the same roles for every micro-batch")
    if ranks.world == 1:
        return
    ways = [*get_args(View), "responds", *(f"reads {n}" for n in range(MOST_READ))]
    possible = [(role, way) for role in stage.roles for way in ways]
    made = torch.tensor([float(one in by_batch[-1]) for one in possible], device=ranks.device)
    counts = ranks.sum(made).tolist()
    if some := [one for one, count in zip(possible, counts, strict=True) if 0 < count < ranks.world]:
        raise location.error(
            f"loss() forwarded {_text(some)} on some workers only; forward the same roles on every one"
        )


Sums = dict[str, Tensor]


def sums_of(step: StepView) -> Sums:
    """The sums over the observed rows of a micro-batch, in float64 on the CPU: the batch's division changes no digit
    that float32 has."""
    return {name: rows_b.double().sum(0).cpu() for name, rows_b in step.observed.items()}


def updated(
    location: StepLocation, method: Method, state: Mapping[str, Tensor], by_batch: Sequence[Sums], count: int
) -> dict[str, Tensor]:
    """The stage's state after a step, from the sums of all micro-batches of all ranks. Raises `TrainingError`."""
    shapes = {name: tuple(sums.shape) for name, sums in by_batch[0].items()}
    for sums in by_batch:
        if (found := {name: tuple(one.shape) for name, one in sums.items()}) != shapes:
            raise location.error(
                f"loss() observed rows of {shapes} and of {found} in one step; observe the same names with the same "
                "shapes for every micro-batch"
            )
    device = next(iter(state.values())).device
    totals = {name: torch.stack([sums[name] for sums in by_batch]).sum(0).float().to(device) for name in shapes}
    if bad := [name for name, total in totals.items() if not total.isfinite().all()]:
        raise location.error(f"step.observe({bad[0]!r}) was given a value that is not finite; mask missing options")
    with torch.no_grad():
        found_state = method.update(location.stage, state, totals, count)
    got = {n: tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for n, t in found_state.items()}
    if got != (expected := {name: tuple(tensor.shape) for name, tensor in state.items()}):
        raise location.error(f"update() returned {got}; expected the names and shapes of state(): {expected}")
    return {name: found_state[name].to(tensor, copy=True) for name, tensor in state.items()}


def initial(method: Method, stage: str, device: torch.device) -> dict[str, Tensor]:
    """The stage's state before its first step."""
    return {name: tensor.detach().to(device, copy=True) for name, tensor in method.state(stage).items()}


def _text(passes: Iterable[tuple[str, str]]) -> str:
    said = {"first": "", "second": " (second view)"}
    return ", ".join(sorted(role + said.get(way, f" ({way})") for role, way in passes)) or "no role"
