"""Checkpoints that are complete or absent: safetensors and JSON in a folder that is atomically renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.store.local import room_for

FILE_BYTES = 2**28
"""Tensors are written to files of about this size, which limits how many of them are in memory at once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as plain JSON."""

    tensors: dict[str, Tensor]
    """Memory-mapped from the files: they take memory only when they are used."""
    state: dict[str, Any]


def save(work: Path, stage: int, step: int, tensors: Iterable[tuple[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of (stage, step) under `work`, delete the older ones and return its folder.

    Tensors are taken one at a time. If writing fails (a full disk), the previous checkpoint stays the newest and
    nothing of this one is left.
    """
    name = f"checkpoint-{stage:03d}-{step:08d}"
    part = work / f".part-{name}-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with room_for(work, "a checkpoint"):
            part.mkdir(parents=True)
            _write_tensors(part, tensors)
            (part / "state.json").write_text(json.dumps(state))
            for file in part.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    target = work / name
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in _all(work):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    for leftover in work.glob(".part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def _write_tensors(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    pending: dict[str, Tensor] = {}
    files = size = 0

    def flush() -> None:
        nonlocal files, size
        save_file(pending, folder / f"tensors-{files:05d}.safetensors")
        pending.clear()
        files, size = files + 1, 0

    for name, tensor in tensors:
        pending[name] = tensor.detach().cpu().contiguous()
        size += pending[name].nbytes
        if size >= FILE_BYTES:
            flush()
    if pending or not files:
        flush()


def latest(work: Path) -> Checkpoint | None:
    """The newest checkpoint under `work`, or None."""
    found = _all(work)
    if not found:
        return None
    folder = found[-1]
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("tensors*.safetensors")):
        tensors |= load_file(file)
    return Checkpoint(tensors, json.loads((folder / "state.json").read_text(encoding="utf-8")))


def _all(work: Path) -> list[Path]:
    return sorted(work.glob("checkpoint-*")) if work.is_dir() else []


def part_of(tensors: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The tensors under `prefix/`, with the prefix removed."""
    return {k[len(prefix) + 1 :]: t for k, t in tensors.items() if k.startswith(f"{prefix}/")}


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors with `prefix/` added to their names."""
    return {f"{prefix}/{k}": t for k, t in tensors.items()}
