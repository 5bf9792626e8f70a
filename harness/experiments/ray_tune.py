"""A sweep's trials on Ray Tune. Beside `harness.execution.ray_train` this is the only module that imports ray.

A trial of one worker is trained in the Tune actor itself, which takes one trial after the other: starting a process
costs seconds. A trial of several workers holds no more than a sliver of the head node while a Ray Train group of its
own (`rayrun.execute`) has the CPUs; as many trials run at a time as whole groups fit, so none waits for what another
trial holds. Trials go on from the run's own checkpoint after a lost worker; after a killed driver the same command
restores the search from Tune's state, its searcher's and scheduler's included. Where that state is damaged the search
begins anew; trials that are finished in the store are not trained again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.errors import StoreError, UserError, first_line
from harness.execution import ray_train
from harness.execution.trackers import tracker
from harness.experiments.sweep import Dimension, Point, Search, SweepConfig, Trial, learning, student_validations
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store

Watch = Callable[[dict[str, Any]], None]
"""Takes a trial's news: `trial` (from 1), `point`, and `state` with `score`, `seconds` (of its runs) and `wall`; or a
`note` on the search alone."""

LISTED = ("basic-variant-state-{}.json",)
SUGGESTED = ("search_gen_state-{}.json", "searcher-state-{}.pkl")
"""What Tune keeps of a search beside its trials: of points listed beforehand, of those that Optuna suggests."""

FAILED = 0.0
"""The score that the searcher is told of a trial that failed: as bad as can be."""

_watching: list[Watch] = []
"""Who hears of the search under way. Tune pickles its callbacks, so they can't hold it."""


def run(search: Search, points: list[Point] | None, store: Store, folder: Path, watch: Watch) -> list[Trial]:
    """The search's trials, in the order in which they began; `folder` holds what it would go on from.

    Raises `ConfigError` when the cluster can't hold one trial, and `KeyboardInterrupt`.
    """
    ray_train.connect()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints boxes whatever it is told
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the search here, not after the trials under way
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1"
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    import ray
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's trouble is told in one line, below
    sweep, cluster = search.sweep, search.sweep.cluster
    lanes = ray_train.check_fits(cluster)
    alone = cluster.workers == 1
    told = {"store": store.url, "folder": os.getcwd(), "sweep": sweep.model_dump(mode="json"), "line": search.line}
    body = partial(_trial, told | {"benchmark": search.benchmark})

    def trial(config: dict[str, Any]) -> None:
        body(config)

    resources: dict[str, float]
    if alone:
        resources = {"cpu": cluster.cpus_per_worker, **({"gpu": 1} if cluster.gpus_per_worker else {})}
    else:  # 0 CPUs are refused: a sliver of the head node instead
        resources = {"node:__internal_head__": 0.01}
    trainable = tune.with_resources(trial, resources)
    storage, name = folder / "tune", search.name
    tuner = None
    if tune.Tuner.can_restore(str(storage / name)):
        try:
            check_state(storage / name, LISTED if points is not None else SUGGESTED)
            tuner = tune.Tuner.restore(str(storage / name), trainable, resume_unfinished=True, restart_errored=True)
        except Exception as error:  # whatever reading half a file raises: its driver was killed while it wrote
            watch({"note": f"begins anew, as its state can't be read: {first_line(error)}; finished runs are kept"})
    if tuner is None:
        shutil.rmtree(storage / name, ignore_errors=True)
        tuner = tune.Tuner(
            trainable,
            param_space={"point": tune.grid_search(points)} if points is not None else None,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=1 if points is not None else sweep.trials,
                search_alg=_searcher(search) if points is None else None,
                scheduler=_scheduler(search),
                max_concurrent_trials=lanes,
                reuse_actors=alone,
                trial_dirname_creator=_folder_of,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
                callbacks=[_watcher()],
                verbose=0,
            ),
        )
    _watching[:] = [watch]
    try:
        found = tuner.fit()
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    finally:
        _watching.clear()
    expected = sweep.trials if points is None else len(points)
    if len(found) != expected:
        raise StoreError(f"search {name} ended with {len(found)} of {expected} trials: delete {folder} and start again")
    return [_outcome(number, result, sweep) for number, result in enumerate(found, 1)]


def check_state(folder: Path, kinds: Sequence[str]) -> None:
    """Raises where a file of the newest state that Tune wrote is missing or damaged: Tune would search nothing then."""
    import ray.cloudpickle as pickle

    kept = sorted(folder.glob("experiment_state-*.json"))
    if not kept:
        raise FileNotFoundError("it was stopped before any was kept")
    json.loads(kept[-1].read_text())
    session = kept[-1].stem.removeprefix("experiment_state-")
    for kind in kinds:
        pickle.loads((folder / kind.format(session)).read_bytes())


def _folder_of(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


def _outcome(number: int, result: Any, sweep: SweepConfig) -> Trial:
    """What a Tune result says of its trial."""
    last = result.metrics or {}
    point = point_of(result.config)
    if result.error is not None:
        trouble = f"lost its worker {sweep.cluster.max_failures + 1} times: " if "status" not in last else ""
        text = str(result.error).strip().splitlines()
        return Trial(
            number=number, point=point, status="failed", error=f"{trouble}{text[-1] if text else 'unknown'}"[:200]
        )
    return Trial(
        number=number,
        point=point,
        status=last.get("status", "stopped"),
        score=None if last.get("status") == "failed" else last.get("score"),
        validations=last.get("validations", 0),
        runs=tuple(last.get("runs", ())),
        seconds=last.get("seconds", 0.0),
        error=last.get("error") or None,
    )


def point_of(config: Mapping[str, Any] | None) -> Point:
    """A trial's settings: as they were listed beforehand, or as Optuna gave them one by one."""
    found = dict(config or {})
    return dict(found.get("point", found))


# ---------------------------------------------------------------------------------------- on the driver


def _watcher() -> Any:
    from ray.tune import Callback

    class Watcher(Callback):  # type: ignore[misc]
        """Hands on what Tune says of its trials."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _tell(trials, trial, "began")

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "status" not in result:
                _tell(trials, trial, "validated", result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _tell(trials, trial, trial.last_result.get("status", "stopped"), trial.last_result)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _tell(trials, trial, "failed", {"error": "lost its worker"})

    return Watcher()


def _tell(trials: Sequence[Any], trial: Any, state: str, result: Mapping[str, Any] | None = None) -> None:
    last = result or {}
    for watch in _watching:
        watch(
            {
                "trial": trials.index(trial) + 1,
                "point": point_of(trial.config),
                "state": state,
                "score": None if state == "failed" else last.get("score"),
                "validations": last.get("validations"),
                "seconds": last.get("seconds"),
                "wall": last.get("time_total_s"),
                "error": last.get("error"),
                "note": last.get("note"),
            }
        )


def _searcher(search: Search) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = partial(_suggest, search.method.space)
    return OptunaSearch(space=space, metric="score", mode="max", seed=search.sweep.seed)


def _suggest(space: Mapping[str, Dimension], trial: Any) -> None:
    """Ask Optuna for the settings in their order; those that don't count aren't asked for."""
    point: Point = {}
    for name, one in space.items():
        if not one.active(point):
            continue
        if one.choice is not None:
            point[name] = trial.suggest_categorical(name, list(one.choice))
        elif one.integer is not None:
            point[name] = trial.suggest_int(name, *one.integer)
        else:
            point[name] = trial.suggest_float(name, one.low, one.high, log=one.log_uniform is not None)


def _scheduler(search: Search) -> Any:
    """Rungs are counted in validations of the student, which go on where they were after an accident."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    sweep = search.sweep
    if sweep.stop == "asha":
        most = len(sweep.seeds) * sweep.train.validations * 100  # no trial is cut short for having got so far
        return ASHAScheduler(
            time_attr="validations", grace_period=sweep.grace, reduction_factor=sweep.reduction, max_t=most
        )
    if sweep.stop == "median":
        return MedianStoppingRule(time_attr="validations", grace_period=sweep.grace, min_samples_required=3)
    return FIFOScheduler()


# ----------------------------------------------------------------------------------------- on a worker


def _trial(told: dict[str, Any], config: dict[str, Any]) -> None:
    """One trial: a run a seed, each told to Tune at every validation of its student, and the mean score last."""
    import torch
    from ray import tune

    from harness.planning import plan

    with suppress(OSError):  # another machine may lack it
        os.chdir(told["folder"])
    sweep = SweepConfig.model_validate(told["sweep"])
    search, store = Search(sweep, told["line"], told["benchmark"]), Store(told["store"])
    torch.set_num_threads(sweep.cluster.cpus_per_worker)
    point = point_of(config)
    scores: list[float] = []
    runs: list[str] = []
    notes: list[str] = []
    seconds, validations, error = 0.0, 0, None
    for seed in sweep.seeds:
        try:
            planned = plan.make(search.trial(point, seed))
        except UserError as problem:
            error = first_line(problem)
            break
        record = _train(planned, store, _reporter(planned, scores), lambda event: notes.append(event["note"]))
        runs.append(planned.run_id)
        seconds += record.cost.total_seconds
        if record.status != "done":
            error = record.error.message if record.error else record.status
            break
        scores.append(record.metrics["validation"][sweep.metric].value)
        validations += student_validations(planned)
    tune.report(
        {
            "score": FAILED if error else fmean(scores),
            "validations": validations,
            "status": "failed" if error else "done",
            "runs": runs,
            "seconds": seconds,
            "error": error or "",
            "note": "; ".join(dict.fromkeys(notes)),
        }
    )


def _train(planned: Plan, store: Store, report: Watch, note: Watch) -> Record:
    """The run's record: trained here, or by a worker group of its own. `note` is told of a tracker that fails."""
    import torch

    from harness.execution import run as runner
    from harness.models.distributed import PlainIo

    if (done := store.finished(planned.run_id)) is not None:
        return done
    cluster = planned.config.cluster
    track = tracker(planned.config.track, store, {planned.run_id: planned.config}, note)

    def see(event: dict[str, Any]) -> None:
        track({"run_id": planned.run_id, **event})
        report(event)

    if cluster.workers > 1:
        ray_train.execute([(planned.run_id, planned.config)], store, cluster, see, "trial", halt=lambda: None)
        return store.read(planned.run_id)
    device = torch.device("cuda" if cluster.gpus_per_worker else "cpu")
    try:
        record = runner.execute(planned, PlainIo(see, device), store)
        track({"run_id": planned.run_id, "status": record.status})
        return record
    finally:
        runner.release_memory()


def _reporter(planned: Plan, scores: Sequence[float]) -> Watch:
    """Tells Tune of the student's validations: the mean of the finished seeds' scores and its best so far."""
    from ray import tune

    stages, student, each = learning(planned), planned.method.student, planned.config.train.validations
    before, finished, best = len(scores) * student_validations(planned), list(scores), 0.0

    def report(event: dict[str, Any]) -> None:
        nonlocal best
        value = event.get("validation", {}).get(student)
        if value is None or event["stage"] not in stages:
            return
        best = max(best, value)
        at = before + stages.index(event["stage"]) * each + round(each * event["step"] / event["steps"])
        tune.report({"score": fmean([*finished, best]), "validations": at})

    return report
