"""Ray clusters for tests: each has a head of its own on loopback, and is gone afterwards with all its processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from helpers.common import Said

CLUSTER = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]
"""The marks of a test that starts a cluster."""
Start = Callable[..., "subprocess.Popen[str]"]
"""Starts `hkdbench ARGS...` as a process that joins a cluster."""
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port",
         "ray-client-server-port", "runtime-env-agent-port", "node-manager-port", "object-manager-port")  # fmt: skip
"""Those of a head that would be the same for every cluster of a machine."""


def ended(process: subprocess.Popen[str]) -> Said:
    """What the process said, once it has ended."""
    out, err = process.communicate(timeout=700)
    return Said(process.returncode, out, err)


@dataclass(frozen=True)
class Head:
    """Where a cluster is reached: by drivers, by `ray job submit` where it has a job server, and by Prometheus."""

    address: str
    jobs: str
    metrics: str


@contextmanager
def head(cpus: int, jobs: bool = False, python: str | Path = sys.executable,
         env: Mapping[str, str] | None = None) -> Iterator[Head]:  # fmt: skip
    """A cluster of one node with so many CPUs, whatever the machine has."""
    folder = tempfile.mkdtemp(prefix="hkdray")  # a short path: it holds sockets
    spoken = {
        **(os.environ if env is None else env),
        "PYTHONUNBUFFERED": "1",
        "RAY_task_events_report_interval_ms": "0",
    }
    process = None
    try:
        for _ in range(5):  # on a very busy machine Ray gives up starting after 30 s
            ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            command = [str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--num-cpus={cpus}"]
            command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
            command += [f"--include-dashboard={str(jobs).lower()}", "--object-store-memory=100000000"]
            command += [f"--{name}={port}" for name, port in ports.items()]
            with open(said := Path(folder) / "said", "w") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=spoken)
            if _started(process, said):
                break
            end(process)
        else:
            raise AssertionError("ray start failed five times")
        here = "http://127.0.0.1"
        jobs, metrics = f"{here}:{ports['dashboard-port']}", f"{here}:{ports['metrics-export-port']}/metrics"
        yield Head(f"127.0.0.1:{ports['port']}", jobs, metrics)
    finally:
        if process is not None:
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _started(process: subprocess.Popen[bytes], said: Path) -> bool:
    """Wait for what `ray start` says at the end; False where it gave up."""
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        if "Ray runtime started" in said.read_text():
            return True
        time.sleep(0.2)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill `ray start --block` and every process that it has started: an orderly end takes Ray 30 s."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=10)
    process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has."""
    with ExitStack() as held:
        found = []
        for _ in range(count):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found


def read_metrics(url: str) -> list[str]:
    """The lines of a node's Prometheus endpoint that are the harness's."""
    with urlopen(url, timeout=30) as answer:
        return [line for line in answer.read().decode().splitlines() if line.startswith("ray_hkdbench_")]


def series(lines: Sequence[str], name: str, **tags: str) -> list[float]:
    """The numbers of every series of this name that has these tags."""
    wanted = [f'{tag}="{value}"' for tag, value in tags.items()]
    found = [line for line in lines if line.startswith(f"ray_hkdbench_{name}{{") and all(w in line for w in wanted)]
    return [float(line.rpartition(" ")[2]) for line in found]
