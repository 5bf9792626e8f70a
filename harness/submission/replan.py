"""Whether the present code plans a stored run again: its commit, its sources, its config, its id."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import provenance, registry
from harness.api import Stage
from harness.config import RunConfig, parse
from harness.errors import ConfigError, DataError, ModelError, UserError, first_line
from harness.models import ladders
from harness.planning import plan as planning
from harness.planning import stages
from harness.planning.plan import Plan
from harness.record import Record
from harness.submission import consistency
from harness.submission.checks import CheckResult, ExaminedRun, first_few, result_of
from harness.versions import TRAINING


def not_loaded(kind: str, name: str, known: Mapping[str, Any]) -> str:
    return "" if name in known else f"{kind} {name!r} isn't here: load it with --plugin"


def code_checks(run: ExaminedRun, data_dir: Path | str | None) -> Iterator[CheckResult]:
    """Check the present code; if it is the run's, the config must give the same run again."""
    r = run.record
    yield _commit(r)
    if not consistency.planned(r):
        return
    method = str(r.config.get("method", r.method))
    read = dict.fromkeys([r.benchmark, *([r.trained_on.benchmark] if r.trained_on else [])])
    try:
        methods, benchmarks = registry.methods(), registry.benchmarks()
        absent = [not_loaded("method", method, methods), *(not_loaded("benchmark", name, benchmarks) for name in read)]
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
        yield CheckResult("code", "unverified", first_few(other))
        yield CheckResult("config", "unverified", "with different code it may give another run")
        return
    yield CheckResult("code", "ok", f"version {TRAINING} of training; {', '.join(sources)} unchanged")
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
    """Whether this checkout has the commit; None if this isn't a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    if not set(commit) <= set("0123456789abcdef"):  # not an option or an expression
        return False
    try:
        asked = subprocess.run(["git", "-C", str(root), "cat-file", "-e", commit + "^{commit}"], capture_output=True)
    except OSError:
        return None
    return asked.returncode == 0


def _config(run: ExaminedRun, data_dir: Path | str | None) -> CheckResult:
    """Plan the recorded config again. Files on this machine and hub models are only opened for local runs."""
    r = run.record
    if run.dataset is None:
        return CheckResult("config", "unverified", "the run's data aren't available")
    if r.trained_on and not run.trusted:
        return CheckResult("config", "unverified", "it learned from another benchmark, and came from elsewhere")
    try:
        # Plugins are code: never those that the record names.
        folders = {"data_dir": data_dir} | ({"train_on_data_dir": data_dir} if r.trained_on else {})
        config = parse(RunConfig, {**r.config, "plugins": (), **folders}, "the recorded config")
    except ConfigError as error:
        return CheckResult("config", "changed", first_line(error))
    if reason := no_ladder(config, run.trusted):
        return CheckResult("config", "unverified", reason)
    try:
        run.plan = planning.make(config)
    except ModelError as error:
        return CheckResult("config", "unverified", f"the ladder's models can't be read: {first_line(error)}")
    except DataError as error:
        return CheckResult("config", "unverified", f"its training data aren't available: {first_line(error)}")
    except UserError as error:
        return CheckResult("config", "changed", f"it can't be planned: {first_line(error)}")
    identity = identity_as_in(r, run.plan)
    if planning.run_name(identity) != r.run_id:
        differs = [key for key, value in identity.items() if plain(value) != r.identity.get(key)]
        built_in = config.ladder in ladders.names()
        if differs == ["ladder"] and built_in and r.provenance.package == provenance.package():
            return CheckResult("config", "changed", f"the ladder {config.ladder!r} has other weights than the run's")
        if differs == ["ladder"]:
            return CheckResult("config", "unverified", "the ladder's weights aren't those of the run")
        if r.provenance.package != provenance.package():  # the defaults of its settings may differ
            return CheckResult("config", "unverified", f"planned by {provenance.package()} it gives {run.plan.run_id}")
        what = f"by {', '.join(differs)}" if r.identity else "it, or the ladder's weights, changed"
        return CheckResult("config", "changed", f"planned again it gives another run, {run.plan.run_id}: {what}")
    now = {
        "settings": plain(run.plan.settings),
        "ladder": run.plan.ladder,
        "parameters": run.plan.student_parameters,
        "task": run.plan.benchmark.task,
    }
    wrong = [f"{k} is {getattr(r, k)!r}, planned again {value!r}" for k, value in now.items() if getattr(r, k) != value]
    if run.plan.training is not run.plan.dataset and r.trained_on is not None:
        seen, learned = r.trained_on.data, run.plan.training
        for k, recorded_, planned_ in (
            ("sizes", seen.sizes, learned.sizes),
            ("options", seen.options, list(learned.options) if learned.options else None),
        ):
            if recorded_ != planned_:
                wrong.append(f"{k} of trained_on are {recorded_!r}, planned again {planned_!r}")
    if r.status == "done" and (recorded := _stages_of(r)) != (planned := _stages_planned(run.plan)):
        wrong.append(f"its stages are {recorded}, planned again {planned}")
    return result_of("config", wrong, "planned again it gives the same run")


def is_plan_of(record: Record, plan: Plan) -> bool:
    """Whether the plan is that of the run."""
    return planning.run_name(identity_as_in(record, plan)) == record.run_id


def identity_as_in(record: Record, plan: Plan) -> dict[str, Any]:
    """The plan's identity, with the older fingerprints of its data where the record has those."""
    identity = dict(plan.identity)
    if record.data and plan.published.recognises(record.data.fingerprint) == "names":
        identity["data"] = [identity["data"][0], record.data.fingerprint]
    learned = record.trained_on.data.fingerprint if record.trained_on else ""
    if identity["train_on"] and plan.learned.recognises(learned) == "names":
        identity["train_on"] = [*identity["train_on"][:3], learned]
    return identity


def plain(value: Any) -> Any:
    """As in JSON: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def no_ladder(config: RunConfig, trusted: bool) -> str:
    """Why the ladder's models can't be read; empty if they can."""
    if config.ladder in ladders.names():
        return ""
    if not trusted:
        return "the ladder isn't part of the package, and the run came from elsewhere"
    try:
        absent = [rung.model for rung in ladders.find(config.ladder).rungs if not Path(rung.model).is_dir()]
    except ConfigError as error:
        return f"the ladder isn't available: {first_line(error)}"
    return f"the ladder's models aren't available: {', '.join(absent)}" if absent else ""


_Stages = list[tuple[str, float, int, dict[str, tuple[bool, str | None, int]]]]


def _stages_of(record: Record) -> _Stages:
    return [
        (s.name, s.share, s.steps, {n: (r.trainable, r.average_of, r.parameters) for n, r in s.roles.items()})
        for s in record.stages
    ]


def _stages_planned(plan: Plan) -> _Stages:
    def size(stage: Stage, role: str) -> int:
        return plan.infos[stages.rung_of(plan.stages, stage, role)].parameters

    return [
        (
            p.stage.name,
            p.stage.share,
            p.steps,
            {n: (r.trainable, r.average_of, size(p.stage, n)) for n, r in p.stage.roles.items()},
        )
        for p in plan.stages
    ]


def identity_checks(run: ExaminedRun) -> Iterator[CheckResult]:
    """Check that the run id is the hash of the identity, and that the identity agrees with the record."""
    r, identity = run.record, run.record.identity
    if not consistency.planned(r):
        return
    if not identity:
        if run.plan is not None and is_plan_of(r, run.plan):
            yield CheckResult("run id", "ok", "planned again it is the same")
        else:
            yield CheckResult("run id", "unverified", "the record doesn't say what it is the hash of")
        return
    try:
        name = planning.run_name(identity)
    except KeyError as error:
        yield CheckResult("run id", "changed", f"the identity has no {error}")
        return
    plugins = identity.get("plugins")
    recorded = {
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
        "skip_missing": r.config.get("skip_missing", False),
        "control": r.config.get("control"),
    }
    if r.status == "done":
        other = r.trained_on
        recorded["train_on"] = (
            [other.benchmark, other.settings, other.data.revision, other.data.fingerprint] if other else None
        )
    wrong = [] if name == r.run_id else [f"the identity's hash gives {name}"]
    for key, value in recorded.items():
        if key in identity and identity[key] != value:
            wrong.append(f"{key} is {value!r}, in the identity {identity[key]!r}")
    yield result_of("run id", wrong, "the hash of the run's identity")
