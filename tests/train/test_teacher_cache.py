"""What a teacher has answered and what a stage has trained is found again, bit for bit, and nothing that differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.api import Example
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.planning.plan import Plan
from harness.store.tensor_cache import Cache
from harness.train import loop, teacher_cache
from helpers.common import ToyPlan


@pytest.fixture
def make(toy_plan: ToyPlan) -> ToyPlan:
    """A plan of a small cached run on the toy benchmark, of offline_kd where nothing else is said."""

    def made(seed: int = 0, method: str = "offline_kd", cache: str = "auto", **settings: Any) -> Plan:
        return toy_plan(method, seed=seed, settings=settings, train={"examples": 48, "cache": cache})

    return made


def bill(result: loop.Trained) -> dict[str, tuple[int, int, int]]:
    return {
        role.removesuffix(".teacher"): (cost.forwards, cost.trained, cost.shared)
        for role, cost in result.costs.items()
        if role.endswith(".teacher")
    }


def test_runs_share_teachers_and_answers_bit_for_bit(make: ToyPlan, cache: Cache, tmp_path: Path) -> None:
    alone = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "alone")
    first = loop.train(make(temperature=1.0), SingleProcess(), tmp_path / "first", cache)
    assert bill(first) == bill(alone) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}
    second = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "second", cache)
    assert bill(second) == {"teacher": (0, 0, 0), "distil": (0, 0, 48)}
    assert [stage.taken_over for stage in second.stages] == [True, False]
    weights = [dict(t.student.vlm.state_dict()) for t in (alone, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert second.history == alone.history

    other = loop.train(make(seed=1), SingleProcess(), tmp_path / "other", cache)  # another seed tunes another teacher
    assert bill(other) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}

    for entry in cache.entries():  # all that is kept is damaged: all is made again
        entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"?")
    third = loop.train(make(temperature=4.0), SingleProcess(), tmp_path / "third", cache)
    assert bill(third) == {"teacher": (48, 48, 0), "distil": (48, 0, 0)}
    assert third.history == alone.history


@pytest.mark.parametrize(("method", "settings"), [("feature_kd", {}), ("offline_kd", {"support": "vocab"})])
def test_hidden_states_and_the_vocabularys_logits_are_shared_too(
    make: ToyPlan, cache: Cache, tmp_path: Path, method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = loop.train(make(method=method, cache="off", temperature=4.0, **settings), SingleProcess(), tmp_path / "live")
    assert bill(live)["distil"] == (48, 0, 0)
    loop.train(make(method=method, temperature=1.0, **settings), SingleProcess(), tmp_path / "first", cache)
    second = loop.train(make(method=method, temperature=4.0, **settings), SingleProcess(), tmp_path / "second", cache)
    assert bill(second)["distil"] == (0, 0, 48)
    terms = [[row["value"] for row in t.history if row["stage"] == "distil"] for t in (live, second)]
    assert terms[1] == pytest.approx(terms[0], rel=1e-4)
    plain = loop.train(make(method=method, temperature=2.0), SingleProcess(), tmp_path / "plain", cache)
    # Over the options less is asked, which is kept apart; else it is the same again.
    assert bill(plain)["distil"] == ((48, 0, 0) if "support" in settings else (0, 0, 48))
    if "support" in settings:
        monkeypatch.setattr(teacher_cache, "VOCAB_BYTES", 1)
        large = loop.train(make(method=method, temperature=4.0, **settings), SingleProcess(), tmp_path / "large", cache)
        assert bill(large)["distil"] == (48, 0, 0)


def test_visual_tokens_are_too_many_to_keep(make: ToyPlan, cache: Cache, tmp_path: Path) -> None:
    for name in ("first", "second"):
        result = loop.train(make(method="relation_kd"), SingleProcess(), tmp_path / name, cache)
        assert bill(result)["distil"] == (48, 0, 0)


def test_what_a_stage_depends_on_is_part_of_its_key(make: ToyPlan) -> None:
    def key(planned: Plan) -> str | None:
        stage = planned.stages[0]
        return teacher_cache.stage_key(planned, stage, {}, SingleProcess())

    first = key(make())
    assert first is not None
    assert key(make(temperature=3.0, alpha=0.5, divergence="jsd")) == first
    assert key(make(teacher="M")) != first
    assert key(make(teacher_share=2.0)) != first
    assert key(make(seed=1)) != first
    changed = make()

    def with_train(**settings: object) -> str | None:
        train = changed.config.train.model_copy(update=settings)
        return key(replace(changed, config=changed.config.model_copy(update={"train": train})))

    assert with_train(batch_size=16) != first
    assert with_train(lr=0.01) != first
    teachers = changed.config.train.lr_of("L")
    assert with_train(lr=0.01, lr_by_rung={"L": teachers, "M": 0.02}) == first  # the student's learning rate
    assert with_train(lr_by_rung={"L": teachers * 2}) != first
    assert with_train(precision_by_rung={"S": "bf16"}) == first
    assert with_train(precision_by_rung={"L": "bf16"}) != first
    last = changed.stages[1]
    assert teacher_cache.stage_key(changed, last, {}, SingleProcess()) is None  # the student learns


def test_teachers_of_a_rung_are_apart_and_shared_among_ensembles(make: ToyPlan) -> None:
    def keys(*teachers: str) -> list[str | None]:
        planned = make(method="ensemble_kd", teachers=teachers, temperature=1.0 + len(teachers))
        return [teacher_cache.stage_key(planned, stage, {}, SingleProcess()) for stage in planned.stages]

    first, second, third, student = keys("L", "L", "M")
    assert len({first, second, third}) == 3
    assert student is None
    assert keys("M", "L") == [third, first, None]
    assert keys("L")[0] == first
    offline = make()
    assert teacher_cache.stage_key(offline, offline.stages[0], {}, SingleProcess()) == first


def test_a_tuned_rung_is_shared_by_methods_that_name_it_otherwise(
    toy_plan: ToyPlan, cache: Cache, tmp_path: Path
) -> None:
    """offline_kd calls it teacher, assistant L: the second run has the first one's weights under its own names."""
    train = {"examples": 48, "cache": "auto"}
    first = loop.train(toy_plan("offline_kd", train=train), SingleProcess(), tmp_path / "a", cache)
    second = loop.train(toy_plan("assistant", train=train), SingleProcess(), tmp_path / "b", cache)
    assert (first.stages[0].name, list(first.stages[0].best)) == ("teacher", ["teacher"])
    tuned = second.stages[0]
    assert (tuned.name, tuned.taken_over, list(tuned.roles), list(tuned.best)) == ("tune", True, ["L"], ["L"])
    assert second.costs["tune.L"].trained == 0
    curves = [
        [row["value"] for row in result.history if (row["stage"], row["role"]) == named and row["term"] == "loss/ce"]
        for result, named in ((first, ("teacher", "teacher")), (second, ("tune", "L")))
    ]
    assert curves[0] == curves[1]
    alone = loop.train(toy_plan("assistant", train=train | {"cache": "off"}), SingleProcess(), tmp_path / "c")
    assert [r["value"] for r in alone.history if r["stage"] == "tune"] == [
        r["value"] for r in second.history if r["stage"] == "tune"
    ]


def test_a_stage_is_trained_with_what_it_depends_on_alone(make: ToyPlan) -> None:
    planned = make(temperature=3.0, teacher_share=0.5)
    tuning = plan.for_stage(planned, planned.stages[0].stage)
    assert (tuning.method.name, tuning.settings) == ("tuning", {})
    assert plan.for_stage(planned, planned.stages[1].stage) is planned


def test_an_image_that_changes_in_place_is_another_example(tmp_path: Path, make: ToyPlan) -> None:
    example: Example = make().training.splits["train"][0]
    file = tmp_path / "picture.png"
    example.load_image().save(file)
    before = teacher_cache.content(replace(example, image=file))
    assert before == teacher_cache.content(replace(example, image=file))
    assert before == teacher_cache.content(
        replace(example, image=file, category="other", id="x")
    )  # not shown to a model
    assert before != teacher_cache.content(replace(example, image=file, claim="It is red."))
    example.load_image().rotate(90).resize((63, 64)).save(file)  # the same name
    assert before != teacher_cache.content(replace(example, image=file))
