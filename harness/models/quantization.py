"""How the weights of a model are kept where they don't learn: in float32, in bfloat16, or in four bits.

Four bits are bitsandbytes' NF4 (QLoRA, arXiv 2305.14314): each linear layer but the output's, where its inputs are a
multiple of 64; products are computed in the run's precision. What a stage leaves to others is in float32 again, as the
narrow weights stood for it.
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
"""Weights that have a scale in common. On a CPU bitsandbytes mistakes blocks that go over more than one row."""


def load(rung: RungConfig, kept: Storage, precision: str, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The rung's model on the CPU, kept so, with other weights than its own where these are given.

    Raises `ModelError` or `ConfigError`.
    """
    vlm = loading.load_vlm(rung, dtype(kept))
    if weights is not None:
        vlm.load_state_dict(weights)
    if kept == "nf4":
        four_bits(vlm, precision, rung.name)
    return vlm


def dtype(kept: Storage) -> torch.dtype:
    """In which a model is loaded that is kept so; four bits are made of float32."""
    return torch.bfloat16 if kept == "bf16" else torch.float32


def four_bits(vlm: nn.Module, precision: str, rung: str) -> None:
    """Keep the model's linear layers in four bits, in place. Raises `ConfigError`.

    They become so where the model is moved to a device, its CPU included.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on a CPU's kernels
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
        narrow.support_avx512bf16_for_cpu = False  # else it would compute in bfloat16 whatever the precision
        vlm.set_submodule(name, narrow)
    vlm.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks


def linears(vlm: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name, without the output's and those that aren't plain ones."""
    head = vlm.get_output_embeddings()  # type: ignore[operator]
    return {name: m for name, m in vlm.named_modules() if type(m) is nn.Linear and m is not head}


def narrows(layer: nn.Linear) -> bool:
    """Whether four bits can keep the layer."""
    return layer.in_features % BLOCK == 0


@torch.no_grad()
def plain(vlm: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, each one tensor, in float32."""
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
    """Leave the weights where they are, and bring each layer to the device for its own pass alone, by accelerate.

    Raises `ConfigError`.
    """
    try:
        from accelerate import cpu_offload
    except ImportError:
        raise ConfigError(
            "cluster.offload_frozen needs accelerate, which isn't installed: pip install hkdbench[adapters]"
        ) from None
    cpu_offload(module, device)
