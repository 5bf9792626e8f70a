"""How the weights of a frozen model are stored: in float32, in bfloat16, or in four bits.

Four bits are bitsandbytes' NF4 (QLoRA, arXiv 2305.14314): each linear layer except the output layer, if its input size
is a multiple of 64. Products are computed in the run's precision. Weights that a stage hands on to others are in
float32 again, dequantized.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.config import RungConfig, Storage
from harness.errors import ConfigError
from harness.models import loading

BLOCK = 64
"""Weights that share a scale. On a CPU, bitsandbytes is wrong for blocks that span more than one row."""


def load(rung: RungConfig, storage: Storage, precision: str, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The rung's model on the CPU, stored in this format, with `weights` in place of its own if they are given.

    Raises `ModelError` or `ConfigError`.
    """
    vlm = loading.load_vlm(rung, dtype(storage))
    if weights is not None:
        vlm.load_state_dict(weights)
    if storage == "nf4":
        four_bits(vlm, precision, rung.name)
    return vlm


def dtype(storage: Storage) -> torch.dtype:
    """The dtype in which a model is loaded; four bits are quantized from float32."""
    return torch.bfloat16 if storage == "bf16" else torch.float32


def four_bits(vlm: nn.Module, precision: str, rung: str) -> None:
    """Store the model's linear layers in four bits, in place. Raises `ConfigError`.

    The weights are quantized when the model is moved to a device (including the CPU).
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it prints advice about CPU kernels
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError:
        raise ConfigError(
            f"weights = 'nf4' for rung {rung!r} needs bitsandbytes, which isn't installed: pip install hkdbench[gpu]"
        ) from None
    compute = torch.bfloat16 if precision == "bf16" else torch.float32
    for name, whole in linears(vlm).items():
        if not narrows(whole):
            continue
        bias = whole.bias is not None
        narrow = Linear4bit(whole.in_features, whole.out_features, bias, compute, quant_type="nf4", device="meta")
        narrow.weight = Params4bit(whole.weight.data, requires_grad=False, quant_type="nf4", module=narrow)
        narrow.bias = whole.bias
        narrow.support_avx512bf16_for_cpu = False  # otherwise it computes in bfloat16 at any precision
        vlm.set_submodule(name, narrow)
    vlm.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft reads it


def linears(vlm: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name, without the output layer and subclasses of `nn.Linear`."""
    head = vlm.get_output_embeddings()  # type: ignore[operator]
    return {name: m for name, m in vlm.named_modules() if type(m) is nn.Linear and m is not head}


def narrows(layer: nn.Linear) -> bool:
    """Whether the layer can be stored in four bits."""
    return layer.in_features % BLOCK == 0


@torch.no_grad()
def plain(vlm: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, one plain tensor each, in float32."""
    found = dict(vlm.state_dict())
    for name, module in vlm.named_modules():
        weight = module._parameters.get("weight")
        if (state := getattr(weight, "quant_state", None)) is None:
            continue
        from bitsandbytes.functional import dequantize_4bit

        assert weight is not None
        for key in [key for key in found if key.startswith(f"{name}.weight.")]:
            del found[key]
        found[f"{name}.weight"] = dequantize_4bit(weight.data, state)
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}


def offload(module: nn.Module, device: torch.device) -> None:
    """Leave the weights where they are, and move each layer to the device only for its own pass, with accelerate.

    Raises `ConfigError`.
    """
    try:
        from accelerate import cpu_offload
    except ImportError:
        raise ConfigError(
            "cluster.offload_frozen needs accelerate, which isn't installed: pip install hkdbench[adapters]"
        ) from None
    cpu_offload(module, device)
