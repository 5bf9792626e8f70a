"""A sweep's trials on Ray Tune. Besides this module, only `ray_train` and `ray_cluster` of `harness.execution` use ray.

A trial with one worker is trained in the Tune actor itself, which processes one trial after another, because starting
a process takes seconds. A trial with several workers reserves only a small fraction of the head node, while its own Ray
Train group (`ray_train.execute`) has the CPUs. Only as many trials run at a time as complete groups fit, so no trial
waits for resources that another one holds. After a lost worker, trials resume from the run's own checkpoint. After a
killed driver, the same command restores the search from Tune's state: the trials, and what Optuna knows about them. If
that state is damaged, the search starts again; trials that are finished in the store are not trained again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import StoreError, first_line
from harness.execution.ray_cluster import check_fits, connect
from harness.experiments import trial
from harness.experiments.outcome import OnTrial, Trial, TrialEvent
from harness.experiments.space import Point, Space, suggest
from harness.experiments.sweep import Search, SweepConfig, points
from harness.store import Store


def run(search: Search, store: Store, folder: Path, on_trial: OnTrial) -> list[Trial]:
    """The search's trials, in the order in which they began; `folder` has the state from which it resumes.

    Raises `ConfigError` if the cluster is too small for one trial, and `KeyboardInterrupt`.
    """
    connect()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output always prints boxes
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the search at once, not after the running trials
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1"
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    import ray
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's error is reported in one line, below
    sweep, cluster = search.sweep, search.sweep.cluster
    concurrent = min(check_fits(cluster), cluster.lanes or sweep.trials)
    alone = cluster.workers == 1
    body = partial(trial.run, trial.Job(search, store.url, os.getcwd()))

    def train(config: dict[str, Any]) -> None:
        _, point = _unpack(config)
        body(point, tune.report)

    resources: dict[str, float]
    if alone:
        resources = {"cpu": cluster.cpus_per_worker, **({"gpu": 1} if cluster.gpus_per_worker else {})}
    else:  # Tune refuses 0 CPUs: a small fraction of the head node instead
        resources = {"node:__internal_head__": 0.01}
    state = folder / "tune" / search.name
    resumes = state.exists()
    if resumes and (damage := damaged(state)) is not None:
        note = f"starts again, as its state can't be read: {damage}; finished runs are reused"
        on_trial(TrialEvent(search.name, note=note))
        shutil.rmtree(state)
        resumes = False
    try:
        # This is what `tune.Tuner` calls. A Tuner would pickle its callbacks, and these can't be pickled.
        analysis = tune.run(
            tune.with_resources(train, resources),
            name=search.name,
            storage_path=str(state.parent),
            metric="score",
            mode="max",
            num_samples=sweep.trials,
            search_alg=_searcher(search),
            scheduler=_scheduler(search),
            max_concurrent_trials=concurrent,
            max_failures=cluster.max_failures,
            reuse_actors=alone,
            resume="AUTO+RESTART_ERRORED" if resumes else None,
            callbacks=[_callback(search.name, on_trial)],
            trial_dirname_creator=lambda one: f"trial-{one.trial_id}",
            raise_on_failed_trial=False,
            verbose=0,
        )
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    found = tune.ResultGrid(analysis)
    if len(found) != sweep.trials:
        raise StoreError(
            f"search {search.name} ended with {len(found)} of {sweep.trials} trials: delete {folder} and start again"
        )
    return sorted((_outcome(result, sweep) for result in found), key=lambda one: one.number)


def damaged(state: Path) -> str | None:
    """Why Tune couldn't resume a search from its state in this folder; None: it can."""
    from ray import tune
    from ray.tune.search import SearchGenerator
    from ray.tune.search.optuna import OptunaSearch

    try:
        tune.ExperimentAnalysis(str(state))
        SearchGenerator(OptunaSearch()).restore_from_dir(str(state))
    except Exception as error:  # any error from a partial file: the driver was killed while writing it
        return first_line(error)
    return None


def _outcome(result: Any, sweep: SweepConfig) -> Trial:
    """The trial of a Tune result."""
    last = result.metrics or {}
    number, point = _unpack(result.config)
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


def _callback(name: str, on_trial: OnTrial) -> Any:
    from ray.tune import Callback

    def send(one: Any, state: str, last: Mapping[str, Any] | None = None) -> None:
        last = last or {}
        number, point = _unpack(one.config)
        on_trial(
            TrialEvent(
                search=name,
                trial=number,
                point=point,
                state=state,
                score=None if state == "failed" else last.get("score"),
                validations=last.get("validations"),
                seconds=last.get("seconds"),
                wall=last.get("time_total_s"),
                error=last.get("error"),
                note=last.get("note"),
            )
        )

    class SendEvents(Callback):  # type: ignore[misc]
        """Passes on Tune's events of its trials."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            send(trial, "began")

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "status" not in result:
                send(trial, "validated", result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            send(trial, trial.last_result.get("status", "stopped"), trial.last_result)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            send(trial, "failed", {"error": "lost its worker"})

    return SendEvents()


def _searcher(search: Search) -> Any:
    """Points that are known beforehand are queued in Optuna; otherwise its TPE suggests them."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(
        space=partial(_config, search.method.space),
        points_to_evaluate=points(search),
        seed=search.sweep.seed,
        metric="score",
        mode="max",
    )


def _config(space: Space, asked: Any) -> dict[str, Any]:
    """A trial's configuration in Tune: its settings, and its number, because Tune reorders trials when it resumes."""
    return suggest(space, asked) | {"number": asked.number + 1}


def _unpack(config: Mapping[str, Any]) -> tuple[int, Point]:
    """A trial's number from 1 and its settings."""
    point = dict(config)
    return point.pop("number"), point


def _scheduler(search: Search) -> Any:
    """Counts in validations of the student, which continue after a trial lost its worker."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    sweep = search.sweep
    if sweep.stop == "asha":
        most = len(sweep.seeds) * sweep.train.validations * 100  # no trial reaches this limit
        return ASHAScheduler(
            time_attr="validations", grace_period=sweep.grace, reduction_factor=sweep.reduction, max_t=most
        )
    if sweep.stop == "median":
        return MedianStoppingRule(time_attr="validations", grace_period=sweep.grace, min_samples_required=3)
    return FIFOScheduler()
