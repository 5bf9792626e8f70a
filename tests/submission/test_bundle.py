"""A run that is sent arrives as it was; one that was tampered with, or made to do harm, leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import shutil
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harness.errors import DataError, StoreError, UserError
from harness.record import parse_record
from harness.store import PREDICTIONS, Store
from harness.store import store as store_module
from harness.store.local import LOCK
from harness.submission import bundle, intake, submit
from harness.submission.bundle import MANIFEST
from harness.submission.verify import verify
from helpers.common import Cli

Files = dict[str, bytes]
Spoil = Callable[[Files], None]


@pytest.fixture(scope="module")
def run_id(small_store: Path) -> str:
    (found,) = (name for name in Store(small_store).ids() if not name.startswith("control-"))
    return found


@pytest.fixture(scope="module")
def packed(small_store: Path, run_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one file, its student with it."""
    out = tmp_path_factory.mktemp("packed") / "run.zip"
    submit.pack(Store(small_store), run_id, out, with_student=True)
    return out


@pytest.fixture
def files(packed: Path) -> Files:
    """What the packed run holds, but for its manifest."""
    with zipfile.ZipFile(packed) as opened:
        return {name: opened.read(name) for name in opened.namelist() if name != MANIFEST}


def manifest_of(files: Mapping[str, bytes], run_id: str, other: Mapping[str, Any] | None = None) -> bytes:
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return json.dumps(
        {"format": "hkdbench run", "version": 1, "run_id": run_id, "files": sums, **(other or {})}
    ).encode()


def zipped(path: Path, files: Mapping[str, bytes], compress: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = compress
            opened.writestr(entry, data)
    return path


def forged(path: Path, files: Mapping[str, bytes], run_id: str, other: Mapping[str, Any] | None = None) -> Path:
    """A file with a manifest that fits what it holds, whatever that is."""
    return zipped(path, {**files, MANIFEST: manifest_of(files, run_id, other)})


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != LOCK}


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[[Path, str], None]:
    """`add` says why in one line, ends with 2, and writes nothing anywhere near."""

    def check(file: Path, says: str) -> None:
        before = tree(tmp_path)
        said = cli("add", file, "--store", tmp_path / "store")
        assert (said.code, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1, said.err
        assert says in said.err, said.err
        assert tree(tmp_path) == before

    return check


def document(files: Files, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the record, and take its seal off."""
    table = json.loads(files["record.json"])
    change(table)
    table["seal"] = None
    files["record.json"] = json.dumps(table).encode()


def table(files: Files, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the predictions, and take the seal off."""
    buffer = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(files["predictions.parquet"]))), buffer, compression="zstd")
    files["predictions.parquet"] = buffer.getvalue()
    document(files, lambda _: None)


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
    assert (
        "can't be packed: seal: record.json: its text doesn't have the sha256 that it states (and 1 more)" in said.err
    )
    assert tree(tmp_path) & {"x.zip"} == set()


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


# ----------------------------------------------------------------------------------- hostile archives


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "student/../../evil.json",
        "/evil.json",
        "C:\\evil.json",
        "student\\evil.json",
        "student/sub/evil.json",
        "student/.hidden.json",
        "student/",
        "received.json",
        "evil.json",
        "RECORD.JSON",
        "student/évil.json",
        "student/pytorch_model.bin",
        "student/model.pkl",
        "student/code.py",
        "record.json ",
        "",
    ],
)
def test_names_that_are_not_expected(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, name: str
) -> None:
    refused(forged(tmp_path / "x.zip", {**files, name: b"{}"}, run_id), "it holds ")


def test_a_name_cut_by_a_nul(refused: Callable[[Path, str], None], packed: Path, tmp_path: Path) -> None:
    """zipfile reads such a name up to the NUL; other programs read all of it."""
    data = packed.read_bytes().replace(b"student/config.json", b"student/conf.json\0x")
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip", r"it holds 'student/conf.json\x00x'")


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO, stat.S_IFCHR])
def test_members_that_are_no_files(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in {**files, MANIFEST: manifest_of(files, run_id)}.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, (mode if name == "history.parquet" else 0) << 16
            opened.writestr(entry, data)
    refused(path, "history.parquet isn't a plain file")


def test_ten_thousand_members(refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path) -> None:
    many = files | {f"student/{i}.json": b"{}" for i in range(10_000)}
    refused(forged(tmp_path / "x.zip", many, run_id), "it has 10011 members")


def test_one_name_twice(refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        warnings.simplefilter("ignore")
        for name, data in [*files.items(), ("record.json", b"{}"), (MANIFEST, manifest_of(files, run_id))]:
            opened.writestr(name, data)
    refused(tmp_path / "x.zip", "it holds record.json twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, method: int
) -> None:
    whole = {**files, MANIFEST: manifest_of(files, run_id)}
    refused(zipped(tmp_path / "x.zip", whole, method), "expected stored or deflated")


def test_an_encrypted_member(refused: Callable[[Path, str], None], packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the list
    data[at + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip", "is encrypted")


def test_bombs_by_ratio(refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path) -> None:
    """15 MB of blanks in 15 kB; and 65 MB of zeros."""
    blanks = files | {"record.json": files["record.json"] + b" " * 15_000_000}
    refused(forged(tmp_path / "x.zip", blanks, run_id), "too many for a run")
    zeros = files | {"student/config.json": bytes(65 * 2**20)}
    refused(forged(tmp_path / "x.zip", zeros, run_id), f"expected at most {bundle.MOST_TEXT}")


def test_a_bomb_that_lies_about_its_size(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path
) -> None:
    """It declares 1,000 bytes and holds 15 million: no more than those 1,000 are unpacked."""
    files["record.json"] = b" " * 15_000_000
    data = bytearray(forged(tmp_path / "x.zip", files, run_id).read_bytes())
    size = struct.pack("<L", 15_000_000)
    assert data.count(size) == 2  # beside the member and in the list
    (tmp_path / "x.zip").write_bytes(data.replace(size, struct.pack("<L", 1000)))
    refused(tmp_path / "x.zip", "is refused: it can't be read: Bad CRC-32 for file 'record.json'")


def test_members_that_overlap(refused: Callable[[Path, str], None], packed: Path, tmp_path: Path) -> None:
    """Two names for the same bytes, as in a zip bomb whose members share their content."""
    data = packed.read_bytes()
    start = data.index(b"PK\x01\x02")
    first = data[start : start + 46 + len("history.parquet")]
    twin = first.replace(b"history.parquet", b"student/ab.json")
    end = struct.unpack("<4s4H2LH", data[-22:])
    tail = struct.pack("<4s4H2LH", end[0], 0, 0, end[3] + 1, end[4] + 1, end[5] + len(twin), end[6], 0)
    (tmp_path / "x.zip").write_bytes(data[:-22] + twin + tail)
    refused(tmp_path / "x.zip", "there is other data between them, or they overlap")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "isn't a zip file"),
        (lambda data: b"not a zip file, but longer than its end record", "isn't a zip file"),
        (lambda data: data + b"more", "isn't a zip file"),
        (lambda data: b"#!/bin/sh\n" + data, "a comment or other data"),
        (lambda data: data[:-22] + data[-22:-2] + b"\x04\0more", "isn't a zip file"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:2000] + data[2100:], "a comment or other data"),
        (lambda data: data[:2000] + bytes(100) + data[2100:], "can't be read"),
    ],
)
def test_files_that_are_no_such_zip(
    refused: Callable[[Path, str], None], packed: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], says: str
) -> None:
    (tmp_path / "x.zip").write_bytes(spoil(packed.read_bytes()))
    refused(tmp_path / "x.zip", says)


def test_what_is_no_file(refused: Callable[[Path, str], None], tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.zip", "no such file")
    refused(tmp_path, "not a file")


def test_any_changed_byte_is_refused_or_harmless(packed: Path, small_store: Path, run_id: str, tmp_path: Path) -> None:
    """A changed byte of the zip's own fields (a date) may pass; then what arrives is still the run, byte for byte."""
    good, rng = packed.read_bytes(), random.Random(0)
    passed = 0
    for i in range(60):
        at = rng.randrange(len(good)) if i % 2 else len(good) - 1 - rng.randrange(2500)  # half of them in the list
        (tmp_path / "x.zip").write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
        store = Store(tmp_path / f"store-{i}")
        try:
            submit.add(store, tmp_path / "x.zip")
        except UserError:
            assert not store.root.exists()
            continue
        passed += 1
        for name in ("record.json", "predictions.parquet", "history.parquet", "student/model.safetensors"):
            assert (store.root / run_id / name).read_bytes() == (small_store / run_id / name).read_bytes()
    assert passed < 20


# ----------------------------------------------------------------------------------- hostile manifests


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"format": "tar"}, "manifest.json: format"),
        ({"version": 2}, "manifest.json: version"),
        ({"run_id": "../up"}, "manifest.json: run_id"),
        ({"run_id": "a\n"}, "manifest.json: run_id"),
        ({"run_id": ".tmp-x"}, "manifest.json: run_id"),
        ({"run_id": "other"}, "record.json is of run"),
        ({"files": {}}, "its members"),
        ({"files": []}, "manifest.json: files"),
        ({"more": 1}, "manifest.json: more"),
    ],
)
def test_manifests(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, other: dict[str, Any], says: str
) -> None:
    refused(forged(tmp_path / "x.zip", files, run_id, other), says)


def test_hashes_and_members_must_be_those_of_the_manifest(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path
) -> None:
    manifest = manifest_of(files, run_id)
    wrong = files | {"history.parquet": files["history.parquet"][:-1] + b"x"}
    refused(zipped(tmp_path / "a.zip", {**wrong, MANIFEST: manifest}), "history.parquet isn't the file in the manifest")
    fewer = {name: data for name, data in files.items() if name != "history.parquet"}
    refused(zipped(tmp_path / "b.zip", {**fewer, MANIFEST: manifest}), "aren't those of its manifest")
    refused(zipped(tmp_path / "c.zip", files), "it has no manifest.json")
    refused(zipped(tmp_path / "d.zip", {**files, MANIFEST: b"{"}), "manifest.json: ")
    for name in ("record.json", "predictions.parquet"):
        less = {n: data for n, data in files.items() if n != name}
        refused(forged(tmp_path / "e.zip", less, run_id), f"it has no {name}")


# ------------------------------------------------------------------------------------- hostile contents


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(run_id="other"), "record.json is of run 'other'"),
        (lambda r: r.update(status="failed"), "it is failed, and only finished runs can be sent"),
        (lambda r: r.update(kind="control"), "it is a control"),
        (lambda r: r.update(schema_version=99), "schema 99"),
        (lambda r: r.update(colour="red"), "record.json is damaged: colour"),
        (lambda r: r.pop("metrics"), "no data or no figures"),
        (lambda r: r.update(data=None), "no data or no figures"),
        (lambda r: r.update(method="../x"), "method is '../x'"),
        (lambda r: r.update(benchmark="a b"), "benchmark is 'a b'"),
        (lambda r: r.update(tags=["\x1b[2J"]), "control characters"),
        (lambda r: r["settings"].update({"\u202egnp": 1}), "control characters"),
        (lambda r: r["settings"].update(deep=nested(60)), "nested more than 50 deep"),
        (lambda r: r["data"]["sizes"].update(test=-1), "sizes of splits"),
        (lambda r: r["data"]["sizes"].update(test=10**30), "sizes of splits"),
        (lambda r: r["data"].update(options=["x"]), "1 options; expected 2 to 26"),
        (lambda r: r["data"].update(options=["x", "y"]), "scores for 2 options"),
        (lambda r: r["metrics"].update(dev=r["metrics"]["test"]), "figures of split 'dev'"),
        (lambda r: r["metrics"].pop("ood"), "isn't of the splits"),
        (lambda r: r["metrics"]["test"].update({f"accuracy/{i}": {"value": 1} for i in range(1001)}), "at most 1000"),
        (lambda r: r["config"]["evaluate"].update(resamples=10**9), "1000000000 resamples"),
        (lambda r: r["metrics"]["test"]["accuracy"].update(value=0.99), "figures: test accuracy is 0.99, the predict"),
        (lambda r: r["cost"].update(train_flops=1.0), "cost: train_flops is 1.0"),
        (lambda r: r["cost"].update(train_seconds=-1.0), "cost: a cost is negative"),
        (lambda r: r["data"].update(fingerprint="0" * 64), "data: fingerprint"),
        (lambda r: r["config"]["benchmark_settings"].update(train=10**12), "data: split train has 40 examples, in"),
        (lambda r: r["identity"].update(seed=3), "run id: the identity's hash gives"),
    ],
)
def test_records(
    refused: Callable[[Path, str], None],
    files: Files,
    run_id: str,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    says: str,
) -> None:
    document(files, change)
    refused(forged(tmp_path / "x.zip", files, run_id), says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe{}", "record.json is damaged: 'utf-8'"),
        (b"[" * 100_000, "record.json is damaged"),
        (b"null", "record.json is damaged"),
        (b'{"schema_version": 0}', "record.json is damaged"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "record.json is damaged"),
        (pickle.dumps({"run_id": 1}), "record.json is damaged"),
    ],
)
def test_records_that_are_none(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, text: bytes, says: str
) -> None:
    refused(zipped(tmp_path / "x.zip", {**files, "record.json": text, MANIFEST: manifest_of(
        files | {"record.json": text}, run_id)}, zipfile.ZIP_STORED), says)  # fmt: skip


def column(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """The table with one column changed, in its type."""

    def changed(found: pa.Table) -> pa.Table:
        at = PREDICTIONS.get_field_index(name)
        return found.set_column(
            at, PREDICTIONS.field(at), pa.array(change(found[name].to_pylist()), PREDICTIONS.types[at])
        )

    return changed


def first(value: Any) -> Callable[[Any], Any]:
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns("gold"), "predictions.parquet has columns split string"),
        (lambda t: t.append_column("more", pa.array(range(len(t)))), "predictions.parquet has columns split string"),
        (lambda t: t.set_column(4, "gold", pc.cast(t["gold"], pa.float64())), "gold double"),
        (lambda t: t.set_column(1, "id", pc.cast(t["id"], pa.binary())), "id binary"),
        (lambda t: t.slice(0, 0), "predictions.parquet has no rows"),
        (lambda t: t.slice(1), "answers: "),
        (column("gold", first(4)), "gold 4 isn't one of its options"),
        (column("gold", first(-1)), "gold -1 isn't one of its options"),
        (column("chosen", first(9)), "chosen 9 isn't one of its options"),
        (column("chosen", first(-2)), "chosen -2 isn't one of its options"),
        (column("scores", first([0.0] * 5)), "5 scores for 4 options"),
        (column("scores", first([float("nan")] * 4)), "a score isn't finite"),
        (column("scores", first([None] * 4)), "a score isn't finite"),
        (column("id", first(None)), "column id has 1 empty values"),
        (column("category", first("x" * 1001)), "a category is longer than 1000 bytes"),
        (column("category", first("\x1b]0;x\x07")), "a category holds control characters"),
        (column("group", first("elsewhere")), "golds: "),
        (column("seconds", first(float("nan"))), "it took nan seconds"),
        (column("split", lambda values: ["train"] * len(values)), "isn't of the splits"),
    ],
)
def test_predictions(
    refused: Callable[[Path, str], None],
    files: Files,
    run_id: str,
    tmp_path: Path,
    change: Callable[[pa.Table], pa.Table],
    says: str,
) -> None:
    table(files, change)
    refused(forged(tmp_path / "x.zip", files, run_id), says)


@pytest.mark.parametrize("name", ["predictions.parquet", "history.parquet"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(300) + b"PAR1", pickle.dumps([1, 2])])
def test_tables_that_are_none(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, name: str, data: bytes
) -> None:
    refused(forged(tmp_path / "x.zip", files | {name: data}, run_id), f"{name} can't be read")


def test_a_table_that_grows(refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path) -> None:
    """Three million rows of one word: 1.5 kB packed by the column's own compression."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x"]))
    columns = {field.name: word if pa.types.is_string(field.type) else pa.nulls(3_000_000, field.type)
               for field in PREDICTIONS}  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).cast(PREDICTIONS), buffer, compression="zstd")
    files["predictions.parquet"] = buffer.getvalue()
    assert len(files["predictions.parquet"]) < 100_000
    refused(forged(tmp_path / "x.zip", files, run_id), "predictions.parquet declares 3000000 rows")


def test_what_a_table_takes_is_bounded_whatever_it_declares() -> None:
    code = (
        "import numpy as np\n"
        "from harness.submission.intake import _memory_limit\n"
        "with _memory_limit(64 * 2**20):\n"
        "    small = np.ones(2**20)\n"
        "    try: np.ones(2**27)\n"
        "    except MemoryError: print('refused')\n"
        "large = np.ones(2**27 // 8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("refused\n" if sys.platform == "linux" else "")


def test_a_bootstrap_that_would_take_for_ever(files: Files) -> None:
    """Two limits that a small run can't reach: groups times categories, and groups times resamples."""
    wide = pq.read_table(io.BytesIO(files["predictions.parquet"]))
    record = json.loads(files["record.json"])
    record["config"]["evaluate"]["resamples"] = intake.MOST_RESAMPLES
    found = parse_record(json.dumps(record))
    assert not isinstance(found, str)
    names = [f"c{i}" for i in range(900)]
    rows = len(wide)
    many = column("category", lambda values: [names[i % 900] for i in range(len(values))])(
        pa.concat_tables([wide] * (900 // rows + 1))
    )
    with pytest.raises(DataError, match=r"900 categories and 100000 resamples: too many to compute anew"):
        intake._check_predictions(Path("x.zip"), many, found)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("student/model.safetensors", pickle.dumps({"weights": [1.0]}), "isn't a safetensors file"),
        ("student/model.safetensors", struct.pack("<Q", 2**60) + b"{}", "isn't a safetensors file"),
        ("student/model.safetensors", struct.pack("<Q", 2) + b"{}" + bytes(100), "isn't a safetensors file"),
        ("student/config.json", b"{", "isn't a json file"),
        ("student/config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}', "names code of its own"),
        ("student/chat_template.jinja", b"\xff", "isn't a jinja file"),
        ("student/chat_template.jinja", b"{{ 1 }}", "seal: student/chat_template.jinja: its bytes don't have"),
        ("student/other.json", b"{}", "seal: student/other.json: was added later: the record states no sha256 of it"),
    ],
)
def test_students(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    refused(forged(tmp_path / "x.zip", files | {name: data}, run_id), says)


def test_records_of_any_shape_are_refused_in_words(files: Files, run_id: str, tmp_path: Path) -> None:
    """Random parts of the record replaced by other things: an answer in words, or a run that verifies."""
    rng, good = random.Random(0), files["record.json"]

    def replaced(value: Any) -> Any:
        """The document with one random part of it replaced."""
        if isinstance(value, dict) and value and rng.random() < 0.85:
            key = rng.choice(sorted(value))
            return value | {key: replaced(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.85:
            at = rng.randrange(len(value))
            return [*value[:at], replaced(value[at]), *value[at + 1 :]]
        return rng.choice([None, -1, 10**40, 1e308, "", "x", [], {}, [[]], True, {"a": None}, 0.5])

    said: list[str] = []
    for _ in range(80):
        files["record.json"] = json.dumps(replaced(json.loads(good) | {"seal": None})).encode()
        try:
            submit.add(Store(tmp_path / "store"), forged(tmp_path / "x.zip", files, run_id))
        except UserError as error:
            said.append(str(error))
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    assert len(said) > 60
    assert [text for text in said if len(text.splitlines()) != 1] == []


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
