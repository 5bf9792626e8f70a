"""A run that is sent arrives as it was; what is there already stays."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import StoreError
from harness.store import Store
from harness.store import store as store_module
from harness.submission import submit
from harness.submission.bundle import MANIFEST
from harness.submission.verify import verify
from helpers.bundles import Files, document, forged, tree
from helpers.common import SHARED, Cli, present

# ----------------------------------------------------------------------------------- there and back


def test_a_run_is_sent_and_arrives_as_it_was(cli: Cli, small_store: Path, run_id: str, tmp_path: Path) -> None:
    here, there, file = Store(small_store), Store(tmp_path / "there"), tmp_path / "run.zip"
    said = cli("pack", run_id[:-3], "-o", file, "--store", small_store)
    assert (said.code, said.out.splitlines()[1]) == (0, f"hkdbench add {file}      adds it to a store")
    added = cli("add", file, "--store", there.root, "--json")
    assert added.code == 0
    assert (added.json["run_id"], added.json["added"]) == (run_id, True)
    names = ["history.parquet", "predictions.parquet", "received.json", "record.json"]
    assert sorted(path.name for path in (there.root / run_id).iterdir()) == names
    for name in ("record.json", "predictions.parquet", "history.parquet"):
        assert (there.root / run_id / name).read_bytes() == (small_store / run_id / name).read_bytes()

    received = there.received(run_id)
    assert received is not None
    assert (received.file, received.sha256) == ("run.zip", hashlib.sha256(file.read_bytes()).hexdigest())
    assert here.received(run_id) is None
    assert f"received {received.time} in run.zip" in cli("show", run_id, "--store", there.root).out
    assert "received" not in cli("show", run_id, "--store", small_store).out
    assert cli("verify", "--all", "--store", there.root).code == 0

    again = cli("add", file, "--store", there.root)
    assert again.code == 0
    assert again.out.startswith(f"{run_id} is already here; ")
    assert there.received(run_id) == received
    assert cli("add", file, "--store", small_store).out.startswith(f"{run_id} is already here; ")
    assert here.received(run_id) is None

    cli("pack", run_id, "-o", tmp_path / "on.zip", "--store", there.root)  # it can be sent on
    assert (tmp_path / "on.zip").read_bytes() == file.read_bytes()


def test_a_store_in_a_bucket(packed: Path, run_id: str, tmp_path: Path) -> None:
    """The same through fsspec: taken in, verified, and packed again to the same bytes."""
    store = Store(f"memory://{tmp_path.name}/runs")
    assert submit.add(store, packed).added
    assert not submit.add(store, packed).added
    received = store.received(run_id)
    assert received is not None
    assert received.file == "run.zip"
    assert verify(store, run_id).of("changed") == []
    submit.pack(store, run_id, tmp_path / "again.zip", with_student=True)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize("verb", ["pack", "add", "verify"])
def test_the_verbs_have_help(cli: Cli, verb: str) -> None:
    said = cli(verb, "--help")
    assert said.code == 0
    assert "--json" in said.out


def test_packing_twice_gives_the_same_file(small_store: Path, run_id: str, packed: Path, tmp_path: Path) -> None:
    submit.pack(Store(small_store), run_id, tmp_path / "again.zip", with_student=True)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    submit.pack(Store(small_store), run_id, tmp_path / "again.zip", with_student=True)
    with pytest.raises(StoreError, match=r"again.zip exists and is another file: choose another name with -o"):
        submit.pack(Store(small_store), run_id, tmp_path / "again.zip")
    assert tree(tmp_path) == {"again.zip"}


def test_the_student_comes_with_it(packed: Path, small_store: Path, run_id: str, tmp_path: Path) -> None:
    submit.add(Store(tmp_path), packed)
    assert tree(tmp_path / run_id / "student") == tree(small_store / run_id / "student") > {"model.safetensors"}


def test_an_older_run_without_a_seal(small_store: Path, run_id: str, tmp_path: Path) -> None:
    shutil.copytree(small_store / run_id, tmp_path / "old" / run_id)
    record = tmp_path / "old" / run_id / "record.json"
    text = {name: value for name, value in json.loads(record.read_text()).items() if name != "seal"}
    record.write_text(json.dumps(text))
    submit.pack(Store(tmp_path / "old"), run_id, tmp_path / "old.zip")
    arrived = submit.add(Store(tmp_path / "there"), tmp_path / "old.zip")
    assert arrived.added
    assert "seal" in {finding.check for finding in arrived.report.of("unverified")}


def test_what_is_not_packed(cli: Cli, small_store: Path, run_id: str, tmp_path: Path) -> None:
    shutil.copytree(small_store, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    control = next(name for name in store.ids() if name.startswith("control-"))
    for name, says, *more in (
        (control, "it is a control, which every store computes for itself"),
        ("nowhere", "no run 'nowhere'"),
    ):
        said = cli("pack", name, "--store", store.root, "-o", tmp_path / "x.zip", *more)
        assert (said.code, says in said.err) == (2, True), said.err
    shutil.rmtree(store.root / run_id / "student")
    assert (
        "has no student" in cli("pack", run_id, "--with-student", "--store", store.root, "-o", tmp_path / "x.zip").err
    )
    text = (store.root / run_id / "record.json").read_text()
    (store.root / run_id / "record.json").write_text(text.replace('"value": 0', '"value": 1', 1))
    said = cli("pack", run_id, "--store", store.root, "-o", tmp_path / "x.zip")
    assert said.code == 2
    assert "record.json is damaged: its text doesn't have the sha256 that it states" in said.err


def test_a_place_that_cannot_be_written(cli: Cli, small_store: Path, run_id: str, tmp_path: Path) -> None:
    said = cli("pack", run_id, "--store", small_store, "-o", tmp_path / "no" / "such" / "x.zip")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "can't be written" in said.err


# -------------------------------------------------------------------------------- what is there stays


def test_another_run_of_the_same_id_is_refused(
    cli: Cli, packed: Path, small_store: Path, run_id: str, tmp_path: Path
) -> None:
    """Done or failed: what is there is somebody's."""
    for status in ("done", "failed"):
        store = Store(tmp_path / status)
        record = Store(small_store).read(run_id)
        empty = record.model_copy(update={"status": status, "metrics": {}, "tags": ["mine"]})
        store.write(empty)
        before = (store.root / run_id / "record.json").read_bytes()
        said = cli("add", packed, "--store", store.root)
        assert said.code == 2
        assert "already, with other content, and wasn't replaced" in said.err
        assert (store.root / run_id / "record.json").read_bytes() == before
        assert tree(store.root) == {run_id, f"{run_id}/record.json"}


def test_a_disk_that_fails_leaves_nothing(
    packed: Path, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.shutil, "copyfileobj", full)
    with pytest.raises(StoreError, match="No space left on device"):
        submit.add(Store(tmp_path / "store"), packed)
    assert tree(tmp_path / "store") == set()
    monkeypatch.undo()
    assert submit.add(Store(tmp_path / "store"), packed).added


def test_a_received_record_opens_nothing_of_this_machine(
    files: Files, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ladder may be the path of a file or a model to be downloaded, its plugins may be code."""
    from harness import registry
    from harness.models import ladders

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    document(
        files, lambda r: r["config"].update(ladder=str(tmp_path / "ladder.toml"), plugins=[str(tmp_path / "evil.py")])
    )
    monkeypatch.setattr(ladders, "read_toml", never)
    monkeypatch.setattr(ladders, "snapshot", never)
    monkeypatch.setattr(registry, "load_plugin", never)
    arrived = submit.add(Store(tmp_path / "store"), forged(tmp_path / "x.zip", files, run_id))
    assert any("the run came from elsewhere" in finding.detail for finding in arrived.report.of("unverified"))
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------- what can't be true

CASES = SHARED / "cases" / "submissions"
"""Runs of release 0.1 whose record was edited and sealed again."""


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("D_flops", "cost.roles.tune.student.flops"),
        ("D_peak_memory", "cost.peak_memory_bytes"),
        ("D_resumed", "provenance.workers"),
        ("D_leaks", "data.leaks.train/test.text"),
    ],
)
def test_absurd_numbers_are_refused_by_their_field(refused: Callable[[Path, str], None], name: str, field: str) -> None:
    refused(present(CASES / f"{name}.zip"), f"record.json is damaged: {field}: Input should be less than")


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e9])
def test_a_bill_of_nothing_is_refused_whatever_code_trained(
    refused: Callable[[Path, str], None], tmp_path: Path, share: float
) -> None:
    with zipfile.ZipFile(present(CASES / "D_peak_memory.zip")) as opened:
        files = {name: opened.read(name) for name in opened.namelist() if name != MANIFEST}

    def change(table: dict[str, Any]) -> None:
        cost = table["cost"]
        cost["peak_memory_bytes"] = 10**9
        cost["train_flops"] = cost["roles"]["tune.student"]["flops"] = share * cost["train_flops"]

    document(files, change)
    refused(forged(tmp_path / "x.zip", files, json.loads(files["record.json"])["run_id"]), "bill: tune.student was")


def test_what_no_check_covers_is_said(cli: Cli, packed: Path, tmp_path: Path) -> None:
    said = cli("add", packed, "--store", tmp_path / "store", "--json").json["report"]["not_checked"]
    assert {"peak memory", "how often it was resumed", "seconds, dates, machine and versions of packages"} <= set(said)
    assert (
        "not checked: that this training gives these answers" in cli("add", packed, "--store", tmp_path / "store").out
    )


@pytest.mark.parametrize("name", ["majority", "random", "always_yes", "control-x", "finetune/text_only"])
def test_imported_answers_do_not_pass_for_a_control(
    files: Files, refused: Callable[[Path, str], None], run_id: str, tmp_path: Path, name: str
) -> None:
    def change(table: dict[str, Any]) -> None:
        table["method"], table["provenance"]["imported"] = name, "answers.json sha256:0"

    document(files, change)
    refused(forged(tmp_path / "x.zip", files, run_id), "expected letters" if "/" in name else "that of a control")
