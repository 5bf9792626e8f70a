"""For `benches.faults`: a Ray cluster of several nodes on this machine, whose workers, nodes and head are killed."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benches.fault_watch import Watch, configs, launch_in
from harness.store import Store


@dataclass
class Nodes:
    """A head without CPUs, and nodes of one CPU each, all on this machine: each a `ray start` with its children."""

    folder: str
    address: str
    head: subprocess.Popen[bytes]
    nodes: list[subprocess.Popen[bytes]]
    joined: int = 0

    def join(self) -> None:
        """One more node, at a loopback address of its own: a driver then belongs to the head's node, which stays."""
        self.joined += 1
        at = f"--node-ip-address=127.0.0.{self.joined + 1}"
        self.nodes.append(start(self.folder, "--num-cpus=1", f"--address={self.address}", at))

    def workers(self) -> list[psutil.Process]:
        """The processes that train, on all nodes."""
        found = []
        for node in self.nodes:
            for process in psutil.Process(node.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        found.append(process)
        return found


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="hkd-", ignore_cleanup_errors=True) as folder:
        (port,) = free_ports(1)
        rest = ["--head", "--num-cpus=0", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        rest += [f"--ray-client-server-port={free_ports(1)[0]}", "--node-ip-address=127.0.0.1"]
        cluster = Nodes(folder, f"127.0.0.1:{port}", start(folder, *rest), [])
        try:
            for _ in range(count):
                cluster.join()
            yield cluster
        finally:
            for process in (*cluster.nodes, cluster.head):
                kill(process)


def start(folder: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`ray start`, as often as it takes: on a busy machine Ray gives up after 30 s."""
    for _ in range(5):
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        ports = [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments, *ports]
        said = Path(folder) / f"said-{time.monotonic_ns()}"
        with open(said, "w") as out:
            env = {**os.environ, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                [*command, "--object-store-memory=100000000"], stdout=out, stderr=out, env=env, start_new_session=True
            )
        while process.poll() is None:
            if "Ray runtime started" in said.read_text():
                return process
            time.sleep(0.2)
    raise RuntimeError(f"ray start {' '.join(arguments)} failed five times: {said.read_text()[-500:]}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants at once."""
    family = []
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        with suppress(psutil.Error):
            one.kill()
    process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def on_nodes(folder: Path, suite: dict[str, Any], accidents: Sequence[str], seed: int) -> dict[str, Any]:
    """The suite by two workers a run, and the accidents in turn: worker, node, head."""
    draw = random.Random(f"nodes/{seed}")
    folder.mkdir()
    file = folder / "suite.json"
    file.write_text(json.dumps(suite))
    watch = Watch(Store(folder / "store"))
    command = [sys.executable, "-m", "benches.faults", "--drive", str(file), "--store", str(watch.store.root)]
    suffered: list[dict[str, Any]] = []
    waiting, began, clock = list(accidents), 0, time.monotonic()
    seen: set[Path] = set()
    while True:
        with nodes(2) as cluster:
            env = {**os.environ, "RAY_ADDRESS": cluster.address}
            with open(folder / "driver.err", "w") as err:
                driver = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=err, text=True)
            began += 1
            headless = False
            while driver.poll() is None:
                saved = set(watch.store.root.glob(".work/*/checkpoint-*"))
                if waiting and saved - seen:  # the work goes on since the last one: time for the next
                    time.sleep(draw.uniform(0, 3))
                    kind = waiting.pop(0)
                    if driver.poll() is not None:
                        break
                    match kind:
                        case "worker":
                            victims = [w for w in cluster.workers() if w.is_running()]
                            if victims:
                                draw.choice(victims).kill()
                        case "node":
                            kill(cluster.nodes.pop(draw.randrange(2)))
                            cluster.join()
                        case "lost":
                            kill(cluster.nodes.pop(draw.randrange(2)))
                        case "head":
                            driver.kill()
                            headless = True
                    seen |= saved
                    suffered.append({"kind": kind, "second": round(time.monotonic() - clock, 1)})
                    print(f"{suffered[-1]}", file=sys.stderr, flush=True)
                    watch.look()
                time.sleep(0.5)
            assert driver.stdout is not None
            watch.begun += driver.stdout.read().split()
            watch.look()
        if not headless:
            break
    if driver.returncode:
        raise SystemExit(f"the suite failed ({driver.returncode}): {(folder / 'driver.err').read_text()[-2000:]}")
    whole = Store(folder / "whole")
    launch_in(whole, configs(suite | {"cluster": {"workers": 0}}))
    watch.look()
    runs = [r for r in watch.store.records() if r.kind == "run"]
    apart = max(distance(watch.store, whole, r.run_id) for r in runs)
    return {
        "accidents": suffered,
        "starts": began,
        "runs_finished": sum(r.status == "done" for r in runs),
        "resumed_in_the_middle": sum(r.provenance.resumed for r in runs),
        "seconds": round(time.monotonic() - clock, 1),
        "losses_apart": apart,
        **{k: v for k, v in asdict(watch.damage).items() if k in ("lost", "repeated", "broken")},
        "unfinished": sum(r.status != "done" for r in runs),
        "workers_at_the_end": [r.provenance.workers for r in runs],
    }


def distance(a: Store, b: Store, run_id: str) -> float:
    """The largest relative difference between two stores' losses of a run: two ranks add in another order."""
    losses = [
        frame[frame["term"].str.startswith("loss/")]["value"].to_numpy()
        for frame in (store.history(run_id) for store in (a, b))
    ]
    apart = abs(losses[0] - losses[1])
    return float((apart / abs(losses[1]).clip(min=1e-3)).max())  # a term may be 0 in both
