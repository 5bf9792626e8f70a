"""The Ray cluster: joins or starts it, counts how many workers fit, and checks that all its nodes see the store."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from harness.config import ClusterConfig
from harness.errors import ConfigError, StoreError, first_line
from harness.events import OnEvent

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory, ..."""

CONNECT_SECONDS = 5.0
OPEN_FILES = 1024
"""Files and sockets that a small cluster's processes have open; with 64, Ray doesn't start."""
NOTE_SECONDS = 30.0
"""The time between two messages about waiting."""


def _onednn_cache() -> dict[str, str]:
    """The number of kernels that a worker's oneDNN caches: the default, 1,024, takes much memory with many lengths."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    return {name: os.environ.get(name, "64")}


def allow_files(least: int = OPEN_FILES) -> None:
    """Raise this process's limit of open files (`ulimit -n`) as far as it may, which Ray's processes inherit.

    Raises `ConfigError` if that is too few: Ray would end with an error of its own, or hang.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**31 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < least:
        soft = min(max(least, soft), most)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if most < least:
        raise ConfigError(
            f"this process may open only {most} files (ulimit -Hn), and Ray needs {least}: raise the limit where the "
            "shell or the batch job is started, or run with --workers 0, without Ray"
        )


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (set inside a Ray job), or start one on this machine. Can be called repeatedly.

    Raises `ConfigError` if there is no cluster at the address, or if this process may open too few files.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else Ray prints suppressed messages when this process ends
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job's own PYTHONPATH is in the one below
    # "local" is explicit: otherwise Ray joins any cluster that another process of this machine has started.
    address = os.environ.get("RAY_ADDRESS") or "local"
    check_address(address)
    allow_files()
    own = address == "local"
    if own:  # task events aren't used, but would fill the head's memory: some KiB each, a few per second
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
            runtime_env={"env_vars": {"PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"} | _onednn_cache()},
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
            signal.signal(signal.SIGTERM, terminated)  # Ray's own handler would end the process at once
    atexit.register(ray.shutdown)  # Ray's own exit handler sleeps for half a second


def check_address(address: str) -> None:
    """Raise `ConfigError` within seconds if no head can be reached; Ray itself tries for minutes."""
    if address in ("local", "auto"):
        return
    expected = "expected host:port of a head; the default port is 6379"
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


def worker_resources(cluster: ClusterConfig) -> Resources:
    """The resources of one worker."""
    gpu = {"GPU": 1.0} if cluster.gpus_per_worker else {}
    return {"CPU": float(cluster.cpus_per_worker), **gpu, **cluster.resources}


def capacity(nodes: Iterable[Resources], need: Resources) -> int:
    """How many workers fit on nodes with these resources; each worker is on one node."""
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in need.items() if amount)) for node in nodes)


def check_fits(cluster: ClusterConfig) -> int:
    """How many worker groups, of `cluster.workers` ranks each, fit the cluster.

    Raises `ConfigError` if not even one fits: Ray would wait forever.
    """
    import ray

    need, have = worker_resources(cluster), ray.cluster_resources()
    larger = "or join a larger cluster with RAY_ADDRESS"
    for kind, amount in need.items():
        wanted = cluster.workers * amount
        if wanted > have.get(kind, 0):
            raise ConfigError(
                f"cluster.workers = {cluster.workers} needs {wanted:g} {_counted(kind)}, but the cluster has "
                f"{have.get(kind, 0):g}; lower --workers or {_setting_of(kind)}, {larger}"
            )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = capacity(nodes, need)
    if fit < cluster.workers:
        each = ", ".join(f"{amount:g} {_counted(kind)}" for kind, amount in need.items())
        raise ConfigError(
            f"cluster.workers = {cluster.workers} workers of {each} each: but the cluster's {len(nodes)} nodes have "
            f"room for {fit}; lower --workers or what each needs, {larger}"
        )
    return fit // cluster.workers


def missing_capacity(cluster: ClusterConfig, workers: int, begun: bool) -> str:
    """What Ray waits for if it can't place the workers: other jobs were faster, or a node is
    gone. Else "". `begun`: whether a run has reported anything."""
    import ray

    free, have = ray.available_resources(), ray.cluster_resources()
    wants = {kind: workers * amount for kind, amount in worker_resources(cluster).items()}
    states = [group["state"] for group in ray.util.placement_group_table().values()]
    short = any(free.get(kind, 0) < wanted for kind, wanted in wants.items())
    if {"PENDING", "RESCHEDULING"} & set(states) or (short and not begun):
        return _waiting_for(wants, free, have)
    return ""


def _waiting_for(wants: Resources, free: Resources, have: Resources) -> str:
    """`waiting for 4 CPUs (1 of 8 free), 2 GPUs (0 of 2 free)`."""
    return "waiting for " + ", ".join(
        f"{amount:g} {_counted(kind)} ({free.get(kind, 0):g} of {have.get(kind, 0):g} free)"
        for kind, amount in wants.items()
    )


def check_shared(folder: Path, store: str) -> None:
    """Raise `StoreError` if a node of the cluster doesn't see `folder`, which is in a local store."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    look = ray.remote(num_cpus=0)(sees)
    for node in nodes:
        try:
            seen = ray.get(look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(folder)))
        except ray.exceptions.RayError:  # the node is lost meanwhile: its replacement will check too
            continue
        if not seen:
            raise StoreError(not_shared(store, node["NodeManagerAddress"]))


def sees(folder: str) -> bool:
    """Whether this node has the folder."""
    return Path(folder).is_dir()


def not_shared(store: str, node: str) -> str:
    """The error for a node that doesn't see a local store."""
    return (
        f"store {store!r} is not seen by node {node}: runs and checkpoints written there would be lost; give --store a "
        "folder that all nodes mount, or a bucket (s3://bucket/prefix)"
    )


def _setting_of(kind: str) -> str:
    return f"cluster.{kind.lower()}s_per_worker" if kind in ("CPU", "GPU") else "cluster.resources"


def _counted(kind: str) -> str:
    return f"{kind}s" if kind in ("CPU", "GPU") else kind


def free_worker_groups(cluster: ClusterConfig, on_event: OnEvent) -> int:
    """How many worker groups fit the free resources. If other jobs leave none, it reports that and waits."""
    import ray

    need, said = worker_resources(cluster), time.monotonic() - NOTE_SECONDS + 2  # Ray counts with a delay
    while True:
        free, have = ray.available_resources(), ray.cluster_resources()
        groups = min(int(free.get(kind, 0) // (cluster.workers * amount)) for kind, amount in need.items() if amount)
        if groups:
            return groups
        if time.monotonic() - said >= NOTE_SECONDS:
            said = time.monotonic()
            wants = {kind: cluster.workers * amount for kind, amount in need.items()}
            short = {kind: wanted for kind, wanted in wants.items() if free.get(kind, 0) < wanted}
            on_event({"note": _waiting_for(short, free, have)})
        time.sleep(1)
