"""Weights that don't learn: kept in bfloat16 or four bits, or left in the machine's memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import LoraSettings, RunConfig, RungConfig, Storage
from harness.errors import ConfigError
from harness.models import encoding, loading, lora, quantization
from harness.models.distributed import SingleProcess
from harness.models.scorer import OptionScorer
from harness.planning import memory, plan
from harness.train import loop
from helpers import families
from helpers.common import ToyConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of two: `L` and `S`."""
    root = tmp_path_factory.mktemp("quantised")
    families.ladder(root, L={"family": "qwen2_5_vl", "width": 128}, S={"family": "qwen2_5_vl", "seed": 1})
    return root


def scorer(folder: Path, kept: Storage = "fp32") -> OptionScorer:
    rung = RungConfig(name="L", model=str(folder / "L"))
    found = OptionScorer(quantization.load(rung, kept, "fp32"), encoding.load_encoder(rung).letters)
    return found.to("cpu").eval()


def batch(folder: Path) -> encoding.Batch:
    return encoding.load_encoder(RungConfig(name="L", model=str(folder / "L")))(families.examples())


def config(folder: Path, toy_config: ToyConfig, cluster: dict[str, Any] | None = None, **train_: Any) -> RunConfig:
    return toy_config("offline_kd", benchmark_settings={"size": 12}, ladder=str(folder / "ladder.toml"),
                      cluster=cluster or {}, train={"examples": 48} | train_)  # fmt: skip


def test_four_bits_are_the_nearest_of_sixteen(folder: Path) -> None:
    """By the definition: 64 weights are scaled to the largest of them, and each goes to the nearest level."""
    from bitsandbytes.functional import get_4bit_type

    before = dict(scorer(folder).vlm.named_modules())
    narrow = scorer(folder, "nf4")
    found, levels = quantization.plain(narrow.vlm), get_4bit_type("nf4", device="cpu")
    changed = kept = 0
    for name, module in before.items():
        if not isinstance(module, nn.Linear) or name == "lm_head":
            continue
        if module.in_features % 64:
            torch.testing.assert_close(found[f"{name}.weight"], module.weight, atol=0, rtol=0)
            kept += 1
            continue
        blocks = module.weight.detach().view(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        nearest = (blocks[..., None] / scale[..., None] - levels).abs().argmin(-1)
        wanted = (levels[nearest] * scale).view_as(module.weight)
        torch.testing.assert_close(found[f"{name}.weight"], wanted, atol=4e-3, rtol=0.05)
        changed += 1
    assert changed > 10
    assert kept  # the tower's, of 16 inputs
    whole = scorer(folder).vlm.state_dict()
    assert found.keys() == whole.keys()
    same = {key for key in whole if torch.equal(found[key], whole[key])}
    assert {"model.language_model.embed_tokens.weight", "model.language_model.norm.weight"} <= same
    # It answers as a plain model with these weights does.
    plain = scorer(folder)
    plain.vlm.load_state_dict(found)
    given = batch(folder)
    torch.testing.assert_close(narrow(given)["options"], plain(given)["options"], atol=1e-4, rtol=1e-4)
    assert (plain(given)["options"] - scorer(folder)(given)["options"])[:, :2].abs().max() > 1e-3


def test_adapters_on_four_bits_are_merged(folder: Path) -> None:
    narrow = scorer(folder, "nf4")
    lora.insert(narrow.vlm, LoraSettings(rank=2, weights="nf4"), "L")
    learning = [p for p in narrow.vlm.parameters() if p.requires_grad]
    assert learning
    assert all(p.dtype == torch.float32 for p in learning)
    for number, parameter in enumerate(learning):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1
    given, plain = batch(folder), scorer(folder)
    plain.vlm.load_state_dict(lora.merged(narrow.vlm))
    torch.testing.assert_close(narrow(given)["options"], plain(given)["options"], atol=1e-4, rtol=1e-4)
    narrow(given)["options"][:, :2].log_softmax(-1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)


def test_a_run_of_qlora_with_a_narrow_teacher(folder: Path, toy_config: ToyConfig, tmp_path: Path) -> None:
    """The teacher learns adapters on four bits, then teaches in four bits: near what whole weights do, not the same."""
    losses = []
    for kept in ("nf4", "fp32"):
        adapters = {"L": {"rank": 4, "weights": kept}}
        made = plan.make(config(folder, toy_config, lora_by_rung=adapters, frozen_weights=kept, lr=3e-4))
        found = loop.train(made, SingleProcess(), tmp_path / kept)
        began, ends = loading.load_vlm(made.rungs["S"]).state_dict(), found.student.vlm.state_dict()
        assert ends.keys() == began.keys()
        assert any(not torch.equal(ends[key], began[key]) for key in ends)
        losses.append(torch.tensor([r["value"] for r in found.history if r["term"] in ("loss/ce", "loss/kd")]))
    apart = (losses[0] - losses[1]).abs()
    assert apart.max() > 1e-4
    assert apart.mean() < 0.1 * losses[1].abs().mean()


def test_offloaded_is_the_same_to_the_bit(folder: Path, toy_config: ToyConfig, tmp_path: Path) -> None:
    ends = []
    for away in (False, True):
        made = plan.make(config(folder, toy_config, cluster={"offload_frozen": away}))
        found = loop.train(made, SingleProcess(), tmp_path / str(away))
        ends.append((found.student.vlm.state_dict(), [row["value"] for row in found.history]))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])


def test_a_teacher_in_bfloat16_is_near(folder: Path, toy_config: ToyConfig, tmp_path: Path) -> None:
    values = []
    for kept in ("fp32", "bf16"):
        made = plan.make(config(folder, toy_config, precision="bf16", frozen_weights=kept))
        found = loop.train(made, SingleProcess(), tmp_path / kept)
        values.append([r["value"] for r in found.history if r["term"] == "loss/kd"])
    assert values[0] != values[1]
    assert values[0][0] == pytest.approx(values[1][0], rel=0.1, abs=0.01)


def test_what_is_kept_is_counted(folder: Path, toy_config: ToyConfig) -> None:
    """Bytes by hand: a matrix of four-bit numbers, a byte of scale for 64 of them, the rest in float32."""
    made = plan.make(config(folder, toy_config))
    vlm = loading.load_vlm(made.rungs["L"])
    narrow = sum(m.weight.numel() for n, m in vlm.named_modules() if type(m) is nn.Linear and n != "lm_head"
                 and m.in_features % 64 == 0)  # fmt: skip
    rest = made.infos["L"].parameters - narrow
    assert memory.stored(made, "L", "nf4") == int(narrow * 33 / 64) + rest * 4
    assert memory.stored(made, "L", "bf16") * 2 == memory.stored(made, "L", "fp32") == made.infos["L"].parameters * 4
    distil = made.stages[1]
    held = {}
    for name, more in {"whole": {}, "nf4": {"frozen_weights": "nf4"}}.items():
        held[name] = memory.of_role(plan.make(config(folder, toy_config, **more)), distil, "teacher")
    assert held == {"whole": memory.stored(made, "L", "fp32"), "nf4": memory.stored(made, "L", "nf4")}


@pytest.mark.parametrize(
    ("cluster", "train_", "message"),
    [
        ({}, {"frozen_weights": "bf16"}, r"weights stored in bf16 need precision = 'bf16'"),
        ({}, {"frozen_weights": "int4"}, r"train\.frozen_weights = 'int4': .*'fp32', 'bf16' or 'nf4'"),
        ({"offload_frozen": True}, {"frozen_weights": "nf4"}, r"offload_frozen with train\.frozen_weights = 'nf4'"),
    ],
)
def test_wrong_settings(
    cluster: dict[str, Any], train_: dict[str, Any], message: str, folder: Path, toy_config: ToyConfig
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.make(config(folder, toy_config, cluster, **train_))
