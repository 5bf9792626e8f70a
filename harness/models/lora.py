"""Low-rank adapters (LoRA, arXiv 2106.09685) with peft: a learner's own weights are frozen, its adapters learn.

Checkpoints within a stage contain only the adapters. At the end of a stage they are merged, W + (alpha / rank) B A,
so that the names and shapes are those of the original model: later stages, the evaluation and the saved student
see no adapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import LoraSettings
from harness.errors import ConfigError, first_line
from harness.models import quantization

NAME = "default"
"""Name of the adapter in peft's modules."""


def insert(vlm: nn.Module, lora: LoraSettings, rung: str) -> None:
    """Add adapters to the model, in place; only they get gradients. Raises `ConfigError`.

    A's weights are drawn from torch's global generator, B's are 0: the initial outputs don't change.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(
            f"train.lora for rung {rung!r} needs peft, which isn't installed: pip install hkdbench[adapters]"
        ) from None
    targets = "all-linear" if lora.targets == ("all",) else list(lora.targets)
    alpha: Any = lora.alpha  # typed as int in peft, but any number works
    config = LoraConfig(r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets)
    try:
        inject_adapter_in_model(config, vlm)
    except ValueError as error:
        raise ConfigError(
            f"train.lora.targets = {list(lora.targets)} for rung {rung!r}: {first_line(error)}; it has linear layers "
            f"named {', '.join(linear_names(vlm))}"
        ) from None
    for name, parameter in vlm.named_parameters():
        parameter.requires_grad_(_of_adapter(name))
        if _of_adapter(name):
            parameter.data = parameter.data.float()  # peft creates them in the dtype of the layer's weights


def linear_names(vlm: nn.Module, left_out: Collection[str] = ("lm_head",)) -> list[str]:
    """The last parts of the names of the model's linear layers, to which adapters can be added."""
    found = {name.rpartition(".")[2] for name, module in vlm.named_modules() if isinstance(module, nn.Linear)}
    return sorted(found - set(left_out))


def adapters(vlm: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by name."""
    return {name: tensor for name, tensor in vlm.state_dict().items() if _of_adapter(name)}


def load_adapters(vlm: nn.Module, weights: dict[str, Tensor]) -> None:
    """Restore the weights of all adapters."""
    found = vlm.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert not any(map(_of_adapter, found.missing_keys))


def merged(vlm: nn.Module) -> dict[str, Tensor]:
    """The weights, on the CPU, of the equivalent model without adapters."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in iter_merged(vlm)}


@torch.no_grad()
def iter_merged(vlm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of the equivalent model without adapters, one at a time, where the model is."""
    adapted: dict[str, Any] = {
        f"{name}.weight": module for name, module in vlm.named_modules() if hasattr(module, "get_delta_weight")
    }
    for name, tensor in quantization.plain(vlm).items():
        if not _of_adapter(name):
            own = name.replace(".base_layer.", ".")
            yield own, tensor + adapted[own].get_delta_weight(NAME) if own in adapted else tensor


def _of_adapter(name: str) -> bool:
    return ".lora_" in name
