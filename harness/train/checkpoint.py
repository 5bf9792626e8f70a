"""Checkpoints that are complete or absent: safetensors and JSON in a folder that is renamed into place."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as plain JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(work: Path, stage: int, step: int, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint of (stage, step) under `work`, drop the older ones and return its folder.

    Where that fails (a full disk), the one before stays the newest and nothing of this one is left.
    """
    name = f"checkpoint-{stage:03d}-{step:08d}"
    part = work / f".part-{name}-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        save_file(
            {k: t.detach().cpu().contiguous() for k, t in checkpoint.tensors.items()}, part / "tensors.safetensors"
        )
        (part / "state.json").write_text(json.dumps(checkpoint.state))
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


def latest(work: Path) -> Checkpoint | None:
    """The newest checkpoint under `work`, or None."""
    found = _all(work)
    if not found:
        return None
    folder = found[-1]
    return Checkpoint(
        load_file(folder / "tensors.safetensors"), json.loads((folder / "state.json").read_text(encoding="utf-8"))
    )


def _all(work: Path) -> list[Path]:
    return sorted(work.glob("checkpoint-*")) if work.is_dir() else []


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix/`, without it."""
    return {k[len(prefix) + 1 :]: t for k, t in tensors.items() if k.startswith(f"{prefix}/")}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix/` before their names."""
    return {f"{prefix}/{k}": t for k, t in tensors.items()}
