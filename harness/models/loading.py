"""From a rung of a ladder to a model in memory, through transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from harness.config import RungConfig
from harness.errors import ModelError, first_line
from harness.models import ladders, window_attention
from harness.models.encoding import quiet

TOWERS = ("visual", "vision_tower", "vision_model")
"""The names of the vision tower inside a model of transformers."""


def image_token(config: Any) -> int:
    """The id of the placeholder token for image features; -1 for a model without one."""
    found = [getattr(config, name, None) for name in ("image_token_id", "image_token_index")]
    return next((number for number in found if number is not None), -1)


def looks_across(config: Any) -> bool:
    """Whether the language model sees images through cross-attention (Mllama): no token of the prompt is one then."""
    return bool(getattr(config.get_text_config(), "cross_attention_layers", None))


def hidden_size(config: Any) -> int:
    """The size of the hidden states of a transformers configuration's language model."""
    size: int = config.get_text_config().hidden_size
    return size


def vocabulary_size(config: Any) -> int:
    """The number of logits from the output layer of a transformers configuration's language model."""
    size: int = config.get_text_config().vocab_size
    return size


def load_vlm(rung: RungConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The rung's model on the CPU, without dropout. Raises `ModelError`."""
    quiet()
    from transformers import AutoModelForImageTextToText

    where = f"model {rung.name!r} ({rung.model})"
    if reason := _outside(ladders.snapshot(rung)):
        raise ModelError(f"{where}: not a vision-language model that transformers can load: {reason}")
    try:
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            ladders.snapshot(rung),
            dtype=dtype,
            attn_implementation=rung.attention,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{where}: not a vision-language model that transformers can load: {first_line(error)}"
        ) from None
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{where}: {type(model).__name__} encodes the question and the answer separately; expected a model that "
            "continues the question, like Qwen2.5-VL, InternVL or SmolVLM"
        )
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{where}: the weights lack {missing[0]!r}{f' and {len(missing) - 1} more' if missing[1:] else ''}, which "
            "would be random; expected a complete checkpoint of the class that config.json names: copy it again"
        )
    vlm: nn.Module = model
    window_attention.batch_windows(vlm)
    _name_vision(vlm)
    return vlm


def _outside(folder: Path) -> str:
    """Why transformers has no class for the folder's model; empty if it has one, or if the folder doesn't say."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

    config = ladders.read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind is None or kind in CLASSES:
        return ""
    if "auto_map" in config:
        return (
            f"{kind!r} needs the code in its repository (auto_map in config.json), which isn't run here; expected a "
            "model type that transformers has itself: look for a version of it with -hf in its name"
        )
    return (
        f"its type {kind!r} isn't one that transformers' AutoModelForImageTextToText has (models that also speak, like "
        "Qwen-Omni, or that only know text aren't); expected one like qwen3_vl, internvl, gemma3 or smolvlm"
    )


def _name_vision(vlm: nn.Module) -> None:
    """Mark the vision tower's passes with a span for the profiler; it costs nothing when no profiler is running."""
    found = [module for name, module in vlm.named_modules() if name.rpartition(".")[2] in TOWERS]
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    for tower in found:
        if id(tower) in inner:
            continue
        entered: list[record_function] = []

        def before(*_: Any, entered: list[record_function] = entered) -> None:
            entered.append(record_function("hkdbench:vision").__enter__())

        def after(*_: Any, entered: list[record_function] = entered) -> None:
            entered.pop().__exit__(None, None, None)

        tower.register_forward_pre_hook(before)
        tower.register_forward_hook(after, always_call=True)


def load_config(rung: RungConfig) -> Any:
    """The rung's transformers configuration, without its weights."""
    quiet()
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(ladders.snapshot(rung), trust_remote_code=False)
