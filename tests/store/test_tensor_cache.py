"""The cache on disk: whole entries or none, one builder each, a size that it keeps to; and its verbs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.api import Example
from harness.config import ClusterConfig
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.planning.plan import Plan
from harness.store import Store
from harness.store.local import Lock
from harness.store.tensor_cache import Cache, cache_of, key_of
from harness.train import loop, teacher_cache
from helpers.common import Cli, ToyPlan

KEYS = [key_of({"n": n}) for n in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 2**30)


def put(cache: Cache, key: str, size: int = 4) -> None:
    cache.put("answers", key, {"options": torch.arange(size).float()}, {"rung": "L"}, {"n": 1})


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


# -------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def make(toy_plan: ToyPlan) -> ToyPlan:
    """A plan of a small cached run on the toy benchmark, of offline_kd where nothing else is said."""

    def made(seed: int = 0, method: str = "offline_kd", cache: str = "auto", **settings: Any) -> Plan:
        return toy_plan(method, seed=seed, settings=settings, train={"examples": 48, "cache": cache})

    return made


def bill(result: loop.Trained) -> dict[str, tuple[int, int, int]]:
    return {
        role.removesuffix(".teacher"): (cost.forwards, cost.trained, cost.shared)
        for role, cost in result.costs.items()
        if role.endswith(".teacher")
    }


def test_runs_share_teachers_and_answers_bit_for_bit(make: ToyPlan, cache: Cache, tmp_path: Path) -> None:
    alone = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "alone")
    first = loop.train(make(temperature=1.0), SingleProcess(), tmp_path / "first", cache)
    assert bill(first) == bill(alone) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}
    second = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "second", cache)
    assert bill(second) == {"teacher": (0, 0, 0), "distil": (0, 0, 48)}
    assert [stage.taken_over for stage in second.stages] == [True, False]
    weights = [dict(t.student.vlm.state_dict()) for t in (alone, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert second.history == alone.history

    other = loop.train(make(seed=1), SingleProcess(), tmp_path / "other", cache)  # another seed tunes another teacher
    assert bill(other) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}

    for entry in cache.entries():  # all that is kept is damaged: all is made again
        entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"?")
    third = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "third", cache)
    assert bill(third) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}
    assert third.history == alone.history


@pytest.mark.parametrize(("method", "settings"), [("feature_kd", {}), ("offline_kd", {"support": "vocab"})])
def test_hidden_states_and_the_vocabularys_logits_are_shared_too(
    make: ToyPlan, cache: Cache, tmp_path: Path, method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = loop.train(make(method=method, cache="off", temperature=4.0, **settings), SingleProcess(), tmp_path / "live")
    assert bill(live)["distil"] == (48, 0, 0)
    loop.train(make(method=method, temperature=1.0, **settings), SingleProcess(), tmp_path / "first", cache)
    second = loop.train(make(method=method, temperature=4.0, **settings), SingleProcess(), tmp_path / "second", cache)
    assert bill(second)["distil"] == (0, 0, 48)
    terms = [[row["value"] for row in t.history if row["stage"] == "distil"] for t in (live, second)]
    assert terms[1] == pytest.approx(terms[0], rel=1e-4)
    plain = loop.train(make(method=method, temperature=2.0), SingleProcess(), tmp_path / "plain", cache)
    # Over the options less is asked, which is kept apart; else it is the same again.
    assert bill(plain)["distil"] == ((48, 0, 0) if "support" in settings else (0, 0, 48))
    if "support" in settings:
        monkeypatch.setattr(teacher_cache, "VOCAB_BYTES", 1)
        large = loop.train(make(method=method, temperature=4.0, **settings), SingleProcess(), tmp_path / "large", cache)
        assert bill(large)["distil"] == (48, 0, 0)


def test_visual_tokens_are_too_many_to_keep(make: ToyPlan, cache: Cache, tmp_path: Path) -> None:
    for name in ("first", "second"):
        result = loop.train(make(method="relation_kd"), SingleProcess(), tmp_path / name, cache)
        assert bill(result)["distil"] == (48, 0, 0)


def test_what_a_stage_depends_on_is_part_of_its_key(make: ToyPlan) -> None:
    def key(planned: Plan) -> str | None:
        stage = planned.stages[0]
        return teacher_cache.stage_key(plan.for_stage(planned, stage.stage), stage, {}, SingleProcess())

    first = key(make())
    assert first is not None
    assert key(make(temperature=3.0, alpha=0.5, divergence="jsd")) == first
    assert key(make(teacher="M")) != first
    assert key(make(teacher_share=2.0)) != first
    assert key(make(seed=1)) != first
    changed = make()
    batch = changed.config.train.model_copy(update={"batch_size": 16})
    assert key(replace(changed, config=changed.config.model_copy(update={"train": batch}))) != first
    last = changed.stages[1]
    assert (
        teacher_cache.stage_key(plan.for_stage(changed, last.stage), last, {}, SingleProcess()) is None
    )  # the student learns


def test_a_stage_is_trained_with_what_it_depends_on_alone(make: ToyPlan) -> None:
    planned = make(temperature=3.0, teacher_share=0.5)
    seen = plan.for_stage(planned, planned.stages[0].stage).settings
    assert (seen["temperature"], seen["teacher_share"]) == (2.0, 0.5)
    assert plan.for_stage(planned, planned.stages[1].stage).settings["temperature"] == 3.0


def test_an_image_that_changes_in_place_is_another_example(tmp_path: Path, make: ToyPlan) -> None:
    example: Example = make().training.splits["train"][0]
    file = tmp_path / "picture.png"
    example.load_image().save(file)
    before = teacher_cache.content(replace(example, image=file))
    assert before == teacher_cache.content(replace(example, image=file))
    assert before == teacher_cache.content(
        replace(example, image=file, category="other", id="x")
    )  # not shown to a model
    assert before != teacher_cache.content(replace(example, image=file, claim="It is red."))
    example.load_image().rotate(90).resize((63, 64)).save(file)  # the same name
    assert before != teacher_cache.content(replace(example, image=file))


# ------------------------------------------------------------------------------------------------- verbs


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
