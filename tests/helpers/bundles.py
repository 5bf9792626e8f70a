"""Packed runs, and packed runs that were tampered with."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.store.local import LOCK
from harness.submission.bundle import MANIFEST

Files = dict[str, bytes]


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
