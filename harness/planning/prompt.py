"""How a model is asked: its prompt, the token that is scored, the options' tokens, and how many tokens images are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from harness.config import RungConfig
from harness.models import encoding, ladders, loading
from harness.models.prompts import PROBE

SIZES = ((64, 64), (640, 480), (1600, 1200))
"""Width and height of the images whose tokens `of` counts."""


def of(name: str) -> list[dict[str, Any]]:
    """How a model is asked, or each of a ladder: a prompt, its last tokens, the options' tokens, and images' tokens.

    `name` is a model's folder or hub id, a ladder, or a ladder's file. Raises `ModelError` or `ConfigError`.
    """
    if name in ladders.names() or name.endswith(".toml"):
        return [_prompt(rung) for rung in ladders.find(name).rungs]
    return [_prompt(RungConfig(name=re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).name) or "model", model=name))]


def _prompt(rung: RungConfig) -> dict[str, Any]:
    encoder, image_token = encoding.load_encoder(rung), loading.image_token(loading.load_config(rung))

    def spoken(ids: Sequence[int]) -> list[dict[str, Any]]:
        return [{"id": number, "text": encoder.processor.tokenizer.decode([number])} for number in ids]

    asked = [replace(PROBE, image=partial(Image.new, "RGB", size, "grey")) for size in SIZES]
    rows = [encoder.unpadded(example)["input_ids"][0].tolist() for example in asked]
    counts = {f"{w}x{h}": row.count(image_token) for (w, h), row in zip(SIZES, rows, strict=True)}
    return {
        "kind": "prompt",
        "name": rung.name,
        "model": rung.model,
        "processor": type(encoder.processor).__name__,
        "prompt": encoder.text(PROBE),
        "last_tokens": spoken(rows[0][-5:]),
        "options": {
            letter: [spoken(tokens) for tokens in spelled]
            for letter, spelled in zip("ABCD", encoder.letters, strict=False)
        },
        "image_tokens": counts,
        "notes": [note] if (note := encoder.tiling(max(counts.values()))) else [],
    }


def to_text(found: dict[str, Any]) -> str:
    """One of `of`'s results as text."""

    def words(tokens: Sequence[dict[str, Any]]) -> str:
        return " ".join(f"{token['text']!r} ({token['id']})" for token in tokens)

    lines = [f"model {found['name']} ({found['model']}), {found['processor']}", "  prompt:"]
    lines += [f"    {line}" for line in found["prompt"].split("\n")]
    lines += [f"  its last tokens: {words(found['last_tokens'])}", "  scored: the token that follows them"]
    for letter, spelled in found["options"].items():
        lines.append(f"  option {letter}: {' or '.join(map(words, spelled)) or 'no tokens'}")
    lines.append(
        "  image tokens: " + ", ".join(f"{count:,} at {size}" for size, count in found["image_tokens"].items())
    )
    return "\n".join([*lines, *(f"  note: {note}" for note in found["notes"])])
