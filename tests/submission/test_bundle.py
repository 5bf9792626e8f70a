"""An archive that was tampered with, or made to do harm, leaves nothing behind."""

from __future__ import annotations

import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.store import Store
from harness.submission import bundle, submit
from harness.submission.bundle import MANIFEST
from helpers.bundles import Files, forged, manifest_of, zipped

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
