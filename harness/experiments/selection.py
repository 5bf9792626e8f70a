"""A sweep from its file to its winners: the searches in turn, then the best again from fresh seeds.

<store>/.sweeps/<name>.json          what the sweep is: the same name with other content is refused
<store>/.sweeps/<name>.result.json   what its searches found so far; the same command goes on from here
<store>/.sweeps/<name>/              what a search under way would go on from (below a bucket's local scratch folder)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness import provenance
from harness.config import RunConfig
from harness.errors import StoreError, UserError
from harness.evaluation import scoring
from harness.execution.trackers import tracker
from harness.experiments.sweep import (
    Finalist,
    Outcome,
    Point,
    Search,
    SweepConfig,
    Trial,
    points,
    ranked,
    student_validations,
    told,
)
from harness.planning import plan
from harness.record import Record
from harness.report.format import plain
from harness.stats import inference
from harness.store import Store
from harness.store.backend import SWEEPS

ELSEWHERE = {"cluster", "data_dir", "train_on_data_dir", "plugins", "track"}
"""Where a sweep takes place is no part of what it is."""
PRICED = 32
"""At most so many trials of a search are priced; the others are taken to cost as much on average."""

Watch = Callable[[dict[str, Any]], None]
Launch = Callable[[Sequence[RunConfig], Store, str], list[Record]]
"""Runs configurations that the store doesn't hold yet: `harness.execution.launch` with its progress shown."""


class Result(BaseModel):
    """The searches that have ended, by `Search.name`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    searches: dict[str, Outcome] = {}


def run(sweep: SweepConfig, store: Store, watch: Watch, launch: Launch) -> Result:
    """All searches of a checked sweep, and their winners.

    `watch` takes the news of trials (see `harness.experiments.ray_tune`), each with `search`. Raises `StoreError`
    where the store
    has a sweep of this name with other content, and `KeyboardInterrupt`: the same call goes on from there.
    """
    from harness.experiments import ray_tune

    searches = sweep.searches()
    listed = {search.name: points(search) for search in searches}
    first = {search.name: _first(search, listed[search.name]) for search in searches}
    plans = {search.name: plan.make(search.trial(first[search.name], sweep.seeds[0])) for search in searches}
    tracker(sweep.track, store, {}, watch)  # what it lacks is told here, not by every trial
    store.check_writable()
    _claim(sweep, {name: planned.code for name, planned in plans.items()}, store)
    result = _load(sweep, store)
    for search in searches:
        # Before the first run that scores less than all splits: the model-free rows are written once.
        splits = sweep.confirm.splits if sweep.confirm.top else ("validation",)
        name, method = search.name, search.method
        scoring.ensure_controls(plan.make(search.run(first[name], sweep.seeds[0], splits)), store)
        folder = store.backend.scratch / SWEEPS / sweep.name
        found = result.searches.get(name)
        if found is None:

            def see(news: dict[str, Any], name: str = name) -> None:
                watch({"search": name, **news})

            trials = tuple(ray_tune.run(search, listed[name], store, folder, see))
            _close(search, trials, store)
            found = Outcome(method=method.method, student=method.student, benchmark=search.benchmark, trials=trials)
            result.searches[name] = found
            _save(result, store)
            shutil.rmtree(folder, ignore_errors=True)
        if sweep.confirm.top and found.winner is None:
            result.searches[name] = _confirmed(search, found, store, launch)
            _save(result, store)
    return result


def _first(search: Search, listed: Sequence[Point] | None) -> Point:
    """A point of the space: the first trial's, or the lower ends."""
    if listed:
        return listed[0]
    point: Point = {}
    for name, dimension in search.method.space.items():
        if dimension.active(point):
            point[name] = dimension.ends()[0]
    return point


def _close(search: Search, trials: Sequence[Trial], store: Store) -> None:
    """The last run of a trial that was stopped, or lost its workers, gets its record; a stopped one's work goes."""
    for trial in trials:
        if trial.status == "failed":
            with suppress(UserError):  # where there can't even be a plan, there is no run
                _close_lost(search, trial, store)
        if trial.status != "stopped" or not trial.validations:
            continue
        first = plan.make(search.trial(trial.point, search.sweep.seeds[0]))
        seed = search.sweep.seeds[(trial.validations - 1) // student_validations(first)]
        planned = plan.make(search.trial(trial.point, seed))
        if store.status(planned.run_id) != "done":
            why = (
                f"the sweep's rule ({search.sweep.stop}) stopped its trial after {trial.validations} validations, at "
                f"{trial.score or 0:.4f}: it was behind"
            )
            store.write(scoring.interrupted(planned, provenance.now(), planned.config.cluster.workers, why))
            shutil.rmtree(store.work(planned.run_id), ignore_errors=True)


def _close_lost(search: Search, trial: Trial, store: Store) -> None:
    plans = [plan.make(search.trial(trial.point, seed)) for seed in search.sweep.seeds]
    open_ = next((planned for planned in plans if store.status(planned.run_id) != "done"), None)
    if open_ is not None and store.status(open_.run_id) is None:
        error = RuntimeError(trial.error or "its trial failed")
        store.write(scoring.failed(open_, error, provenance.now(), open_.config.cluster.workers))


# ------------------------------------------------------------------------------------------ the finalists


def _confirmed(search: Search, found: Outcome, store: Store, launch: Launch) -> Outcome:
    """The best trials from fresh seeds; the one that leads on validation then on all splits."""
    sweep, confirm = search.sweep, search.sweep.confirm
    best = ranked(found.trials)[: confirm.top]
    if not best:
        return found
    finalists = []
    if len(best) > 1:
        configs = [[search.run(t.point, seed, ("validation",), "finalist") for seed in confirm.seeds] for t in best]
        records = launch([config for of_trial in configs for config in of_trial], store, sweep.name)
        size = len(confirm.seeds)
        for number, trial in enumerate(best):
            finalists.append(_finalist(trial, records[number * size : (number + 1) * size], sweep))
        through = [one for one in finalists if one.score is not None]
        if not through:
            return found.model_copy(update={"finalists": tuple(finalists)})
        leads = max(through, key=lambda one: one.score or 0.0)  # of equal ones the better trial
        best = [trial for trial in best if trial.number == leads.number]
    (trial,) = best
    last = launch([search.run(trial.point, s, confirm.splits, "winner") for s in confirm.seeds], store, sweep.name)
    winner = _finalist(trial, last, sweep)
    figures = {}
    if all(record.status == "done" for record in last):
        for split in (s for s in confirm.splits if s in last[0].metrics):
            frames = [store.predictions(record.run_id, split) for record in last]
            options = last[0].data.options if last[0].data else None
            figures[split] = {
                sweep.metric: inference.across_seeds(frames, options, sweep.metric, sweep.evaluate.resamples)
            }
    return found.model_copy(update={"finalists": tuple(finalists), "winner": winner, "figures": figures})


def _finalist(trial: Trial, records: Sequence[Record], sweep: SweepConfig) -> Finalist:
    metrics = [r.metrics.get("validation", {}) for r in records if r.status == "done"]
    done = [figures[sweep.metric].value for figures in metrics if sweep.metric in figures]
    return Finalist(
        number=trial.number,
        point=trial.point,
        runs=tuple(record.run_id for record in records),
        score=fmean(done) if len(done) == len(records) else None,
    )


# ---------------------------------------------------------------------------------------------- the price


def price(sweep: SweepConfig) -> list[dict[str, Any]]:
    """For each search its trials, runs and estimated FLOPs of training, and what the teacher cache would leave.

    `train_flops` counts every run alone. `shared_flops` is what all trials of a seed may have in common: frozen roles,
    and stages that only ready a teacher. With `train.cache` = auto it is paid once a seed (`least_flops`), unless
    the space itself changes it.
    """
    from harness.planning.cost import of as priced_alone

    rows = []
    for search in sweep.searches():
        listed = points(search) or [_first(search, None)]
        priced = [plan.make(search.trial(point, sweep.seeds[0])) for point in listed[:PRICED]]
        costs = [(priced_alone(one), one) for one in priced]
        whole = fmean(cost["train_flops"] for cost, _ in costs)
        shared = fmean(_shared(cost, one) for cost, one in costs)
        seeds, fresh = len(sweep.seeds), len(sweep.confirm.seeds)
        top = min(sweep.confirm.top, sweep.trials)
        finals = fresh * (top + 1 if top > 1 else top)
        runs = sweep.trials * seeds + finals
        cached = sweep.train.cache == "auto"
        paid = seeds + (fresh if finals else 0)
        rows.append(
            {
                "search": search.name,
                "method": search.method.method,
                "student": search.method.student,
                "benchmark": search.benchmark,
                "trials": sweep.trials,
                "runs": runs,
                "runs_of_trials": sweep.trials * seeds,
                "space": {n: d.model_dump(exclude_defaults=True) for n, d in search.method.space.items()},
                "train_flops": whole * runs,
                "shared_flops": shared * runs,
                "least_flops": whole * runs - (shared * (runs - paid) if cached else 0.0),
            }
        )
    return rows


def _shared(cost: dict[str, Any], planned: plan.Plan) -> float:
    flops = 0.0
    for stage in cost["stages"]:
        readies = planned.method.stage_settings(stage["name"]) is not None
        student = stage["roles"].get(planned.method.student)
        whole = readies and not (student and student["trainable"])
        flops += sum(role["flops"] for role in stage["roles"].values() if whole or not role["trainable"])
    return flops


# ------------------------------------------------------------------------------------------------- files


def _claim(sweep: SweepConfig, code: dict[str, str], store: Store) -> None:
    """The sweep's name is this content's from now on. Raises `StoreError` where it is another's."""
    mine = {"sweep": sweep.model_dump(mode="json", exclude=ELSEWHERE), "code": code}
    name = f"{SWEEPS}/{sweep.name}.json"
    try:
        there = json.loads(store.backend.read(name))
    except FileNotFoundError:
        store.write_text(name, json.dumps(mine, indent=1))
        return
    except (OSError, ValueError) as error:
        raise StoreError(f"sweep {sweep.name!r}: {name} in {store.url!r} can't be read: {error}; delete it") from None
    mend = f"give this one another name, or delete {name} and {SWEEPS}/{sweep.name}.result.json there"
    known = there.get("sweep", {})
    if other := [key for key, value in mine["sweep"].items() if known.get(key) != value]:
        raise StoreError(
            f"sweep {sweep.name!r} is in {store.url!r} already, with other content ({', '.join(other)} differ): {mend}"
        )
    if there.get("code") != code:
        raise StoreError(
            f"sweep {sweep.name!r} was begun in {store.url!r} with other code, whose runs can't be compared with "
            f"these: {mend}"
        )


def _load(sweep: SweepConfig, store: Store) -> Result:
    try:
        return Result.model_validate_json(store.backend.read(f"{SWEEPS}/{sweep.name}.result.json"))
    except (FileNotFoundError, ValidationError):  # nothing yet, or cut short: trials are in the store all the same
        return Result(name=sweep.name)


def _save(result: Result, store: Store) -> None:
    store.write_text(f"{SWEEPS}/{result.name}.result.json", result.model_dump_json(indent=1))


# ------------------------------------------------------------------------------------------------- texts


def to_text(result: Result) -> str:
    """The searches' best trials and winners for a person."""
    lines = []
    for found in result.searches.values():
        counts = {s: sum(t.status == s for t in found.trials) for s in ("done", "stopped", "failed")}
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        lines.append(f"{found.method} {found.student} on {found.benchmark}: {len(found.trials)} trials, {said}")
        lines += [f"  {t.score:.4f}  trial {t.number}: {told(t.point)}" for t in ranked(found.trials)[:5]]
        for one in found.finalists:
            score = "failed" if one.score is None else f"{one.score:.4f}"
            lines.append(f"  fresh seeds {score}  trial {one.number}: {told(one.point)}")
        if found.winner is not None:
            lines.append(f"  winner: trial {found.winner.number}: {told(found.winner.point)}")
            for split, figures in found.figures.items():
                lines += [f"    {split:10} {metric} {plain(value, 4)}" for metric, value in figures.items()]
    return "\n".join(lines)
