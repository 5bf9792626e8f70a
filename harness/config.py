"""The settings of a run: typed, checked, read from TOML and `--set a.b=c`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.api import Augmentation, Role, Shifts
from harness.errors import ConfigError, explain
from harness.images.reading import MAX_PIXELS
from harness.paths import absolute, expanded

T = TypeVar("T", bound="Settings")

Storage = Literal["fp32", "bf16", "nf4"]
"""How weights that don't learn are stored: float32, bfloat16 or four bits (see harness.models.quantization)."""

Moved = Literal["content", "all"]
"""Which options may change their letter. content: not verdicts (True, False, ...), whose order is a convention, and not
a leading "No hallucination"."""

Fusion = Literal["prob", "logprob", "vote"]
"""How the scores of several shifts become one: mean probability | mean log-probability | votes over the shifts."""
Debias = Literal["none", "prior", "calibrate"]
"""With several shifts, divide by each letter's mean over them (arXiv 2309.03882) | by its probability for an input
without content, one more forward pass (2102.09690)."""

Label = Annotated[str, Field(max_length=80, pattern=r"^(\S( ?\S)*)?$")]
"""A name on one line, with single spaces."""

Rate = Annotated[float, Field(gt=0, le=10)]
"""A learning rate."""

Folder = Annotated[Path, AfterValidator(absolute)]
"""A folder as an absolute path, because a run's workers have another working directory."""


def data_folder(value: str | Path) -> Path | str:
    """Where published files lie: an address like s3://bucket/prefix as text, a folder (also file:///...) as a path."""
    scheme, address, place = str(value).partition("://")
    if address and scheme != "file":
        return str(value).rstrip("/")
    return absolute(unquote(place) if address else value)


DataFolder = Annotated[Path | str, AfterValidator(data_folder)]
"""A folder of published files, or its address in a bucket or on a hub, see `harness.images.remote`."""


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSettings(Settings):
    """Low-rank adapters in a learner. The learner's own weights are then frozen (see harness.models.lora)."""

    rank: int = Field(16, ge=1, le=65536, description="Rank of the adapters' matrices.")
    alpha: float = Field(32.0, gt=0, le=1e6)
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1, description="In front of the adapters, in training.")
    targets: tuple[str, ...] = ("all",)
    """The layers that get an adapter, by the last part of their names (like q_proj). all: every linear layer except the
    output layer."""
    weights: Storage = "fp32"
    """How the learner's own weights are stored. nf4: QLoRA (arXiv 2305.14314)."""


BY_RUNG = ("lr", "precision", "lora")
"""The training settings that a rung may have a value of its own for: `lr_by_rung` and so on."""


class TrainConfig(Settings):
    """How every method is trained: the same for all methods that are compared."""

    examples: int = Field(4096, ge=1, le=10**9)
    """The student budget: examples (with repeats) that the student learns from, over all its stages. It is rounded up
    to whole steps of `batch_size`, for all methods alike."""
    batch_size: int = Field(32, ge=1, le=65536)
    """Examples per optimizer step, over all workers."""
    micro_batch_size: int = Field(0, ge=0, le=65536)
    """Examples per forward pass of one worker. 0: the worker's full share of the batch."""
    questions_per_image: int = Field(1, ge=1, le=1000)
    """The number of questions about one image that are adjacent in the training order. It changes which examples share
    a batch: between runs with different values the order of the examples differs too, not only the method."""
    share_prefix: bool = True
    """With `questions_per_image` above 1, the questions of a forward pass share their image and the common beginning of
    their prompts, where the model allows that (see harness.models.shared_prefix). Losses and gradients are the same up
    to rounding. Off: each question is passed separately."""
    labels: int | float | None = None
    """So many training examples (or this fraction of them, up to 1.0) keep their gold: drawn by group from the run's
    seed, the first of them the same for every number. The others join the pool. None: all keep it."""
    labelled_share: float = Field(0.25, gt=0, lt=1)
    """The fraction of examples with a gold in the batches of a stage that learns from labels and pool."""
    shuffle_options: Moved | Literal["none"] = "content"
    """Options in random order in each step: only content (see harness.data.options), all, or none."""
    augmentations: Literal["method"] | tuple[Augmentation, ...] = "method"
    """Augmentations of the training examples (see harness.data.augmentation). method: what the method declares."""
    lr: Rate = 5e-4
    """Peak learning rate (AdamW, linear warm-up, cosine to 0 in each stage)."""
    lr_by_rung: dict[str, Rate] = {}
    """Peak learning rate of single rungs, if it differs from `lr`."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Fraction of a stage's steps in which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's; at each step a weight loses lr x this share.")
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16 (autocast); weights, losses and optimizer in float32. Useful where the hardware
    supports it."""
    precision_by_rung: dict[str, Literal["fp32", "bf16"]] = {}
    """Precision of single rungs, if it differs from `precision`."""
    lora: LoraSettings | None = None
    """Learners train low-rank adapters instead of all their weights: for a rung that doesn't fit in memory in full."""
    lora_by_rung: dict[str, LoraSettings] = {}
    """Adapters of single rungs, if they differ from `lora`."""
    frozen_weights: Storage = "fp32"
    """How models that don't learn in a stage are stored. bf16 takes half the memory, nf4 a seventh."""
    gradient_checkpointing: bool = False
    """Learners store only the input of each layer and compute the rest again in the backward pass: less memory, a third
    more compute."""
    cache: Literal["auto", "off"] = "off"
    """auto: a frozen model answers an example only once if the example is unchanged in each step. The runs of a store
    share these answers, and the stages that only prepare a teacher (see harness.train.teacher_cache)."""
    clip: float = Field(1.0, gt=0, le=1e9)
    """Largest gradient norm of a role; larger gradients are clipped."""
    validations: int = Field(4, ge=1, le=10_000)
    """Validations per stage, evenly spaced. Each one writes a checkpoint; the best weights are used in the end."""
    validation_examples: int = Field(300, ge=1, le=10**9)
    """The largest number of validation examples that are scored during training."""

    @property
    def shares(self) -> bool:
        """Whether questions about one image share its forward pass in training."""
        return self.share_prefix and self.questions_per_image > 1

    def lr_of(self, rung: str) -> float:
        """The peak learning rate of a rung."""
        return self.lr_by_rung.get(rung, self.lr)

    def precision_of(self, rung: str) -> str:
        """The precision that a rung computes in."""
        return self.precision_by_rung.get(rung, self.precision)

    def lora_of(self, rung: str) -> LoraSettings | None:
        """The adapters of a rung that learns; None: it trains all its weights."""
        return self.lora_by_rung.get(rung, self.lora)

    def storage_of(self, rung: str, role: Role) -> Storage:
        """How a rung's own weights are stored in a role."""
        if not role.changes:
            return self.frozen_weights
        lora = self.lora_of(rung)
        return lora.weights if lora and role.trainable else "fp32"

    @field_validator("labels", mode="before")
    @classmethod
    def _some_labels(cls, labels: Any) -> Any:
        known = labels is None or (type(labels) is int and labels >= 1) or (type(labels) is float and 0 < labels <= 1)
        if known:
            return labels
        raise ValueError("expected a number of examples from 1, or a fraction above 0 and up to 1.0")

    @model_validator(mode="after")
    def _computes_as_it_keeps(self) -> TrainConfig:
        kept = [lora.weights for lora in (self.lora, *self.lora_by_rung.values()) if lora]
        if "bf16" in (self.frozen_weights, *kept) and "fp32" in (self.precision, *self.precision_by_rung.values()):
            raise ValueError("weights stored in bf16 need precision = 'bf16'")
        return self


WRITING = frozenset({"answer", "instruction", "max_tokens", "thinking_tokens", "samples", "temperature"})
"""The settings of `evaluate` that only matter where the student writes its answer."""


class EvaluateConfig(Settings):
    """How the trained student is scored."""

    splits: tuple[Literal["train", "validation", "test", "ood"], ...] = ("validation", "test", "ood")
    """The splits that are scored at the end, if the benchmark has them."""
    batch_size: int = Field(64, ge=1, le=65536, description="Questions per forward pass.")
    shifts: Literal["method"] | Shifts = "method"
    """Shifted inference: score each question with its options at several letters, and average by option. method: what
    the method declares; cyclic: all rotations; all: all permutations; random: `random_shifts` of these; none."""
    random_shifts: int = Field(2, ge=1, le=720, description="How many permutations `random` takes.")
    shifted: Moved = "content"
    """Which options change their letter in shifted inference: all, or only content (see harness.data.options)."""
    aggregate: Fusion = Field("prob", description="How the scores of several shifts become one.")
    debias: Debias = Field("none", description="What takes the letters' own weight out of the scores.")
    share_prefix: bool = True
    """Questions about one image share one forward pass of the image and of the beginning of their prompts, where the
    model allows that (see harness.models.shared_prefix). Off: each question is passed separately."""
    resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples for the intervals."""
    answer: Literal["options", "generate"] = "options"
    """options: the option whose letter is most probable. generate: the student writes, and its answer is read from the
    text (see harness.evaluation.choices); what can't be read is wrong. The settings below are for generate."""
    instruction: str = ""
    """The last line of the prompt, in place of "Answer with the letter."; empty: that."""
    max_tokens: int = Field(64, ge=1, le=2**20)
    """The largest number of tokens of an answer, without its reasoning."""
    thinking_tokens: int = Field(0, ge=0, le=2**20)
    """How many tokens a thinking model may think before it answers; a longer thought is closed there. 0: it doesn't."""
    samples: int = Field(1, ge=1, le=1000)
    """How often it writes: the answer is that of most texts (self-consistency, arXiv 2203.11171)."""
    temperature: float = Field(0.0, ge=0, le=100)
    """The temperature at which it writes; 0: its most probable tokens."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run that reads option logits has the identity that it had before there was another way."""
        found: dict[str, Any] = handler(self)
        return found if self.answer == "generate" else {k: v for k, v in found.items() if k not in WRITING}

    @model_validator(mode="after")
    def _fits(self) -> EvaluateConfig:
        if self.debias != "none" and self.shifts == "none":
            raise ValueError(f"debias = {self.debias!r} needs several shifts, not shifts = 'none'")
        if self.answer == "generate":
            if self.debias != "none" or self.shifts not in ("method", "none"):
                raise ValueError("answer = 'generate' has no option scores to shift or debias; leave out both")
            if self.samples > 1 and not self.temperature:
                raise ValueError(f"samples = {self.samples} at temperature = 0 are all the same; raise temperature")
            return self
        fields = EvaluateConfig.model_fields
        if given := sorted(name for name in WRITING if getattr(self, name) != fields[name].default):
            raise ValueError(f"{', '.join(given)} without answer = 'generate', which they are for; set it")
        return self


class ClusterConfig(Settings):
    """Where a run is executed. It is not part of the run's identity."""

    workers: int = Field(1, ge=0, le=65536)
    """Ray Train workers per run (DDP). 0: in this process, without Ray."""
    cpus_per_worker: int = Field(1, ge=1, le=65536, description="CPUs that a worker reserves on its node.")
    gpus_per_worker: int = Field(0, ge=0, le=1, description="GPUs that it reserves; 0: it computes on CPUs.")
    min_workers: int | None = Field(None, ge=1)
    """Elastic training: if nodes are lost, a run continues with no fewer workers than this, and grows again when there
    are more. Its figures are those of `workers` up to rounding. None: it waits for a replacement of the lost node."""
    shard_above: int | None = Field(None, ge=0)
    """A model with more parameters than this is sharded over a run's workers (FSDP2): each worker holds a shard of the
    weights, gradients and optimizer state. None: each worker holds every model in full (DDP)."""
    offload_frozen: bool = False
    """Models that don't learn in a stage stay in the machine's memory and pass through the GPU one layer at a time: for
    a teacher that doesn't fit beside its student. The numbers are the same, but it is slower."""
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Other resources that a worker needs, as Ray names them: memory (bytes), "accelerator_type:H100" (0.001), ..."""
    placement: Literal["PACK", "SPREAD"] = "PACK"
    """PACK: workers on few nodes; SPREAD: on many."""
    max_failures: int = Field(2, ge=0, le=10_000)
    """How many times a run may lose a worker before it fails."""
    lanes: int | None = Field(None, ge=1, le=10**6)
    """At most this many runs are executed at a time, of `workers` each: a suite's or a sweep's quota on a cluster that
    others use too. None: as many as fit."""
    cache_gib: float = Field(20.0, gt=0, le=10**7)
    """Size limit of the cache that the runs of a store share (`train.cache`). Least recently used entries are deleted
    first."""
    price_per_hour: float | None = Field(None, ge=0, le=10**6, allow_inf_nan=False)
    """The price of a worker for an hour: with `gpus_per_worker = 1`, of a GPU-hour."""
    tflops_per_worker: float | None = Field(None, gt=0, le=10**6, allow_inf_nan=False)
    """The speed of a worker in training, in 10^12 FLOP/s, as `hkdbench profile` measures it: `plan` and `--dry-run`
    estimate hours and, with `price_per_hour`, the price from it."""

    @model_validator(mode="after")
    def _checked(self) -> ClusterConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than workers = {self.workers}")
        return self


class TrackConfig(Settings):
    """What is written for trackers, besides the store. It is not part of the run's identity."""

    tensorboard: Folder | None = None
    """A folder for TensorBoard's event files, with one subfolder per run."""
    mlflow: str | None = None
    """The address of an MLflow tracking server, e.g. http://host:5000. Runs go to its experiment `hkdbench`."""
    wandb: str | None = None
    """A project of Weights & Biases. `wandb login` or its environment variables set the account."""
    logs: Folder | None = None
    """A folder for logs: one file of JSON lines per run, one line per event. See `harness.execution.logs`."""


class TemplateConfig(Settings):
    """What a rung changes about its chat template: variables of the template, like `enable_thinking = false`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, bool | int | str]

    file: str | None = None
    """A Jinja file in place of the model's own template. Relative to the ladder's file."""

    @property
    def variables(self) -> dict[str, bool | int | str]:
        """The template's variables, by name."""
        return dict(self.__pydantic_extra__)


class RungConfig(Settings):
    """A model of a ladder."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="What `student` and tables call it.")
    model: str
    """A local folder in `save_pretrained` layout, or a hub id."""
    revision: str | None = Field(None, description="The commit of a hub model; a branch or a tag may change.")
    attention: str | None = None
    """The attention implementation, by its name in transformers; None: the default of transformers."""
    template: TemplateConfig | None = Field(None, exclude_if=lambda value: value is None)
    """Variables for the chat template, or another template. None: the model's own, as it is."""


class RunConfig(Settings):
    """One run: a method trains one student of a ladder on one benchmark, with one seed."""

    method: str = Field(description="The method: `hkdbench list methods`.")
    settings: dict[str, Any] = Field({}, description="The method's own settings.")
    benchmark: str = Field(description="The benchmark: `hkdbench list benchmarks`.")
    benchmark_settings: dict[str, Any] = Field({}, description="The benchmark's own settings, in a suite by its name.")
    data_dir: DataFolder | None = Field(None, description="Folder of the benchmark's published files.")
    skip_missing: bool = False
    """Continue without the examples whose image file is missing or damaged. The record says how many they are."""
    max_image_pixels: int = Field(MAX_PIXELS, ge=1)
    """Refuse images of more pixels (width x height), before training. It is not part of the run's identity."""
    train_on: str | None = None
    """Another benchmark, whose train and validation splits the run learns from. It is still scored on `benchmark`."""
    train_on_settings: dict[str, Any] = Field({}, description="The own settings of `train_on`.")
    train_on_data_dir: DataFolder | None = Field(None, description="Folder of the published files of `train_on`.")
    ladder: str | tuple[RungConfig, ...] = Field("tiny", description="A ladder's name or .toml file, or its rungs.")
    student: str = Field("S", description="The rung that is scored.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of weights, order and draws.")
    train: TrainConfig = Field(TrainConfig(), description="How every method is trained.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="How the trained student is scored.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where a run is executed.")
    track: TrackConfig = Field(TrackConfig(), description="What is written for trackers.")
    tags: tuple[str, ...] = Field((), description="Words by which runs are found again.")
    label: Label | None = None
    """What tables show instead of method and settings. It is not part of the run's identity; "" removes a label."""
    plugins: tuple[str, ...] = Field((), description="Files or modules with methods or benchmarks.")
    save_student: bool = False
    """Store the trained student beside the record, in `save_pretrained` layout."""
    control: Literal["text_only", "shuffled_image"] | None = None
    """Train and score without the images that belong to the questions (with grey images, or with another group's). The
    run is then a control: it shows what can be answered from the text alone."""


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a table; its plugins' paths count from the file's folder, or else from the working directory.

    Raises `ConfigError` with the file's name, and with the line if it isn't valid TOML.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if isinstance(plugins := table.get("plugins"), list):
            table["plugins"] = [_beside(path, spec) if isinstance(spec, str) else spec for spec in plugins]
        return table
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _beside(file: Path, spec: str) -> str:
    """A plugin's path if it is there from the file's folder; else as it was given (a module, or another path)."""
    found = file.resolve().parent / expanded(spec)
    return str(found) if (found.is_file() if spec.endswith(".py") else "/" in spec and found.is_dir()) else spec


def parse(model: type[T], table: Mapping[str, Any], source: str) -> T:
    """`table` as a `model`. Raises `ConfigError` with one line that names every invalid setting."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, model)}") from None
