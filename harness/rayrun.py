"""Runs on a Ray cluster: one Ray Train worker group takes many runs in turn.

Starting a `TorchTrainer` costs seconds, a small run may cost less: so one trainer serves a whole suite. Its
workers form lanes of `cluster.workers` ranks; each lane takes the next run from a board (a Ray actor), trains
and scores it, and writes its record. A lost worker makes Ray Train start the group again: every lane then
goes on with the run it had, from the newest checkpoint. This is the only module that imports ray.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import ClusterConfig, RunConfig
from harness.errors import ConfigError

Event = dict[str, Any]
"""Progress of a run: run_id, and stage, step, steps or status."""
Watch = Callable[[Event], None]

POLL_SECONDS = 0.2


@dataclass
class Board:
    """Which runs wait, who has which, and what they report. It lives in a Ray actor."""

    waiting: list[tuple[str, dict[str, Any]]]
    max_failures: int
    taken: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    claims: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stopped: bool = False

    def take(self, lane: int) -> tuple[str, dict[str, Any], int] | None:
        """The lane's next run: the one it had when its worker was lost, or the next that waits."""
        if self.stopped:
            return None
        if lane not in self.taken:
            if not self.waiting:
                return None
            self.taken[lane] = self.waiting.pop(0)
        run_id, config = self.taken[lane]
        self.claims[run_id] = self.claims.get(run_id, 0) + 1
        return run_id, config, self.claims[run_id] - 1

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
    import ray

    if not ray.is_initialized():
        here = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(
            dict.fromkeys([here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        )
        ray.init(
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
    runs: Sequence[tuple[str, RunConfig]], store: Path, cluster: ClusterConfig, watch: Watch, name: str
) -> None:
    """Run all of `runs` (id, config) on the cluster; their records are in the store when this returns.

    Raises `KeyboardInterrupt` after the workers have been told to stop, and `RuntimeError` when Ray Train
    gives up.
    """
    connect()
    import ray
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    lanes = min(check_fits(cluster), len(runs))
    waiting = [(run_id, config.model_dump(mode="json")) for run_id, config in runs]
    board = ray.remote(num_cpus=0)(Board).remote(waiting, cluster.max_failures)
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if cluster.gpus_per_worker else {})}
    scratch = store / ".work" / f".ray-{name}-{os.getpid()}"
    trainer = TorchTrainer(
        _work,
        train_loop_config={"board": board, "store": str(store), "cluster": cluster.model_dump(mode="json")},
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
        ),
    )
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            outcome.append(error)

    # In a thread: Ray's own handler for Ctrl-C is left out, and this thread shows the progress.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            for event in ray.get(board.drain.remote()):
                watch(event)
    except KeyboardInterrupt:
        board.stop.remote()
        ray.shutdown()
        raise
    for event in ray.get(board.drain.remote()):
        watch(event)
    ray.kill(board)
    shutil.rmtree(scratch, ignore_errors=True)
    if outcome:
        raise RuntimeError(f"Ray Train gave up: {outcome[0]}") from outcome[0]


def _work(settings: dict[str, Any]) -> None:
    """The train function of every worker: take runs from the board until none waits."""
    import ray
    import ray.train
    import torch
    import torch.distributed as dist
    from ray.train.torch import get_device

    from harness import plan, provenance, results, runner
    from harness.io import GroupIo, Io, PlainIo
    from harness.record import Record
    from harness.store import Store

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
        trouble = None
        if planned.run_id != run_id:
            trouble = f"the worker sees another run than the driver ({planned.run_id}): its code or data differ"
        elif lost > cluster.max_failures:
            trouble = f"lost its worker {lost} times (cluster.max_failures = {cluster.max_failures})"
        if trouble is None:
            io: Io = PlainIo(report, device) if group is None else GroupIo(group, report, device)
            return runner.execute(planned, io, store)
        record = results.failed(planned, RuntimeError(trouble), started, cluster.workers)
        store.write(record)
        return record

    while (taken := take()) is not None:
        run_id, config, lost = taken
        status, error = "failed", None
        try:
            status = one(RunConfig(**config), run_id, lost).status
        except Exception as problem:  # not the run's own: its plan can't be made here, or its record not written
            error = f"{type(problem).__name__}: {problem}"
        if rank == 0 or status == "failed":
            ray.get(board.finish.remote(lane, status, error))
        if group is not None and status == "failed":
            # The other ranks of the lane may wait for this one in a collective: begin with a new group.
            raise RuntimeError(f"run {run_id} failed; its record says why")
