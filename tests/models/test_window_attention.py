"""Vision towers with windows: all windows of one length in a call, with the answers of one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from harness.api import Example
from harness.config import RungConfig
from harness.models import encoding, loading, window_attention
from harness.models.scorer import OptionScorer
from helpers import families

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
LENGTHS = (4, 6, 4, 4, 2)


def test_within_windows_by_the_definition() -> None:
    """softmax(q k / s) v over the keys of the same window."""
    q, k, v = (torch.randn(1, 2, sum(LENGTHS), 3, generator=torch.Generator().manual_seed(n)) for n in range(3))
    ends = torch.tensor((0, *LENGTHS)).cumsum(0)
    found, _ = window_attention.attend(torch.nn.Module(), q, k, v, None, scaling=0.7, cu_seq_lens_q=ends)
    whose = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    scores = (q @ k.transpose(2, 3) * 0.7).masked_fill(whose[:, None] != whose, float("-inf"))
    torch.testing.assert_close(found, (scores.softmax(-1) @ v).transpose(1, 2))
    alike, _ = window_attention.attend(
        torch.nn.Module(), q, k, v, None, scaling=0.7, cu_seq_lens_q=torch.tensor([0, 10, 20])
    )
    halves = [q[..., s, :] @ k[..., s, :].transpose(2, 3) * 0.7 for s in (slice(0, 10), slice(10, 20))]
    wanted = [h.softmax(-1) @ v[..., s, :] for h, s in zip(halves, (slice(0, 10), slice(10, 20)), strict=True)]
    torch.testing.assert_close(alike, torch.cat(wanted, 2).transpose(1, 2))


def scorer(folder: Path) -> tuple[OptionScorer, encoding.Batch]:
    """And a batch with pictures of three shapes, two of one."""
    rung = RungConfig(name="S", model=str(folder))
    encoder = encoding.load_encoder(rung)
    shapes = [(64, 64), (96, 48), (64, 64), (40, 72)]
    images = [Image.radial_gradient("L").resize(shape).convert("RGB") for shape in shapes]
    asked = [
        Example(str(i), str(i), lambda image=image: image, "what colour is it ?", "", ("red", "green"), 0, "c", "t")
        for i, image in enumerate(images)
    ]
    return OptionScorer(loading.load_vlm(rung), encoder.letters), encoder(asked)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each call of attention takes."""
    found: list[int] = []
    plain = window_attention.attention

    def counted(query: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        found.append(len(query))
        return plain(query, *args, **more)

    monkeypatch.setattr(window_attention, "attention", counted)
    return found


def test_a_frozen_pass_leaves_nothing_that_a_learner_cannot_use() -> None:
    """A frozen model in inference mode meets windows of these lengths first, then a learner."""
    window_attention._by_length.cache_clear()
    q, ends = torch.randn(1, 2, sum(LENGTHS), 4), torch.tensor((0, *LENGTHS)).cumsum(0)
    with torch.inference_mode():
        frozen, _ = window_attention.attend(torch.nn.Module(), q, q, q, None, scaling=1.0, cu_seq_lens_q=ends)
    found, _ = window_attention.attend(
        torch.nn.Module(), q.requires_grad_(), q, q, None, scaling=1.0, cu_seq_lens_q=ends
    )
    found.sum().backward()
    assert q.grad is not None
    assert torch.equal(found, frozen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_answers_as_before(
    family: str, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options and gradients of transformers' own way, from a call for each length of a layer."""
    families.build(family, tmp_path)
    results = []
    for on in (True, False):
        if not on:
            monkeypatch.setattr(window_attention, "batch_windows", lambda _: None)
        vlm, batch = scorer(tmp_path)
        options = vlm(batch)["options"]
        options.log_softmax(-1)[:, 0].sum().backward()
        results.append((options.detach(), {n: p.grad for n, p in vlm.named_parameters() if p.grad is not None}))
        if on:
            few = len(calls)
    assert len(calls) == few > 0  # without, none passes through here
    assert sum(calls) > few  # several windows in a call
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert results[0][1].keys() == results[1][1].keys()
    for name, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][name], atol=1e-4, rtol=1e-4, msg=name)


def test_only_these_towers_and_no_trace_is_saved(tmp_path: Path) -> None:
    families.build("internvl", tmp_path / "other")
    other = loading.load_vlm(RungConfig(name="S", model=str(tmp_path / "other")))
    assert other.config.vision_config._attn_implementation == "sdpa"
    families.build("qwen2_5_vl", tmp_path / "one")
    vlm: Any = loading.load_vlm(RungConfig(name="S", model=str(tmp_path / "one")))
    assert vlm.config.vision_config._attn_implementation == window_attention.NAME
    assert vlm.config.get_text_config()._attn_implementation == "sdpa"
    vlm.save_pretrained(tmp_path / "again")
    assert window_attention.NAME not in json.dumps(json.loads((tmp_path / "again" / "config.json").read_text()))
    eager: Any = loading.load_vlm(RungConfig(name="S", model=str(tmp_path / "one"), attention="eager"))
    assert eager.config.vision_config._attn_implementation == "eager"
