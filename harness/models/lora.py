"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: a learner's own weights stay as they are, adapters learn.

Checkpoints within a stage hold the adapters alone. What a stage leaves is merged, W + (alpha / rank) B A, with the
names and shapes of the model that it began as: later stages, the evaluation and the kept student know no adapters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import LoraSettings
from harness.errors import ConfigError, first_line
from harness.models import quantization

NAME = "default"
"""Of the adapter, in peft's modules."""


def insert(vlm: nn.Module, lora: LoraSettings, rung: str) -> None:
    """Put adapters into the model, in place; they alone want gradients. Raises `ConfigError`.

    A's weights are drawn from torch's global generator, B's are 0: nothing is changed until something is learned.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(
            f"train.lora for rung {rung!r} needs peft, which isn't installed: pip install hkdbench[adapters]"
        ) from None
    targets = "all-linear" if lora.targets == ("all",) else list(lora.targets)
    alpha: Any = lora.alpha  # peft says int, and takes any number
    config = LoraConfig(r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets)
    try:
        inject_adapter_in_model(config, vlm)
    except ValueError as error:
        raise ConfigError(
            f"train.lora.targets = {list(lora.targets)} for rung {rung!r}: {first_line(error)}; it has linear layers "
            f"called {', '.join(linear_names(vlm))}"
        ) from None
    for name, parameter in vlm.named_parameters():
        parameter.requires_grad_(_of_adapter(name))
        if _of_adapter(name):
            parameter.data = parameter.data.float()  # peft makes them as the layer's own weights are kept


def linear_names(vlm: nn.Module, left_out: Collection[str] = ("lm_head",)) -> list[str]:
    """The last names of the model's linear layers, which adapters can be put into."""
    found = {name.rpartition(".")[2] for name, module in vlm.named_modules() if isinstance(module, nn.Linear)}
    return sorted(found - set(left_out))


def adapters(vlm: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by name."""
    return {name: tensor for name, tensor in vlm.state_dict().items() if _of_adapter(name)}


def load_adapters(vlm: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put the adapters' weights, all of them, back."""
    found = vlm.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert not any(map(_of_adapter, found.missing_keys))


@torch.no_grad()
def merged(vlm: nn.Module) -> dict[str, Tensor]:
    """The weights, on the CPU, of the model without adapters that answers as this one does."""
    adapted: dict[str, Any] = {
        f"{name}.weight": module for name, module in vlm.named_modules() if hasattr(module, "get_delta_weight")
    }
    whole = {}
    for name, tensor in quantization.plain(vlm).items():
        if not _of_adapter(name):
            own = name.replace(".base_layer.", ".")
            whole[own] = (tensor + adapted[own].get_delta_weight(NAME) if own in adapted else tensor).to(
                "cpu", copy=True
            )
    return whole


def _of_adapter(name: str) -> bool:
    return ".lora_" in name
