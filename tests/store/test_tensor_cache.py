"""The cache on disk: whole entries or none, one builder each, a size that it keeps to; and its verbs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.config import ClusterConfig
from harness.store import Store
from harness.store.local import Lock
from harness.store.tensor_cache import Cache, cache_of, key_of
from helpers.common import Cli

KEYS = [key_of({"n": n}) for n in range(4)]


def put(cache: Cache, key: str, size: int = 4) -> None:
    cache.put("answers", key, {"options": torch.arange(size).float()}, {"rung": "L"}, {"n": 1})


def test_others_who_share_the_store_may_read_an_entry(cache: Cache) -> None:
    """As far as the umask allows, like every other file of a store."""
    before = os.umask(0o027)
    try:
        put(cache, KEYS[0])
    finally:
        os.umask(before)
    (path,) = cache.root.rglob("*.safetensors")
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_put_is_found(cache: Cache) -> None:
    assert cache.get("answers", KEYS[0]) is None
    put(cache, KEYS[0])
    found = cache.get("answers", KEYS[0])
    assert found is not None
    assert found.tensors["options"].tolist() == [0, 1, 2, 3]
    assert found.state == {"n": 1}
    assert cache.get("stages", KEYS[0]) is None
    assert cache.get("answers", KEYS[1]) is None
    (entry,) = cache.entries()
    assert (entry.key, entry.kind, entry.sound) == (KEYS[0], "answers", True)
    assert entry.about() == {"kind": "answers", "rung": "L"}


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty", "header"])
def test_a_damaged_entry_is_deleted_and_never_given(cache: Cache, damage: str) -> None:
    put(cache, KEYS[0])
    (entry,) = cache.entries()
    raw = bytearray(entry.path.read_bytes())
    if damage in ("one bit", "header"):
        raw[-1 if damage == "one bit" else 9] ^= 1
    entry.path.write_bytes({"cut": raw[:-3], "empty": b""}.get(damage, raw))
    assert not entry.sound
    assert cache.get("answers", KEYS[0]) is None
    assert cache.entries() == []


def test_the_longest_unused_goes_first(cache: Cache) -> None:
    small = replace(cache, limit=3000)
    for age, key in zip((40, 30, 20), KEYS, strict=False):
        put(small, key, 200)  # about 1,000 bytes an entry
        os.utime(next(e.path for e in small.entries() if e.key == key), (time.time() - age,) * 2)
    assert small.get("answers", KEYS[0]) is not None  # used just now
    put(small, KEYS[3], 200)
    assert {entry.key for entry in small.entries()} >= {KEYS[0], KEYS[3]}
    assert sum(entry.bytes for entry in small.entries()) <= 3000
    (last,) = (entry.path for entry in small.entries() if entry.key == KEYS[3])
    os.utime(last, (time.time() - 1,) * 2)  # two that are written at one tick of the clock are of one age
    put(small, KEYS[1], 2000)  # larger than the whole: it stays alone
    assert [entry.key for entry in small.entries()] == [KEYS[1]]


def test_a_disk_that_refuses_costs_no_run_its_result(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file", 2**20)
    put(cache, KEYS[0])
    assert cache.get("answers", KEYS[0]) is None
    assert cache.acquire("answers", KEYS[0], 1) == Lock()


HOLDER = """
import sys, time
from pathlib import Path
from harness.store.tensor_cache import Cache
lock = Cache(Path(sys.argv[1]), 1).acquire("answers", sys.argv[2], 5)
print("held", flush=True)
time.sleep(60)
"""


def test_one_process_makes_an_entry_and_a_killed_one_lets_go(cache: Cache, root: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", HOLDER, str(cache.root), KEYS[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert cache.acquire("answers", KEYS[0], 0.3) is None
        other = cache.acquire("answers", KEYS[1], 0.3)
        assert other is not None
        other.release()
        holder.kill()
    lock = cache.acquire("answers", KEYS[0], 5)
    assert lock is not None
    assert lock.path is not None
    lock.release()
    assert not lock.path.exists()


def test_the_cache_is_listed_verified_and_deleted(cli: Cli, tmp_path: Path) -> None:
    cache = cache_of(Store(tmp_path), ClusterConfig())
    assert cli("cache", "ls", "--store", tmp_path, "--json").json == []
    for key in KEYS[:3]:
        put(cache, key)
    listed = cli("cache", "ls", "--store", tmp_path, "--json").json
    assert {row["key"] for row in listed} == set(KEYS[:3])
    assert "rung L" in cli("cache", "ls", "--store", tmp_path).out
    assert cli("cache", "verify", "--store", tmp_path, "--json").json == {"entries": 3, "damaged": []}
    damaged = cache.entries()[0]
    damaged.path.write_bytes(b"nothing")
    said = cli("cache", "verify", "--store", tmp_path, "--json")
    assert (said.code, said.json) == (1, {"entries": 3, "damaged": [damaged.key]})
    left = sorted(entry.key for entry in cache.entries())
    assert cli("cache", "rm", left[0][:10], "--store", tmp_path, "--json").json["deleted"] == [left[0]]
    assert cli("cache", "rm", "--older-days", 1, "--store", tmp_path, "--json").json["deleted"] == []
    assert "deleted 1 entries" in cli("cache", "rm", "--all", "--store", tmp_path).out
    assert cache.entries() == []
    for args, message in (((), "cache rm: expected keys"), (("abc",), "no entry 'abc' in the cache (0 entries)")):
        said = cli("cache", "rm", *args, "--store", tmp_path)
        assert (said.code, message in said.err) == (2, True)
