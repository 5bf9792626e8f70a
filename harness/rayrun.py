"""Runs on a Ray cluster: one Ray Train worker group takes many runs in turn.

Starting a `TorchTrainer` costs seconds, a small run may cost less: so one trainer serves a whole suite. Its
workers form lanes of `cluster.workers` ranks; each lane takes the next run from a board (a Ray actor), trains
and scores it, and writes its record. A lost worker makes Ray Train start the group again: every lane then
goes on with the run it had, from the newest checkpoint. Only this module and `harness.tuning` import ray.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import ClusterConfig, RunConfig
from harness.errors import ConfigError, first_line
from harness.store import Store

Event = dict[str, Any]
"""Progress of a run: run_id, and stage, step, steps or status."""
Watch = Callable[[Event], None]

POLL_SECONDS = 0.2


@dataclass
class Board:
    """Which runs wait, who has which, and what they report. It lives in a Ray actor."""

    waiting: list[tuple[str, dict[str, Any]]]
    taken: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stopped: bool = False

    def take(self, lane: int) -> tuple[str, dict[str, Any], int] | None:
        """The lane's next run, and how often it lost its worker: the one it had then, or the next that waits."""
        if self.stopped:
            return None
        if lane not in self.taken:
            if not self.waiting:
                return None
            self.taken[lane] = self.waiting.pop(0)
        run_id, config = self.taken[lane]
        return run_id, config, self.losses.get(run_id, 0)

    def lose(self, lanes: list[int]) -> None:
        """A worker of each of these lanes is gone: it counts for the run that it had, not for the others."""
        for lane in lanes:
            if lane in self.taken:
                run_id, _ = self.taken[lane]
                self.losses[run_id] = self.losses.get(run_id, 0) + 1

    def finish(self, lane: int, status: str, error: str | None = None) -> None:
        """The lane's run has ended; `error` where its worker could not even write a record."""
        if lane in self.taken:
            run_id, _ = self.taken.pop(lane)
            self.events.append({"run_id": run_id, "status": status, "error": error})

    def report(self, event: Event) -> None:
        self.events.append(event)

    def drain(self) -> list[Event]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        self.stopped = True


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine. Quiet; safe to call again."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else Ray prints what it held back when this process ends
    import ray

    if not ray.is_initialized():
        here = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(
            dict.fromkeys([here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        )
        ray.init(
            # "local" said outright: else Ray joins whatever cluster another process of this machine has started.
            address=os.environ.get("RAY_ADDRESS") or "local",
            logging_level=logging.ERROR,
            log_to_driver=bool(os.environ.get("HKDBENCH_WORKER_LOGS")),
            runtime_env={"env_vars": {"PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}},
        )


def check_fits(cluster: ClusterConfig) -> int:
    """How many lanes fit the cluster. Raises `ConfigError` when not one does: Ray would wait for ever."""
    import ray

    have = ray.cluster_resources()
    needs = {"CPU": cluster.workers * cluster.cpus_per_worker, "GPU": cluster.workers * cluster.gpus_per_worker}
    for kind, need in needs.items():
        if need > have.get(kind, 0):
            raise ConfigError(
                f"cluster.workers = {cluster.workers} needs {need} {kind}s, the cluster has {have.get(kind, 0):g}; "
                "lower --workers or cluster.cpus_per_worker, or join a larger cluster with RAY_ADDRESS"
            )
    return int(min(have.get(kind, 0) // need for kind, need in needs.items() if need))


def execute(
    runs: Sequence[tuple[str, RunConfig]], store: Store, cluster: ClusterConfig, watch: Watch, name: str
) -> None:
    """Run all of `runs` (id, config) on the cluster; their records are in the store when this returns.

    Where Ray Train gives up, an event with the `error` ends each open run instead. Raises `KeyboardInterrupt`
    after the workers have been told to stop.
    """
    connect()
    import ray
    from ray.train import FailureConfig, ScalingConfig, UserCallback
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class Losses(UserCallback):  # type: ignore[misc]
        """Tells the board whose workers died, before the group starts again."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            ray.get(board.lose.remote(sorted({rank // cluster.workers for rank in worker_exceptions})))

    lanes = min(check_fits(cluster), len(runs))
    waiting = [(run_id, config.model_dump(mode="json")) for run_id, config in runs]
    board = ray.remote(num_cpus=0)(Board).remote(waiting)
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if cluster.gpus_per_worker else {})}
    scratch = store.place.scratch / ".work" / f".ray-{name}-{os.getpid()}"
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "board": board,
            "store": store.url,
            "cluster": cluster.model_dump(mode="json"),
            "folder": os.getcwd(),
        },
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=lanes * cluster.workers,
            use_gpu=bool(cluster.gpus_per_worker),
            resources_per_worker=resources,
        ),
        run_config=TrainRunConfig(
            # A name of its own each time: the harness resumes from its own checkpoints, not from Ray's.
            name=f"{name}-{os.getpid()}-{time.time_ns()}",
            storage_path=str(scratch),
            # The board counts what each run has lost; a run that loses too much is failed, the rest go on.
            failure_config=FailureConfig(max_failures=len(runs) * (cluster.max_failures + 1)),
            callbacks=[Losses()],
        ),
    )
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            outcome.append(error)

    open_runs = dict.fromkeys(run_id for run_id, _ in runs)

    def show() -> None:
        for event in ray.get(board.drain.remote()):
            if "status" in event:
                open_runs.pop(event["run_id"], None)
            watch(event)

    # In a thread: Ray's own handler for Ctrl-C is left out, and this thread shows the progress.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            show()
    except KeyboardInterrupt:
        board.stop.remote()
        ray.shutdown()
        raise
    show()
    ray.kill(board)
    shutil.rmtree(scratch, ignore_errors=True)
    for run_id in open_runs:
        reason = first_line(outcome[0]) if outcome else "no worker took the run"
        watch({"run_id": run_id, "status": "failed", "error": f"Ray Train gave up: {reason}"})


def _work(settings: dict[str, Any]) -> None:
    """The train function of every worker: take runs from the board until none waits."""
    import ray
    import ray.train
    import torch
    import torch.distributed as dist
    from ray.train.torch import get_device

    from harness import plan, provenance, results, runner
    from harness.io import GroupIo, Io, PeerLost, PlainIo
    from harness.record import Record

    with suppress(OSError):  # another machine may lack it
        os.chdir(settings["folder"])  # relative paths in the settings count from where the command was given
    cluster = ClusterConfig(**settings["cluster"])
    board, store = settings["board"], Store(settings["store"])
    torch.set_num_threads(cluster.cpus_per_worker)
    context = ray.train.get_context()
    lane, rank = divmod(context.get_world_rank(), cluster.workers)
    device = get_device() if cluster.gpus_per_worker else torch.device("cpu")
    group = None
    if cluster.workers > 1:
        for first in range(0, context.get_world_size(), cluster.workers):  # every rank must make every group
            made = dist.new_group(list(range(first, first + cluster.workers)))
            group = made if first == lane * cluster.workers else group

    def take() -> Any:
        taken = [ray.get(board.take.remote(lane)) if rank == 0 else None]
        if group is not None:
            dist.broadcast_object_list(taken, src=lane * cluster.workers, group=group)
        return taken[0]

    def one(config: RunConfig, run_id: str, lost: int) -> Record:
        def report(event: Event) -> None:
            if rank == 0:
                board.report.remote({"run_id": run_id, **event})

        report({"stage": "load", "step": 0, "steps": 1})
        started, planned = provenance.now(), plan.make(config)
        if planned.run_id != run_id:  # a record of it would be another run's: the driver writes it
            raise RuntimeError(
                f"the worker sees another run than the driver ({planned.run_id}): its code or data differ; "
                "give both the same checkout and start again"
            )
        if lost > cluster.max_failures:
            trouble = f"lost its worker {lost} times (cluster.max_failures = {cluster.max_failures})"
            record = results.failed(planned, RuntimeError(trouble), started, cluster.workers)
            store.write(record)
            return record
        io: Io = PlainIo(report, device) if group is None else GroupIo(group, report, device)
        return runner.execute(planned, io, store)

    while (taken := take()) is not None:
        run_id, config, lost = taken
        status, error = "failed", None
        try:
            status = one(RunConfig(**config), run_id, lost).status
        except PeerLost:  # this group is of no use any more: Ray Train makes a new one, and the run goes on
            raise
        except Exception as problem:  # not the run's own: its plan can't be made here, or its record not written
            error = f"{type(problem).__name__}: {problem}"
        runner.release_memory()
        if rank == 0 or status == "failed":
            ray.get(board.finish.remote(lane, status, error))
        if group is not None and status == "failed":
            # The other ranks of the lane may wait for this one in a collective: begin with a new group.
            raise RuntimeError(f"run {run_id} failed; its record says why")
