"""The Ray cluster: joining or starting it, how many workers fit it, and whether all its nodes see the store."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.config import ClusterConfig
from harness.errors import ConfigError, StoreError, first_line
from harness.events import OnEvent

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory, ..."""

CONNECT_SECONDS = 5.0
NOTE_SECONDS = 30.0
"""How often it is said again that something is waited for."""


def _onednn_cache() -> dict[str, str]:
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


def worker_resources(cluster: ClusterConfig) -> Resources:
    """What one worker takes."""
    gpu = {"GPU": 1.0} if cluster.gpus_per_worker else {}
    return {"CPU": float(cluster.cpus_per_worker), **gpu, **cluster.resources}


def capacity(nodes: Iterable[Resources], need: Resources) -> int:
    """How many workers fit nodes with these resources: a worker is on one node."""
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in need.items() if amount)) for node in nodes)


def check_fits(cluster: ClusterConfig) -> int:
    """How many worker groups, of `cluster.workers` ranks each, fit the cluster.

    Raises `ConfigError` when not one does: Ray would wait for ever.
    """
    import ray

    need, have = worker_resources(cluster), ray.cluster_resources()
    larger = "or join a larger cluster with RAY_ADDRESS"
    for kind, amount in need.items():
        wanted = cluster.workers * amount
        if wanted > have.get(kind, 0):
            raise ConfigError(
                f"cluster.workers = {cluster.workers} needs {wanted:g} {_counted(kind)}, the cluster has "
                f"{have.get(kind, 0):g}; lower --workers or {_setting_of(kind)}, {larger}"
            )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = capacity(nodes, need)
    if fit < cluster.workers:
        each = ", ".join(f"{amount:g} {_counted(kind)}" for kind, amount in need.items())
        raise ConfigError(
            f"cluster.workers = {cluster.workers} workers of {each} each: the cluster's {len(nodes)} nodes have room "
            f"for {fit}; lower --workers or what each needs, {larger}"
        )
    return fit // cluster.workers


def missing_capacity(cluster: ClusterConfig, workers: int) -> str:
    """What is waited for, where Ray has no place for the workers: others were faster, or a node is gone. Else ""."""
    import ray

    states = [group["state"] for group in ray.util.placement_group_table().values()]
    if not {"PENDING", "RESCHEDULING"} & set(states):
        return ""
    wants = {kind: workers * amount for kind, amount in worker_resources(cluster).items()}
    return _waiting_for(wants, ray.available_resources(), ray.cluster_resources())


def _waiting_for(wants: Resources, free: Resources, have: Resources) -> str:
    """`waiting for 4 CPUs (1 of 8 free), 2 GPUs (0 of 2 free)`."""
    return "waiting for " + ", ".join(
        f"{amount:g} {_counted(kind)} ({free.get(kind, 0):g} of {have.get(kind, 0):g} free)"
        for kind, amount in wants.items()
    )


def check_shared(folder: Path, store: str) -> None:
    """Raises `StoreError` where a node of the cluster doesn't see `folder`, which lies in a local store."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return
    look = ray.remote(num_cpus=0)(sees)
    for node in nodes:
        try:
            seen = ray.get(look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(folder)))
        except ray.exceptions.RayError:  # the node is lost meanwhile: whoever takes its place looks too
            continue
        if not seen:
            raise StoreError(not_shared(store, node["NodeManagerAddress"]))


def sees(folder: str) -> bool:
    """Whether this node has the folder."""
    return Path(folder).is_dir()


def not_shared(store: str, node: str) -> str:
    """What to say where a node doesn't see a local store."""
    return (
        f"store {store!r} is not seen by node {node}: runs and checkpoints written there would be lost; give --store a "
        "folder that all nodes mount, or a bucket (s3://bucket/prefix)"
    )


def _setting_of(kind: str) -> str:
    return f"cluster.{kind.lower()}s_per_worker" if kind in ("CPU", "GPU") else "cluster.resources"


def _counted(kind: str) -> str:
    return f"{kind}s" if kind in ("CPU", "GPU") else kind


def free_worker_groups(cluster: ClusterConfig, on_event: OnEvent) -> int:
    """How many worker groups fit what is free now: others' work may leave none, then it says so and waits."""
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
