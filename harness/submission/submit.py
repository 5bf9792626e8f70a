"""A run in one file for submission: `pack` writes it, `add` checks it and adds it to a store.

An added run isn't trusted. `harness.submission.bundle` unpacks it into a temporary folder, `harness.submission.intake`
checks the files, and `harness.submission.verify` recomputes the figures. A run that passes is published atomically,
with received.json beside its unchanged record; one that fails leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import provenance
from harness.errors import DataError, StoreError
from harness.record import Received
from harness.store import Store, checksums
from harness.store.backend import RECORD
from harness.store.schemas import TABLES
from harness.submission import bundle, intake
from harness.submission.bundle import BundleManifest
from harness.submission.checks import Report
from harness.submission.flops import plan_flops
from harness.submission.verify import verify


@dataclass(frozen=True)
class Arrival:
    """A run that is now in the store; `added` is False if it was there before."""

    run_id: str
    added: bool
    report: Report


def pack(store: Store, run_id: str, out: Path, with_student: bool = False) -> BundleManifest:
    """Write a finished run to the file `out`: the same bytes every time.

    Raises `StoreError` for a run that isn't finished or that `verify` finds changed, for a student that is missing or
    too large, and if `out` already exists with other content.
    """
    record = store.read(run_id)
    if problem := intake.unfit(record):
        raise StoreError(f"run {run_id} can't be packed: {problem}")
    _refuse_changed(verify(store, run_id, flops=plan_flops), StoreError, f"run {run_id} can't be packed")
    present = {n: there for n, there in store.backend.files(run_id).items() if with_student or "/" not in n}
    present.pop(checksums.RECEIVED, None)
    if with_student and not any(name.startswith("student/") for name in present):
        raise StoreError(f"run {run_id} has no student: run it with --set save_student=true")
    for name in present:
        if bundle.limit(name) == 0:
            raise StoreError(f"run {run_id}: {name!r} can't be sent; expected {bundle.EXPECTED}")
    temporary = out.with_name(f".tmp-{os.getpid()}-{out.name}")
    try:
        manifest = bundle.write(temporary, store, run_id, present)
        if out.exists() and not _same(out, temporary):
            raise StoreError(f"{out} exists and is another file: choose another name with -o")
        os.replace(temporary, out)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{out} can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as one, b.open("rb") as other:
        return checksums.digest(one) == checksums.digest(other)


def add(store: Store, file: Path, data_dir: Path | str | None = None) -> Arrival:
    """Check a packed run and add it to the store atomically.

    Raises `DataError` with the reason for a file that is refused, `StoreError` if the store has another run of this
    id.
    """
    with tempfile.TemporaryDirectory(prefix="hkdbench-add-") as folder:
        staged = Store(folder)
        manifest = bundle.unpack(file, Path(folder))
        run_id, run = manifest.run_id, Path(folder, manifest.run_id)
        here = _present(store, manifest)
        record = intake.check_record(file, run / RECORD, run_id)
        for name in manifest.files:
            if name.startswith("student/"):
                intake.check_student(file, run / name, name)
        for name in TABLES:
            if f"{name}.parquet" in manifest.files:
                intake.check_table(file, run / f"{name}.parquet", name, record)
        with file.open("rb") as source:
            name = "".join(c if c.isprintable() else "?" for c in file.name)
            arrived = Received(time=provenance.now(), file=name, sha256=checksums.digest(source))
        (run / checksums.RECEIVED).write_text(arrived.model_dump_json(indent=1) + "\n", encoding="utf-8")
        report = verify(staged, run_id, data_dir, plan_flops)
        _refuse_changed(report, DataError, f"{file.name} is refused")
        if not here:
            store.check_writable()
            store.copy(run_id, staged)
        return Arrival(run_id, not here, report)


def _refuse_changed(report: Report, error: type[DataError] | type[StoreError], what: str) -> None:
    if changed := report.of("changed"):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise error(f"{what}: {changed[0].check}: {changed[0].detail}{more}")


def _present(store: Store, manifest: BundleManifest) -> bool:
    """Whether the store has this run, with or without its student. Raises `StoreError` for another of this id."""
    run_id = manifest.run_id
    if not store.backend.exists(run_id):
        return False
    there = {n: f for n, f in store.backend.files(run_id).items() if "/" not in n and n != checksums.RECEIVED}
    digests = {}
    for name, place in there.items():
        with store.backend.open(place) as source:
            digests[name] = checksums.digest(source)
    if digests != {name: member.sha256 for name, member in manifest.files.items() if "/" not in name}:
        raise StoreError(f"run {run_id} is in {store.url!r} already, with other content, and wasn't replaced")
    return True
