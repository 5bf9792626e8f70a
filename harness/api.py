"""The contract between the harness and its plugins: benchmarks and methods.

A benchmark yields `Example`s. A method defines its `Stage`s and computes the loss of a `Step`. Both are small frozen
dataclasses whose fields are their settings. All else (devices, batches, optimizers, checkpoints, evaluation, cost)
belongs to the harness. This module doesn't import torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from harness.benchmark import (
    LATER,
    Answer,
    Benchmark,
    Example,
    Figures,
    ImageSource,
    Scorer,
    Split,
    csv_rows,
    read_text,
)
from harness.errors import ConfigError, DataError, near
from harness.images.reading import encoded as image_bytes
from harness.images.reading import read as read_image

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "LATER",
    "Answer",
    "Augmentation",
    "Benchmark",
    "ConfigError",
    "DataError",
    "Example",
    "Figures",
    "From",
    "ImageSource",
    "Ladder",
    "Method",
    "Need",
    "Responses",
    "Role",
    "Scorer",
    "Shifts",
    "Source",
    "Split",
    "Stage",
    "Step",
    "TokenScores",
    "View",
    "csv_rows",
    "image_bytes",
    "near",
    "read_image",
    "read_text",
]

Source = Literal["labels", "pool", "all"]
"""What a stage learns from: training examples with a gold, those without, or both mixed."""
Augmentation = Literal["paraphrase", "resize", "degrade", "truncate_context"]
"""See harness.data.augmentation."""
Shifts = Literal["none", "cyclic", "all", "random"]
"""Option orders in which a question is scored: the given one, all rotations, all permutations, or some of these."""


@dataclass(frozen=True, slots=True)
class From:
    """The weights of `role` at the end of the earlier stage `stage` (the best ones on validation)."""

    stage: str
    role: str


@dataclass(frozen=True, slots=True)
class Role:
    """A model in a stage: its weights (a rung's name, or `From`), and whether it learns.

    With `average_of` = the name of a trainable role of the same rung in this stage, the role doesn't learn but follows
    it, as an exponential moving average: after each optimizer step theta' <- decay theta' + (1 - decay) theta, starting
    from `weights` (arXiv 1703.01780). 0 <= decay < 1. It is validated like a learner, and its best weights are handed
    on: `From` may name it, and so may `Method.student`.
    """

    weights: str | From
    trainable: bool = False
    average_of: str | None = None
    decay: float = 0.99

    @property
    def changes(self) -> bool:
        """Whether its weights change in the stage."""
        return self.trainable or self.average_of is not None


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: its roles, its share of the student budget, and what it learns from.

    `share` is the fraction of the run's `train.examples` that this stage uses. A run's student budget is
    the sum over the stages in which the student, or the model that its weights come from, learns, and must be 1.
    Stages that only prepare a teacher (their `share` has the same unit) are billed, but not part of that sum.
    With `data` = all, a batch has `train.labelled_share` examples with a gold, and the others come from the pool.
    A stage with `tuning` is trained by the harness: cross-entropy on the labels for each of its roles, without asking
    `Method.loss`, so that all methods can share its result (`train.cache`). Stages with different `seed`s see different
    orders of examples. In the stages of the student's budget it is 0: all methods' students see one order.
    """

    name: str
    roles: Mapping[str, Role]
    share: float
    data: Source = "labels"
    seed: int = 0
    tuning: bool = False


Need = Literal["hidden", "layers", "vision", "vocab", "responses"]
"""What a step can give besides the option logits; see `Step`."""

View = Literal["first", "second"]
"""first: the batch after augmentation. second: the same examples passed through `Method.second_view`."""


@dataclass(frozen=True, slots=True)
class Responses:
    """B responses of up to T tokens, int64 (B, T), by the tokenizer of `role`; `mask_bt` says which tokens exist.

    The token that ends a response is one of them, if the response ended. A row without tokens is no response.
    """

    role: str
    ids_bt: Tensor
    mask_bt: Tensor

    def where(self, own_b: Tensor, other: Responses) -> Responses:
        """Its rows where `own_b` bool (B,) is True, elsewhere those of `other`, which are of the same tokenizer."""
        own_b1, shape = own_b[:, None], (len(own_b), max(self.ids_bt.shape[1], other.ids_bt.shape[1]))
        wide = [one.new_zeros(shape) for one in (self.ids_bt, self.mask_bt, other.ids_bt, other.mask_bt)]
        for tensor, one in zip(wide, (self.ids_bt, self.mask_bt, other.ids_bt, other.mask_bt), strict=True):
            tensor[:, : one.shape[1]] = one
        return Responses(self.role, wide[0].where(own_b1, wide[2]), wide[1].where(own_b1, wide[3]))


class TokenScores(Protocol):
    """What a role makes of B responses of up to T tokens. All values are 0 where there is no token: `x_bt.sum(1)`."""

    @property
    def mask_bt(self) -> Tensor:
        """bool (B, T): which tokens exist."""
        ...

    @property
    def log_p_bt(self) -> Tensor:
        """The log-probability (B, T) of each token given the question and the tokens before it, in nats."""
        ...

    def compare(self, other: TokenScores, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`distance(own_nv, other_nv)` (n,) at each token (B, T), from both roles' logits of the V tokens there.

        It is called for some n tokens at a time, and again in the backward pass, so that logits (B, T, V) never exist
        at once. It treats each token alone. Both roles must have read the same responses, by the same token ids; a
        method that calls it also declares `vocab`.
        """
        ...


class Step(Protocol):
    """What a method sees of one training step: B examples, K options (the largest number in the batch).

    `labels_b` int64 (B,), -1 for an example without a gold. `progress` runs from 0 to 1 within the stage. If an
    example has fewer than K options, the missing ones have a logit of -1e4: probability 0, and a finite log.

    A role's forward pass runs when it is first needed, once per view; later calls use the same pass. All
    returned tensors are float32 and must not be changed in place. Every rank must make the same calls.
    """

    @property
    def stage(self) -> str: ...
    @property
    def roles(self) -> Mapping[str, Role]:
        """The stage's roles, as `Method.stages` gave them."""
        ...

    @property
    def progress(self) -> float: ...
    @property
    def examples(self) -> Sequence[Example]: ...
    @property
    def labels_b(self) -> Tensor: ...
    @property
    def labelled_b(self) -> Tensor:
        """bool (B,): which examples have a gold. A loss on labels takes only these."""
        ...

    @property
    def options_bk(self) -> Tensor:
        """bool (B, K): which options exist."""
        ...

    @property
    def draws_b(self) -> Tensor:
        """float64 (B,): a random number from 0 to 1 for each example, seeded like the samples of `respond`."""
        ...

    def forward(self, role: str, view: View = "first") -> Tensor:
        """Option logits (B, K) at the answer position; without gradient for a frozen role.

        A frozen role that gives nothing but option logits is asked with the options in the benchmark's order, and its
        logits are moved to the letters that the example has in this step: so it answers an example only once.
        A second call with the same role and view returns the same tensor and is not billed again.
        """
        ...

    def hidden(self, role: str, view: View = "first") -> Tensor:
        """The input of the output layer at the answer position (B, d). `Method.needs` must declare `hidden`."""
        ...

    def layers(self, role: str, view: View = "first") -> Tensor:
        """The states after each of the N layers of the language model at the answer position (B, N, d).

        The last one is `hidden`: the final norm belongs to the last layer. Must be declared: `layers`.
        """
        ...

    def vision(self, role: str, view: View = "first") -> Tensor:
        """The N visual tokens as the language model receives them (B, N, d). Must be declared: `vision`."""
        ...

    def vocab(self, role: str, view: View = "first") -> Tensor:
        """Logits of all V tokens of the tokenizer at the answer position (B, V). Must be declared: `vocab`.

        A stage whose method declares it is refused unless its models use the same token ids.
        """
        ...

    def references(self, role: str) -> Responses:
        """The examples' reference responses by the role's tokenizer; no tokens where there is none. See `sequence`.

        Nothing is forwarded. Like `respond` and `sequence`, it must be declared: `responses`.
        """
        ...

    def respond(
        self, role: str, *, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int = 64,
        only_b: Tensor | None = None,
    ) -> Responses:  # fmt: skip
        """Responses that the role samples when it is asked to answer in a sentence, without gradient.

        At temperature 0 the most probable token is taken. `top_p`: only the most probable tokens whose probabilities
        add up to it. `only_b` bool (B,): only these examples are asked. The random numbers depend on the run's seed,
        the stage, the role and the example's position in the training order. Generated tokens are billed.
        """
        ...

    def sequence(self, role: str, responses: Responses) -> TokenScores:
        """The responses as the role reads them behind the question; with gradient for a learner.

        One forward pass, billed with its tokens. A role with another tokenizer reads their text. A second call with the
        same responses returns the same.
        """
        ...

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The stage's state, as `Method.state` or the last `Method.update` returned it; read only."""
        ...

    def observe(self, name: str, values: Tensor) -> None:
        """Add up `values` (B, ...), one row per example, for `Method.update`, which gets the sum over the global batch.

        Once per name and call of `loss`. Rows must have the same shape in every micro-batch; gradients aren't kept.
        """
        ...

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        """`inputs` passed through the role's module from `Method.adapters`, which learns with the role."""
        ...


Ladder = Sequence[str]
"""Rung names, largest first."""


@dataclass(frozen=True)
class Method:
    """A way to train (and query) a student. Subclass it as a frozen dataclass of settings.

    Stages are data: the harness checks them, estimates their cost and resumes them. Override `stages` and `loss`,
    and the other functions if the method needs them; they have defaults.
    """

    name: ClassVar[str]
    """What `--method` and tables call it."""
    summary: ClassVar[str]
    """One line for lists."""
    source: ClassVar[str] = ""
    """Where it is from, like an arXiv number."""
    student: ClassVar[str] = "student"
    """The role that is evaluated at the end."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Further names of the method, each with the settings that it stands for."""
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Variants that show the contribution of the method's parts: a name, and the settings that differ."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """The stages for this ladder and this student rung. If there are none, the rung is scored untrained.

        Raises `ConfigError` if the ladder has no suitable rung.
        """
        raise NotImplementedError

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """The named loss terms of each trainable role, each (B,), one number per example. They are added up."""
        raise NotImplementedError

    def needs(self, stage: str) -> frozenset[Need]:
        """What `loss` needs from a step of this stage besides option logits. Default: nothing."""
        return frozenset()

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        """For each learner that needs one, a module that learns with it in this stage; used by `Step.adapt`.

        `widths` are the sizes d of the roles' hidden states and visual tokens. The modules are initialized from the
        run's seed, billed with the role, and dropped at the end of the stage. Default: none.
        """
        return {}

    def couples(self, stage: str) -> bool:
        """Whether an example's loss depends on the other examples of its batch (like arXiv 2205.10536's relations).

        Such a batch can't be divided: micro-batches and several workers are refused. Default: False, as usual.
        """
        return False

    def state(self, stage: str) -> Mapping[str, Tensor]:
        """Tensors that live as long as the stage, by name: their initial values. `Step.state` has the current ones.

        They are the same on every worker and saved in checkpoints. A method with state overrides `update`, too.
        Default: none.
        """
        return {}

    def update(
        self, stage: str, state: Mapping[str, Tensor], sums: Mapping[str, Tensor], count: int
    ) -> Mapping[str, Tensor]:
        """The state after an optimizer step: all tensors of `state`, with their names and shapes.

        `sums` has, by name, the float32 sum over the rows that `Step.observe` was given for the `count` examples of the
        global batch, over all micro-batches and workers. It must depend on nothing else. Default: unchanged.
        """
        return state

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The training example as it is used in this step (the same for every role). Default: unchanged.

        The harness then applies its own augmentations and shuffles the options (`train.augmentations`,
        `train.shuffle_options`).
        """
        return example

    def augmentations(self) -> tuple[Augmentation, ...]:
        """The harness's augmentations that belong to the method; `train.augmentations` overrules it. Default: none."""
        return ()

    def second_view(self, example: Example, rng: random.Random) -> Example:
        """A variant of the example with the same options at the same letters: the `second` view.

        A method that doesn't override this gets the harness's augmentations `paraphrase`, `resize` and `degrade`.
        """
        return example

    def shifts(self) -> Shifts:
        """Shifted inference that is part of the method; `evaluate.shifts` overrules it. Default: none."""
        return "none"

    def views(self, example: Example) -> Sequence[Example]:
        """The variants of the example that the student answers at test time. Default: itself.

        It has no gold, category, source and extra. Asked again, it must return the same: nothing may be learned here.
        """
        return (example,)

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One score per option (K,) from the V views' log-probabilities (V, K), in each view's own option order.

        The option with the largest score is the answer. It must depend on the views' scores, and for equal ones be the
        same whenever it is asked; a run that breaks this is refused. Default: the scores of the first view.
        """
        scores: np.ndarray = scores_vk[0]
        return scores
