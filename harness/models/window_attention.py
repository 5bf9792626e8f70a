"""Attention of Qwen's vision towers within windows or within each picture, batched by window length.

Without flash-attn, transformers calls attention separately for each window: 16 pictures of 448 px in
Qwen2.5-VL are 256 calls in each of 28 layers, and as many kernels. Here windows of the same length are one batch
of one call (torch's `scaled_dot_product_attention`): the same sums.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention

NAME = "flash_of_one_length"
"""transformers passes all windows at once if the name of an implementation contains "flash"."""


def batch_windows(vlm: nn.Module) -> None:
    """Make the model's vision tower batch its windows, if it is one of these and would use torch's attention."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    for module in vlm.modules():
        config: Any = getattr(module, "config", None)
        windowed = "cu_seqlens" in inspect.signature(module.forward).parameters
        if windowed and getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = NAME


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float,
    cu_seq_lens_q: Tensor | None = None, dropout: float = 0.0, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention (1, T, H, d) of queries, keys and values (1, H, T, d) within windows that end at `cu_seq_lens_q`.

    None: there is only one window.
    """
    lengths = (query.shape[2],) if cu_seq_lens_q is None else tuple((cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).tolist())
    given = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # (T, H, d)
    if len(set(lengths)) == 1:
        return _windowed(given, len(lengths), scaling, dropout)[None], None
    found = torch.empty_like(given[0])
    for places, count in _by_length(lengths, query.device):
        found = found.index_copy(0, places, _windowed([part[places] for part in given], count, scaling, dropout))
    return found[None], None


def _windowed(parts: list[Tensor], count: int, scaling: float, dropout: float) -> Tensor:
    """Attention (T, H, d) within `count` windows of the same length."""
    query, key, value = (part.unflatten(0, (count, -1)).transpose(1, 2) for part in parts)  # (count, H, length, d)
    return attention(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2).flatten(0, 1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a learner's pass reuses what a frozen model's pass cached
def _by_length(lengths: tuple[int, ...], device: torch.device) -> list[tuple[Tensor, int]]:
    """For each window length, the positions of its windows and their number."""
    starts = torch.tensor((0, *lengths)).cumsum(0)[:-1]
    of = torch.tensor(lengths)
    return [
        ((starts[of == length, None] + torch.arange(length)).flatten().to(device), int((of == length).sum()))
        for length in sorted(set(lengths) - {0})
    ]
