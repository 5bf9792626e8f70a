"""One line per run: what lists and leaderboards need of its record, as the catalogue stores it.

A `RunSummary` is made from the record only, so a run reads the same before and after it is compacted. The columns
have plain types: DuckDB can read them from `.catalogue/runs-*.parquet`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, NamedTuple

import pyarrow as pa

from harness.config import EvaluateConfig
from harness.errors import first_line
from harness.record import Interval, Record
from harness.store.backend import Problem

NOT_COMPARED = frozenset(
    {
        "seed",
        "tags",
        "label",
        "track",
        "cluster",
        "plugins",
        "save_student",
        "data_dir",
        "train_on_data_dir",
        "evaluate",
        "method",
        "benchmark",
        "control",
    }
)
"""Parts of a run's configuration that don't separate rows of a leaderboard: they have a column, or don't matter."""

REMOVED_SETTINGS: Mapping[str, Mapping[str, Any]] = {"hkd4vlm": {"swap_images": False, "swap_share": 0.1}}
"""Settings that a method of 0.1 had, with their defaults: runs from before and after are seeds of one row."""
HOW_SCORED = frozenset({"splits", "batch_size", "share_prefix", "resamples"})
"""Parts of `evaluate` that change a run's answers only by rounding, or not at all; the others separate rows."""

BROKEN = "broken"

FIGURE = pa.struct(
    [
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("stamp", pa.string()),  # version of the record it was read from, see `backend.Backend.folders`
        ("status", pa.string()),  # done, failed, interrupted; broken: no valid record
        ("problem", pa.string()),  # what is wrong with a broken one; the error of a failed one
        ("kind", pa.string()),
        ("benchmark", pa.string()),
        ("task", pa.string()),
        ("revision", pa.string()),
        ("fingerprint", pa.string()),
        ("options", pa.list_(pa.string())),
        ("method", pa.string()),
        ("label", pa.string()),  # the method with the settings that its user set
        ("name", pa.string()),  # what its suite calls it; "": it has no label
        ("given", pa.string()),  # JSON of the settings that its user set, flat
        ("row", pa.string()),  # hash of all that makes a leaderboard row: its runs differ by seed
        ("identity", pa.string()),  # JSON of the compared configuration, which distinguishes rows of the same label
        ("ladder", pa.string()),
        ("student", pa.string()),
        ("parameters", pa.int64()),
        ("budget", pa.int64()),
        ("seed", pa.int64()),
        ("tags", pa.list_(pa.string())),
        ("splits", pa.list_(pa.string())),
        ("started", pa.string()),
        ("finished", pa.string()),
        ("training", pa.int64()),  # `harness.versions.TRAINING` when it was run
        ("code", pa.string()),  # other code versions that its numbers depend on, see `code`
        ("train_flops", pa.float64()),
        ("train_seconds", pa.float64()),
        ("student_flops", pa.float64()),  # of train_flops: the student's, and that of all other roles
        ("teacher_flops", pa.float64()),
        ("student_seconds", pa.float64()),
        ("teacher_seconds", pa.float64()),
        ("cache_share", pa.float64()),  # see `TrainingCost`
        ("test_examples", pa.int64()),
        ("test_seconds", pa.float64()),
        ("total_seconds", pa.float64()),
        ("test_forwards", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("chance", pa.float64()),  # accuracy of a uniform guess on test (else the first split), if it is recorded
        ("metrics", pa.list_(FIGURE)),
        ("record", pa.string()),  # the full record, converted to the newest schema
    ]
)
HEAVY = ("metrics", "record")
"""Columns that a leaderboard by the harness's own metrics doesn't read."""
LIGHT = [name for name in RUNS.names if name not in HEAVY]


class RunSummary(NamedTuple):
    """A run's line without its heavy columns, see `RUNS`."""

    run_id: str
    stamp: str
    status: str
    problem: str | None = None
    kind: str = "run"
    benchmark: str = ""
    task: str = ""
    revision: str = ""
    fingerprint: str = ""
    options: list[str] | None = None
    method: str = ""
    label: str = ""
    name: str = ""
    given: str = "{}"
    row: str = ""
    identity: str = "{}"
    ladder: str = ""
    student: str = ""
    parameters: int | None = None
    budget: int | None = None
    seed: int = 0
    tags: Sequence[str] = ()
    splits: Sequence[str] = ()
    started: str = ""
    finished: str = ""
    training: int = 0
    code: str = ""
    train_flops: float | None = 0.0
    """None, like every other cost, if the answers were imported."""
    train_seconds: float | None = 0.0
    student_flops: float | None = None
    teacher_flops: float | None = None
    student_seconds: float | None = None
    teacher_seconds: float | None = None
    cache_share: float | None = None
    test_examples: int | None = None
    test_seconds: float = 0.0
    total_seconds: float = 0.0
    test_forwards: int | None = 0
    peak_memory_bytes: int | None = None
    chance: float | None = None

    @property
    def forwards(self) -> float | None:
        """Forward passes of the student per answer on test, to two decimals. None: test wasn't scored, or unknown."""
        return round(self.test_forwards / self.test_examples, 2) if self.test_forwards and self.test_examples else None

    @property
    def data_key(self) -> tuple[str, str, str]:
        """What runs must have in common to be in one leaderboard: benchmark, revision, fingerprint."""
        return self.benchmark, self.revision, self.fingerprint


def to_arrow(found: Iterable[tuple[Record | Problem, str]], names: Mapping[str, str] | None = None) -> pa.Table:
    """The lines of records (or of the problems of broken ones), each with its version.

    `names` are the labels of runs by id that replace those in their records, see `Store.labels`.
    """
    lines = [_line_or_problem(loaded, version, names or {}) for loaded, version in found]
    return pa.Table.from_pylist(lines, schema=RUNS)


def _line_or_problem(loaded: Record | Problem, version: str, names: Mapping[str, str]) -> dict[str, Any]:
    """A record's line; that of a broken run if no line can be made of its free parts (configuration, identity)."""
    try:
        return _line(loaded, version, names)
    except Exception as error:
        return _line(Problem(loaded.run_id, f"record.json is damaged: {first_line(error)}"), version, names)


def from_arrow(table: pa.Table) -> list[RunSummary]:
    """The summaries of a table that has at least the light columns."""
    columns = [table[name].to_pylist() for name in LIGHT]
    return [RunSummary(*values) for values in zip(*columns, strict=True)]


def figures(table: pa.Table, split: str) -> dict[str, dict[str, Interval]]:
    """The recorded metrics of a split, by run and name."""
    stated: dict[str, dict[str, Interval]] = {}
    for run_id, metrics in zip(table["run_id"].to_pylist(), table["metrics"].to_pylist(), strict=True):
        stated[run_id] = {
            m["metric"]: Interval(value=m["value"], low=m["low"], high=m["high"])
            for m in metrics or ()
            if m["split"] == split and isfinite(m["value"])
        }
    return stated


def _line(loaded: Record | Problem, version: str, names: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(loaded, Problem):
        broken = RunSummary(loaded.run_id, version, BROKEN, loaded.message, kind=BROKEN)
        return broken._asdict() | {"metrics": [], "record": None}
    r = loaded
    cost = None if r.provenance.imported or r.kind != "run" else training_cost(r)
    summary = RunSummary(
        run_id=r.run_id,
        stamp=version,
        status=r.status,
        problem=r.error.message if r.error else None,
        kind=r.kind,
        benchmark=r.benchmark,
        task=r.task,
        revision=r.data.revision if r.data else "",
        fingerprint=r.data.fingerprint if r.data else "",
        options=r.data.options if r.data else None,
        method=r.method,
        label=label(r.method, r.config.get("settings", {})),
        name=_printable(names.get(r.run_id, r.config.get("label"))),
        given=json.dumps(flat(r.config.get("settings", {}))),
        row=row_key(r),
        identity=json.dumps(identity(r), sort_keys=True),
        ladder=r.ladder,
        student=r.student,
        parameters=r.parameters,
        budget=_budget(r),
        seed=r.seed,
        tags=list(r.tags),
        splits=list(r.metrics),
        started=r.provenance.started,
        finished=r.provenance.finished,
        training=r.provenance.training,
        code=code(r),
        train_flops=None if r.provenance.imported else r.cost.train_flops,
        train_seconds=None if r.provenance.imported else r.cost.train_seconds,
        **(asdict(cost) if cost else {}),
        test_examples=r.data.sizes.get("test") if r.data else None,
        test_seconds=r.cost.test_seconds,
        total_seconds=r.cost.total_seconds,
        test_forwards=None if r.provenance.imported else r.cost.test_forwards,
        peak_memory_bytes=r.cost.peak_memory_bytes,
        chance=next((f["chance"].value for f in _test_first(r.metrics) if "chance" in f), None),
    )
    metrics = [
        {"split": split, "metric": name, "value": f.value, "low": f.low, "high": f.high}
        for split, of_split in r.metrics.items()
        for name, f in of_split.items()
    ]
    return summary._asdict() | {"metrics": metrics, "record": r.model_dump_json()}


def _budget(r: Record) -> int | None:
    """The record's budget; of an older record, which has what was asked for, the whole steps that were trained."""
    train = r.config.get("train")
    asked, size = (train.get("examples"), train.get("batch_size")) if isinstance(train, Mapping) else (None, None)
    if not (r.stages and isinstance(asked, int) and isinstance(size, int) and size > 0 and r.budget == asked):
        return r.budget
    return -(-asked // size) * size


def _printable(name: Any) -> str:
    """A record's label, if it is one line of text; else empty."""
    return name if isinstance(name, str) and name.isprintable() else ""


def _test_first(metrics: Mapping[str, Mapping[str, Interval]]) -> list[Mapping[str, Interval]]:
    return [of_split for _, of_split in sorted(metrics.items(), key=lambda item: item[0] != "test")]


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training. FLOPs and seconds are those of forward and backward passes."""

    student_flops: float
    teacher_flops: float
    """The FLOPs of all other roles: frozen or learning teachers, assistants, peers, anchors."""
    student_seconds: float
    teacher_seconds: float
    cache_share: float | None
    """Fraction of the examples for frozen roles that needed no forward pass; None: nothing was frozen."""


def training_cost(record: Record) -> TrainingCost:
    """From the record, by role. A role is the student's if it is trained and its rung is the scored one."""
    student, frozen = set(), set()
    shown = 0
    rungs: dict[str, str] = {}  # the rung that a role's weights come from
    for stage in record.stages:
        for name, role in stage.roles.items():
            key = f"{stage.name}.{name}"
            rungs[key] = rungs.get(role.weights, role.weights)
            if not role.trainable:
                if role.average_of is None:  # an average's answers change, so they aren't cached
                    frozen.add(key)
                    shown += stage.examples
            elif rungs[key] == record.student:
                student.add(key)
    roles = record.cost.roles
    forwards = sum(role.forwards for key, role in roles.items() if key in frozen)
    return TrainingCost(
        student_flops=sum(role.flops for key, role in roles.items() if key in student),
        teacher_flops=sum(role.flops for key, role in roles.items() if key not in student),
        student_seconds=sum(role.seconds for key, role in roles.items() if key in student),
        teacher_seconds=sum(role.seconds for key, role in roles.items() if key not in student),
        cache_share=max(0.0, 1 - forwards / shown) if shown else None,
    )


def row_key(record: Record) -> str:
    """What runs must have in common, besides their data, to be seeds of one row."""
    compared = {key: value for key, value in _compared(record).items() if key != "settings"}
    parts = [record.kind, record.method, _settings(record), record.ladder, record.student, compared]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def code(record: Record) -> str:
    """What distinguishes runs of one version of training: the plugins' sources; for 0.1 the digest of all code."""
    plugins = record.identity.get("plugins")
    return json.dumps(plugins, sort_keys=True) if plugins else str(record.identity.get("code", ""))


def identity(record: Record) -> dict[str, Any]:
    """The configuration that distinguishes rows with the same label."""
    return _compared(record) | {"settings": record.settings, "ladder": record.ladder}


def _compared(record: Record) -> dict[str, Any]:
    """The compared part of the configuration. Of `evaluate`, only what isn't the default: older records lack some."""
    config = {key: value for key, value in record.config.items() if key not in NOT_COMPARED}
    usual = {name: field.default for name, field in EvaluateConfig.model_fields.items()}
    evaluate = {
        key: value
        for key, value in record.config.get("evaluate", {}).items()
        if key not in HOW_SCORED and value != usual.get(key)
    }
    return config | ({"evaluate": evaluate} if evaluate else {})


def _settings(record: Record) -> dict[str, Any]:
    """The record's settings without those that its method no longer has, where they did nothing."""
    removed = REMOVED_SETTINGS.get(record.method, {})
    return {name: value for name, value in record.settings.items() if name not in removed or removed[name] != value}


def generates(run: RunSummary) -> bool:
    """Whether its student wrote its answers."""
    return '"answer": "generate"' in run.identity


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            result |= flat(inner, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = inner
    return result


def label(method: str, settings: Mapping[str, Any]) -> str:
    """A method with its settings, for display."""
    return " ".join([method, *(assigned(key, value) for key, value in flat(settings).items())])


def assigned(key: str, value: Any) -> str:
    """A setting, for display."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
