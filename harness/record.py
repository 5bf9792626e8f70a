"""The record of a run: one versioned, typed JSON document. It imports neither torch nor ray.

A run's folder holds `record.json`, and for a finished run `predictions.parquet` (one row per example and split) and
`history.parquet` (one row per logged value). Every number in `metrics` can be recomputed from the predictions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import first_line
from harness.versions import SCORING, TRAINING

SCHEMA_VERSION = 3
"""Older records are converted when they are read, see `parse_record`."""

Status = Literal["done", "failed", "interrupted"]
LARGEST = 1e30
"""The largest number in a record: the sum over all runs of a store is finite too."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A whole number as tables store it, in 64 bits."""
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
"""Seconds or FLOPs."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(_Model):
    """An estimate with its 95 % interval. `low`/`high` are None if there is no interval (a single group)."""

    model_config = ConfigDict(allow_inf_nan=True)
    """Computing may give any number; a record that is read may not, see `parse_record`."""

    value: float
    low: float | None = None
    high: float | None = None


class RoleRecord(_Model):
    """A role of a stage, as it was run."""

    weights: str
    """A rung's name, or `stage.role`."""
    trainable: bool
    parameters: Count
    average_of: str | None = None
    """The role of the same stage of whose weights it is the moving average."""


class Mix(_Model):
    """What the losses of a stage compare its models over, see `harness.models.vocabulary`."""

    over: Literal["options", "vocabulary"]
    tokenizers: Literal["one", "several"]
    families: dict[str, str]
    """The `model_type` of each rung."""
    tokens: Count | None = None
    """With `vocab`: the number of tokens."""
    rows: dict[str, Count] = {}
    """With `vocab`: the rows of each rung's output layer; rows beyond the tokens are cut off."""


class StageRecord(_Model):
    """A stage as it was run."""

    name: str
    share: Amount
    steps: Count
    examples: Count
    roles: dict[str, RoleRecord]
    best: dict[str, Number] = {}
    """The validation accuracy of each trainable role's best weights."""
    taken_over: bool = False
    """Another run with the same cache had already trained this stage: it isn't billed here."""
    mix: Mix | None = None
    """None: all roles use the same rung, or the record is older."""


class RoleCost(_Model):
    """What a role was billed in training, forward and backward. FLOPs are estimates (see harness.models)."""

    forwards: Count = 0
    trained: Count = 0
    """Examples forwarded, and those with a backward pass."""
    recalled: Count = 0
    """Examples for which a frozen model's answer was cached. `shared`: by another run, which was billed for them."""
    shared: Count = 0
    generated: Count = 0
    """Tokens of responses that it wrote, to `wrote` examples. `scored`: that it read, in `read` of the `forwards`."""
    wrote: Count = 0
    scored: Count = 0
    read: Count = 0
    flops: Amount = 0.0
    seconds: Amount = 0.0


class Cost(_Model):
    """What the run spent. `roles` are summed over the stages, with keys `stage.role`."""

    roles: dict[str, RoleCost] = {}
    train_seconds: Amount = 0.0
    data_seconds: Amount | None = Field(None, exclude_if=lambda value: value is None)
    """Those of `train_seconds` in which the loop waited for data, on rank 0. None: an older record."""
    validation_seconds: Amount = 0.0
    test_seconds: Amount = 0.0
    total_seconds: Amount = 0.0
    train_flops: Amount = 0.0
    test_forwards: Count = 0
    """Forward passes of the student on the test split, including all views."""
    peak_memory_bytes: Count | None = None


class Data(_Model):
    """The data of the benchmark that the run used."""

    revision: str
    fingerprint: str
    """sha256 over ids, texts, golds and image bytes of all splits. In older records the names and sizes of image files
    are in it instead of their bytes, see `harness.data.dataset.Dataset`."""
    sizes: dict[str, Count]
    options: list[str] | None = None
    """The options, if every example has the same ones."""
    skipped: dict[str, Count] = {}
    """By split: examples left out because their image was missing."""
    leaks: dict[str, dict[str, Count]] | None = None
    """Exact duplicates between splits, by pair (`train/test`) and kind (text, image, both): how many examples of the
    second split have a duplicate in the first. See `harness.data.leakage.exact`; None: not checked."""


class TrainedOn(_Model):
    """The benchmark that a run learned from, if it isn't the one that it is scored on."""

    benchmark: str
    settings: dict[str, Any]
    data: Data
    leaks: dict[str, dict[str, Count]] | None = None
    """As `Data.leaks`, between the splits that were learned from (first of a pair) and those of the scored benchmark
    (second). None: not checked."""


class Provenance(_Model):
    """Where the numbers come from."""

    package: str
    code: str
    """sha256 over all of the harness's source files, for information. (Schemas 1 and 2: over those that train, and the
    method's and benchmark's own.)"""
    training: Count = TRAINING
    """`harness.versions.TRAINING` when the run was made. (Since schema 3.)"""
    scoring: Count = SCORING
    """`harness.versions.SCORING` when the figures were computed. (Since schema 3.)"""
    sources: dict[str, str] = {}
    """sha256 over the sources, with keys `method NAME` and `benchmark NAME`. (Since schema 3.)"""
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: dict[str, str] = {}
    machine: dict[str, str | Count] = {}
    started: str
    finished: str
    workers: Count = 0
    resumed: Count = 0
    """How many times the run was resumed from a checkpoint."""
    imported: str | None = None
    """If the answers were produced elsewhere: their file, with its sha256."""


class RungCheck(_Model):
    """What was measured on a rung before training, see `harness.train.preflight`."""

    image_tokens: tuple[Count, Count]
    """The smallest and the largest number per example."""
    longest: Count
    """Tokens of the longest prompt, including the image's."""
    positions: Count | None = None
    """The model's context length (None: its configuration doesn't say)."""
    repeat: Number
    """KL between the answers to one question in two batches of different length: 0 up to rounding."""
    reference: Number | None = None
    """Largest difference of an option's log-probability from that of the model asked in the plain way, question by
    question without padding: 0 up to rounding. None: an older record."""
    shares_image: bool = False
    """Whether questions about one image share its forward pass in training (`train.questions_per_image`)."""


class Preflight(_Model):
    """What was checked before the first step, on a few examples."""

    examples: Count
    seconds: Amount
    rungs: dict[str, RungCheck]
    losses: dict[str, Number] = {}
    """Means over the examples before training, with keys `stage.role.term`."""
    memory_bytes: Count
    """Memory for the weights and optimizers of the largest stage."""
    memory_free: Count | None = None
    warnings: list[str] = []


class Failure(_Model):
    """Why a run has no result."""

    type: str
    message: str
    stage: str | None = None
    step: Count | None = None
    traceback: str | None = None


class Checksums(_Model):
    """Checksums, see `harness.store.checksums`. Older records have none."""

    record: str
    """sha256 of record.json with this field left empty."""
    files: dict[str, str]
    """sha256 of every other file of the run, by its path in the run's folder."""


class Received(_Model):
    """received.json: the run was submitted from elsewhere. The file is beside the record, which stays unchanged."""

    time: str
    file: str
    sha256: str
    """Name and sha256 of the submitted file."""


class SplitAgreement(_Model):
    """The recorded answers to a split and those of the run that was trained again."""

    examples: Count
    equal: Annotated[float, Field(ge=0, le=1)]
    """Fraction of the examples with the same answer."""
    recorded: Number
    again: Number
    """Accuracies."""
    limit: Amount | None = None
    """Two trainings with different seeds differ by no more than this in 95 of 100 cases, all splits together. None: the
    store has no two seeds of a row on these data."""

    @property
    def difference(self) -> float:
        return self.again - self.recorded


class Reproduction(_Model):
    """An attested result: a run was trained again from its record. See `harness.submission.reproduce`."""

    schema_version: Literal[1] = 1
    run_id: str
    record: str
    """sha256 of the record that was reproduced, see `harness.store.checksums.record_sum`."""
    verdict: Literal["equal", "agrees", "differs"]
    """equal: the answers have the same bits. agrees: equal bits can't be expected (`differences`), and the accuracies
    differ by no more than those of two seeds. differs: neither."""
    splits: dict[str, SplitAgreement]
    differences: list[str] = []
    """What was different from the recorded run, so that other bits are no contradiction: code, packages, machine."""
    notes: list[str] = []
    """What was different and changes no number, like the commit."""
    provenance: Provenance
    """Of the run that was trained again."""

    @property
    def reproduced(self) -> bool:
        return self.verdict != "differs"


class Record(_Model):
    """Everything about one run except its predictions and history."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    kind: Literal["run", "control", "robustness"] = "run"
    """`control`: a score without a model (majority, random, ...) or without the image (text_only, ...).
    `robustness`: a run's student under changed conditions, see `harness.evaluation.robustness`; it is never ranked."""
    status: Status
    benchmark: str
    task: str
    method: str
    settings: dict[str, Any] = {}
    ladder: str = ""
    student: str = ""
    """The rung that is evaluated."""
    parameters: Count | None = None
    budget: Count | None = None
    """Examples (with repeats) that the student learned from: 0 untrained, None unknown. (Since schema 2;
    older records have what was asked for, which needn't be whole steps.)"""
    seed: Count
    tags: list[str] = []
    config: dict[str, Any] = {}
    """The full canonical run configuration: using it again gives the same run. A control has only the parts that
    its figures depend on."""
    identity: dict[str, Any] = {}
    """The data that the run id is a hash of (see `harness.planning.plan.Plan`); empty for controls and old records."""
    stages: list[StageRecord] = []
    metrics: dict[str, dict[str, Interval]] = {}
    """By split (validation, test, ood), then by metric: accuracy, macro_f1, micro_f1, and
    `accuracy/<category>`; a protocol's figures are `<protocol>:<name>`."""
    data: Data | None = None
    trained_on: TrainedOn | None = None
    cost: Cost = Cost()
    preflight: Preflight | None = None
    """None: nothing was trained or predicted here, or the record is older."""
    provenance: Provenance
    error: Failure | None = None
    seal: Checksums | None = None
    """Set by the store, which writes the files that it covers."""


# Reading older records

Raw = dict[str, Any]

_VERSION = re.compile(r'"schema_version":\s*(\d+)')


def _budget(raw: Raw) -> Raw:
    """1 to 2: the budget was only part of the configuration and gets its own field."""
    untrained = raw.get("kind") == "control" or (raw.get("status") == "done" and not raw.get("stages"))
    return raw | {"budget": 0 if untrained else raw.get("config", {}).get("train", {}).get("examples")}


def _numbered(raw: Raw) -> Raw:
    """2 to 3: versions replace a digest of the files that decide numbers; all 0.1 releases have version 1 of both."""
    return raw | {"provenance": raw["provenance"] | {"training": 1, "scoring": 1}}


STEPS: dict[int, Callable[[Raw], Raw]] = {1: _budget, 2: _numbered}
"""Conversion steps, by the version that they start from."""


def parse_record(text: str) -> Record | str:
    """The record of a `record.json`, or a one-line description of what is wrong with it, whatever that is."""
    try:
        found = _VERSION.search(text)
        version = int(found[1]) if found else SCHEMA_VERSION
        if version > SCHEMA_VERSION:
            return f"record.json has schema {version}, this version reads 1 to {SCHEMA_VERSION}: update hkdbench"
        if version < SCHEMA_VERSION:
            text = _lifted(text, version)
        record = Record.model_validate_json(text)
        return next(_unusable(record), record)
    except ValidationError as error:
        return f"record.json is damaged: {first_fault(error)}"
    except ValueError as error:
        return f"record.json is damaged: Invalid JSON: {first_line(error)}"
    except Exception:
        return "record.json is damaged: it doesn't fit its schema"


def _unusable(record: Record) -> Iterator[str]:
    """Figures that aren't finite numbers, and parts of the configuration that every reader takes for tables."""
    for part in ("settings", "evaluate"):
        if not isinstance(record.config.get(part, {}), dict):
            yield f"record.json is damaged: config.{part} is {record.config[part]!r:.40}, expected a table"
    for split, figures in record.metrics.items():
        for name, found in figures.items():
            for value in (found.value, found.low, found.high):
                if value is not None and not abs(value) <= LARGEST:
                    yield f"record.json is damaged: metrics.{split}.{name} is {value}: expected a finite number"


def _lifted(text: str, version: int) -> str:
    """The text of an older record in the newest schema."""
    raw: Raw = json.loads(text)
    for step in range(version, SCHEMA_VERSION):
        raw = STEPS[step](raw) | {"schema_version": step + 1}
    return json.dumps(raw)


def seal_of(text: bytes, own: str) -> str:
    """The sha256 of a record's text, in which its own checksum is left empty; equal to `own` if nothing changed."""
    return hashlib.sha256(text.replace(f'"record": "{own}"'.encode(), b'"record": ""', 1)).hexdigest()


def read_record(text: bytes) -> Record | str:
    """The record of a `record.json`, or why it can't be used: damaged, or not what its checksum covers."""
    try:
        found = parse_record(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"record.json is damaged: {first_line(error)}"
    if isinstance(found, Record) and found.seal and seal_of(text, found.seal.record) != found.seal.record:
        return "record.json is damaged: its text doesn't have the sha256 that it states"
    return found


def first_fault(error: ValidationError) -> str:
    """Where a document first violates its schema, and how."""
    item = error.errors()[0]
    where = ".".join(map(str, item["loc"]))
    return f"{where}: {item['msg']}" if where else str(item["msg"])
