"""Executes runs on a Ray cluster: the workers of one Ray Train trainer process many runs in turn.

Starting a `TorchTrainer` takes seconds, and a small run may take less: so one trainer processes a whole suite. Its
workers form groups of `cluster.workers` ranks. Each worker group takes the next run from a queue (a Ray actor), trains
and scores it, and writes its record. If a worker is lost, Ray Train restarts all workers, and every worker group
continues its run from the newest checkpoint. If a node is lost, fewer groups go on, and more again when
there are more nodes; with `cluster.min_workers`, even one group of fewer ranks. Only this module, `ray_cluster` and
`harness.experiments.ray_tune` import ray.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import ClusterConfig, RunConfig
from harness.errors import StoreError, first_line
from harness.events import OnEvent, of_run
from harness.execution.ray_cluster import (
    NOTE_SECONDS,
    check_fits,
    check_shared,
    connect,
    free_worker_groups,
    missing_capacity,
    not_shared,
    sees,
    worker_resources,
)
from harness.execution.run_queue import RunQueue
from harness.store import Store
from harness.store.local import LocalBackend, Lock, acquire
from harness.store.store import LOCKS

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from harness.models.distributed import ProcessGroup

POLL_SECONDS = 0.2
RESIZE_SECONDS = 15.0
"""How often Ray Train looks for new nodes. To use them it restarts all workers, which resume from their checkpoints."""


def execute(
    runs: Sequence[tuple[str, RunConfig]],
    store: Store,
    cluster: ClusterConfig,
    on_event: OnEvent,
    name: str,
    on_interrupt: Callable[[], None],
) -> None:
    """Run all of `runs` (id, config) on the cluster. Their records are in the store when this returns.

    If Ray Train gives up, each open run ends with an event with the `error` instead. After an interrupt the workers are
    told to stop, and `KeyboardInterrupt` is raised. `on_interrupt` is called before, as `ray job stop` kills after 3 s.
    """
    connect()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    groups = min(check_fits(cluster), free_worker_groups(cluster, on_event), len(runs))
    workers = groups * cluster.workers
    waiting = [(run_id, config.model_dump(mode="json")) for run_id, config in runs]
    beside = On(ray.get_runtime_context().get_node_id(), soft=False)  # otherwise it could be lost with another node
    queue = ray.remote(num_cpus=0, scheduling_strategy=beside)(RunQueue).remote(waiting)
    scratch, ours = _own_folder(store.backend.scratch / ".work", f".ray-{name}-{socket.gethostname()}-{os.getpid()}")
    if isinstance(store.backend, LocalBackend):
        try:
            check_shared(scratch, store.url)
        except StoreError:
            shutil.rmtree(scratch, ignore_errors=True)
            ours.release()
            raise
    # The queue counts the lost workers of each run. A run that loses too many fails; the others continue.
    trainer = _trainer(queue, store, cluster, workers, name, scratch, len(runs) * (cluster.max_failures + 1))
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            outcome.append(error)

    unfinished = dict.fromkeys(run_id for run_id, _ in runs)
    heard, begun = time.monotonic(), False
    asked, waits = time.strftime("%H:%M:%S"), ""

    def hand_on_events() -> None:
        nonlocal heard, begun, asked, waits
        for event in ray.get(queue.drain.remote()):
            heard, begun = time.monotonic(), True
            if "status" in event:
                unfinished.pop(event["run_id"], None)
            on_event(event)
        if time.monotonic() - heard >= NOTE_SECONDS:
            heard = time.monotonic()
            least = cluster.min_workers or cluster.workers  # with these, it would begin
            if note := missing_capacity(cluster, workers if begun else least, begun):
                asked = asked if waits else time.strftime("%H:%M:%S", time.localtime(time.time() - NOTE_SECONDS))
                on_event({"note": f"{note}, since {asked}"})
            waits = note

    # In a thread, to avoid Ray's own handler for Ctrl-C; this thread passes on the events.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            hand_on_events()
    except KeyboardInterrupt:
        queue.stop.remote()
        on_interrupt()
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        ours.release()
        raise
    hand_on_events()
    ray.kill(queue)
    shutil.rmtree(scratch, ignore_errors=True)
    ours.release()
    for run_id in unfinished:
        reason = first_line(outcome[0]) if outcome else "no worker took the run"
        on_event({"run_id": run_id, "status": "failed", "error": f"Ray Train gave up: {reason}"})


def _own_folder(work: Path, name: str) -> tuple[Path, Lock]:
    """A new folder for Ray Train's own files and its lock, which shows that its driver lives. Folders of drivers that
    were killed are deleted."""
    locks = work / LOCKS
    for lock in locks.glob(".ray-*.lock"):
        if (dead := acquire(lock, 0)) is not None:
            if dead.held:
                shutil.rmtree(work / lock.stem, ignore_errors=True)
            dead.release()
    ours = acquire(locks / f"{name}.lock", 0) or Lock()  # before the folder is there
    (work / name).mkdir(parents=True, exist_ok=True)
    return work / name, ours


def worker_range(cluster: ClusterConfig, workers: int) -> int | tuple[int, int]:
    """The workers that Ray Train may start: a whole number of groups goes on without the others, if nodes are
    lost; with `cluster.min_workers`, even a smaller group."""
    least = cluster.min_workers or cluster.workers
    return (least, workers) if least < workers else workers


def _trainer(
    queue: Any, store: Store, cluster: ClusterConfig, workers: int, name: str, scratch: Path, max_failures: int
) -> TorchTrainer:
    """The trainer with this number of workers, all of which run `_worker`."""
    import ray
    from ray.train import FailureConfig, ScalingConfig, UserCallback
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class LossCounter(UserCallback):  # type: ignore[misc]
        """Tells the queue which workers died, before all are restarted."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            if not ray.get(queue.lose.remote(sorted(worker_exceptions))):
                raise RuntimeError("no run is left")  # otherwise Ray Train would restart the workers for nothing

    return TorchTrainer(
        _worker,
        train_loop_config={
            "queue": queue,
            "store": store.url,
            "cluster": cluster.model_dump(mode="json"),
            "folder": os.getcwd(),
            "scratch": str(scratch),
        },
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=worker_range(cluster, workers),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=bool(cluster.gpus_per_worker),
            resources_per_worker=dict(worker_resources(cluster)),
            placement_strategy=cluster.placement,
        ),
        run_config=TrainRunConfig(
            # A new name each time: the harness resumes from its own checkpoints, not from Ray's.
            name=f"{name}-{os.getpid()}-{time.time_ns()}",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[LossCounter()],
        ),
    )


def _worker(settings: dict[str, Any]) -> None:
    """The train function of every worker: take runs from the queue until it is empty."""
    import ray
    import ray.train
    import torch
    import torch.distributed as dist
    from ray.train.torch import get_device

    from harness.execution.run import release_memory
    from harness.models.distributed import RankLost, SingleProcess, TorchGroup, silent

    with suppress(OSError):  # another machine may not have this folder
        os.chdir(settings["folder"])  # relative paths in the settings are relative to the user's folder
    cluster = ClusterConfig(**settings["cluster"])
    queue, store = settings["queue"], Store(settings["store"])
    if isinstance(store.backend, LocalBackend) and not sees(settings["scratch"]):  # a node that joined later
        raise StoreError(not_shared(store.url, ray.util.get_node_ip_address()))
    torch.set_num_threads(cluster.cpus_per_worker)
    context = ray.train.get_context()
    size = min(cluster.workers, context.get_world_size())  # smaller with cluster.min_workers alone
    groups = context.get_world_size() // size
    group, rank = divmod(context.get_world_rank(), size)
    device = get_device() if cluster.gpus_per_worker else torch.device("cpu")
    process_group = None
    if size > 1:
        for number in range(groups):  # every rank must make every group
            made = dist.new_group(list(range(number * size, (number + 1) * size)))
            process_group = made if number == group else process_group
    if group == groups:  # surplus workers of an elastic start, too few for a group
        return
    if rank == 0:
        ray.get(queue.start.remote(groups, size))

    def take() -> Any:
        taken = [ray.get(queue.take.remote(group)) if rank == 0 else None]
        if process_group is not None:
            dist.broadcast_object_list(taken, src=group * size, group=process_group)
        return taken[0]

    while (taken := take()) is not None:
        run_id, config, losses = taken
        report = of_run(run_id, queue.report.remote) if rank == 0 else silent
        io: ProcessGroup = (
            SingleProcess(report, device) if process_group is None else TorchGroup(process_group, report, device)
        )
        status, error = "failed", None
        try:
            status = _run_one(run_id, RunConfig(**config), losses, store, io)
        except RankLost:  # this group is broken: Ray Train restarts all workers, and the run continues
            raise
        except Exception as problem:  # outside the run: it can't be planned here, or its record can't be written
            error = f"{type(problem).__name__}: {problem}"
        release_memory()
        if rank == 0 or status == "failed":
            ray.get(queue.finish.remote(group, status, error))
        if process_group is not None and status == "failed":
            # The other ranks of the group may be waiting for this one in a collective: restart all.
            raise RuntimeError(f"run {run_id} failed; its record says why")


def _run_one(run_id: str, config: RunConfig, losses: int, store: Store, io: ProcessGroup) -> str:
    """The status of the run, whose record is then in the store. `losses`: how often it has lost a worker."""
    from harness import provenance
    from harness.execution import records, run
    from harness.planning import plan

    io.report({"stage": "load", "step": 0, "steps": 1})
    started, planned = provenance.now(), plan.make(config)
    if planned.run_id != run_id:  # its record would belong to another run: the driver reports the error
        raise RuntimeError(
            f"the worker sees another run than the driver ({planned.run_id}): its code or data differ; "
            "give both the same checkout and start again"
        )
    if losses > (allowed := config.cluster.max_failures):
        trouble = f"lost its worker {losses} times (cluster.max_failures = {allowed})"
        record = records.failed(planned, RuntimeError(trouble), started, io.world)
        store.write(record)
        return record.status
    return run.execute(planned, io, store).status
