"""Training on labels and pool: what a method sees of withheld golds, and what frozen models are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.api import From, Method, Role, Stage
from harness.errors import ConfigError, StepLocation
from harness.execution import records, run
from harness.models.distributed import SingleProcess
from harness.models.encoding import load_encoders
from harness.planning.stages import plan_stages
from harness.store import Store
from harness.train import batches, loop
from harness.train.role import RoleModel
from harness.train.step import StepView
from helpers.common import ToyConfig, ToyPlan
from methods.finetune import Finetune
from methods.offline_kd import OfflineKD

POOL: dict[str, Any] = {"labels": 16, "examples": 64}


def test_a_stage_on_the_pool_sees_no_gold(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan("spy", settings={"data": "pool"}, train=POOL)
    seen = _spied(planned, tmp_path)
    assert len(seen) == 64
    assert all(one == (-1, False, None, "", None) for one in seen)


def test_a_mix_has_its_share_of_labels(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan("spy", settings={"data": "all"}, train=POOL | {"labelled_share": 0.5})
    seen = _spied(planned, tmp_path)
    assert len(seen) == 64
    assert sum(labelled for _, labelled, *_ in seen) == 32
    assert all((label >= 0) == labelled == (gold is not None) for label, labelled, gold, *_ in seen)


def _spied(planned: Any, work: Path) -> list[tuple[int, bool, int | None, str, Any]]:
    spied = type(planned.method).seen
    spied.clear()
    loop.train(planned, SingleProcess(), work)
    return list(spied)[-planned.stages[-1].steps * planned.config.train.batch_size :]


def test_a_method_that_reads_a_withheld_gold_fails_in_one_line(toy_plan: ToyPlan, tmp_path: Path) -> None:
    record = run.execute(toy_plan("peeks", train=POOL), SingleProcess(), Store(tmp_path))
    assert record.status == "failed"
    assert record.error is not None
    assert "has no gold" in record.error.message


def test_only_the_labels_count(toy_plan: ToyPlan, tmp_path: Path) -> None:
    """CE on a mix is that of its labelled half; a pool without any term is refused before training."""
    planned = toy_plan("offline_kd", settings={"learn_from": "all", "ce_weight": 0.0}, train=POOL)
    result = loop.train(planned, SingleProcess(), tmp_path / "kd")
    assert {row["value"] for row in result.history if row["term"] == "loss/ce" and row["role"] == "student"} == {0.0}
    assert result.costs["distil.student"].trained == 64
    with pytest.raises(Exception, match="nothing to learn"):
        loop.train(toy_plan("spy", settings={"data": "pool", "weight": 0.0}, train=POOL), SingleProcess(), tmp_path)


def test_a_frozen_teacher_answers_each_example_once_whatever_the_order(toy_plan: ToyPlan, tmp_path: Path) -> None:
    """The options are shuffled in each step, and yet the teacher's answers are cached: 32 of the pool, once each."""
    shuffled: dict[str, Any] = POOL | {"shuffle_options": "all", "examples": 96}
    off = loop.train(toy_plan("offline_kd", settings={"learn_from": "pool"}, train=shuffled), SingleProcess(),
                     tmp_path / "off")  # fmt: skip
    on = loop.train(
        toy_plan("offline_kd", settings={"learn_from": "pool"}, train=shuffled | {"cache": "auto"}),
        SingleProcess(), tmp_path / "on",
    )  # fmt: skip
    assert off.costs["distil.teacher"].forwards == 96
    assert on.costs["distil.teacher"].forwards == 32
    a, b = ([row["value"] for row in r.history if row["term"] == "loss/kd"] for r in (off, on))
    assert a == pytest.approx(b, abs=1e-5)


def test_its_logits_are_moved_to_the_letters_of_the_step(toy_plan: ToyPlan) -> None:
    planned = toy_plan("offline_kd", train={"shuffle_options": "all"})
    stage = planned.stages[1]
    encoders = load_encoders({name: planned.rungs[name] for name in planned.infos})
    teacher = RoleModel("teacher", "L", planned, SingleProcess(), encoders["L"], None, Role("L"))
    (batch,) = next(batches.of_stage(planned, stage, SingleProcess(), {"teacher": teacher}, (), 0))
    location = StepLocation("offline_kd", "distil", 0)
    step = StepView(location, stage.stage, 0.0, batch, {"teacher": teacher}, frozenset())
    given_bk = step.forward("teacher")
    plain_bk = teacher.forward(batch.inputs(teacher.encoder, "plain"), ())["options"]
    moved = 0
    for given_k, plain_k, example, order, plain in zip(
        given_bk, plain_bk, batch.examples, batch.orders, batch.plain, strict=True
    ):
        by_option = dict(zip(plain.options, plain_k.tolist(), strict=False))
        assert given_k.tolist()[: len(order)] == pytest.approx([by_option[o] for o in example.options])
        assert example.options[example.known_gold] == plain.options[plain.known_gold]
        moved += example.options != plain.options
    assert moved >= 2


def test_the_order_of_options_is_resumed(toy_plan: ToyPlan, tmp_path: Path) -> None:
    """It depends on the position alone: step 5 of a run and step 5 after a restart show the same letters."""
    planned = toy_plan(train={"shuffle_options": "all"})
    encoders = load_encoders({name: planned.rungs[name] for name in planned.infos})
    student = RoleModel("student", "S", planned, SingleProcess(), encoders["S"], None, Role("S", trainable=True))
    through = list(batches.of_stage(planned, planned.stages[0], SingleProcess(), {"student": student}, (), 0))
    again = next(batches.of_stage(planned, planned.stages[0], SingleProcess(), {"student": student}, (), 5))
    assert [b.examples for b in again] == [b.examples for b in through[5]]
    assert {order for parts in through for b in parts for order in b.orders} > {(0, 1, 2)}


# -------------------------------------------------------------------------------------------- planning


class TunesThePool(OfflineKD):
    """Asks for cross-entropy on examples without a gold."""

    def stages(self, ladder: Any, student: str) -> Any:
        return (Stage("tune", {"student": Role(student, trainable=True)}, 1.0, data="pool", tuning=True),)


def test_direct_tuning_is_on_labels(toy_config: ToyConfig) -> None:
    with pytest.raises(ConfigError, match="tuning with data = 'pool' .*expected data = 'labels' and no frozen role"):
        plan_stages(TunesThePool(), ["L", "M", "S"], toy_config())


def test_a_pool_that_is_not_there(toy_config: ToyConfig, toy_plan: ToyPlan) -> None:
    with pytest.raises(ConfigError, match=r"learns from a pool .* withhold labels with train.labels = N"):
        toy_plan("offline_kd", settings={"learn_from": "pool"})
    with pytest.raises(ConfigError, match="train.labels = 49: expected at most 48"):
        toy_plan(train={"labels": 49})
    with pytest.raises(ConfigError, match="a number of examples from 1"):
        toy_config(train={"labels": 0})
    for labels in (1.5, True, "many"):
        with pytest.raises(ConfigError, match=f"train.labels = {labels!r}: .*a fraction above 0"):
            toy_config(train={"labels": labels})


class Hidden(Finetune):
    """Trains the student's weights under another role's name first, for as many examples again."""

    def stages(self, ladder: Any, student: str) -> Any:
        return (
            Stage("warm", {"helper": Role(student, trainable=True)}, share=1.0),
            Stage("tune", {"student": Role(From("warm", "helper"), trainable=True)}, share=1.0),
        )


def test_the_budget_follows_the_weights(toy_config: ToyConfig) -> None:
    with pytest.raises(ConfigError, match="shares that sum to 2"):
        plan_stages(Hidden(), ["L", "M", "S"], toy_config())


def learning(*shares: float) -> Method:
    """A method whose student learns in stages of these shares."""

    class Chain(Finetune):
        def stages(self, ladder: Any, student: str) -> Any:
            return [
                Stage(f"{k}", {"student": Role(From(f"{k - 1}", "student") if k else student, True)}, share)
                for k, share in enumerate(shares)
            ]

    return Chain()


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6), st.integers(1, 50), st.integers(0, 7))
def test_no_rounding_gives_more_examples(toy_config: ToyConfig, parts: list[float], full: int, more: int) -> None:
    """Whatever the stages: whole steps, at least one each, one after the other, and together those of one stage."""
    config = toy_config(train={"examples": 8 * full - more, "batch_size": 8})
    (whole,) = plan_stages(learning(1.0), ["S"], config)
    assert whole.steps == full
    method = learning(*(part / sum(parts) for part in parts))
    if len(parts) > full:
        with pytest.raises(ConfigError, match=f"is {full} steps .* learns in {len(parts)} stages of at least one step"):
            plan_stages(method, ["S"], config)
        return
    planned = plan_stages(method, ["S"], config)
    starts = [sum(p.steps for p in planned[:k]) for k in range(len(planned) + 1)]
    assert min(p.steps for p in planned) >= 1
    assert [p.position for p in planned] == [8 * start for start in starts[:-1]]
    assert starts[-1] == full


def test_large_batches_leave_no_remainder(toy_plan: ToyPlan) -> None:
    """4 steps of 1,024, of which PPOD has 0.3: 1 and 3, as many as one stage has. 4,000 examples are 4 steps too."""
    for asked in (4096, 4000):
        train = {"examples": asked, "batch_size": 1024}
        coupled = toy_plan("hkd4vlm", settings={"ppod_share": 0.3}, train=train)
        assert [(p.steps, p.position) for p in coupled.stages] == [(1, 0), (3, 1024)]
        for planned in (coupled, toy_plan("finetune", train=train), toy_plan("offline_kd", train=train)):
            assert records.plan_fields(planned)["budget"] == 4096


@pytest.mark.parametrize("share", [0.5, 0.3, 0.37])
def test_stages_add_up_to_the_steps_of_the_budget(toy_config: ToyConfig, share: float) -> None:
    """12 steps of 8, however they are divided; a teacher's stage isn't part of them."""

    class Parts(OfflineKD):
        def stages(self, ladder: Any, student: str) -> Any:
            return (
                Stage("teacher", {"teacher": Role("L", trainable=True)}, share=0.3),
                Stage("one", {"student": Role(student, trainable=True)}, share=share),
                Stage("two", {"student": Role(From("one", "student"), trainable=True)}, share=1 - share),
            )

    teacher, one, two = plan_stages(Parts(), ["L", "M", "S"], toy_config(train={"examples": 90}))
    assert teacher.steps == 4
    assert one.steps + two.steps == 12
    assert (one.position, two.position) == (0, 8 * one.steps)
    assert torch.isclose(torch.tensor(one.steps / 12), torch.tensor(share), atol=1 / 12)
