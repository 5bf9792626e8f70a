"""The train loop's promises: what must not change the numbers doesn't, and what breaks says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp

from harness import data, plan, runner, train
from harness.config import RunConfig, parse
from harness.io import GroupIo, PlainIo
from harness.plan import Plan
from harness.store import Store

Make = Callable[..., Plan]
Weights = dict[str, torch.Tensor]


@pytest.fixture
def make(toy: str, toy_ladder: str) -> Make:
    """A plan on the toy benchmark: 12 steps of 8 examples unless said otherwise."""

    def made(method: str = "finetune", **changes: Any) -> Plan:
        table: dict[str, Any] = {
            "method": method,
            "benchmark": "toy",
            "ladder": toy_ladder,
            "plugins": [toy],
            "cluster": {"workers": 0},
            "train": {"examples": 96, "batch_size": 8, "lr": 3e-3, "validations": 2} | changes.pop("train", {}),
        }
        return plan.make(parse(RunConfig, table | changes, "test"))

    return made


def trained(planned: Plan, work: Path) -> tuple[Weights, train.Trained]:
    torch.set_num_threads(1)
    result = train.train(planned, PlainIo(), work)
    return dict(result.student.vlm.state_dict()), result


def losses(result: train.Trained) -> list[float]:
    return [row["value"] for row in result.history if row["term"].startswith("loss/")]


def furthest(a: Weights, b: Weights) -> float:
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def test_learns_the_toy(make: Make, tmp_path: Path) -> None:
    record = runner.execute(make(train={"examples": 960}), PlainIo(), Store(tmp_path))
    assert record.status == "done"
    assert record.metrics["test"]["accuracy"].value > 0.9


def test_same_config_same_bits(make: Make, tmp_path: Path) -> None:
    first, _ = trained(make(), tmp_path / "a")
    second, _ = trained(make(), tmp_path / "b")
    other, _ = trained(make(seed=1), tmp_path / "c")
    assert furthest(first, second) == 0
    assert furthest(first, other) > 1e-3


def test_bf16_is_another_run_and_as_repeatable(make: Make, tmp_path: Path) -> None:
    planned = make(train={"precision": "bf16"})
    assert planned.run_id != make().run_id
    first, result = trained(planned, tmp_path / "a")
    second, _ = trained(planned, tmp_path / "b")
    assert furthest(first, second) == 0
    assert all(tensor.dtype == torch.float32 for tensor in first.values())  # the weights stay whole
    _, exact = trained(make(), tmp_path / "c")
    assert losses(result) != losses(exact)
    assert losses(result) == pytest.approx(losses(exact), rel=0.2)


@pytest.mark.parametrize("method", ["finetune", "offline_kd"])
def test_micro_batches_change_nothing(make: Make, tmp_path: Path, method: str) -> None:
    _, whole = trained(make(method, train={"lr": 5e-4}), tmp_path / "1x8")
    _, cut = trained(make(method, train={"lr": 5e-4, "micro_batch_size": 1}), tmp_path / "8x1")
    _, uneven = trained(make(method, train={"lr": 5e-4, "micro_batch_size": 3}), tmp_path / "3+3+2")
    # Losses, not weights: AdamW blows the last bit of a vanishing gradient up to a whole step.
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-3)
    assert losses(uneven) == pytest.approx(losses(whole), rel=1e-3)


def _rank(rank: int, world: int, config: RunConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    io = GroupIo(torch.distributed.group.WORLD)  # type: ignore[arg-type]
    result = train.train(plan.make(config), io, folder / "work")
    if rank == 0:
        bill = {k: c.model_dump() for k, c in result.costs.items()}
        torch.save({"losses": losses(result), "bill": bill}, folder / "out.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["finetune", "hkd4vlm"])
def test_two_ranks_equal_one(make: Make, tmp_path: Path, method: str) -> None:
    # 7 examples a step: the ranks have 4 and 3 of them.
    planned = make(method, train={"examples": 56, "batch_size": 7})
    _, result = trained(planned, tmp_path / "one")
    mp.spawn(_rank, args=(2, planned.config, tmp_path), nprocs=2)
    both = torch.load(tmp_path / "out.pt", weights_only=True)
    assert losses(result) == pytest.approx(both["losses"], rel=1e-3)
    for role, cost in result.costs.items():  # the bill is that of all ranks together
        assert both["bill"][role]["forwards"] == cost.forwards
        assert both["bill"][role]["trained"] == cost.trained
        assert both["bill"][role]["flops"] == pytest.approx(cost.flops)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("stage", "step"), [("ppod", 5), ("tcrd", 1), ("tcrd", 5)])
def test_resume_equals_uninterrupted(make: Make, tmp_path: Path, stage: str, step: int) -> None:
    planned = make("hkd4vlm")
    whole, straight = trained(planned, tmp_path / "straight")

    def die(event: dict[str, Any]) -> None:
        if event["stage"] == stage and event["step"] == step:  # a stage has 6 steps, a checkpoint after 3
            raise Killed

    with pytest.raises(Killed):
        train.train(planned, PlainIo(die), tmp_path / "broken")
    resumed, result = trained(planned, tmp_path / "broken")
    assert result.resumed == 1
    assert furthest(whole, resumed) == 0
    assert result.history == straight.history
    assert {k: c.forwards for k, c in result.costs.items()} == {k: c.forwards for k, c in straight.costs.items()}


def test_bill_counts_each_role_once(make: Make, tmp_path: Path) -> None:
    _, result = trained(make("offline_kd"), tmp_path)
    counts = {role: (cost.forwards, cost.trained) for role, cost in result.costs.items()}
    assert counts == {
        "teacher.teacher": (96, 96),
        "distil.teacher": (96, 0),  # frozen: forwarded, never trained
        "distil.student": (96, 96),
    }
    # A forward and a backward pass of one example count three times a forward pass.
    assert result.costs["teacher.teacher"].flops == pytest.approx(3 * result.costs["distil.teacher"].flops)


def test_validation_keeps_the_best(make: Make, tmp_path: Path) -> None:
    _, result = trained(make(train={"validations": 6}), tmp_path)
    seen = [row["value"] for row in result.history if row["term"] == "validation/accuracy"]
    assert len(seen) == 6
    assert result.stages[0].best["student"] == pytest.approx(max(seen))


def test_zero_shot_trains_nothing(make: Make, tmp_path: Path) -> None:
    record = runner.execute(make("zero_shot"), PlainIo(), Store(tmp_path))
    assert record.status == "done"
    assert record.cost.train_flops == 0
    assert record.stages == []


def test_stored_predictions_give_the_metrics(make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = runner.execute(make(), PlainIo(), store)
    predictions = store.predictions(record.run_id, "test")
    right = predictions["gold"] == predictions["chosen"]
    assert record.metrics["test"]["accuracy"].value == pytest.approx(right.mean())
    cold = predictions["category"] == "cold"
    assert record.metrics["test"]["accuracy/cold"].value == pytest.approx(right[cold].mean())
    assert isinstance(store.history(record.run_id), pd.DataFrame)
    assert not store.work(record.run_id).exists()


def test_a_finished_run_is_not_repeated(make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = runner.execute(make(), PlainIo(), store)
    assert runner.execute(make(), PlainIo(), store) == first


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("scalar_loss", r"'scalar_loss', stage 'only', step 0: loss term student.ce is \(\); expected \(8,\)"),
        ("wrong_role", r"loss\(\) gave \['pupil'\]; expected one entry for each trainable role: \['student'\]"),
        ("not_finite", r"stage 'only', step 6: the loss is not finite \(student.ce\); lower train.lr"),
    ],
)
def test_a_broken_method_is_named(make: Make, tmp_path: Path, method: str, expected: str) -> None:
    with pytest.raises(train.TrainingError, match=expected):
        train.train(make(method), PlainIo(), tmp_path)
    record = runner.execute(make(method), PlainIo(), Store(tmp_path / "store"))
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.stage == "only"
    assert record.error.traceback is None


def test_order_depends_on_seed_and_position_only() -> None:
    examples: Any = list(range(10))
    seen = [example for _, example in data.batch_at(examples, 0, 0, 20)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == examples  # whole epochs, each in its own order
    assert seen[:10] != seen[10:]
    pieces = [e for start in range(0, 20, 4) for _, e in data.batch_at(examples, 0, start, 4)]
    assert pieces == seen
    assert [e for _, e in data.batch_at(examples, 1, 0, 20)] != seen
