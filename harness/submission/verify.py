"""Whether a run's record agrees with its predictions, its data and its code.

Every figure is recomputed from the stored predictions; hashes, ids, golds and sums are compared with what they stand
for. Each check ends as `ok`, as `changed` (record, files and data contradict one
another), or as `unverified`, with the reason: data or plugin not available, other code, no checksums. Nothing here
trains, loads torch or runs what a record names: plugins are those that the user loaded.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from harness import provenance, registry
from harness.api import Stage
from harness.config import RunConfig, parse
from harness.data import dataset as dataset_module
from harness.data.dataset import Dataset
from harness.errors import ConfigError, DataError, ModelError, StoreError, UserError, first_line
from harness.models import ladders
from harness.planning import plan as planning
from harness.planning import stages
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store, checksums
from harness.submission import consistency
from harness.versions import SCORING, TRAINING

State = Literal["ok", "changed", "unverified"]

MOST_RESAMPLES = 1_000_000
MOST_RECEIVED = 1_000_000
"""So many examples are made at most to check a run that came from elsewhere."""
NAMED = 3
"""So many contradictions are named; the others are counted."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    check: str
    state: State
    detail: str


@dataclass(frozen=True)
class Report:
    """The results of all checks of a run."""

    run_id: str
    findings: tuple[CheckResult, ...]

    @property
    def state(self) -> State:
        """`changed` if anything is; else `unverified` if something couldn't be checked."""
        states = {finding.state for finding in self.findings}
        return "changed" if "changed" in states else "unverified" if "unverified" in states else "ok"

    def of(self, state: State) -> list[CheckResult]:
        """The findings with this state."""
        return [finding for finding in self.findings if finding.state == state]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"run_id": self.run_id, "state": self.state, "findings": [asdict(f) for f in self.findings]}


@dataclass
class _Examined:
    """A run that is being checked, with its tables, data and plan if they are available."""

    record: Record
    setup: consistency.Setup
    trusted: bool
    """Made here: its config may name files of this machine."""
    predictions: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    dataset: Dataset | None = None
    """Only where it is the data that the run saw."""
    plan: Plan | None = None
    """Only where the code is the run's."""


def verify(store: Store, run_id: str, data_dir: Path | None = None) -> Report:
    """Check a run of the store; `data_dir` has the published files of a benchmark that reads some.

    Raises `StoreError` where there is no such run.
    """
    try:
        record = store.read(run_id)
        trusted = store.received(run_id) is None
    except StoreError as error:
        if not store.backend.exists(run_id):
            raise
        return Report(run_id, (CheckResult("record", "changed", first_line(error)),))
    setup = consistency.setup(record.config or _config_from_sibling(store, record))
    run = _Examined(record, setup, trusted)
    found = [_judged("record", consistency.in_record(record, setup), "agrees with itself")]
    broken = checksums.mismatches(record, store.backend) if record.seal else {}
    found += _checksums(record, broken, checksums.missing_student(record, store.backend))
    found += _tables(run, store, broken)
    found += [*_data(run, data_dir), *_code(run, data_dir), *_identity(run)]
    return Report(run_id, (*found, *_predictions(run), *_training(run)))


def verify_all(store: Store, data_dir: Path | None = None) -> Iterator[Report]:
    """Every run of the store, by id."""
    return (verify(store, run_id, data_dir) for run_id in store.ids())


def _judged(check: str, wrong: Iterable[str], good: str) -> CheckResult:
    """`changed` with the first few contradictions, or `ok`."""
    wrong = list(wrong)
    return CheckResult(check, "changed", _few(wrong)) if wrong else CheckResult(check, "ok", good)


def _few(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return "; ".join(texts[:NAMED]) + more


def _config_from_sibling(store: Store, record: Record) -> Mapping[str, Any]:
    """The config of a run on the same data: an older control doesn't say its benchmark's settings."""
    return next(
        (
            other.config
            for other in (store.records() if record.data else ())
            if other.config and (other.benchmark, other.data) == (record.benchmark, record.data)
        ),
        {},
    )


# -------------------------------------------------------------------------------------------- files


def _checksums(record: Record, broken: Mapping[str, str], absent: Sequence[str]) -> list[CheckResult]:
    if record.seal is None:
        return [
            CheckResult(
                "seal", "unverified", "the record has no checksums: what can't be computed anew may have changed"
            )
        ]
    said = [CheckResult("seal", "changed", f"{name}: {what}") for name, what in broken.items()]
    present = len(record.seal.files) - len(absent)
    said = said or [CheckResult("seal", "ok", f"record and {present} files have the sha256 that the record states")]
    return [*said, CheckResult("student", "unverified", f"its {len(absent)} files aren't here")] if absent else said


def _tables(run: _Examined, store: Store, broken: Mapping[str, str]) -> Iterator[CheckResult]:
    """Read predictions and history; what differs from its checksum is reported already, and not read."""
    files, run_id = store.backend.files(run.record.run_id), run.record.run_id
    for name, read in (("predictions", store.predictions), ("history", store.history)):
        file = f"{name}.parquet"
        if file in files and file not in broken:
            try:
                setattr(run, name, read(run_id))
            except (StoreError, pa.ArrowException, ValueError, MemoryError) as error:
                yield CheckResult(name, "changed", f"{file} can't be read: {first_line(error)}")
        elif (
            file not in files
            and run.record.status == "done"
            and (name == "predictions" or consistency.planned(run.record))
        ):
            yield CheckResult(name, "changed", f"{file} is missing")


# -------------------------------------------------------------------------------- data, code, identity


def _data(run: _Examined, data_dir: Path | None) -> Iterator[CheckResult]:
    """The benchmark as it is now against what the run saw of it."""
    r, seen, settings = run.record, run.record.data, run.setup.benchmark_settings
    if seen is None:
        yield CheckResult("data", "unverified", f"the run is {r.status} and read none")
        return
    try:
        if absent := _absent("benchmark", r.benchmark, registry.benchmarks()):
            raise ConfigError(absent)
        benchmark = registry.make_benchmark(r.benchmark, settings, data_dir)
        if benchmark.revision != seen.revision:
            raise DataError(f"the benchmark's revision is {benchmark.revision} now, the run saw {seen.revision}")
        if not run.trusted:
            if sum(seen.sizes.values()) > MOST_RECEIVED:
                raise DataError(f"{sum(seen.sizes.values())} examples are too many for a run from elsewhere")
            for split in benchmark.splits:  # its settings may ask for any size: count no further than it says
                said = seen.sizes.get(split, 0) + seen.skipped.get(split, 0)
                if (count := sum(1 for _ in islice(benchmark.load(split), said + 1))) != said:
                    now = f"{count}{' or more' if count > said else ''}"
                    yield CheckResult("data", "changed", f"split {split} has {said} examples, in the benchmark {now}")
                    return
        dataset = dataset_module.load_data(r.benchmark, settings, data_dir, run.setup.skip_missing)
    except UserError as error:
        yield CheckResult("data", "unverified", first_line(error))
        return
    wrong = [
        f"{what} is {said!r}, in the benchmark {now!r}"
        for what, said, now in (
            ("fingerprint", seen.fingerprint, dataset.fingerprint),
            ("sizes", seen.sizes, dataset.sizes),
            ("options", seen.options, list(dataset.options) if dataset.options else None),
        )
        if said != now
    ]
    if seen.fingerprint == dataset.fingerprint:
        run.dataset = dataset
    yield _judged("data", wrong, f"{sum(dataset.sizes.values())} examples, fingerprint {seen.fingerprint[:12]}")


def _absent(kind: str, name: str, known: Mapping[str, Any]) -> str:
    return "" if name in known else f"{kind} {name!r} isn't here: load it with --plugin"


def _code(run: _Examined, data_dir: Path | None) -> Iterator[CheckResult]:
    """The code as it is now; where it is the run's, the config must give the same run again."""
    r = run.record
    yield _commit(r)
    if not consistency.planned(r):
        return
    method = str(r.config.get("method", r.method))
    read = dict.fromkeys([r.benchmark, *([r.trained_on.benchmark] if r.trained_on else [])])
    try:
        methods, benchmarks = registry.methods(), registry.benchmarks()
        absent = [_absent("method", method, methods), *(_absent("benchmark", name, benchmarks) for name in read)]
        if any(absent):
            raise ConfigError(next(filter(None, absent)))
        classes = planning.classes_of(methods[method].load(), *(benchmarks[name].load() for name in read))
        sources = provenance.sources(classes)
    except ConfigError as error:
        yield CheckResult("code", "unverified", first_line(error))
        return
    other = [
        f"{name} is {digest[:12]}, the run's {r.provenance.sources.get(name, 'unknown')[:12]}"
        for name, digest in sources.items()
        if r.provenance.sources.get(name) != digest
    ]
    if r.provenance.training != TRAINING:
        by = f"{r.provenance.package}, version {r.provenance.training} of training"
        other = [f"the run is of {by}; this is {provenance.package()}, version {TRAINING}"]
    if other:
        yield CheckResult("code", "unverified", _few(other))
        yield CheckResult("config", "unverified", "planned with other code it may give another run")
        return
    yield CheckResult("code", "ok", f"version {TRAINING} of training; {', '.join(sources)} as they were")
    yield _config(run, data_dir)


def _commit(record: Record) -> CheckResult:
    commit = record.provenance.git_commit
    known = _knows(commit) if commit else None
    if commit is None:
        return CheckResult("commit", "unverified", "none recorded: the code wasn't run from a checkout")
    if not known:
        where = "there is no checkout here to look it up in" if known is None else "it isn't in this checkout"
        return CheckResult("commit", "unverified", f"{commit[:12]}: {where}")
    if record.provenance.git_dirty:
        return CheckResult("commit", "unverified", f"{commit[:12]}, with changes that weren't committed")
    return CheckResult("commit", "ok", f"{commit[:12]} is in this checkout")


@lru_cache(maxsize=256)
def _knows(commit: str) -> bool | None:
    """Whether this checkout has the commit; None where this is no checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    if not set(commit) <= set("0123456789abcdef"):  # no option, no expression
        return False
    try:
        asked = subprocess.run(["git", "-C", str(root), "cat-file", "-e", commit + "^{commit}"], capture_output=True)
    except OSError:
        return None
    return asked.returncode == 0


def _config(run: _Examined, data_dir: Path | None) -> CheckResult:
    """Plan the recorded config anew. What it names on this machine or in a hub is opened for own runs only."""
    r = run.record
    if run.dataset is None:
        return CheckResult("config", "unverified", "the run's data aren't at hand")
    if r.trained_on and not run.trusted:
        return CheckResult("config", "unverified", "it learned from another benchmark, and came from elsewhere")
    try:
        # Plugins are code: never those that the record names.
        folders = {"data_dir": data_dir} | ({"train_on_data_dir": data_dir} if r.trained_on else {})
        config = parse(RunConfig, {**r.config, "plugins": (), **folders}, "the recorded config")
    except ConfigError as error:
        return CheckResult("config", "changed", first_line(error))
    if reason := _no_ladder(config, run.trusted):
        return CheckResult("config", "unverified", reason)
    try:
        run.plan = planning.make(config)
    except ModelError as error:
        return CheckResult("config", "unverified", f"the ladder's models can't be read: {first_line(error)}")
    except DataError as error:
        return CheckResult("config", "unverified", f"the data that it learned from aren't at hand: {first_line(error)}")
    except UserError as error:
        return CheckResult("config", "changed", f"it can't be planned: {first_line(error)}")
    if run.plan.run_id != r.run_id:
        differs = [key for key, value in run.plan.identity.items() if _plain(value) != r.identity.get(key)]
        if differs == ["ladder"]:
            return CheckResult("config", "unverified", "the ladder's weights aren't those of the run")
        if r.provenance.package != provenance.package():  # its settings may have other defaults
            return CheckResult("config", "unverified", f"planned by {provenance.package()} it gives {run.plan.run_id}")
        what = f"by {', '.join(differs)}" if r.identity else "it, or the ladder's weights, changed"
        return CheckResult("config", "changed", f"planned anew it gives another run, {run.plan.run_id}: {what}")
    now = {
        "settings": _plain(run.plan.settings),
        "ladder": run.plan.ladder,
        "parameters": run.plan.student_parameters,
        "task": run.plan.benchmark.task,
    }
    wrong = [f"{k} is {getattr(r, k)!r}, planned anew {value!r}" for k, value in now.items() if getattr(r, k) != value]
    if r.status == "done" and (said := _stages_of(r)) != (planned := _stages_planned(run.plan)):
        wrong.append(f"its stages are {said}, planned anew {planned}")
    return _judged("config", wrong, "planned anew it gives the same run")


def _plain(value: Any) -> Any:
    """As JSON has it: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _no_ladder(config: RunConfig, trusted: bool) -> str:
    """Why the ladder's models can't be looked at; empty if they can."""
    if config.ladder in ladders.names():
        return ""
    if not trusted:
        return "the ladder is none of the package's, and the run came from elsewhere"
    try:
        absent = [rung.model for rung in ladders.find(config.ladder).rungs if not Path(rung.model).is_dir()]
    except ConfigError as error:
        return f"the ladder isn't at hand: {first_line(error)}"
    return f"the ladder's models aren't at hand: {', '.join(absent)}" if absent else ""


_Stages = list[tuple[str, float, int, dict[str, tuple[bool, int]]]]


def _stages_of(record: Record) -> _Stages:
    return [
        (s.name, s.share, s.steps, {name: (role.trainable, role.parameters) for name, role in s.roles.items()})
        for s in record.stages
    ]


def _stages_planned(plan: Plan) -> _Stages:
    def size(stage: Stage, role: str) -> int:
        return plan.infos[stages.rung_of(plan.stages, stage, role)].parameters

    return [
        (p.stage.name, p.stage.share, p.steps, {n: (r.trainable, size(p.stage, n)) for n, r in p.stage.roles.items()})
        for p in plan.stages
    ]


def _identity(run: _Examined) -> Iterator[CheckResult]:
    """The run id is the hash of the identity, and the identity says what the record says."""
    r, identity = run.record, run.record.identity
    if not consistency.planned(r):
        return
    if not identity:
        if run.plan is not None and run.plan.run_id == r.run_id:
            yield CheckResult("run id", "ok", "planned anew it is the same")
        else:
            yield CheckResult("run id", "unverified", "the record doesn't say what it is the hash of")
        return
    try:
        name = planning.run_name(identity)
    except KeyError as error:
        yield CheckResult("run id", "changed", f"the identity has no {error}")
        return
    plugins = identity.get("plugins")
    said = {
        "training": r.provenance.training,
        "plugins": {name: r.provenance.sources.get(name) for name in plugins} if isinstance(plugins, dict) else {},
        "version": r.provenance.package.removeprefix("hkdbench "),
        "code": r.provenance.code,
        "method": r.config.get("method"),
        "settings": r.settings,
        "benchmark": r.benchmark,
        "data": [r.data.revision, r.data.fingerprint] if r.data else None,
        "student": r.student,
        "seed": r.seed,
        "train": r.config.get("train"),
        "evaluate": r.config.get("evaluate"),
    }
    wrong = [] if name == r.run_id else [f"the identity's hash gives {name}"]
    for key, value in said.items():
        if key in identity and identity[key] != value:
            wrong.append(f"{key} is {value!r}, in the identity {identity[key]!r}")
    yield _judged("run id", wrong, "the hash of the run's identity")


# ------------------------------------------------------------------------------- predictions, training


def _predictions(run: _Examined) -> Iterator[CheckResult]:
    """Answers, golds and figures."""
    frame, r = run.predictions, run.record
    if frame is None:
        return
    if r.kind == "robustness":
        yield CheckResult("figures", "unverified", "those of a student asked in other ways aren't computed anew")
        return
    yield _judged("answers", consistency.in_answers(frame, r, run.setup), f"{len(frame)}, one an example")
    if run.dataset is None:
        yield CheckResult("golds", "unverified", "the run's data aren't at hand")
    else:
        yield _judged("golds", consistency.in_golds(frame, run.dataset), "those of the benchmark")
        if r.kind == "control" and not r.student:
            yield _control(r, list(consistency.in_control(frame, run.dataset, r)))
    evaluate = run.setup.evaluate
    if evaluate is None or evaluate.resamples > MOST_RESAMPLES:
        said = evaluate.resamples if evaluate else "an unknown number of"
        yield CheckResult("figures", "unverified", f"{said} resamples; expected at most {MOST_RESAMPLES}")
        return
    found = consistency.figures(frame, r, evaluate.resamples, run.dataset)
    wrong = list(found.wrong)
    if r.provenance.scoring == SCORING:
        wrong += found.intervals
    elif found.intervals:
        other = f"computed by another version of the statistics: {_few(found.intervals)}"
        yield CheckResult("figures", "unverified", other)
    if found.unknown:
        yield CheckResult("figures", "unverified", f"{_few(found.unknown)}: that takes the run's data")
    yield _judged("figures", wrong, f"{found.right} computed anew")


def _control(record: Record, wrong: list[str]) -> CheckResult:
    if wrong and record.provenance.scoring != SCORING:
        return CheckResult("control", "unverified", f"answered by another version of the controls: {_few(wrong)}")
    return _judged("control", wrong, "its answers follow from the data")


def _training(run: _Examined) -> Iterator[CheckResult]:
    """History and cost."""
    r = run.record
    if r.status == "done" and consistency.planned(r):
        if run.history is not None:
            wrong = consistency.in_history(run.history, r, run.setup)
            yield _judged("history", wrong, f"{len(run.history)} values in {len(r.stages)} stages")
        yield _judged("cost", consistency.in_cost(r, run.predictions), f"{len(r.cost.roles)} roles sum up")
