"""A sweep from its file to its winners: one search after another, then the best trials again with fresh seeds.

<store>/.sweeps/<name>.json          the sweep's definition: the same name with other content is refused
<store>/.sweeps/<name>.result.json   the results so far; the same command resumes from it
<store>/.sweeps/<name>/              the state of a running search, to resume it (for a bucket: in its scratch folder)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from harness import provenance
from harness.config import RunConfig
from harness.errors import StoreError, UserError
from harness.execution.records import ensure_controls, failed, interrupted
from harness.execution.trackers import tracker
from harness.experiments.outcome import Finalist, OnTrial, Outcome, SweepResult, Trial, ranked
from harness.experiments.sweep import Search, SweepConfig, points_to_plan
from harness.experiments.trial import student_validations
from harness.leaderboard import inference, seed_results
from harness.planning import plan
from harness.record import Record
from harness.store import Store
from harness.store.backend import SWEEPS

ELSEWHERE = {"cluster", "data_dir", "train_on_data_dir", "plugins", "track"}
"""Where a sweep is executed isn't part of its definition."""
PRICED = 32
"""The largest number of trials of a search whose cost is estimated; the others are assumed to cost the average."""

Launch = Callable[[Sequence[RunConfig], Store, str], list[Record]]
"""Runs configurations that the store doesn't have yet: `harness.execution.launch` with a progress display."""


def run(sweep: SweepConfig, store: Store, on_trial: OnTrial, launch: Launch) -> SweepResult:
    """All searches of a checked sweep, and their winners.

    Raises `StoreError` if the store has a sweep of this name with other content, and `KeyboardInterrupt`; the same
    call then resumes.
    """
    from harness.experiments import ray_tune

    searches = sweep.searches()
    first = {search.name: points_to_plan(search)[0] for search in searches}
    plans = {search.name: plan.make(search.trial(first[search.name], sweep.seeds[0])) for search in searches}
    tracker(sweep.track, store, {}, lambda note: None)  # raises here, once, if a library is missing
    store.check_writable()
    _claim(sweep, {name: planned.code for name, planned in plans.items()}, store)
    result = _load(sweep, store)
    for search in searches:
        # Before the first run that scores only some splits: the model-free rows are written once.
        splits = sweep.confirm.splits if sweep.confirm.top else ("validation",)
        name, method = search.name, search.method
        ensure_controls(plan.make(search.run(first[name], sweep.seeds[0], splits)), store)
        folder = store.backend.scratch / SWEEPS / sweep.name
        found = result.searches.get(name)
        if found is None:
            trials = tuple(ray_tune.run(search, store, folder, on_trial))
            _close(search, trials, store)
            found = Outcome(method=method.method, student=method.student, benchmark=search.benchmark, trials=trials)
            result.searches[name] = found
            _save(result, store)
            shutil.rmtree(folder, ignore_errors=True)
        if sweep.confirm.top and found.winner is None:
            result.searches[name] = _confirmed(search, found, store, launch)
            _save(result, store)
    return result


def _close(search: Search, trials: Sequence[Trial], store: Store) -> None:
    """Write the record of the last run of a trial that was stopped, or lost its workers; delete a stopped one's
    work."""
    for trial in trials:
        if trial.status == "failed":
            with suppress(UserError):  # if it can't be planned, there is no run
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
            store.write(interrupted(planned, provenance.now(), planned.config.cluster.workers, why))
            shutil.rmtree(store.work(planned.run_id), ignore_errors=True)


def _close_lost(search: Search, trial: Trial, store: Store) -> None:
    plans = [plan.make(search.trial(trial.point, seed)) for seed in search.sweep.seeds]
    open_ = next((planned for planned in plans if store.status(planned.run_id) != "done"), None)
    if open_ is not None and store.status(open_.run_id) is None:
        error = RuntimeError(trial.error or "its trial failed")
        store.write(failed(open_, error, provenance.now(), open_.config.cluster.workers))


# ------------------------------------------------------------------------------------------ the finalists


def _confirmed(search: Search, found: Outcome, store: Store, launch: Launch) -> Outcome:
    """The best trials with fresh seeds; then the best of these on validation, scored on all splits."""
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
        scored = [one for one in finalists if one.score is not None]
        if not scored:
            return found.model_copy(update={"finalists": tuple(finalists)})
        leads = max(scored, key=lambda one: one.score or 0.0)  # if equal, the better trial
        best = [trial for trial in best if trial.number == leads.number]
    (trial,) = best
    last = launch([search.run(trial.point, s, confirm.splits, "winner") for s in confirm.seeds], store, sweep.name)
    winner = _finalist(trial, last, sweep)
    figures = {}
    if all(record.status == "done" for record in last):
        for split in (s for s in confirm.splits if s in last[0].metrics):
            runs = {record.seed: record.run_id for record in last}
            results = seed_results.of_runs(store, [runs], split, [sweep.metric])
            figures[split] = {sweep.metric: inference.intervals(results, sweep.metric)[0]}
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


# ---------------------------------------------------------------------------------------------- the cost


def price(sweep: SweepConfig) -> list[dict[str, Any]]:
    """For each search its trials, runs and estimated FLOPs of training, and the FLOPs with the teacher cache.

    `train_flops` counts every run separately. `shared_flops` is what all trials of a seed may have in common: frozen
    roles, and stages that only prepare a teacher. With `train.cache` = auto it is computed once per seed
    (`least_flops`), unless the space itself changes it. Hours and price are those of `least_flops`.
    """
    from harness.planning.cost import in_hours
    from harness.planning.cost import of as priced_alone

    rows = []
    for search in sweep.searches():
        priced = [plan.make(search.trial(p, sweep.seeds[0])) for p in points_to_plan(search)[:PRICED]]
        costs = [(priced_alone(one), one) for one in priced]
        mean_flops = fmean(cost["train_flops"] for cost, _ in costs)
        shared = fmean(_shared(cost, one) for cost, one in costs)
        seeds, fresh = len(sweep.seeds), len(sweep.confirm.seeds)
        top = min(sweep.confirm.top, sweep.trials)
        finals = fresh * (top + 1 if top > 1 else top)
        runs = sweep.trials * seeds + finals
        cached = sweep.train.cache == "auto"
        paid = seeds + (fresh if finals else 0)
        least = mean_flops * runs - (shared * (runs - paid) if cached else 0.0)
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
                "train_flops": mean_flops * runs,
                "shared_flops": shared * runs,
                "least_flops": least,
                **in_hours(sweep.cluster, least),
            }
        )
    return rows


def _shared(cost: dict[str, Any], planned: plan.Plan) -> float:
    flops = 0.0
    tuning = {p.stage.name for p in planned.stages if p.stage.tuning}
    for stage in cost["stages"]:
        prepares = stage["name"] in tuning
        student = stage["roles"].get(planned.method.student)
        all_roles = prepares and not (student and student["trainable"])
        flops += sum(
            role["flops"]
            for role in stage["roles"].values()
            if all_roles or not (role["trainable"] or role["average_of"])
        )
    return flops


# ------------------------------------------------------------------------------------------------- files


def _claim(sweep: SweepConfig, code: dict[str, dict[str, Any]], store: Store) -> None:
    """Reserve the sweep's name for this content. Raises `StoreError` if it has other content."""
    mine = {"sweep": sweep.model_dump(mode="json", exclude=ELSEWHERE), "code": code}
    name = f"{SWEEPS}/{sweep.name}.json"
    try:
        there = json.loads(store.backend.read(name))
    except FileNotFoundError:
        store.write_text(name, json.dumps(mine, indent=1))
        return
    except (OSError, ValueError) as error:
        raise StoreError(f"sweep {sweep.name!r}: {name} in {store.url!r} can't be read: {error}; delete it") from None
    advice = f"give this one another name, or delete {name} and {SWEEPS}/{sweep.name}.result.json there"
    known = there.get("sweep", {})
    if other := [key for key, value in mine["sweep"].items() if known.get(key) != value]:
        raise StoreError(
            f"sweep {sweep.name!r} is already in {store.url!r}, with other content "
            f"({', '.join(other)} differ): {advice}"
        )
    if there.get("code") != code:
        raise StoreError(
            f"sweep {sweep.name!r} was begun in {store.url!r} with other code, whose runs can't be compared with "
            f"these: {advice}"
        )


def _load(sweep: SweepConfig, store: Store) -> SweepResult:
    try:
        return SweepResult.model_validate_json(store.backend.read(f"{SWEEPS}/{sweep.name}.result.json"))
    except (FileNotFoundError, ValidationError):  # missing or truncated: the trials are in the store anyway
        return SweepResult(name=sweep.name)


def _save(result: SweepResult, store: Store) -> None:
    store.write_text(f"{SWEEPS}/{result.name}.result.json", result.model_dump_json(indent=1))
