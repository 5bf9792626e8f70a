"""Runs on a real Ray cluster of two CPUs: the same numbers as without, and accidents that cost nothing else.

Each start of a Ray Train group takes many seconds, so a few commands serve all the checks.
"""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from harness.config import ClusterConfig
from harness.errors import ConfigError, StoreError
from harness.events import OnEvent
from harness.execution import ray_cluster, ray_train
from harness.execution.run_queue import RunQueue
from harness.record import Record
from harness.store import Store
from harness.store.local import acquire
from helpers.cluster import CLUSTER, Start, ended
from helpers.common import Cli


def by_name(records: list[Record]) -> dict[str, Record]:
    """The runs (no controls) by method."""
    return {record.method: record for record in records if record.kind == "run"}


def answers(store: Store, run_id: str) -> pd.DataFrame:
    """The predictions but for the time that they took."""
    return store.predictions(run_id).drop(columns="seconds")


def write_suite(path: Path, head: str, runs: list[dict[str, Any]]) -> None:
    text = f'name = "ray"\nseeds = [0]\n{head}'
    for run in runs:
        settings = ", ".join(f"{k} = '{v}'" for k, v in run.get("settings", {}).items())
        text += f'[[runs]]\nmethod = "{run["method"]}"\nsettings = {{ {settings} }}\n'
    path.write_text(text)


# ------------------------------------------------------------------------------------------- queue


def test_a_worker_group_keeps_its_run_until_it_is_finished() -> None:
    queue = RunQueue([("a", {"seed": 0}), ("b", {"seed": 1}), ("c", {"seed": 2})])
    assert queue.take(0) == ("a", {"seed": 0}, 0)
    assert queue.take(1) == ("b", {"seed": 1}, 0)
    assert queue.lose([1])  # by rank, here one a group
    assert queue.take(0) == ("a", {"seed": 0}, 0)  # started again, but through no fault of its own
    assert queue.take(1) == ("b", {"seed": 1}, 1)
    queue.finish(1, "failed", "why")
    assert queue.drain() == [{"run_id": "b", "status": "failed", "error": "why"}]
    assert queue.drain() == []
    queue.lose([1])  # between two runs: nobody's
    assert queue.take(1) == ("c", {"seed": 2}, 0)
    queue.finish(0, "done")
    assert queue.take(0) is None
    queue.stop()
    assert queue.take(1) is None
    queue.finish(1, "done")
    assert not queue.lose([0])  # no run is left


def test_what_lost_worker_groups_had_is_taken_up_by_the_rest() -> None:
    queue = RunQueue([("a", {}), ("b", {}), ("c", {})])
    queue.start(groups=2, group_size=2)
    assert [queue.take(group) for group in (0, 1)] == [("a", {}, 0), ("b", {}, 0)]
    queue.lose([2, 3])  # both ranks of group 1: one loss of its run
    queue.start(groups=1, group_size=2)
    assert queue.take(0) == ("a", {}, 0)
    queue.finish(0, "done")
    assert queue.take(0) == ("b", {}, 1)
    queue.finish(0, "done")
    assert queue.take(0) == ("c", {}, 0)


# ------------------------------------------------------------------------------------------- capacity


def test_a_worker_fits_one_node() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}, {"memory": 1.0}]
    assert ray_cluster.capacity(nodes, {"CPU": 1}) == 7
    assert ray_cluster.capacity(nodes, {"CPU": 2}) == 3  # one CPU of the second node is left over
    assert ray_cluster.capacity(nodes, {"CPU": 1, "GPU": 1}) == 1
    assert ray_cluster.capacity(nodes, {"CPU": 1, "memory": 1}) == 0


def test_a_group_is_the_least_that_a_suite_goes_on_with() -> None:
    """Two runs of one worker aren't one fixed group: if a node is lost, the other run goes on."""
    assert ray_train.worker_range(ClusterConfig(workers=1), 2) == (1, 2)
    assert ray_train.worker_range(ClusterConfig(workers=2), 6) == (2, 6)
    assert ray_train.worker_range(ClusterConfig(workers=2, min_workers=1), 6) == (1, 6)
    assert ray_train.worker_range(ClusterConfig(workers=2), 2) == 2


def test_a_limit_of_open_files_is_raised_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4096))
    ray_cluster.allow_files(1024)
    assert set_to == [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ConfigError, match=r"may open only 64 files \(ulimit -Hn\), and Ray needs 1024: raise"):
        ray_cluster.allow_files(1024)


def test_folders_of_killed_drivers_are_deleted(tmp_path: Path) -> None:
    """Not those of living ones: their lock is held."""
    dead, living = (tmp_path / name for name in (".ray-suite-host-1", ".ray-suite-host-2"))
    for folder in (dead, living):
        folder.mkdir()
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / f"{dead.name}.lock").touch()
    held = acquire(tmp_path / ".locks" / f"{living.name}.lock", 0)
    assert held is not None
    own, ours = ray_train._own_folder(tmp_path, ".ray-suite-host-3")
    assert sorted(path.name for path in tmp_path.glob(".ray-*")) == [living.name, own.name]
    held.release()
    ours.release()


def test_a_node_that_is_lost_while_it_is_asked_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every node must see the store's folder, but one that is gone by then can't be asked."""
    import ray

    class Look:
        def options(self, **_: object) -> Look:
            return self

        def remote(self, folder: str) -> bool:
            return (tmp_path / "shared") == Path(folder)

    def lost(seen: bool) -> bool:
        raise ray.exceptions.NodeDiedError("lost")

    nodes = [{"Alive": True, "NodeID": number * 56, "NodeManagerAddress": f"192.0.2.{number}"} for number in "12"]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: Look())
    monkeypatch.setattr(ray, "get", lambda seen: seen)
    ray_cluster.check_shared(tmp_path / "shared", "runs")
    with pytest.raises(StoreError, match=r"store 'runs' is not seen by node 192\.0\.2\.1: "):
        ray_cluster.check_shared(tmp_path / "other", "runs")
    monkeypatch.setattr(ray, "get", lost)
    ray_cluster.check_shared(tmp_path / "other", "runs")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "'127.0.0.1:1': nothing answers there (Connection refused); expected host:port of a head"),
        ("nowhere.invalid:6379", "'nowhere.invalid:6379': nothing answers there ("),
        ("nowhere", "'nowhere': expected host:port of a head; the default port is 6379"),
        ("http://127.0.0.1:8265", "is for `ray job submit --address ... -- python -m harness ...`"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line_at_once(
    cli: Cli, toy_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    begun = time.monotonic()
    said = cli("run", *toy_run, "--workers", 1, "--store", tmp_path)
    assert time.monotonic() - begun < 30
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert line.startswith("error: RAY_ADDRESS = ")


def test_a_run_that_no_worker_could_record_fails_with_the_reason(
    cli: Cli, toy_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(runs: Any, store: Any, cluster: Any, on_event: OnEvent, *rest: Any) -> None:
        for run_id, _ in runs:
            on_event({"run_id": run_id, "status": "failed", "error": "Ray Train gave up: no room"})

    monkeypatch.setattr(ray_train, "execute", give_up)
    said = cli("run", *toy_run, "--workers", 1, "--store", tmp_path, "--json")
    assert said.code == 1
    assert said.json["status"] == "failed"
    assert said.json["error"]["message"] == "Ray Train gave up: no room"


def test_ctrl_c_before_a_worker_is_heard_of_still_leaves_its_record(
    cli: Cli, toy_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun, as its working folder says; its word has not come yet."""

    def interrupted(runs: Any, store: Store, cluster: Any, on_event: Any, name: str, on_interrupt: Any) -> None:
        for run_id, _ in runs:
            store.work(run_id).mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_train, "execute", interrupted)
    assert cli("run", *toy_run, "--workers", 1, "--store", tmp_path).code == 130
    assert [r.status for r in Store(tmp_path).records() if r.kind == "run"] == ["interrupted"]


# ----------------------------------------------------------------------------------------- cluster


class TestCluster:
    """What needs the cluster."""

    pytestmark = CLUSTER

    def test_a_suite_with_accidents(self, start: Start, cli: Cli, toy_suite: str, tmp_path: Path) -> None:
        """Two worker groups: healthy runs, a broken one, one that is killed once, one always."""
        runs: list[dict[str, Any]] = [
            {"method": "accident", "settings": {"marker": tmp_path / "killed"}},
            {"method": "accident"},
            {"method": "hkd4vlm"},
            {"method": "scalar_loss"},
            {"method": "finetune"},
        ]
        write_suite(tmp_path / "suite.toml", toy_suite, runs)
        args = ["suite", "suite.toml", "--store", "store", "--workers", 1, "--set", "cluster.max_failures=1", "--json"]
        said = ended(start(*args))
        assert said.code == 1, said.err
        assert "Traceback" not in said.err
        store = Store(tmp_path / "store")
        records = {r.run_id: r for r in store.records() if r.kind == "run"}
        assert {run["run_id"]: run["status"] for run in said.json["runs"]} == {k: r.status for k, r in records.items()}

        killed = {bool(r.settings["marker"]): r for r in records.values() if r.method == "accident"}
        assert killed[True].status == "done"
        assert killed[True].provenance.resumed >= 1
        always = killed[False].error
        assert always is not None
        assert "lost its worker 2 times (cluster.max_failures = 1)" in always.message
        broken = by_name(list(records.values()))["scalar_loss"].error
        assert broken is not None
        assert "loss term student.ce is (); expected (8,)" in broken.message

        # What was done on Ray, resumed or not, equals an undisturbed run without it, bit for bit.
        write_suite(tmp_path / "plain.toml", toy_suite, [runs[0], runs[2], runs[4]])
        assert cli("suite", tmp_path / "plain.toml", "--store", tmp_path / "plain", "--workers", 0).code == 0
        plain = Store(tmp_path / "plain")
        done = [r for r in plain.records() if r.kind == "run"]
        assert len(done) == 3
        for record in done:
            pd.testing.assert_frame_equal(
                answers(store, record.run_id), answers(plain, record.run_id), check_exact=True
            )
            pd.testing.assert_frame_equal(store.history(record.run_id), plain.history(record.run_id), check_exact=True)
            assert records[record.run_id].metrics == record.metrics

    def test_two_workers_a_run(self, start: Start, cli: Cli, toy_suite: str, tmp_path: Path) -> None:
        """DDP: the losses of one process; a worker that is lost or finds a bad image doesn't hang the other.

        After the bad image no run is left, and so no group is started again.
        """
        marker = tmp_path / "killed"
        head = toy_suite.replace('"toy"', '"toy", "torn"', 1)
        write_suite(tmp_path / "suite.toml", head, [{"method": "accident", "settings": {"marker": marker}}])
        said = ended(start("suite", "suite.toml", "--store", tmp_path / "two", "--workers", 2, "--json"))
        assert said.code == 1, said.err
        assert "Traceback" not in said.err
        assert cli("suite", tmp_path / "suite.toml", "--store", tmp_path / "one", "--workers", 0).code == 1

        one, both = Store(tmp_path / "one"), Store(tmp_path / "two")
        (record,) = (r for r in one.records() if r.kind == "run" and r.status == "done")
        other = both.read(record.run_id)
        assert other.provenance.workers == 2
        assert other.provenance.resumed == 1
        histories = [s.history(record.run_id) for s in (one, both)]
        losses = [h[h["term"] == "loss/ce"]["value"].tolist() for h in histories]
        assert len(losses[0]) > 10
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        assert other.cost.roles["only.student"].trained == record.cost.roles["only.student"].trained
        assert list(other.metrics["test"]) == list(record.metrics["test"])

        (failed,) = (r for r in both.records() if r.status == "failed")
        assert failed.error is not None
        assert "example 't1': image in memory can't be read" in failed.error.message

    def test_more_workers_than_cpus_are_refused(self, start: Start, toy_run: list[str], tmp_path: Path) -> None:
        said = ended(start("run", *toy_run, "--workers", 3, "--store", "store"))
        assert (said.code, said.out) == (2, "")
        assert "error: cluster.workers = 3 needs 3 CPUs, but the cluster has 2; lower --workers" in said.err
        assert "Traceback" not in said.err

    def test_ctrl_c_stops_the_workers(
        self, start: Start, cli: Cli, toy_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_suite(tmp_path / "suite.toml", toy_suite, [{"method": "slow", "settings": {"folder": "slow"}}])
        (tmp_path / "slow").mkdir()  # named relative to where the command is given: workers are elsewhere
        args = ["suite", "suite.toml", "--store", "store", "--json"]
        driver = start(*args, "--workers", 1)
        deadline = time.monotonic() + 400
        while not (pids := [int(f.name[4:]) for f in (tmp_path / "slow").glob("pid-*")]):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        driver.send_signal(signal.SIGINT)
        said = ended(driver)
        assert (said.code, said.out) == (130, "")
        assert "interrupted; the same command continues from the last checkpoint" in said.err
        assert "Traceback" not in said.err
        store = Store(tmp_path / "store")
        assert by_name(list(store.records()))["slow"].status == "interrupted"
        deadline = time.monotonic() + 30
        while any(psutil.pid_exists(pid) for pid in pids):
            assert time.monotonic() < deadline, "a worker lives on"
            time.sleep(0.2)
        (tmp_path / "slow" / "go").touch()
        monkeypatch.chdir(tmp_path)
        assert cli(*args, "--workers", 0).code == 0  # in this process, where the worker on Ray had come to
        finished = by_name(list(store.records()))["slow"]
        assert (finished.status, finished.provenance.resumed) == ("done", 1)
