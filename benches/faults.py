"""What accidents cost: processes and nodes are killed at random points until every run of a suite is done.

    python -m benches.faults                             all parts, kept in benches/results/faults.json
    python -m benches.faults --only driver --kills 5 --out try.json

driver  The process that trains (`--workers 0`) is killed again and again, the same suite is started again each time:
        at any time, and aimed at the short moments in which a run is written, or its working state dropped.
        It is a fork of this one, so that a start costs no imports: what is killed is a process all the same.
nodes   On a Ray cluster of a head without CPUs and two nodes of one CPU, a suite is run by two workers a run; workers
        and whole nodes are killed (another node joins), and once the head with the driver.
elastic The same with `cluster.min_workers = 1`: a node is lost for good, and what is left finishes the suite.

Counted after every accident, and at the end against the same suite undisturbed: finished runs that are lost or have
changed, finished runs that were begun again, records that can't be read, answers or losses that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benches.common import RESULTS, header, keep
from harness.config import RunConfig
from harness.store import Store
from harness.store.maintenance import DAY, delete, garbage
from harness.suite import SuiteConfig

SUITE = {
    "name": "faults",
    "seeds": [0, 1],
    "benchmarks": ["scenes_factuality"],
    "benchmark_settings": {"scenes_factuality": {"train": 64, "validation": 8, "test": 12, "ood": 4}},
    "train": {"examples": 48, "batch_size": 8, "validations": 3},
    "evaluate": {"resamples": 100},
    "runs": [{"method": "hkd4vlm"}, {"method": "finetune"}, {"method": "offline_kd"}],
    "cluster": {"workers": 0},
}
"""Six runs; hkd4vlm's two stages have three steps each, and a checkpoint after each step."""


@dataclass
class Damage:
    """What must all stay 0."""

    lost: int = 0
    """Finished runs that are gone or have changed."""
    repeated: int = 0
    """Finished runs that were begun again."""
    broken: int = 0
    """Folders without a sound record."""
    different: int = 0
    """Runs whose answers or losses aren't those of the undisturbed suite."""
    left: int = 0
    """Working states and temporary folders that `hkdbench gc` would not delete, eight days later."""


@dataclass
class Watch:
    """Looks at a store after every accident."""

    store: Store
    begun: list[str] = field(default_factory=list)
    """Runs that were begun, since the last look."""
    done: dict[str, bytes] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)

    def look(self) -> None:
        self.damage.broken += len(self.store.problems())
        self.damage.repeated += len(set(self.begun) & set(self.done))
        self.begun.clear()
        now = {
            r.run_id: self.store.backend.read(f"{r.run_id}/record.json")
            for r in self.store.records()
            if r.status == "done"
        }
        self.damage.lost += sum(now.get(run_id) != text for run_id, text in self.done.items())
        self.done = now

    def compare(self, undisturbed: Store) -> None:
        """At the end: the same runs, answers and losses; nothing left over that would stay.

        What a writer was at when it was killed lies there until nobody can be at it any more: it is made old here.
        """
        self.look()
        expected = [r.run_id for r in undisturbed.records() if r.kind == "run"]
        self.damage.different += sum(not same(self.store, undisturbed, run_id) for run_id in expected)
        root, later = self.store.root, time.time() - 8 * DAY
        for path in root.rglob("*"):
            os.utime(path, (later, later))
        delete(self.store, garbage(self.store))
        work = [path for path in (root / ".work").glob("*") if not path.name.startswith((".ray-", ".locks"))]
        self.damage.left += len(work) + len(list(root.glob(".tmp-*")))


def same(a: Store, b: Store, run_id: str) -> bool:
    """Whether a run's predictions, history and student are the same in both stores, bit for bit."""
    if a.status(run_id) != "done":
        return False
    answers = [s.predictions(run_id).drop(columns="seconds") for s in (a, b)]
    histories = [s.history(run_id) for s in (a, b)]
    weights = [(s.root / run_id / "student" / "model.safetensors").read_bytes() for s in (a, b)]
    return answers[0].equals(answers[1]) and histories[0].equals(histories[1]) and weights[0] == weights[1]


def configs(suite: dict[str, Any]) -> list[RunConfig]:
    """The suite's runs; each keeps its student, so that weights can be compared."""
    made = SuiteConfig.model_validate(suite).run_configs()
    return [config.model_copy(update={"save_student": True}) for config in made]


# ------------------------------------------------------------------------------------------------ the driver


def launch_in(store: Store, runs: Sequence[RunConfig], say: Callable[[str], None] = lambda _: None) -> None:
    """All runs, in this process."""
    from harness.execution.launch import launch

    def watch(event: dict[str, Any]) -> None:
        if event.get("stage") == "load":
            say(event["run_id"])

    launch(runs, store, "faults", watch)


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """A child that does `work` (with a pipe's end to write to) and ends; its id, and the pipe's other end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work(writer)
        code = 0
    finally:
        os._exit(code)


def drivers(folder: Path, runs: Sequence[RunConfig], kills: int, seed: int) -> dict[str, Any]:
    """Campaigns of kills: a suite is killed until it is done, then the next begins, until `kills` have hit."""
    draw = random.Random(f"faults/{seed}")
    whole = Store(folder / "whole")
    begun = time.monotonic()
    child, reader = fork(lambda _: launch_in(whole, runs))
    os.close(reader)
    _, status = os.waitpid(child, 0)
    assert status == 0, "the undisturbed suite failed"
    seconds = time.monotonic() - begun
    hit: Counter[str] = Counter()
    campaigns, starts, damage = 0, 0, Damage()
    while hit.total() < kills:
        watch = Watch(Store(folder / f"campaign-{campaigns}"))
        campaigns += 1
        while True:
            starts += 1
            child, reader = fork(
                lambda pipe, store=watch.store: launch_in(  # type: ignore[misc]
                    store, runs, lambda run_id: os.write(pipe, f"{run_id}\n".encode()) and None
                )
            )
            moment = MOMENTS[hit.total() % len(MOMENTS)] if hit.total() < kills else "never"
            # At any time: long enough to finish something now and then, too short to finish all.
            patience = draw.uniform(0, seconds * 0.7) if moment == "any time" else float("inf")
            ended = wait_for(child, patience, lambda root=watch.store.root, moment=moment: at(root, moment))  # type: ignore[misc]
            if not ended:
                hit[moment] += 1
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                print(f"kill {hit.total()}, campaign {campaigns}", file=sys.stderr, flush=True)
            watch.begun += os.fdopen(reader).read().split()
            watch.look()
            if ended:
                break
        watch.compare(whole)
        damage = Damage(**{k: v + getattr(watch.damage, k) for k, v in asdict(damage).items()})
    resumed = sum(r.provenance.resumed for c in range(campaigns) for r in Store(folder / f"campaign-{c}").records())
    return {
        "kills": hit.total(),
        "killed_when": dict(hit),
        "campaigns": campaigns,
        "starts": starts,
        "runs_finished": campaigns * len(runs),
        "resumed_in_the_middle": resumed,
        "seconds_undisturbed": round(seconds, 1),
        **asdict(damage),
    }


MOMENTS = ("any time", "a run is written", "a run is done")
"""When a driver is killed, in turn: the last is before its working state is dropped."""


def at(root: Path, moment: str) -> set[Path]:
    """What shows that it is that moment just now (or was, when a driver was killed)."""
    match moment:
        case "a run is written":
            return {path.parent for path in root.glob(".tmp-*/*")}
        case "a run is done":
            return {work for work in (root / ".work").glob("[!.]*") if (root / work.name / "record.json").exists()}
        case _:
            return set()


def wait_for(child: int, seconds: float, signs: Callable[[], set[Path]]) -> bool:
    """Whether the process ends by itself in that time and before a new sign. Raises where it fails."""
    deadline, before = time.monotonic() + seconds, signs()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise RuntimeError(f"the suite failed (status {status})")
            return True
        if time.monotonic() >= deadline or signs() - before:
            return False
        time.sleep(0.001)


# -------------------------------------------------------------------------------------------------- the cluster


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


def drive(file: Path, store: Path) -> None:
    """The driver of `on_nodes`, in a process of its own: runs that begin are said on standard output."""
    suite = json.loads(file.read_text())
    launch_in(Store(store), configs(suite), lambda run_id: print(run_id, flush=True))


# --------------------------------------------------------------------------------------------------- command line


def main() -> None:
    parser = argparse.ArgumentParser(description="What accidents cost.")
    parser.add_argument("--only", choices=["driver", "nodes", "elastic"])
    parser.add_argument("--kills", type=int, default=50, help="of the driver")
    parser.add_argument("--small", action="store_true", help="two runs instead of six under the driver's kills")
    parser.add_argument("--accidents", default="worker,node,worker,head,node", help="on the cluster, in this order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if options.drive:
        drive(options.drive, options.store)
        return
    with tempfile.TemporaryDirectory(prefix="hkd-") as folder:
        if options.only in (None, "driver"):
            where = header()
            import harness.execution.run  # noqa: F401  imported once, before the forks that need it

            runs = configs(SUITE)
            figures = drivers(Path(folder), runs[:2] if options.small else runs, options.kills, options.seed)
            report(options.out, "driver", figures, where)
        for part, accidents in (("nodes", options.accidents.split(",")), ("elastic", ["lost"])):
            if options.only in (None, part):
                where = header()
                cluster = {"workers": 2, "max_failures": 20} | ({"min_workers": 1} if part == "elastic" else {})
                suite = SUITE | {"cluster": cluster, "seeds": [0]}
                suite["train"] = {"examples": 400, "batch_size": 8, "validations": 10}
                figures = on_nodes(Path(folder) / part, suite, accidents, options.seed)
                report(options.out, part, figures, where)


def report(out: Path, part: str, figures: dict[str, Any], where: dict[str, Any]) -> None:
    zero = ("lost", "repeated", "broken", "different", "left", "unfinished")
    met = not any(figures.get(name) for name in zero)
    keep(out, part, {"target": "0 lost, repeated, broken or different", "met": met, **figures, "where": where})
    print(json.dumps({part: figures}, indent=1), flush=True)


if __name__ == "__main__":
    main()
