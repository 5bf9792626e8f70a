"""The contract between the harness and what plugs into it: benchmarks and methods.

A benchmark yields `Example`s; a method lays out `Stage`s and gives the loss of a `Step`. Both are small
frozen dataclasses whose fields are their settings. Everything else (devices, batches, optimizers,
checkpoints, evaluation, billing) belongs to the harness. This module imports no torch.
"""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.errors import ConfigError, DataError, near

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Answer",
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
    "Role",
    "Scorer",
    "Split",
    "Stage",
    "Step",
    "View",
    "near",
]

Split = Literal["train", "validation", "test", "ood"]
ImageSource = Path | bytes | Callable[[], Image.Image]
"""A file, encoded bytes, or a picklable callable that draws the image when asked.

A callable that reads a file says so with an attribute `path`: it is then looked for beforehand."""


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Example:
    """One question with options about one image.

    `id` is unique in its split. `group` names the image, or the set of images that belong together: the
    unit of clustered statistics. `claim` is the caption or claim under judgement, `context` a text that
    comes with it (empty: none). `gold` indexes `options`. `extra` holds what only the benchmark's own
    protocols read.
    """

    id: str
    group: str
    image: ImageSource
    question: str
    claim: str
    options: tuple[str, ...]
    gold: int
    category: str
    source: str
    context: str = ""
    extra: Mapping[str, Any] | None = None
    claim_label: str = "Claim"
    """What the prompt calls `claim`."""
    judged: InitVar[str | None] = None
    """Deprecated: the former name of `claim_label`."""

    def __post_init__(self, judged: str | None) -> None:
        if judged is not None:
            warnings.warn("Example(judged=...) is now Example(claim_label=...)", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "claim_label", judged)

    def prompt(self) -> str:
        """The text beside the image that every model is asked with: question, context, claim, options."""
        lines = [self.question]
        if self.context:
            lines.append(f"Context: {self.context}")
        if self.claim:
            lines.append(f"{self.claim_label}: {self.claim}")
        lines += [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False)]
        return "\n".join([*lines, "Answer with the letter."])

    def load_image(self) -> Image.Image:
        """The image as RGB. Raises `DataError`, naming the example, when it is missing or broken."""
        try:
            if isinstance(self.image, Path):
                with Image.open(self.image) as file:
                    return file.convert("RGB")
            if isinstance(self.image, bytes):
                return Image.open(io.BytesIO(self.image)).convert("RGB")
            return self.image().convert("RGB")
        except FileNotFoundError:
            raise DataError(f"example {self.id!r}: image {self._where()} does not exist") from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"example {self.id!r}: image {self._where()} can't be read: {error}") from None

    def _where(self) -> str:
        return str(self.image) if isinstance(self.image, Path) else "in memory"

    def reordered(self, order: Sequence[int]) -> Example:
        """The same question with option `order[k]` at letter k."""
        return replace(self, options=tuple(self.options[k] for k in order), gold=tuple(order).index(self.gold))


@dataclass(frozen=True, slots=True)
class Answer:
    """A scored example as a protocol sees it: what was asked, what was right, what was answered.

    `text` is the answer as it was given: the chosen option's text where options were scored, the raw text
    where a model wrote freely. `chosen` indexes `options`; -1: the text could not be read as one of them.
    """

    id: str
    group: str
    category: str
    options: tuple[str, ...]
    gold: int
    chosen: int
    text: str
    extra: Mapping[str, Any] | None = None


Figures = Mapping[str, float | None]
"""What a protocol computes, by name. None: undefined for these answers, as its original leaves it."""
Scorer = Callable[[Sequence[Answer]], Figures]
"""A scoring protocol. Its docstring says where its original is, what it does, and when it has no figure."""


@dataclass(frozen=True)
class Benchmark:
    """A task with its data. Subclass it as a frozen dataclass: the fields are the benchmark's settings.

    `revision` changes whenever the examples or their scoring would: it is part of every run's identity.
    `data_dir` is the folder of the published files (None for a generated benchmark).
    """

    data_dir: Path | None = None

    name: ClassVar[str]
    task: ClassVar[Literal["hallucination", "factuality"]]
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    revision: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str] = ""
    obtain: ClassVar[str] = ""
    """How to get the published files, and how they must lie in `data_dir`."""
    positive: ClassVar[str] = ""
    """The option that precision, recall and F1 of the protocols are about (empty: none)."""
    published: ClassVar[Mapping[str, int]] = {}
    """Sizes of the published splits, where the data aren't at hand to be counted."""
    needs_data_dir: ClassVar[bool] = False
    unanswered: ClassVar[Mapping[str, Literal["left out", "wrong"]]] = {}
    """Protocols that score a part of the answers, and what becomes of the rest. The others need all."""

    def load(self, split: Split) -> Iterable[Example]:
        """The examples of a split in a fixed order; images stay unread. Raises `DataError`."""
        raise NotImplementedError

    def protocols(self) -> Mapping[str, Scorer]:
        """Named scoring protocols beside the harness's own metrics: each gives figures by name."""
        return {}

    def asked(self, protocol: str, example: Example) -> bool:
        """Whether the protocol's original asks this example at all; an answer to another one isn't needed."""
        return True

    def names(self, example: Example) -> Sequence[str]:
        """The names under which a file of predictions may answer the example. One may stand for several."""
        return (example.id,)


# ------------------------------------------------------------------------------------------- methods


@dataclass(frozen=True, slots=True)
class From:
    """Weights of `role` as the earlier stage `stage` left them (its best by validation)."""

    stage: str
    role: str


@dataclass(frozen=True, slots=True)
class Role:
    """A model in a stage: where its weights come from (a rung's name, or `From`), and whether it learns."""

    weights: str | From
    trainable: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: who takes part, and for how much of the student budget.

    `share` is the part of the run's `train.examples` that this stage spends. A run's student budget is
    the sum over the stages in which the student role (`Method.student`) learns, and must be 1; stages
    that only ready a teacher (`share` counted in the same unit) are billed but not part of that sum.
    """

    name: str
    roles: Mapping[str, Role]
    share: float


Need = Literal["hidden", "vision", "vocab"]
"""What a forward pass can give beside the option logits; see `Step`."""

View = Literal["first", "second"]
"""The batch as `Method.augment` gave it, or its examples once more through `Method.second_view`."""


class Step(Protocol):
    """What a method sees of one training step. B examples, K options (the widest of the batch).

    `labels_b` int64 (B,). `progress` runs from 0 to 1 within the stage. Absent options of an example
    that has fewer than K carry a logit of -1e4: their probability is 0 and their log finite.

    A role is forwarded when it is first asked for, once a view; what is asked after that comes from the same
    pass. Everything given is float32, and not to be changed in place. Each rank must ask for the same.
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
    def options_bk(self) -> Tensor:
        """bool (B, K): which options exist."""
        ...

    def forward(self, role: str, view: View = "first") -> Tensor:
        """Option logits (B, K) at the answer position; without gradient for a frozen role.

        A second call for the same role and view returns the same tensor and is not billed again.
        """
        ...

    def hidden(self, role: str, view: View = "first") -> Tensor:
        """What the output layer reads at the answer position (B, d). `Method.needs` must declare `hidden`."""
        ...

    def vision(self, role: str, view: View = "first") -> Tensor:
        """The N visual tokens as the language model receives them (B, N, d). Must be declared: `vision`."""
        ...

    def vocab(self, role: str, view: View = "first") -> Tensor:
        """Logits of all V tokens of the tokenizer at the answer position (B, V). Must be declared: `vocab`.

        A stage whose method declares it is refused unless its models number their tokens alike.
        """
        ...

    def adapt(self, role: str, inputs: Tensor) -> Tensor:
        """`inputs` through the role's module of `Method.adapters`, which learns with the role."""
        ...


Ladder = Sequence[str]
"""Rung names, largest first."""


@dataclass(frozen=True)
class Method:
    """A way to train (and question) a student. Subclass it as a frozen dataclass of settings.

    Stages are data: the harness checks, prices and resumes them. Override `stages` and `loss`, and, if
    the method needs them, the others, which have defaults.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = ""
    student: ClassVar[str] = "student"
    """The role that is evaluated at the end."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Further names under which the method is offered, each with the settings that it stands for."""
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Variants that show what the method's parts are worth: a name, and the settings that differ."""

    def stages(self, ladder: Ladder, student: str) -> Sequence[Stage]:
        """The stages for this ladder and this student rung. None at all: the rung is scored untrained.

        Raises `ConfigError` when the ladder has no fitting rung.
        """
        raise NotImplementedError

    def loss(self, step: Step) -> Mapping[str, Mapping[str, Tensor]]:
        """For each trainable role its named loss terms, each (B,), one number an example, to be summed."""
        raise NotImplementedError

    def needs(self, stage: str) -> frozenset[Need]:
        """What `loss` asks a step of this stage beside option logits. Default: nothing."""
        return frozenset()

    def stage_settings(self, stage: str) -> Collection[str] | None:
        """The settings that training in this stage depends on, for a stage that only readies a teacher.

        The harness trains such a stage with all other settings at their defaults, so that runs which differ in
        those alone can share its outcome (`train.cache`). Default: None, it depends on all of them.
        """
        return None

    def adapters(self, stage: str, widths: Mapping[str, int]) -> Mapping[str, nn.Module]:
        """For each learner that needs one a module that learns with it in this stage, for `Step.adapt`.

        `widths` are the sizes d of the roles' hidden states and visual tokens. The weights start from the
        run's seed, are billed with the role, and end with the stage. Default: none.
        """
        return {}

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The training example as this step shows it (every role sees the same). Default: unchanged."""
        return example

    def second_view(self, example: Example, rng: random.Random) -> Example:
        """What `augment` gave, in another form with the same options at the same letters: the `second` view."""
        return example

    def views(self, example: Example) -> Sequence[Example]:
        """The forms in which the student is asked at test time. Default: as it stands, once."""
        return (example,)

    def fuse(self, example: Example, scores_vk: np.ndarray) -> np.ndarray:
        """One score an option (K,) from the V views' log-probabilities (V, K), in each view's own order.

        The largest score is the answer. Default: the first view's.
        """
        scores: np.ndarray = scores_vk[0]
        return scores
