"""A store in a bucket: on a real S3-compatible server (moto's), and on fsspec's memory filesystem."""

from __future__ import annotations

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from harness.buckets import failures
from harness.buckets.opening import ATTEMPTS, S3_OPTIONS
from harness.errors import StoreError
from harness.leaderboard import ablation as ablate
from harness.leaderboard.leaderboard import table
from harness.record import Reproduction
from harness.store import Store, checksums, maintenance
from harness.store.bucket import lease
from harness.store.compaction import compact
from harness.store.object_storage import ObjectStorage
from helpers.common import Cli
from helpers.runs import add, answers, provenance, record


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://results"
    return Store(f"{root}/{uuid4().hex}")


def bucket(store: Store) -> ObjectStorage:
    assert isinstance(store.backend, ObjectStorage)
    return store.backend


def names(store: Store) -> list[str]:
    place = bucket(store)
    return sorted(path[len(place.root) :].lstrip("/") for path in place.fs.find(place.root))


def test_runs_are_written_read_and_ranked(store: Store, cli: Cli, tmp_path: Path) -> None:
    assert store.ids() == []
    store.check_writable()
    add(store, "finetune", 6)
    add(store, "broken", status="failed")
    assert store.ids() == ["broken-S-0", "finetune-S-0"]
    assert store.predictions("finetune-S-0")["chosen"].tolist() == answers(6)["chosen"].tolist()
    assert [(row.method, row.note) for row in table(store)] == [("finetune", ""), ("broken", "1 failed")]
    before = table(store)
    compact(store)
    add(store, "hkd4vlm", 8)
    after = table(store)[1:]
    assert [(row.rank, row.label, row.values, row.note) for row in after] == [
        (2, before[0].label, before[0].values, ""),
        (None, before[1].label, {}, "1 failed"),
    ]
    add(store, "broken", 7)  # in the place of the failed one
    said = cli("rank", "--store", store.url, "--json")
    assert [row["method"] for row in said.json["rows"]] == ["hkd4vlm", "broken", "finetune"]
    assert cli("store", "compact", "--store", store.url).code == 0
    assert cli("rank", "--store", store.url, "--json").json == said.json
    assert cli("show", "finetune", "--store", store.url).out.startswith("finetune-S-0   done")
    assert store.work("x").is_relative_to(tmp_path / "cache")
    with pytest.raises(StoreError, match="isn't a local folder"):
        _ = store.root


def test_the_record_comes_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is killed before it leaves tables that no reader sees; gc sweeps them a day later."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStorage, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            add(store, "finetune", 6)
    (left,) = names(store)
    assert left.startswith("finetune-S-0/")
    assert left.endswith("/predictions.parquet")
    assert (store.ids(), store.problems(), store.leftovers()) == ([], [], [])
    monkeypatch.setattr("harness.store.object_storage._age", lambda _: 25 * 3600.0)
    assert store.leftovers() == [left]
    assert [one.name for one in maintenance.garbage(store)] == [left]
    maintenance.delete(store, maintenance.garbage(store))
    assert names(store) == []


def test_a_done_run_never_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "finetune", 6)
    before = names(store)
    add(store, "finetune", 6)  # the same again is no harm
    with pytest.raises(StoreError, match="finetune-S-0 is already done"):
        store.write(record("finetune", 0, answers(6)), answers(5))
    with pytest.raises(StoreError, match="finetune-S-0 is already done"):
        add(store, "finetune", status="failed")
    assert names(store) == before
    add(store, "other", status="failed")
    add(store, "other", 5)
    assert store.status("other-S-0") == "done"
    monkeypatch.setattr("harness.store.object_storage._age", lambda _: 25 * 3600.0)
    assert store.leftovers() == []


def test_two_writers_at_once_one_wins(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another writer finishes the run between our look and our put: the put is conditional, and refused."""
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path))
    for already in (None, "failed"):
        store = Store(f"{s3}/{uuid4().hex}")
        if already:
            add(store, "finetune", status=already)
        real, raced = ObjectStorage._commit, False

        def racing(self: ObjectStorage, *args: Any, store: Store = store, real: Any = real) -> bool:
            nonlocal raced
            if not raced:
                raced = True
                add(store, "finetune", 8)
            committed: bool = real(self, *args)
            return committed

        with monkeypatch.context() as patched:
            patched.setattr(ObjectStorage, "_commit", racing)
            with pytest.raises(StoreError, match="already done"):
                add(store, "finetune", 5)
        assert raced
        assert store.predictions("finetune-S-0")["chosen"].tolist() == answers(8)["chosen"].tolist()


def test_stores_are_merged_across_places(store: Store, tmp_path: Path) -> None:
    local = Store(tmp_path / "local")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    local.write(record("kept", 0), student=tmp_path / "weights")
    add(local, "a", 6)
    assert maintenance.merge(store, local).copied == ["a-S-0", "kept-S-0"]
    back = Store(tmp_path / "back")
    maintenance.merge(back, store)
    for run_id in local.ids():
        for name in local.backend.files(run_id):
            assert (back.root / run_id / name).read_bytes() == (local.root / run_id / name).read_bytes()
    assert (back.root / "kept-S-0" / "student" / "config.json").exists()
    assert maintenance.merge(store, back).same == ["a-S-0", "kept-S-0"]


def test_trouble_is_told_in_a_line(s3: str, monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path))
    with pytest.raises(StoreError, match=r"nowhere://x.*can't be opened: Protocol not known: nowhere"):
        Store("nowhere://x")
    absent = Store("s3://no-such-bucket/x")
    with pytest.raises(StoreError, match=r"can't be written: .*bucket.*--store or HKDBENCH_STORE"):
        absent.check_writable()
    with pytest.raises(StoreError, match="can't be written"):
        add(absent)
    said = cli("rank", "--store", "nowhere://x")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")


def test_a_compacted_store_is_ranked_with_few_requests(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Listings, one request a file, and whether runs were renamed, however many; two or three for each new run."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path))
    asked: list[str] = []
    real = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        asked.append(method)
        return await real(self, method, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    store = Store(f"{s3}/{uuid4().hex}")
    counts = []
    for seeds in (range(2), range(2, 12)):
        for seed in seeds:
            add(store, "finetune", 6, seed)
            add(store, "hkd4vlm", 7, seed)
        compact(store)
        reader = Store(store.url)
        asked.clear()
        assert [row.method for row in table(reader)] == ["hkd4vlm", "finetune"]
        counts.append(sorted(asked))
        asked.clear()
        assert len(table(reader)) == 2  # known: what changed is looked for, nothing is read
        assert set(asked) == {"list_objects_v2", "get_object"}
        assert asked.count("get_object") == 1  # the file with the labels, which isn't there
    assert counts[0] == counts[1]
    assert counts[0].count("get_object") == 5  # labels, manifest, runs, answers, examples
    assert len(counts[0]) <= 10
    add(store, "late", 5)
    add(store, "later", 4)
    asked.clear()
    table(Store(store.url))
    new = [method for method in asked if method == "get_object"]
    assert len(new) - counts[0].count("get_object") <= 2 * 3 + 2  # record twice, answers; labels, examples


class Refusing(BaseHTTPRequestHandler):
    """Answers 403 to a bucket named `closed`; drops all other connections."""

    dropped = 0

    def do_PUT(self) -> None:
        if "/closed/" not in self.path:
            type(self).dropped += 1
            self.connection.close()
            return
        said = b"<Error><Code>AccessDenied</Code><Message>x</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_HEAD = do_PUT

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_refusal_and_a_dropped_connection_are_told(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(failures, "NOTE_SECONDS", 0.0)
    monkeypatch.setitem(S3_OPTIONS["config_kwargs"]["retries"], "total_max_attempts", 1)  # else it pauses for seconds
    Refusing.dropped = 0
    with pytest.raises(StoreError, match=r"access denied \(HTTP 403: x\); expected credentials \(AWS_ACCESS_KEY_ID"):
        Store("s3://closed/x").check_writable()
    with pytest.raises(StoreError, match="can't be written: .*; check its address"):
        Store("s3://dropped/x").check_writable()
    assert 1 <= Refusing.dropped <= ATTEMPTS * 2  # aiohttp repeats each once
    assert "waiting for s3://dropped/x: no answer" in caplog.text
    server.shutdown()
    server.server_close()
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()


def test_results_are_written_again_after_a_dropped_connection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = ObjectStorage._publish, []

    def dropping(self: ObjectStorage, folder: Path, run_id: str) -> None:
        tries.append(run_id)
        if len(tries) == 1:
            raise ConnectionResetError("gone")
        real(self, folder, run_id)

    monkeypatch.setattr(ObjectStorage, "_publish", dropping)
    monkeypatch.setattr(failures, "PAUSES", (0.0,))
    add(store, "finetune", 6)
    assert (len(tries), store.ids()) == (2, ["finetune-S-0"])


def test_machines_lock_a_run_in_the_bucket(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second machine waits until the first is done, or has been silent for long; a killed process of the same machine
    isn't waited for."""

    def machine(name: str) -> Store:
        monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / name))
        return Store(store.url)

    first, second = machine("first"), machine("second")
    held = first.lock("run-1", 0)
    assert held is not None
    assert second.lock("run-1", 0) is None
    other = second.lock("run-2", 0)
    assert other is not None
    other.release()
    held.release()
    assert [name for name in names(store) if "lock" in name] == []

    text = b'{"holder": "dead", "machine": "elsewhere"}'  # of a killed process
    bucket(store).fs.pipe_file(f"{bucket(store).root}/.work/.locks/run-1.lock", text)
    assert second.lock("run-1", 0) is None
    monkeypatch.setattr(lease, "EXPIRED_SECONDS", 0.0)
    after = second.lock("run-1", 0)
    assert after is not None
    monkeypatch.setattr(lease, "EXPIRED_SECONDS", 90.0)
    assert first.lock("run-1", 0) is None
    again = machine("second").backend  # its process is killed, and the system releases the file's lock
    own = lease.acquire(bucket(store), ".work/.locks/run-1.lock", lease.machine_of(again.scratch), 0, {})
    assert own is not None
    own.release()
    after.release()


def test_a_held_lock_is_kept_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    held = store.lock("run-1", 0)
    assert held is not None
    texts = set()
    until = time.monotonic() + 20
    while len(texts) < 3 and time.monotonic() < until:
        texts.add(store.backend.read(".work/.locks/run-1.lock"))
    held.release()
    assert len(texts) >= 3


def test_an_ablation_is_kept_in_the_bucket(store: Store) -> None:
    line = ablate.AblationLine(label="full", part="full", method="m", student="S", settings={}, runs={})
    ablation = ablate.Ablation(name="trial", method="m", lines=(line,))
    with pytest.raises(StoreError, match=f"no ablation 'trial' in '{store.url}'"):
        ablate.load(store, "trial")
    ablate.save(ablation, store, "table\n")
    assert ablate.load(store, "trial") == ablation
    assert store.backend.read("trial.md") == b"table\n"
    assert (store.ids(), store.leftovers(), store.problems()) == ([], [], [])


def test_results_of_training_again_are_found_in_a_bucket(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path))
    store = Store(f"{s3}/{uuid4().hex}")
    add(store, "finetune", 6, 0)
    (row,) = table(store)
    (run_id,) = row.run_ids
    found = Reproduction(
        run_id=run_id,
        record=checksums.record_sum(store.read(run_id), store.backend),
        verdict="equal",
        splits={},
        provenance=provenance(),
    )
    before = store.versions()
    store.write_text(*checksums.attested(found))
    assert store.versions() != before
    assert [row.reproduced for row in table(Store(store.url))] == [(run_id,)]
