"""The verbs that look after a store."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness import versions
from harness.errors import StoreError
from harness.leaderboard.leaderboard import table
from harness.store import Store, maintenance
from harness.store.compaction import compact
from harness.store.packed.pack import pack
from helpers.common import Cli
from helpers.runs import add, answers, configured, provenance, record


@pytest.fixture
def store(store: Store) -> Store:
    add(store, "finetune", 6, 0, tags=["suite:a"])
    add(store, "finetune", 8, 1, splits=("test", "ood"))
    add(store, "hkd4vlm", status="failed", benchmark="other")
    return store


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


# ------------------------------------------------------------------------------------------------ ls, export


def test_ls_filters(store: Store, cli: Cli) -> None:
    (store.root / "half").mkdir()

    def ids(*options: str) -> list[str]:
        return [run["run_id"] for run in cli("store", "ls", "--store", store.url, "--json", *options).json]

    everything = ["finetune-S-0", "finetune-S-1", "half", "hkd4vlm-S-0"]
    assert ids() == everything
    compact(store)
    assert ids() == everything
    assert ids("--status", "broken") == ["half"]
    assert ids("--method", "finetune", "--benchmark", "toy") == everything[:2]
    assert ids("--tag", "suite:a") == everything[:1]
    assert ids("--where", "test_accuracy > 0.9 and seed = 1") == everything[1:2]
    said = cli("store", "ls", "--store", store.url)
    assert said.out.splitlines()[0] == "done         finetune-S-0  test accuracy 0.7500"
    assert "broken       half  record.json is missing; delete the folder" in said.out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--where", "nonsense = 1"], "nonsense"),
        (["--where", "1 = 1; drop table runs"], "--where"),
        (["--where", "(select count(*) from read_csv('/etc/hostname')) > 0"], "--where"),
        (["--status", "dome"], "did you mean 'done'"),
    ],
)
def test_what_ls_refuses(store: Store, cli: Cli, options: list[str], complaint: str) -> None:
    said = cli("store", "ls", "--store", store.url, *options)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert complaint in said.err


def test_export(store: Store, cli: Cli, tmp_path: Path) -> None:
    out, rows = tmp_path / "runs.parquet", tmp_path / "rows.csv"
    said = cli("store", "export", out, "--predictions", rows, "--store", store.url, "--json")
    assert said.json == {"runs": 3, "predictions": 8 + 16}
    exported = pq.read_table(out).to_pylist()
    assert [(run["run_id"], run["test_accuracy"], run["ood_accuracy"]) for run in exported] == [
        ("finetune-S-0", 0.75, None),
        ("finetune-S-1", 1.0, 1.0),
        ("hkd4vlm-S-0", None, None),
    ]
    lines = list(csv.DictReader(rows.open()))
    assert [line["run_id"] for line in lines] == ["finetune-S-0"] * 8 + ["finetune-S-1"] * 16
    assert lines[0]["scores"] == "0.0 0.0"
    assert [int(line["chosen"]) for line in lines[:8]] == answers(6)["chosen"].tolist()
    said = cli("store", "export", tmp_path / "runs.csv", "--method", "hkd4vlm", "--store", store.url)
    assert [line["status"] for line in csv.DictReader((tmp_path / "runs.csv").open())] == ["failed"]
    for wrong in (tmp_path / "runs.xlsx", tmp_path / "no" / "runs.csv"):
        said = cli("store", "export", wrong, "--store", store.url)
        assert (said.code, said.err.count("\n")) == (2, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"store", "runs.parquet", "rows.csv", "runs.csv"}


# ------------------------------------------------------------------------------------------------------- gc


def test_gc_takes_only_what_nobody_needs(store: Store, cli: Cli) -> None:
    compact(store)
    add(store, "late", 8)
    compact(store)
    day = 24 * 3600
    for name, seconds in ((".tmp-dead-1", 2 * day), (".tmp-alive-1", 60)):
        (store.root / name).mkdir()
        age(store.root / name, seconds)
    for run_id, seconds in (
        ("finetune-S-0", 2 * day),
        ("hkd4vlm-S-0", 2 * day),
        ("gone", 8 * day),
        (".ray-a", 2 * day),
    ):
        (store.work(run_id) if run_id[0] != "." else store.root / ".work" / run_id).mkdir(parents=True)
        file = store.root / ".work" / run_id / "state"
        file.write_text("")
        age(file, seconds)
        age(file.parent, seconds)
    for file in (store.root / ".catalogue").iterdir():
        age(file, 2 * 3600)
    said = cli("store", "gc", "--dry-run", "--store", store.url, "--json").json
    found = {one["name"]: one["why"] for one in said["found"]}
    old = [name for name in found if name.startswith(".catalogue/")]
    assert (
        len(old) == 3
    )  # of the first state: its manifest, its list of runs, and the answers that were joined with new ones
    assert {name for name in found if name not in old} == {
        ".tmp-dead-1",
        ".work/finetune-S-0",
        ".work/gone",
        ".work/.ray-a",
    }
    assert all((store.root / name).exists() for name in found)
    assert cli("store", "gc", "--store", store.url).out.endswith(f"{len(found)} deleted\n")
    assert not any((store.root / name).exists() for name in found)
    assert cli("store", "gc", "--store", store.url).out == "0 deleted\n"
    assert (store.root / ".work" / "hkd4vlm-S-0" / "state").exists()
    said = cli("rank", "--store", store.url, "--json").json
    assert [row["method"] for row in said["rows"]] == ["hkd4vlm", "late", "finetune"]


# ---------------------------------------------------------------------------------------------------- merge


def test_merge_takes_over_what_is_new(store: Store, tmp_path: Path, cli: Cli) -> None:
    other = Store(tmp_path / "other")
    add(other, "finetune", 6, 0, tags=["suite:a"])  # the same bytes
    add(other, "finetune", status="interrupted", seed=1)  # ours is done
    add(other, "hkd4vlm", 8, benchmark="other")  # ours failed
    add(other, "new", 8)
    (other.root / "half").mkdir()
    said = cli("store", "merge", other.url, "--store", store.url, "--dry-run").out
    assert said.splitlines()[-1] == "2 runs to copy, 1 were here already, 1 kept as they are here, 1 broken"
    assert store.status("new-S-0") is None
    done = cli("store", "merge", other.url, "--store", store.url, "--json").json
    assert done == {
        "copied": ["hkd4vlm-S-0", "new-S-0"],
        "same": ["finetune-S-0"],
        "ours": ["finetune-S-1"],
        "broken": ["half"],
        "conflicts": [],
    }
    for run_id in done["copied"]:
        for file in (other.root / run_id).iterdir():
            assert (store.root / run_id / file.name).read_bytes() == file.read_bytes()
    assert cli("store", "merge", other.url, "--store", store.url, "--json").json["copied"] == []


def test_merge_refuses_a_contradiction(store: Store, tmp_path: Path, cli: Cli) -> None:
    other = Store(tmp_path / "other")
    add(other, "finetune", 5, 0, tags=["suite:a"])
    add(other, "new", 8)
    said = cli("store", "merge", other.url, "--store", store.url)
    assert said.code == 2
    assert "1 finished runs differ" in said.err
    assert "(finetune-S-0): nothing was copied" in said.err
    assert store.status("new-S-0") is None
    done = maintenance.merge(store, other, keep_ours=True)
    assert (done.copied, done.ours) == (["new-S-0"], ["finetune-S-0"])
    assert store.read("finetune-S-0").metrics["test"]["accuracy"].value == 0.75


def test_controls_are_the_same_when_their_answers_are(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    for at, day in ((store, 1), (other, 2)):
        made = record("majority", frame=answers(4), kind="control", provenance=provenance(f"2026-01-0{day}T00:00Z"))
        at.write(made, answers(4))
    assert maintenance.merge(store, other).same == ["majority-S-0"]
    third = Store(tmp_path / "third")
    third.write(record("majority", frame=answers(3), kind="control"), answers(3))
    with pytest.raises(StoreError, match="finished runs differ"):
        maintenance.merge(store, third)


def test_an_empty_store_is_no_source(store: Store, tmp_path: Path, cli: Cli) -> None:
    said = cli("store", "merge", tmp_path / "typo", "--store", store.url)
    assert (said.code, "no store at" in said.err) == (2, True)
    (tmp_path / "typo").mkdir()
    said = cli("store", "merge", tmp_path / "typo", "--store", store.url)
    assert (said.code, "has no runs" in said.err) == (2, True)


def test_compact_says_what_it_did(store: Store, cli: Cli) -> None:
    done = cli("store", "compact", "--store", store.url, "--json").json
    assert (done["runs"], done["new"], done["gone"], done["broken"], done["tables"]) == (3, 3, 0, 0, 1)
    assert "3 runs (0 new, 0 gone) on 1 data sets" in cli("store", "compact", "--store", store.url).out
    assert json.loads(next((store.root / ".catalogue").glob("*.json")).read_text())["version"] == versions.CATALOG


# ---------------------------------------------------------------------------------------------------- labels


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))


def labels(store: Store) -> list[str]:
    return sorted(row.label for row in table(store))


def test_labels_travel_with_merged_and_packed_runs(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    configured(store, "a", label="first")
    maintenance.relabel(store, {"a": "second", "gone": "x"})
    configured(other, "b", "finetune")
    maintenance.merge(other, store)
    assert labels(other) == ["finetune", "second"]
    assert other.labels() == {"a": "second"}
    pack(store, tmp_path / "results.tar.xz")
    assert labels(Store(tmp_path / "results.tar.xz")) == ["second"]


def test_damaged_labels_are_named_and_the_runs_have_their_own_names(store: Store, cli: Cli) -> None:
    before = cli("rank", "--store", store.url, "--json").json["rows"]
    (store.root / ".labels.json").write_text('{"a": 1}')
    with pytest.raises(StoreError, match="damaged"):
        store.labels()
    said = cli("rank", "--store", store.url, "--json")
    assert (said.code, said.json["rows"]) == (0, before)
    assert ".labels.json: in " in str(said.json)
