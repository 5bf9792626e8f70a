"""Runs on a Ray cluster: one Ray Train worker group takes many runs in turn.

Starting a `TorchTrainer` costs seconds, a small run may cost less: so one trainer serves a whole suite. Its
workers form lanes of `cluster.workers` ranks; each lane takes the next run from a board (a Ray actor), trains
and scores it, and writes its record. A lost worker makes Ray Train start the group again: every lane then
goes on with the run it had, from the newest checkpoint. With `cluster.min_workers` the new group may be smaller:
it then has fewer lanes or, where not one is left whole, a lane of fewer ranks. Only this module and
`harness.experiments.ray_tune` import ray.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import ClusterConfig, RunConfig
from harness.errors import ConfigError, StoreError, first_line
from harness.store import Store
from harness.store.local import LocalPlace

Event = dict[str, Any]
"""Progress of a run: run_id, and stage, step, steps or status; or a `note` about all runs."""
Watch = Callable[[Event], None]
Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory, ..."""

POLL_SECONDS = 0.2
CONNECT_SECONDS = 5.0
NOTE_SECONDS = 30.0
"""How often it is said again that something is waited for."""


@dataclass
class Board:
    """Which runs wait, who has which, and what they report. It lives in a Ray actor."""

    waiting: list[tuple[str, dict[str, Any]]]
    taken: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ranks: int = 1
    """Ranks a lane."""
    stopped: bool = False

    def start(self, lanes: int, ranks: int) -> None:
        """A group starts, of so many lanes: what a lane that is no more had waits again, before all else."""
        self.ranks = ranks
        for lane in sorted((lane for lane in self.taken if lane >= lanes), reverse=True):
            self.waiting.insert(0, self.taken.pop(lane))

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

    def lose(self, ranks: list[int]) -> bool:
        """These workers are gone: it counts once for the run that their lane had, not for the others.

        Whether any run is left.
        """
        for lane in sorted({rank // self.ranks for rank in ranks}):
            if lane in self.taken:
                run_id, _ = self.taken[lane]
                self.losses[run_id] = self.losses.get(run_id, 0) + 1
        return bool(self.waiting or self.taken)

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


def _kernels() -> dict[str, str]:
    """How many kernels a worker's oneDNN keeps: by default 1,024, which batches of many lengths fill."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    return {name: os.environ.get(name, "64")}


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (a Ray job finds it set), or start one on this machine. Safe to call again.

    Raises `ConfigError` where the address leads to no cluster.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else Ray prints what it held back when this process ends
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job's own PYTHONPATH is in the one below
    # "local" said outright: else Ray joins whatever cluster another process of this machine has started.
    address = os.environ.get("RAY_ADDRESS") or "local"
    check_address(address)
    own = address == "local"
    if own:  # nobody looks at its tasks, which would fill the head's memory: some KiB each, a few each second
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    import ray

    if ray.is_initialized():
        return
    here = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(dict.fromkeys([here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    main = threading.current_thread() is threading.main_thread()
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False if own else None,
            logging_level=logging.ERROR,
            log_to_driver=bool(os.environ.get("HKDBENCH_WORKER_LOGS")),
            runtime_env={"env_vars": {"PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"} | _kernels()},
        )
    except Exception as error:
        if own:
            raise
        raise ConfigError(
            f"RAY_ADDRESS = {address!r}: can't join the cluster: {first_line(error)}; expected a head of the same Ray "
            "and Python version, and RAY_AUTH_MODE (token or disabled) as it was started with"
        ) from None
    finally:
        if main and terminated is not None:
            signal.signal(signal.SIGTERM, terminated)  # Ray's own would end the process at once
    atexit.register(ray.shutdown)  # what Ray itself does at the end begins with half a second of sleep


def check_address(address: str) -> None:
    """Raises `ConfigError` within seconds where no head can be reached: Ray itself tries for minutes."""
    if address in ("local", "auto"):
        return
    expected = "expected host:port of a head, port 6379 unless it was started with another"
    scheme, _, place = address.rpartition("://")
    if scheme:
        raise ConfigError(
            f"RAY_ADDRESS = {address!r}: {expected}; a job server's address is for "
            "`ray job submit --address ... -- python -m harness ...`, which sets RAY_ADDRESS inside the job"
        )
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except ValueError:
        raise ConfigError(f"RAY_ADDRESS = {address!r}: {expected}") from None
    except OSError as error:
        raise ConfigError(
            f"RAY_ADDRESS = {address!r}: nothing answers there ({error.strerror or error}); {expected}, or unset it "
            "to start a cluster on this machine"
        ) from None


def needs(cluster: ClusterConfig) -> Resources:
    """What one worker takes."""
    gpu = {"GPU": 1.0} if cluster.gpus_per_worker else {}
    return {"CPU": float(cluster.cpus_per_worker), **gpu, **cluster.resources}


def room(nodes: Iterable[Resources], need: Resources) -> int:
    """How many workers fit nodes with these resources: a worker is on one node."""
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in need.items() if amount)) for node in nodes)


def check_fits(cluster: ClusterConfig) -> int:
    """How many lanes fit the cluster. Raises `ConfigError` when not one does: Ray would wait for ever."""
    import ray

    need, have = needs(cluster), ray.cluster_resources()
    larger = "or join a larger cluster with RAY_ADDRESS"
    for kind, amount in need.items():
        wanted = cluster.workers * amount
        if wanted > have.get(kind, 0):
            raise ConfigError(
                f"cluster.workers = {cluster.workers} needs {wanted:g} {_named(kind)}, the cluster has "
                f"{have.get(kind, 0):g}; lower --workers or {_setting(kind)}, {larger}"
            )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = room(nodes, need)
    if fit < cluster.workers:
        each = ", ".join(f"{amount:g} {_named(kind)}" for kind, amount in need.items())
        raise ConfigError(
            f"cluster.workers = {cluster.workers} workers of {each} each: the cluster's {len(nodes)} nodes have room "
            f"for {fit}; lower --workers or what each needs, {larger}"
        )
    return fit // cluster.workers


def missing_room(cluster: ClusterConfig, workers: int) -> str:
    """What is waited for, where the group's place is not granted: others were faster, or a node is gone. Else ""."""
    import ray

    states = [group["state"] for group in ray.util.placement_group_table().values()]
    if not {"PENDING", "RESCHEDULING"} & set(states):
        return ""
    wants = {kind: workers * amount for kind, amount in needs(cluster).items()}
    return _waiting(wants, ray.available_resources(), ray.cluster_resources())


def _waiting(wants: Resources, free: Resources, have: Resources) -> str:
    """`waiting for 4 CPUs (1 of 8 free), 2 GPUs (0 of 2 free)`."""
    return "waiting for " + ", ".join(
        f"{amount:g} {_named(kind)} ({free.get(kind, 0):g} of {have.get(kind, 0):g} free)"
        for kind, amount in wants.items()
    )


def check_shared(folder: Path, store: str) -> None:
    """Raises `StoreError` where a node of the cluster doesn't see `folder`, which lies in a local store."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    look = ray.remote(num_cpus=0)(_sees)
    for node in nodes:
        try:
            seen = ray.get(look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(folder)))
        except ray.exceptions.RayError:  # the node is lost meanwhile: whoever takes its place looks too
            continue
        if not seen:
            raise StoreError(_unshared(store, node["NodeManagerAddress"]))


def _sees(folder: str) -> bool:
    return Path(folder).is_dir()


def _unshared(store: str, node: str) -> str:
    return (
        f"store {store!r} is not seen by node {node}: runs and checkpoints written there would be lost; give --store a "
        "folder that all nodes mount, or a bucket (s3://bucket/prefix)"
    )


def _setting(kind: str) -> str:
    return f"cluster.{kind.lower()}s_per_worker" if kind in ("CPU", "GPU") else "cluster.resources"


def _named(kind: str) -> str:
    return f"{kind}s" if kind in ("CPU", "GPU") else kind


def free_lanes(cluster: ClusterConfig, watch: Watch) -> int:
    """How many lanes the cluster has free now: others' work may leave none, then it says so and waits."""
    import ray

    need, said = needs(cluster), time.monotonic() - NOTE_SECONDS + 2  # Ray counts with a delay
    while True:
        free, have = ray.available_resources(), ray.cluster_resources()
        lanes = min(int(free.get(kind, 0) // (cluster.workers * amount)) for kind, amount in need.items() if amount)
        if lanes:
            return lanes
        if time.monotonic() - said >= NOTE_SECONDS:
            said = time.monotonic()
            wants = {kind: cluster.workers * amount for kind, amount in need.items()}
            short = {kind: wanted for kind, wanted in wants.items() if free.get(kind, 0) < wanted}
            watch({"note": _waiting(short, free, have)})
        time.sleep(1)


def execute(
    runs: Sequence[tuple[str, RunConfig]],
    store: Store,
    cluster: ClusterConfig,
    watch: Watch,
    name: str,
    halt: Callable[[], None],
) -> None:
    """Run all of `runs` (id, config) on the cluster; their records are in the store when this returns.

    Where Ray Train gives up, an event with the `error` ends each open run instead. Raises `KeyboardInterrupt`
    after the workers have been told to stop; `halt` comes before, as `ray job stop` kills after three seconds.
    """
    connect()
    import ray
    from ray.train import FailureConfig, ScalingConfig, UserCallback
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    class Losses(UserCallback):  # type: ignore[misc]
        """Tells the board whose workers died, before the group starts again."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            if not ray.get(board.lose.remote(sorted(worker_exceptions))):
                raise RuntimeError("no run is left")  # else Ray Train would start a group for nothing

    lanes = min(check_fits(cluster), free_lanes(cluster, watch), len(runs))
    workers = lanes * cluster.workers
    waiting = [(run_id, config.model_dump(mode="json")) for run_id, config in runs]
    beside = On(ray.get_runtime_context().get_node_id(), soft=False)  # else it may be lost with another node
    board = ray.remote(num_cpus=0, scheduling_strategy=beside)(Board).remote(waiting)
    scratch = store.place.scratch / ".work" / f".ray-{name}-{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    if isinstance(store.place, LocalPlace):
        try:
            check_shared(scratch, store.url)
        except StoreError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "board": board,
            "store": store.url,
            "cluster": cluster.model_dump(mode="json"),
            "folder": os.getcwd(),
            "scratch": str(scratch),
        },
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(cluster.min_workers, workers) if cluster.min_workers else workers,
            use_gpu=bool(cluster.gpus_per_worker),
            resources_per_worker=dict(needs(cluster)),
            placement_strategy=cluster.placement,
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
    heard = time.monotonic()

    def show() -> None:
        nonlocal heard
        for event in ray.get(board.drain.remote()):
            heard = time.monotonic()
            if "status" in event:
                open_runs.pop(event["run_id"], None)
            watch(event)
        if time.monotonic() - heard >= NOTE_SECONDS:
            heard = time.monotonic()
            if note := missing_room(cluster, workers):
                watch({"note": note})

    # In a thread: Ray's own handler for Ctrl-C is left out, and this thread shows the progress.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            show()
    except KeyboardInterrupt:
        board.stop.remote()
        halt()
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
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

    from harness import provenance
    from harness.execution import records, run
    from harness.models.distributed import GroupIo, Io, PeerLost, PlainIo
    from harness.planning import plan
    from harness.record import Record

    with suppress(OSError):  # another machine may lack it
        os.chdir(settings["folder"])  # relative paths in the settings count from where the command was given
    cluster = ClusterConfig(**settings["cluster"])
    board, store = settings["board"], Store(settings["store"])
    if isinstance(store.place, LocalPlace) and not _sees(settings["scratch"]):  # a node that joined later
        raise StoreError(_unshared(store.url, ray.util.get_node_ip_address()))
    torch.set_num_threads(cluster.cpus_per_worker)
    context = ray.train.get_context()
    size = min(cluster.workers, context.get_world_size())  # smaller with cluster.min_workers alone
    lanes = context.get_world_size() // size
    lane, rank = divmod(context.get_world_rank(), size)
    device = get_device() if cluster.gpus_per_worker else torch.device("cpu")
    group = None
    if size > 1:
        for one_of in range(lanes):  # every rank must make every group
            made = dist.new_group(list(range(one_of * size, (one_of + 1) * size)))
            group = made if one_of == lane else group
    if lane == lanes:  # an elastic group's rest, too few for a lane
        return
    if rank == 0:
        ray.get(board.start.remote(lanes, size))

    def take() -> Any:
        taken = [ray.get(board.take.remote(lane)) if rank == 0 else None]
        if group is not None:
            dist.broadcast_object_list(taken, src=lane * size, group=group)
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
            record = records.failed(planned, RuntimeError(trouble), started, size)
            store.write(record)
            return record
        io: Io = PlainIo(report, device) if group is None else GroupIo(group, report, device)
        return run.execute(planned, io, store)

    while (taken := take()) is not None:
        run_id, config, lost = taken
        status, error = "failed", None
        try:
            status = one(RunConfig(**config), run_id, lost).status
        except PeerLost:  # this group is of no use any more: Ray Train makes a new one, and the run goes on
            raise
        except Exception as problem:  # not the run's own: its plan can't be made here, or its record not written
            error = f"{type(problem).__name__}: {problem}"
        run.release_memory()
        if rank == 0 or status == "failed":
            ray.get(board.finish.remote(lane, status, error))
        if group is not None and status == "failed":
            # The other ranks of the lane may wait for this one in a collective: begin with a new group.
            raise RuntimeError(f"run {run_id} failed; its record says why")
