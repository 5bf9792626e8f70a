"""Train a run again from its record, and compare the answers with the recorded ones.

A run's record has its configuration, the version of the code, and the fingerprint of its data. It is trained again in a
store of its own, without anything that other runs left in a cache. On the same machine with the same code the answers
must have the same bits. Elsewhere rounding differs, and a training may drift apart as two seeds do: then the accuracies
must not differ by more than those of two seeds. The result is written beside the runs (`harness.store.checksums`). It
is as trustworthy as the one who ran it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import provenance
from harness.config import RunConfig, parse
from harness.errors import ConfigError, DataError, UserError, first_line
from harness.events import OnEvent
from harness.paths import cache_folder
from harness.planning import plan as planning
from harness.planning.plan import Plan
from harness.record import Record, Reproduction, SplitAgreement
from harness.stats import moderated
from harness.store import Store, checksums, index
from harness.store.catalog import View
from harness.submission.replan import identity_as_in, no_ladder, plain

CONFIDENCE = 0.95
_ANSWERS = ("split", "id", "gold", "chosen", "scores", "text")
"""What must have the same bits; `seconds` are never the same twice."""


@dataclass(frozen=True)
class Reproduced:
    """What became of a run: the comparison, or why there is none."""

    run_id: str
    result: Reproduction | None = None
    problem: str = ""
    file: str = ""
    """The attested result's file, empty if the store can't be written."""


def reproduce(
    store: Store,
    run_ids: Sequence[str],
    on_event: OnEvent,
    data_dir: Path | str | None = None,
    plugins: Sequence[str] = (),
    workers: int | None = None,
) -> list[Reproduced]:
    """Train these runs again and write what was found beside them, in their order. None stops the others.

    `data_dir` has the published files, if the benchmarks read some. Code that records name isn't loaded: `plugins` are
    the files and modules that may be. `workers`: as recorded, unless given.
    """
    from harness.execution.launch import launch

    planned: dict[str, tuple[Record, Plan]] = {}
    problems: dict[str, str] = {}
    for run_id in run_ids:
        try:
            record = store.read(run_id)
            planned[run_id] = record, planning.make(_config(store, record, data_dir, plugins, workers))
            _check_data(*planned[run_id])
            _answers(store, record)  # those that can't be read aren't worth a training
        except UserError as error:
            planned.pop(run_id, None)
            problems[run_id] = first_line(error)
    aside = Store(_aside(store, sorted(planned)))
    by_cluster: dict[str, list[RunConfig]] = {}
    for _, p in planned.values():
        by_cluster.setdefault(p.config.cluster.model_dump_json(), []).append(p.config)
    done = [record for configs in by_cluster.values() for record in launch(configs, aside, "reproduce", on_event)]
    again = {record.run_id: record for record in done}
    outcomes = []
    for run_id in run_ids:
        if run_id not in planned:
            outcomes.append(Reproduced(run_id, problem=problems[run_id]))
            continue
        record, p = planned[run_id]
        try:
            found = _compared(store, record, p, aside, again[p.run_id])
        except UserError as error:
            outcomes.append(Reproduced(run_id, problem=first_line(error)))
            continue
        name, text = checksums.attested(found)
        if not store.packed:
            store.write_text(name, text)
        outcomes.append(Reproduced(run_id, found, file="" if store.packed else name))
    _remove(store, aside)
    return outcomes


def sample(store: Store, count: int, seed: int) -> list[str]:
    """A random sample of the runs that can be trained again, by id; all of them if there are no more than `count`."""
    lines = index.from_arrow(View(store).lines())
    fit = [run.run_id for run in lines if run.status == "done" and run.kind != "robustness" and run.student]
    return sorted(random.Random(f"audit/{seed}").sample(fit, min(count, len(fit))))


# ------------------------------------------------------------------------------------------- training again


def _config(
    store: Store, record: Record, data_dir: Path | str | None, plugins: Sequence[str], workers: int | None
) -> RunConfig:
    """The recorded configuration. Raises `ConfigError` for a run that can't be trained again."""
    if why := _nothing_to_train(record):
        raise ConfigError(f"run {record.run_id} can't be trained again: {why}")
    trusted = store.received(record.run_id) is None
    cluster: dict[str, Any] = dict(record.config.get("cluster", {})) if trusted else {"workers": 0}
    if workers is not None:
        cluster |= {"workers": workers, "min_workers": None}
    folders = {"data_dir": data_dir} | ({"train_on_data_dir": data_dir} if record.trained_on else {})
    own = {"plugins": plugins, "cluster": cluster, "track": {}, "tags": (), "label": None, "save_student": False}
    config = parse(RunConfig, {**record.config, **own, **folders}, f"the configuration of run {record.run_id}")
    if why := no_ladder(config, trusted):
        raise ConfigError(f"run {record.run_id} can't be trained again: {why}")
    return config


def _nothing_to_train(record: Record) -> str:
    if record.provenance.imported:
        return "its answers were imported"
    if record.kind == "robustness":
        return "it varies the inputs of another run's student"
    if record.status != "done":
        return f"it is {record.status}"
    if not record.student:
        return "it is a control without a model, which `hkdbench verify` computes again"
    return ""


def _check_data(record: Record, plan: Plan) -> None:
    """Raise `DataError` if the data aren't those of the record."""
    pairs = [(record.data, plan.published), (record.trained_on and record.trained_on.data, plan.learned)]
    for seen, now in pairs:
        if seen and (seen.revision != now.benchmark.revision or not now.recognises(seen.fingerprint)):
            raise DataError(
                f"the data of {now.benchmark.name!r} aren't those of run {record.run_id}: check --data-dir and the "
                f"revision (now {now.benchmark.revision}, the run's {seen.revision})"
            )


def _aside(store: Store, run_ids: Sequence[str]) -> str:
    """The address of the store that they are trained in: the same again, so that an interrupted one continues."""
    what = f"{store.url} {provenance.static()['code']} {' '.join(run_ids)}"
    name = f".reproduce-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    return str(cache_folder() / name) if store.packed else f"{store.url}/.work/{name}"


def _remove(store: Store, aside: Store) -> None:
    if store.packed:
        aside.backend.remove(".")
    else:
        store.backend.remove(aside.url.removeprefix(f"{store.url}/"))


# ------------------------------------------------------------------------------------------------ comparing


def _compared(store: Store, record: Record, plan: Plan, aside: Store, again: Record) -> Reproduction:
    """Raises `UserError` for answers that can't be compared."""
    if again.status != "done":
        why = again.error.message if again.error else again.status
        raise DataError(f"training it again failed: {why.splitlines()[0]}")
    old = _answers(store, record)
    new = _answers(aside, again)
    if not old.select(["split", "id"]).equals(new.select(["split", "id"])):
        raise DataError(f"run {record.run_id} answered other examples than the same run does now")
    differences = list(_differences(record, plan, again))
    limits = _limits(store, record, sorted(set(old["split"].to_pylist())))
    splits = {split: _agreement(old, new, split, limit) for split, limit in limits.items()}
    if old.equals(new):
        verdict = "equal"
    elif differences and all(_within(one) for one in splits.values()):
        verdict = "agrees"
    else:
        verdict = "differs"
    return Reproduction.model_validate(
        {
            "run_id": record.run_id,
            "record": checksums.record_sum(record, store.backend),
            "verdict": verdict,
            "splits": splits,
            "differences": differences,
            "notes": list(_notes(record, again)),
            "provenance": again.provenance,
        }
    )


def _answers(store: Store, record: Record) -> pa.Table:
    table = store.table(record.run_id, "predictions", _ANSWERS, record)
    return table.select(list(_ANSWERS)).sort_by([("split", "ascending"), ("id", "ascending")]).combine_chunks()


def _agreement(old: pa.Table, new: pa.Table, split: str, limit: float | None) -> SplitAgreement:
    of_old, of_new = (table.filter(pc.equal(table["split"], split)) for table in (old, new))

    def share(a: pa.ChunkedArray, b: pa.ChunkedArray) -> float:
        return float(pc.mean(pc.equal(a, b).cast(pa.float64())).as_py())

    return SplitAgreement(
        examples=len(of_old),
        equal=share(of_old["chosen"], of_new["chosen"]),
        recorded=share(of_old["chosen"], of_old["gold"]),
        again=share(of_new["chosen"], of_new["gold"]),
        limit=limit,
    )


def _within(one: SplitAgreement) -> bool:
    return one.equal == 1 or (one.limit is not None and abs(one.difference) <= one.limit)


def _limits(store: Store, record: Record, splits: Sequence[str]) -> Mapping[str, float | None]:
    """By split the largest difference of accuracies that two seeds show: the t quantile times sqrt(2) sigma.

    sigma is the moderated standard deviation (`harness.stats.moderated`) between the row's other seeds: without the run
    that is in doubt. None: no row of the store on these data has two seeds.
    """
    from scipy.stats import t

    from harness.leaderboard.seed_spread import COLUMNS, Spreads

    assert record.data is not None
    view = View(store, COLUMNS)
    lines = view.lines(COLUMNS)
    data_key = record.benchmark, record.data.revision, record.data.fingerprint
    kin = {
        run.run_id: run.seed
        for run in index.from_arrow(lines)
        if (run.data_key, run.row, run.status) == (data_key, index.row_key(record), "done")
        and run.run_id != record.run_id
    }
    limits: dict[str, float | None] = {}
    for split in splits:
        prior = Spreads(view, split).of(data_key).rows("accuracy")
        stated = index.figures(lines, split)
        seeds = {seed: stated[run_id]["accuracy"].value for run_id, seed in kin.items() if "accuracy" in stated[run_id]}
        if prior is None:
            limits[split] = None
            continue
        own = np.array([np.var(list(seeds.values()), ddof=1) if len(seeds) > 1 else 0.0])
        variance, df = moderated.moderated(own, max(0, len(seeds) - 1), prior)
        quantile = float(t.ppf(1 - (1 - CONFIDENCE) / 2 / len(splits), df))
        limits[split] = quantile * float(np.sqrt(2 * variance[0]))
    return limits


def _differences(record: Record, plan: Plan, again: Record) -> Iterator[str]:
    """Why equal bits can't be expected."""
    then, now = record.provenance, again.provenance
    if then.training != now.training:
        yield f"code: version {then.training} of training, now {now.training}"
    other = [
        key
        for key, value in identity_as_in(record, plan).items()
        if record.identity and key != "training" and plain(value) != record.identity.get(key)
    ]
    if other:
        yield f"plan: not the recorded {', '.join(other)}"
    for what, a, b in (("packages", then.versions, now.versions), ("machine", then.machine, now.machine)):
        pairs = [f"{k} {a.get(k, 'unknown')}, now {b.get(k, 'none')}" for k in {**a, **b} if a.get(k) != b.get(k)]
        if pairs:
            yield f"{what}: {'; '.join(pairs)}"
    if then.workers != now.workers:
        yield f"workers: {then.workers}, now {now.workers}"
    if plan.config.cluster.gpus_per_worker or record.config.get("cluster", {}).get("gpus_per_worker"):
        yield "device: a GPU, which doesn't add in the same order each time"


def _notes(record: Record, again: Record) -> Iterator[str]:
    then, now = record.provenance, again.provenance
    if (then.git_commit, then.git_dirty) != (now.git_commit, now.git_dirty) or then.package != now.package:
        yield f"code: {_commit(record)}, now {_commit(again)}"
    changed = [name for name, digest in now.sources.items() if then.sources.get(name) != digest]
    if changed:
        yield f"source of {', '.join(changed)} changed"


def _commit(record: Record) -> str:
    p = record.provenance
    dirty = " with uncommitted changes" if p.git_dirty else ""
    return p.package + (f" at commit {p.git_commit[:12]}{dirty}" if p.git_commit else "")
