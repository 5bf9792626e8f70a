"""Models of Qwen2.5-VL's shape with random weights, at any size, for benches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.helpers import families

SIGNS = families.FAMILIES["qwen2_5_vl"][1]


@dataclass(frozen=True)
class Shape:
    """A model, and how large its processor makes pictures."""

    text: Mapping[str, int]
    section: tuple[int, int, int]
    """How rotary places are shared among time, height and width: half of a head in all."""
    rows: int
    """Of the output layer."""
    vision: Mapping[str, int]
    tied: bool
    side: int = 448

    def made(self, _: families.Size, token: Callable[[str], int]) -> families.Made:
        """Configuration and image processor, as `families.build` takes them."""
        import transformers as hf
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        rope = {"rope_parameters": {"rope_type": "default", "mrope_section": [*self.section], "rope_theta": 1e6}}
        wide, area, last = self.text["hidden_size"], self.side**2, self.vision["depth"] - 1
        config = hf.Qwen2_5_VLConfig(
            vision_config={**self.vision, "patch_size": 14, "out_hidden_size": wide, "window_size": 112,
                           "fullatt_block_indexes": [last]},  # published: every eighth
            text_config={**self.text, "max_position_embeddings": 4096, "vocab_size": self.rows, **rope},
            tie_word_embeddings=self.tied, **families._qwen_ids(token),
        )  # fmt: skip
        images = Qwen2VLImageProcessorPil(
            size={"shortest_edge": area, "longest_edge": area}, patch_size=14, merge_size=2
        )
        return config, images, lambda _: {}


def small(wide: int, layers: int, rows: int, tower: int, depth: int, side: int) -> Shape:
    """A model for a CPU; `tower` wide and `depth` deep is its vision tower."""
    text = {"hidden_size": wide, "intermediate_size": 2 * wide, "num_hidden_layers": layers,
            "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    vision = {"depth": depth, "hidden_size": tower, "intermediate_size": 2 * tower, "num_heads": 2}
    return Shape(text, (wide // 16, wide // 16, wide // 8), rows, vision, True, side)


def build(folder: Path, shapes: Mapping[str, Shape], device: str = "cpu", dtype: torch.dtype = torch.float32) -> Path:
    """A ladder of the shapes, the largest first, with a folder each; gives its file."""
    for seed, (rung, shape) in enumerate(shapes.items()):
        families.FAMILIES[rung] = shape.made, SIGNS, "Qwen2_5_VLProcessor"
        families.build(rung, folder / rung, seed, device=device, dtype=dtype)
        del families.FAMILIES[rung]
        file = folder / rung / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 4096}))
    ladder = folder / "ladder.toml"
    rungs = "".join(f'[[rungs]]\nname = "{rung}"\nmodel = "{rung}"\n' for rung in shapes)
    ladder.write_text(f'name = "wide"\n{rungs}')
    return ladder


def apart(vlm: Any) -> None:
    """Let the vision tower take its windows one by one, as transformers loads it."""
    vlm.config.vision_config._attn_implementation = "sdpa"
