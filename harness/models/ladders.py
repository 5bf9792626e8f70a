"""Ladders: named rungs, largest model first. `tiny` is part of the package; others are TOML files.

This module reads a rung's size and digest without loading the model, and doesn't import torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.config import RungConfig, Settings, parse, read_toml
from harness.errors import ConfigError, ModelError, first_line, near

TINY = Path(__file__).parents[1] / "weights" / "tiny"


class LadderConfig(Settings):
    """A ladder's file: `name` and `[[rungs]]`, largest first. Relative folders are relative to the file."""

    name: str
    """What records call the ladder."""
    rungs: tuple[RungConfig, ...] = Field(min_length=1)
    """The models, the largest first."""


def names() -> list[str]:
    """The ladders that can be used by name, without a file."""
    return ["tiny"]


def find(ladder: str | tuple[RungConfig, ...]) -> LadderConfig:
    """The ladder given by a name, a TOML file's path, or a tuple of rungs. Raises `ConfigError`."""
    if not ladder:
        raise ConfigError("the ladder has no rungs: expected a ladder's name, its .toml file, or rungs")
    if not isinstance(ladder, str):
        found = LadderConfig(name="+".join(rung.name for rung in ladder), rungs=ladder)
    elif ladder == "tiny":
        found = LadderConfig(
            name="tiny",
            # Eager attention: at this size fused attention is no faster, and its backward pass is slow in bfloat16.
            rungs=tuple(RungConfig(name=name, model=str(TINY / name), attention="eager") for name in ("L", "M", "S")),
        )
    elif ladder.endswith(".toml"):
        path = Path(ladder)
        raw = parse(LadderConfig, read_toml(path), str(path))
        found = raw.model_copy(update={"rungs": tuple(_relative_to(rung, path) for rung in raw.rungs)})
    else:
        raise ConfigError(f"unknown ladder {ladder!r}: {near(ladder, names())}; or give a ladder's .toml file")
    seen = [rung.name for rung in found.rungs]
    if len(set(seen)) < len(seen):
        raise ConfigError(f"ladder {found.name!r}: two rungs have the same name; the names are {', '.join(seen)}")
    return found


def _relative_to(rung: RungConfig, file: Path) -> RungConfig:
    folder, template = file.parent / rung.model, rung.template
    changed: dict[str, object] = {}
    if folder.is_dir():
        changed["model"] = str(folder.resolve())
    if template and template.file:
        changed["template"] = template.model_copy(update={"file": str((file.parent / template.file).resolve())})
    return rung.model_copy(update=changed)


def template_text(rung: RungConfig) -> str | None:
    """The text of the template file that the rung names; None if it names none. Raises `ModelError`."""
    if rung.template is None or rung.template.file is None:
        return None
    try:
        return Path(rung.template.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"model {rung.name!r}: template.file = {rung.template.file!r} can't be read: {first_line(error)}; expected "
            "a Jinja chat template"
        ) from None


# ------------------------------------------------------------------------------------------- rungs


PIECES = 64
"""The number of pieces of a large weights file that are read for its digest."""


@dataclass(frozen=True)
class ModelInfo:
    """What the planner needs to know about a model, read without loading it."""

    parameters: int
    vision_parameters: int
    embedding_parameters: int
    digest: str


def inspect(rung: RungConfig) -> ModelInfo:
    """Sizes and a digest of the weights, from the headers of the folder's safetensors files.

    The digest covers the configuration, what the rung changes about the template, and the weights: all bytes of files
    up to 256 MiB; of larger files the size and 64 pieces of 1 MiB, evenly spaced. A hub id is resolved to the local
    snapshot first. Raises `ModelError`.
    """
    folder = snapshot(rung)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"model {rung.name!r} ({rung.model}): no *.safetensors weights in the folder")
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ModelError(
            f"model {rung.name!r} ({rung.model}): no processor in the folder; expected preprocessor_config.json (or "
            "processor_config.json) beside the tokenizer: copy them from the model that it was made from"
        )
    digest = hashlib.sha256()
    tied = _tied(folder)
    for name in (
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_template.json",
    ):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    if rung.template is not None:
        digest.update(json.dumps([rung.template.variables, template_text(rung)], sort_keys=True).encode())
    total = vision = embedding = 0
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        try:
            with file.open("rb") as handle:
                if size <= 2**28:
                    digest.update(handle.read())
                else:
                    for piece in range(PIECES):
                        handle.seek((size - 2**20) * piece // (PIECES - 1))
                        digest.update(handle.read(2**20))
                handle.seek(0)
                header = json.loads(handle.read(min(int.from_bytes(handle.read(8), "little"), size)))
        except ValueError:
            raise ModelError(
                f"model {rung.name!r} ({rung.model}): {file.name} is damaged or not a safetensors file; copy it again"
            ) from None
        for key, tensor in header.items():
            if key == "__metadata__" or (tied and key.endswith("lm_head.weight")):
                continue
            count = 1
            for length in tensor["shape"]:
                count *= length
            total += count
            vision += count if "vision" in key or "visual" in key else 0
            embedding += count if "embed_tokens" in key or "lm_head" in key else 0
    return ModelInfo(total, vision, embedding, digest.hexdigest())


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file as a table; empty if there is none, or if it holds something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tied(folder: Path) -> bool:
    """Whether the output layer shares the embedding's weights. A file that has both then has them twice."""
    config = read_json(folder / "config.json")
    return bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings", False)))


def snapshot(rung: RungConfig) -> Path:
    """The local folder of the rung: the folder itself, or the hub's snapshot. Raises `ModelError`."""
    folder = Path(rung.model)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or rung.model.startswith("."):
        raise ModelError(f"model {rung.name!r}: no such folder: {rung.model}")
    try:
        return Path(_download(rung.model, rung.revision))
    except Exception as error:
        raise ModelError(
            f"model {rung.name!r}: {rung.model!r} is neither a folder nor an available hub model: {first_line(error)}"
        ) from None


@lru_cache(maxsize=64)
def _download(model: str, revision: str | None) -> str:
    """The files of a hub model that are needed; many repositories also have files in other formats."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
    return str(snapshot_download(model, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))


def forward_flops(info: ModelInfo, text_tokens: float, patches: float) -> float:
    """FLOPs of one example's forward pass: 2 per parameter and token (Kaplan et al., 2001.08361).

    Embedding look-ups and attention scores are ignored. A backward pass costs twice as much.
    """
    text = info.parameters - info.vision_parameters - info.embedding_parameters
    return 2 * (text * text_tokens + info.vision_parameters * patches)


def training_passes(adapters: bool) -> int:
    """The cost of a forward and backward pass, in forward passes; frozen weights need no gradients of their own."""
    return 2 if adapters else 3
