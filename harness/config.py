"""The settings of a run and of a suite: typed, checked, read from TOML and `--set a.b=c`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from harness.api import Split
from harness.errors import ConfigError, near

T = TypeVar("T", bound="Settings")

Storage = Literal["fp32", "bf16", "nf4"]
"""How weights that don't learn are kept: float32, bfloat16, or four bits (see harness.models.quantization)."""

Label = Annotated[str, Field(max_length=80, pattern=r"^(\S( ?\S)*)?$")]
"""A name in one line, single spaces within."""

Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]
"""A folder by its whole path: a run's workers have another working directory."""


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSettings(Settings):
    """Low-rank adapters in a learner, whose own weights then stay as they are (see harness.models.lora)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    """Adapters count alpha / rank times."""
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("all",)
    """The layers that get one, by the last part of their names, like q_proj; all: every linear one but the output's."""
    weights: Storage = "fp32"
    """How the learner's own weights are kept. nf4: QLoRA (arXiv 2305.14314)."""


class TrainConfig(Settings):
    """How every method is trained: the same for all methods that are compared."""

    examples: int = Field(4096, ge=1)
    """The student budget: examples (with repeats) that the student learns from, over all its stages."""
    batch_size: int = Field(32, ge=1)
    """Examples an optimizer step, over all workers."""
    micro_batch_size: int = Field(0, ge=0)
    """Examples a forward pass of one worker; 0: the worker's whole part of the batch."""
    questions_per_image: int = Field(1, ge=1)
    """So many questions of one image stand together in the training order. This changes which examples share a batch:
    runs with different values see the examples in different orders, and don't compare methods alone."""
    share_prefix: bool = True
    """With `questions_per_image` above 1 those of a forward pass share their image and the common beginning of their
    prompts, where the model allows that (see harness.models.shared_prefix): the same losses and gradients but for
    rounding. Off: each question passes by itself."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate (AdamW, linear warm-up, cosine to 0 in each stage)."""
    lr_by_rung: dict[str, float] = {}
    """Peak learning rate of single rungs, where it differs from `lr`."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of a stage's steps in which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16 (autocast), weights, losses and optimizer in float32. Worth it where the
    hardware has it."""
    precision_by_rung: dict[str, Literal["fp32", "bf16"]] = {}
    """Precision of single rungs, where it differs from `precision`."""
    lora: LoraSettings | None = None
    """Learners train low-rank adapters instead of all their weights: for a rung that doesn't fit otherwise."""
    lora_by_rung: dict[str, LoraSettings] = {}
    """The same of single rungs, where it differs from `lora`."""
    frozen_weights: Storage = "fp32"
    """How models that don't learn in a stage are kept: in bf16 they take half the memory, in nf4 a seventh."""
    gradient_checkpointing: bool = False
    """Learners keep only what goes into each layer, and compute the rest anew in the backward pass: less memory, a
    third more work."""
    cache: Literal["auto", "off"] = "off"
    """auto: a frozen model answers an example once, where its step shows it unchanged, and the runs of a store share
    such answers and the stages that only ready a teacher (see harness.train.teacher_cache)."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm of a role."""
    validations: int = Field(4, ge=1)
    """Validations a stage, evenly spaced; a checkpoint is written at each, the best weights are kept."""
    validation_examples: int = Field(300, ge=1)
    """At most so many validation examples are scored while training."""

    @property
    def shares(self) -> bool:
        """Whether questions of one image are to share it in training."""
        return self.share_prefix and self.questions_per_image > 1

    def precision_of(self, rung: str) -> str:
        """The precision in which a rung computes."""
        return self.precision_by_rung.get(rung, self.precision)

    def lora_of(self, rung: str) -> LoraSettings | None:
        """The adapters that a rung learns with; None: it trains all its weights."""
        return self.lora_by_rung.get(rung, self.lora)

    def storage_of(self, rung: str, learns: bool) -> Storage:
        """How a rung's own weights are kept in a role."""
        if not learns:
            return self.frozen_weights
        lora = self.lora_of(rung)
        return lora.weights if lora else "fp32"

    @model_validator(mode="after")
    def _computes_as_it_keeps(self) -> TrainConfig:
        kept = [lora.weights for lora in (self.lora, *self.lora_by_rung.values()) if lora]
        if "bf16" in (self.frozen_weights, *kept) and "fp32" in (self.precision, *self.precision_by_rung.values()):
            raise ValueError("weights kept in bf16 need precision = 'bf16', in which they are used")
        return self


class EvaluateConfig(Settings):
    """How the trained student is scored."""

    splits: tuple[Split, ...] = ("validation", "test", "ood")
    """Splits scored at the end, where the benchmark has them."""
    batch_size: int = Field(64, ge=1)
    share_prefix: bool = True
    """Questions of one image pass it and the beginning of their prompts through the model once, where the model
    allows that (see harness.models.shared_prefix); off: each by itself."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples behind the intervals."""


class ClusterConfig(Settings):
    """Where a run takes place. It is not part of the run's identity."""

    workers: int = Field(1, ge=0)
    """Ray Train workers a run (DDP); 0: in this process, without Ray."""
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: int = Field(0, ge=0, le=1)
    min_workers: int | None = Field(None, ge=1)
    """Elastic: with fewer nodes left a run goes on with as few workers as this, with more it grows again; its figures
    stay those of `workers` but for rounding. None: it waits for a node that takes the lost one's place."""
    shard_above: int | None = Field(None, ge=0)
    """A model of more parameters than this is cut over a run's workers (FSDP2): each holds its part of weights,
    gradients and optimizer state. None: each worker holds every model whole (DDP)."""
    offload_frozen: bool = False
    """Models that don't learn in a stage stay in the machine's memory and pass through the GPU a layer at a time: for a
    teacher that doesn't fit beside its student. The same numbers, slower."""
    resources: dict[str, PositiveFloat] = {}
    """What else a worker takes from its node, as Ray names it: memory (bytes), "accelerator_type:H100" (0.001), ..."""
    placement: Literal["PACK", "SPREAD"] = "PACK"
    """Workers on few nodes, or on many."""
    max_failures: int = Field(2, ge=0)
    """How many times a run may lose a worker before it counts as failed."""
    cache_gib: float = Field(20.0, gt=0)
    """Room for what the runs of a store share (`train.cache`); what was used longest ago goes first."""

    @model_validator(mode="after")
    def _checked(self) -> ClusterConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than workers = {self.workers}")
        return self


class TrackConfig(Settings):
    """What is written for trackers, beside the store. It is not part of the run's identity."""

    tensorboard: Folder | None = None
    """A folder for TensorBoard's event files, a folder a run in it."""
    mlflow: str | None = None
    """The address of an MLflow tracking server, e.g. http://host:5000; runs go to its experiment `hkdbench`."""
    wandb: str | None = None
    """A project of Weights & Biases; `wandb login` or its environment variables say whose."""


class RungConfig(Settings):
    """A model of a ladder."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    """A local folder in `save_pretrained` layout, or a hub id."""
    revision: str | None = None
    attention: str | None = None
    """The implementation of attention, as transformers names it; None: its own choice."""


class RunConfig(Settings):
    """One run: a method trains a student of a ladder for a benchmark, from one seed."""

    method: str
    settings: dict[str, Any] = {}
    benchmark: str
    benchmark_settings: dict[str, Any] = {}
    data_dir: Folder | None = None
    skip_missing: bool = False
    """Go on without the examples whose image file is missing; how many they are is in the record."""
    train_on: str | None = None
    """Another benchmark, whose train and validation splits the run learns from; it is still scored on `benchmark`."""
    train_on_settings: dict[str, Any] = {}
    train_on_data_dir: Folder | None = None
    ladder: str | tuple[RungConfig, ...] = "tiny"
    student: str = "S"
    seed: int = Field(0, ge=0)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
    track: TrackConfig = TrackConfig()
    tags: tuple[str, ...] = ()
    label: Label | None = None
    """What people read instead of method and settings. It is not part of the run's identity; "" takes one away."""
    plugins: tuple[str, ...] = ()
    save_student: bool = False
    """Keep the trained student beside the record, in `save_pretrained` layout."""
    control: Literal["text_only", "shuffled_image"] | None = None
    """Train and score without the images that belong to the questions (grey ones, or another group's): the run is
    then a control, which says what the words alone give away."""


SAME_IN_A_SUITE = {
    "examples": "the student budget is the same for all runs of a suite",
    "questions_per_image": "all runs of a suite see the examples in one order",
}
"""What a line's training can't have otherwise, and why."""


class SuiteRun(Settings):
    """One line of a suite: a method with its settings, for every benchmark and seed of the suite."""

    method: str
    student: str = "S"
    settings: dict[str, Any] = {}
    train: dict[str, Any] = {}
    """What this line's training has otherwise than the suite's, like its own tuned `lr`; not its budget or order."""
    tags: tuple[str, ...] = ()
    label: Label | None = None
    """What tables call these runs, like "KD on the pool"; that of finished runs changes when the suite is run again."""
    control: Literal["text_only", "shuffled_image"] | None = None


class ManyRuns(Settings):
    """What the runs of a suite or of a sweep have in common."""

    benchmarks: tuple[str, ...] = Field(min_length=1)
    benchmark_settings: dict[str, dict[str, Any]] = {}
    data_dir: Folder | None = None
    skip_missing: bool = False
    train_on: str | None = None
    train_on_settings: dict[str, Any] = {}
    train_on_data_dir: Folder | None = None
    ladder: str | tuple[RungConfig, ...] = "tiny"
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
    track: TrackConfig = TrackConfig()
    plugins: tuple[str, ...] = ()

    def shared(self, benchmark: str) -> dict[str, Any]:
        """What a `RunConfig` on the benchmark takes over."""
        own = {"benchmark": benchmark, "benchmark_settings": self.benchmark_settings.get(benchmark, {})}
        names = ManyRuns.model_fields.keys() - {"benchmarks", "benchmark_settings"}
        return own | {name: getattr(self, name) for name in names}


class SuiteConfig(ManyRuns):
    """Methods x benchmarks x seeds, at one budget."""

    name: str
    seeds: tuple[int, ...] = Field(min_length=1)
    runs: tuple[SuiteRun, ...] = Field(min_length=1)

    def run_configs(self) -> list[RunConfig]:
        """One `RunConfig` a method, benchmark and seed; seeds outermost, so that early results are whole."""
        if unknown := set(self.benchmark_settings) - set(self.benchmarks):
            raise ConfigError(
                f"benchmark_settings names {sorted(unknown)[0]!r}, which is not among the suite's "
                f"benchmarks ({', '.join(self.benchmarks)})"
            )
        for run in self.runs:
            for name, why in SAME_IN_A_SUITE.items():
                if name in run.train:
                    raise ConfigError(
                        f"runs: {run.method}: train.{name} = {run.train[name]!r}: {why}; set it in the suite's [train]"
                    )
        return [
            RunConfig(
                **self.shared(benchmark)
                | {
                    "method": run.method,
                    "settings": run.settings,
                    "student": run.student,
                    "seed": seed,
                    "train": parse(TrainConfig, self.train.model_dump() | run.train, f"runs: {run.method}: train"),
                    "tags": (*run.tags, f"suite:{self.name}"),
                    "label": run.label,
                    "control": run.control,
                }
            )
            for seed in self.seeds
            for benchmark in self.benchmarks
            for run in self.runs
        ]


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a table. Raises `ConfigError` naming the file, and the line where it isn't TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def overlay(table: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`table` with each `a.b=value` set; a value is read as TOML and, where it isn't, as a plain string."""
    result: dict[str, Any] = dict(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}: expected key=value, like train.lr=0.001")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        put(result, key.strip(), value, f"--set {assignment!r}")
    return result


def put(table: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Set `a.b` in a table; the tables inside are copied, not changed. Raises `ConfigError` where one is a value."""
    *parents, last = name.split(".")
    for parent in parents:
        child = table.get(parent, {})
        if not isinstance(child, Mapping):
            raise ConfigError(f"{where}: {parent!r} is a value, not a table")
        table[parent] = table = dict(child)
    table[last] = value


def parse(model: type[T], table: Mapping[str, Any], source: str) -> T:
    """`table` as a `model`. Raises `ConfigError` with one line that names every wrong setting."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The validation error in words: setting, value, what was expected; near names for an unknown one."""
    items = error.errors()
    # A wrong item of a list also makes the list "too short": what its parts say is enough.
    deeper = {item["loc"][:n] for item in items for n in range(len(item["loc"]))}
    return "; ".join(_explain_one(dict(item), model) for item in items if item["loc"] not in deeper)


def _explain_one(item: dict[str, Any], model: type[BaseModel]) -> str:
    path = [part for part in item["loc"] if not str(part).startswith(("tuple[", "function-"))]
    name = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = _fields(model, [str(part) for part in path[:-1]])
        return f"unknown setting {name!r}: {near(str(path[-1]), known)}"
    if item["type"] == "missing":
        return f"{name!r} is missing"
    return f"{name} = {item['input']!r}: {item['msg'].lower()}"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue
        # The model itself, or that of a tuple's items, of a union's member, ...
        for inner in (field.annotation, *_inside(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(model.model_fields)


def _inside(hint: Any) -> list[Any]:
    return [found for part in get_args(hint) for found in (part, *_inside(part))]
