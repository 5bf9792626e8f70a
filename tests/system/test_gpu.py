"""On a GPU: the same numbers as on a CPU but for rounding, and the settings that save its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.api import Role
from harness.config import RunConfig
from harness.errors import TrainingError
from harness.execution.launch import launch
from harness.models.distributed import SingleProcess, device
from harness.planning import plan
from harness.store import Store
from harness.train import loop
from helpers import families
from helpers.common import ToyConfig

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("gpu")
    return families.ladder(
        root, L={"family": "qwen2_5_vl", "width": 256}, S={"family": "qwen2_5_vl", "width": 128, "seed": 1}
    )


@pytest.fixture
def config(ladder: str, toy_config: ToyConfig) -> ToyConfig:
    def of(gpus: int = 1, cluster: dict[str, Any] | None = None, **train_: Any) -> RunConfig:
        return toy_config("offline_kd", benchmark_settings={"size": 24}, ladder=ladder,
                          train={"examples": 64, "lr": 1e-3} | train_,
                          cluster={"gpus_per_worker": gpus} | (cluster or {}))  # fmt: skip

    return of


def losses(found: loop.Trained) -> list[float]:
    return [row["value"] for row in found.history if row["term"].startswith("loss/")]


def trained(config: RunConfig, work: Path) -> loop.Trained:
    return loop.train(plan.make(config), SingleProcess(device=device(config.cluster.gpus_per_worker)), work)


def test_a_run_is_that_of_the_cpu(config: ToyConfig, tmp_path: Path) -> None:
    """Early losses to 1e-3; later ones part as AdamW blows rounding up."""
    cpu, gpu = (trained(config(gpus), tmp_path / str(gpus)) for gpus in (0, 1))
    assert next(gpu.student.parameters()).device.type == "cuda"
    assert len(losses(gpu)) == len(losses(cpu))
    assert losses(gpu)[:4] == pytest.approx(losses(cpu)[:4], rel=1e-3)
    assert losses(gpu) == pytest.approx(losses(cpu), rel=0.05, abs=0.02)


def test_a_run_is_kept_and_scored(config: ToyConfig, tmp_path: Path) -> None:
    (record,) = launch([config(precision="bf16")], Store(tmp_path), "gpu", lambda _: None)
    assert record.status == "done"
    assert record.metrics["test"]


def test_a_stopped_run_goes_on(config: ToyConfig, tmp_path: Path) -> None:
    straight = trained(config(), tmp_path / "straight")
    made = plan.make(config())

    def stop(event: dict[str, Any]) -> None:
        if (event["stage"], event["step"]) == ("distil", 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(made, SingleProcess(stop, device(1)), tmp_path / "stopped")
    again = loop.train(made, SingleProcess(device=device(1)), tmp_path / "stopped")
    assert again.resumed == 1
    assert losses(again) == pytest.approx(losses(straight), rel=1e-3)


@pytest.mark.parametrize(
    ("cluster", "more"),
    [
        ({"offload_frozen": True}, {}),
        ({}, {"frozen_weights": "bf16"}),
        ({"offload_frozen": True}, {"frozen_weights": "bf16"}),
        ({}, {"frozen_weights": "nf4"}),
        ({}, {"lora": {"rank": 4, "weights": "nf4"}, "frozen_weights": "nf4", "gradient_checkpointing": True}),
    ],
)
def test_lean_settings(cluster: dict[str, Any], more: dict[str, Any], config: ToyConfig, tmp_path: Path) -> None:
    """Near the run without them, whose teacher's adapters or weights are whole."""
    whole = {"lora": {"rank": 4}} if "lora" in more else {}
    plain = trained(config(precision="bf16", **whole), tmp_path / "plain")
    lean = trained(config(cluster=cluster, precision="bf16", **more), tmp_path / "lean")
    assert losses(lean)[:2] == pytest.approx(losses(plain)[:2], rel=0.1)
    assert sum(losses(lean)) == pytest.approx(sum(losses(plain)), rel=0.2)


@pytest.mark.parametrize(
    ("cluster", "more"),
    [
        ({}, {}),
        ({}, {"micro_batch_size": 4}),
        ({"offload_frozen": True}, {"frozen_weights": "bf16", "precision": "bf16"}),
        ({}, {"frozen_weights": "nf4"}),
        ({}, {"lora": {"rank": 4, "weights": "nf4"}, "frozen_weights": "nf4"}),
    ],
)
def test_questions_share_their_image(
    cluster: dict[str, Any], more: dict[str, Any], config: ToyConfig, tmp_path: Path
) -> None:
    """The early losses of each question by itself, for less work, however the weights are kept."""
    together, alone = (
        trained(config(cluster=cluster, questions_per_image=4, share_prefix=share, **more), tmp_path / str(share))
        for share in (True, False)
    )
    assert together.preflight is not None
    assert all(check.shares_image for check in together.preflight.rungs.values())
    assert all(cost.flops < alone.costs[name].flops for name, cost in together.costs.items())
    assert losses(together)[:4] == pytest.approx(losses(alone)[:4], rel=0.05 if "precision" in more else 1e-3)
    assert losses(together) == pytest.approx(losses(alone), rel=0.05, abs=0.02)


def test_offloading_takes_less(config: ToyConfig, tmp_path: Path) -> None:
    """A frozen model away from the GPU leaves room there for about its weights."""
    from harness.models.encoding import load_encoder
    from harness.train.role import RoleModel

    made, found = plan.make(config()), {}
    for away in (False, True):
        cluster = made.config.cluster.model_copy(update={"offload_frozen": away})
        one = plan.make(made.config.model_copy(update={"cluster": cluster}))
        encoder = load_encoder(one.rungs["L"])
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        role = RoleModel("teacher", "L", one, SingleProcess(device=device(1)), encoder, None, Role("L"))
        batch = {k: v.cuda() for k, v in encoder(one.training.splits["train"][:2]).items()}
        options = role.forward(batch, ())["options"].cpu()
        found[away] = torch.cuda.memory_allocated() - before, options
        del role, batch
    torch.testing.assert_close(found[True][1], found[False][1])
    assert found[False][0] - found[True][0] > 0.8 * 4 * made.infos["L"].parameters


def test_out_of_memory_is_told(config: ToyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import scorer

    monkeypatch.setattr(loop.preflight, "check", lambda *_: None)
    monkeypatch.setattr(scorer.OptionScorer, "forward", lambda *_: {"options": torch.empty(2**50, device="cuda")})
    with pytest.raises(TrainingError, match=r"step 0: out of memory on cuda: .*micro_batch_size"):
        trained(config(), tmp_path)
