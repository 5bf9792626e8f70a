"""The train loop's promises: what must not change the numbers doesn't, and what breaks says where."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp

from harness.config import RunConfig
from harness.data import order
from harness.execution import run
from harness.models.distributed import SingleProcess, TorchGroup
from harness.planning import plan
from harness.planning.plan import Plan
from harness.store import Store
from harness.train import loop
from helpers.common import ToyConfig, ToyPlan

Weights = dict[str, torch.Tensor]


BRIEF: dict[str, dict[str, Any]] = {"gkd": {"max_tokens": 3}}
"""Settings of methods whose students write responses: untrained ones would go on to the limit."""


def trained(planned: Plan, work: Path) -> tuple[Weights, loop.Trained]:
    torch.set_num_threads(1)
    result = loop.train(planned, SingleProcess(), work)
    return dict(result.student.vlm.state_dict()), result


def losses(result: loop.Trained) -> list[float]:
    return [row["value"] for row in result.history if row["term"].startswith("loss/")]


def apart(a: Weights, b: Weights) -> float:
    """The length of the difference, relative to that of `a`, over all weights together."""
    assert a.keys() == b.keys()
    between, length = (torch.cat([t.flatten() for t in part]) for part in ([a[k] - b[k] for k in a], list(a.values())))
    return float(between.norm() / length.norm())


def furthest(a: Weights, b: Weights) -> float:
    return max(float((a[key] - b[key]).abs().max()) for key in a)


class Killed(Exception):
    pass


def die_at(stage: str, step: int) -> Callable[[dict[str, Any]], None]:
    """A report that ends the run there."""

    def report(event: dict[str, Any]) -> None:
        if event["stage"] == stage and event["step"] == step:
            raise Killed

    return report


def test_learns_the_toy(toy_plan: ToyPlan, tmp_path: Path) -> None:
    record = run.execute(toy_plan(train={"examples": 960, "lr": 1e-3}), SingleProcess(), Store(tmp_path))
    assert record.status == "done"
    assert record.metrics["test"]["accuracy"].value > 0.9


def test_same_config_same_bits(toy_plan: ToyPlan, tmp_path: Path) -> None:
    first, _ = trained(toy_plan(), tmp_path / "a")
    second, _ = trained(toy_plan(), tmp_path / "b")
    other, _ = trained(toy_plan(seed=1), tmp_path / "c")
    assert furthest(first, second) == 0
    assert furthest(first, other) > 1e-3


def test_bf16_is_another_run_and_as_repeatable(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan(train={"precision": "bf16"})
    assert planned.run_id != toy_plan().run_id
    first, result = trained(planned, tmp_path / "a")
    second, _ = trained(planned, tmp_path / "b")
    assert furthest(first, second) == 0
    assert all(tensor.dtype == torch.float32 for tensor in first.values())  # the weights stay whole
    _, exact = trained(toy_plan(), tmp_path / "c")
    assert losses(result) != losses(exact)
    assert losses(result) == pytest.approx(losses(exact), rel=0.2)


@pytest.mark.parametrize("method", ["finetune", "offline_kd", "averaged", "stateful", "gkd"])
def test_micro_batches_change_nothing(toy_plan: ToyPlan, tmp_path: Path, method: str) -> None:
    def of(size: int) -> loop.Trained:
        train = {"examples": 48, "lr": 5e-4, "micro_batch_size": size}
        return trained(toy_plan(method, settings=BRIEF.get(method, {}), train=train), tmp_path / str(size))[1]

    whole, cut, uneven = of(0), of(1), of(3)  # 1x8, 8x1, 3+3+2
    # Losses, not weights: AdamW blows the last bit of a vanishing gradient up to a whole step.
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-3)
    assert losses(uneven) == pytest.approx(losses(whole), rel=1e-3)


def _rank(rank: int, world: int, configs: dict[str, RunConfig], folder: Path) -> None:
    """Train each run as one of several ranks; what came out, or went wrong, is left in files."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    io = TorchGroup(torch.distributed.group.WORLD)  # type: ignore[arg-type]
    for name, config in configs.items():
        said: dict[str, Any] = {}
        work = folder / f"work {name}"
        try:
            if name == "cut, resumed":
                with suppress(Killed):  # all ranks at one place, in the second stage after its checkpoint
                    loop.train(plan.make(config), TorchGroup(io.group, die_at("tcrd", 3)), work)
            result = loop.train(plan.make(config), io, work)
            said = {"losses": losses(result), "bill": {k: c.model_dump() for k, c in result.costs.items()}}
            said |= {"weights": result.student.vlm.state_dict(), "resumed": result.resumed}
        except loop.TrainingError as error:
            said = {"error": str(error)}
        torch.save(said, folder / f"{name} {rank}.pt")
    torch.distributed.destroy_process_group()


CUT: dict[str, Any] = {
    "cluster": {"workers": 0, "shard_above": 0},
    "train": {"examples": 48, "batch_size": 8, "micro_batch_size": 2, "lr": 5e-4, "validation_examples": 7},
    "evaluate": {"batch_size": 3},  # the ranks' validation batches: two, and one
}

# 7 examples a step: the ranks have 4 and 3 of them.
SHARED: dict[str, dict[str, Any]] = {
    "finetune": {"method": "finetune"},
    "hkd4vlm": {"method": "hkd4vlm"},
    "levels": {"method": "hkd4vlm", "settings": {"ternary": "levels"}},  # with an adapter
    "views": {"method": "hkd4vlm", "settings": {"ternary": "views"}},  # two passes of one role
    # Every model cut over the ranks (FSDP2), which must have equally many examples; with micro-batches and an adapter.
    "cut, resumed": {"method": "hkd4vlm", **CUT, "settings": {"ternary": "levels"}},
    "cut, views": {"method": "hkd4vlm", **CUT, "settings": {"ternary": "views"}},
    # Questions of an image stand together, but nothing is shared where models are cut.
    "cut, frozen": {"method": "feature_kd", **CUT, "train": CUT["train"] | {"questions_per_image": 4}},
    "cut, unevenly": {"method": "finetune", "cluster": {"workers": 0, "shard_above": 0}},
    "average": {"method": "averaged"},
    "state": {"method": "stateful"},
    "responses": {"method": "gkd", "settings": BRIEF["gkd"]},  # half of them sampled from the learning student
    "cut, average": {"method": "averaged", **CUT},
    "cache": {"method": "offline_kd", "train": {"cache": "auto"}, "evaluate": {"batch_size": 4}},
    # A rank has one image's four questions of a step, the other another's, or the same: it then passes once more.
    "packed": {"method": "offline_kd", "train": {"examples": 64, "batch_size": 8, "questions_per_image": 4}},
    "breach": {"method": "breach", "settings": {"how": "rank"}},
}


@pytest.fixture(scope="module")
def shared(toy_config: ToyConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, RunConfig], Path]:
    """The runs above, and the folder in which two ranks that trained them together left what came out."""
    folder = tmp_path_factory.mktemp("shared")
    configs = {}
    for name, changes in SHARED.items():
        budget = {"examples": 56, "batch_size": 7, "lr": 3e-3, "validations": 2} | changes.get("train", {})
        configs[name] = toy_config(**changes | {"train": budget})
    mp.start_processes(_rank, args=(2, configs, folder), nprocs=2, start_method="fork")  # spares them all imports
    return configs, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHARED if name not in ("breach", "cut, unevenly")])
def test_two_ranks_equal_one(shared: tuple[dict[str, RunConfig], Path], tmp_path: Path, name: str) -> None:
    configs, folder = shared
    _, result = trained(plan.make(configs[name]), tmp_path)
    both = torch.load(folder / f"{name} 0.pt", weights_only=True)
    # What rounding did to the first steps has grown by the last, where losses are small.
    assert losses(result) == pytest.approx(both["losses"], rel=1e-3, abs=3e-4)
    if name.startswith("cut"):
        assert losses(result) == pytest.approx(both["losses"], rel=1e-5, abs=1e-5)
        assert both["resumed"] == (name == "cut, resumed")
        assert apart(dict(result.student.vlm.state_dict()), both["weights"]) < 1e-4  # whole again
    for role, cost in result.costs.items():  # the bill is that of all ranks together
        assert both["bill"][role]["forwards"] == cost.forwards
        assert both["bill"][role]["trained"] == cost.trained
        if "questions_per_image" in configs[name].train.model_fields_set:
            assert both["bill"][role]["flops"] >= cost.flops
        else:
            assert both["bill"][role]["flops"] == pytest.approx(cost.flops)


@pytest.mark.slow
def test_models_that_are_cut_need_equal_parts_of_a_batch(shared: tuple[dict[str, RunConfig], Path]) -> None:
    said = torch.load(shared[1] / "cut, unevenly 0.pt", weights_only=True)
    assert "train.batch_size = 7 over 2 workers: with cluster.shard_above every worker must have" in said["error"]


@pytest.mark.slow
def test_ranks_that_forward_other_roles_are_told_before_they_wait_for_ever(
    shared: tuple[dict[str, RunConfig], Path],
) -> None:
    said = [torch.load(shared[1] / f"breach {rank}.pt", weights_only=True) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0]["error"] == (
        "method 'breach', stage 'only', step 4: loss() forwarded teacher on some workers only; "
        "forward the same roles on every one"
    )


Uncut = Callable[[Plan], tuple[Weights, loop.Trained]]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """What a run comes to without a stop; of runs with the same settings the first is trained."""
    found: dict[str, tuple[Weights, loop.Trained]] = {}

    def of(planned: Plan) -> tuple[Weights, loop.Trained]:
        if planned.run_id not in found:
            found[planned.run_id] = trained(planned, tmp_path_factory.mktemp("uncut"))
        return found[planned.run_id]

    return of


@pytest.mark.parametrize(
    ("stage", "step", "settings"),
    [
        ("ppod", 5, {}),
        ("tcrd", 1, {}),
        ("tcrd", 5, {}),
        ("tcrd", 5, {"ternary": "levels"}),  # its adapter goes on too
        ("tcrd", 5, {"ternary": "views", "support": "vocab"}),
    ],
)
def test_resume_equals_uninterrupted(
    toy_plan: ToyPlan, uncut: Uncut, tmp_path: Path, stage: str, step: int, settings: dict[str, Any]
) -> None:
    planned = toy_plan("hkd4vlm", settings=settings)
    whole, straight = uncut(planned)

    with pytest.raises(Killed):  # a stage has 6 steps, a checkpoint after 3
        loop.train(planned, SingleProcess(die_at(stage, step)), tmp_path / "broken")
    resumed, result = trained(planned, tmp_path / "broken")
    assert result.resumed == 1
    assert furthest(whole, resumed) == 0
    assert result.history == straight.history
    assert {k: c.forwards for k, c in result.costs.items()} == {k: c.forwards for k, c in straight.costs.items()}


@pytest.mark.parametrize(
    ("method", "stage", "step"),
    [
        ("averaged", "one", 5),
        ("averaged", "two", 1),
        ("averaged", "two", 5),
        ("stateful", "only", 9),
        ("gkd", "distil", 5),
    ],
)
def test_what_changes_beside_the_learner_is_resumed_too(
    toy_plan: ToyPlan, uncut: Uncut, tmp_path: Path, method: str, stage: str, step: int
) -> None:
    planned = toy_plan(method, settings=BRIEF.get(method, {}))
    whole, straight = uncut(planned)
    with pytest.raises(Killed):  # stages have 6 and 6 steps, or 12; a checkpoint after half of them
        loop.train(planned, SingleProcess(die_at(stage, step)), tmp_path / "broken")
    resumed, result = trained(planned, tmp_path / "broken")
    assert furthest(whole, resumed) == 0
    assert result.history == straight.history


def test_bill_counts_each_role_once(toy_plan: ToyPlan, tmp_path: Path) -> None:
    _, result = trained(toy_plan("offline_kd"), tmp_path)
    counts = {role: (cost.forwards, cost.trained) for role, cost in result.costs.items()}
    assert counts == {
        "teacher.teacher": (96, 96),
        "distil.teacher": (96, 0),  # frozen: forwarded, never trained
        "distil.student": (96, 96),
    }
    # A forward and a backward pass of one example count three times a forward pass.
    assert result.costs["teacher.teacher"].flops == pytest.approx(3 * result.costs["distil.teacher"].flops)


FULL = {
    "ppod.L": (8, 8),
    "ppod.M": (8, 8),
    "ppod.student": (8, 8),
    "tcrd.teacher": (8, 8),
    "tcrd.student": (8, 8),
    "tcrd.anchor": (8, 0),
}
"""Examples forwarded and trained on, role by role, of a budget of 16."""


def but(*left_out: str, **changes: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The bill of the full method, but for these roles (`stage_role`)."""
    kept = {role: count for role, count in FULL.items() if not role.startswith(left_out)} if left_out else FULL
    return kept | {role.replace("_", ".", 1): count for role, count in changes.items()}


@pytest.mark.parametrize(
    ("settings", "bill"),
    [
        ({}, FULL),
        ({"ppod": False}, but("ppod", tune_L=(8, 8), tune_student=(8, 8))),
        ({"tcrd": False}, {"ppod.L": (16, 16), "ppod.M": (16, 16), "ppod.student": (16, 16)}),
        ({"ppod": False, "tcrd": False}, {"tune.student": (16, 16)}),
        ({"augmentation": False}, FULL),
        ({"online": False}, but(tune_L=(8, 8), tune_M=(8, 8), ppod_L=(8, 0), ppod_M=(8, 0))),
        ({"online": False, "topology": "chain"}, but("ppod.L", tune_L=(8, 8), tune_M=(8, 8), ppod_M=(8, 0))),
        (
            {"pyramid": "staged", "tcrd": False},
            {"ppod_M.L": (16, 16), "ppod_M.M": (16, 16), "ppod.M": (16, 16), "ppod.student": (16, 16)},
        ),
        ({"teacher_learns": False}, but(tcrd_teacher=(8, 0))),
        ({"student_from_anchor": 0.0, "teacher_from_anchor": 0.0}, but("tcrd.anchor")),
        ({"student_from_teacher": 0.0, "teacher_learns": False}, but("tcrd.teacher")),
        ({"ternary": "levels"}, but("tcrd.anchor")),
        ({"ternary": "views"}, but("tcrd.anchor", tcrd_student=(16, 16))),  # two views
        ({"ternary": "views", "view_weight": 0.0}, but("tcrd.anchor")),
        ({"support": "vocab"}, FULL),
    ],
    ids=str,
)
def test_a_part_that_is_off_costs_no_forward(
    toy_plan: ToyPlan, tmp_path: Path, settings: dict[str, Any], bill: dict[str, tuple[int, int]]
) -> None:
    """One forward an example, role and view; nothing for what takes no part."""
    planned = toy_plan("hkd4vlm", settings=settings, train={"examples": 16, "validations": 1, "validation_examples": 4})
    _, result = trained(planned, tmp_path)
    assert {role: (cost.forwards, cost.trained) for role, cost in result.costs.items()} == bill


@pytest.mark.parametrize(
    ("msi", "evaluate", "views"),
    [(True, {}, 3), (False, {}, 1), (True, {"shifts": "none"}, 1), (True, {"debias": "calibrate"}, 4)],
)
def test_each_view_of_an_answer_is_billed(
    toy_plan: ToyPlan, tmp_path: Path, msi: bool, evaluate: dict[str, Any], views: int
) -> None:
    alone = {"ppod": False, "tcrd": False, "msi": msi}
    planned = toy_plan("hkd4vlm", settings=alone, train={"examples": 8}, evaluate={"splits": ["test"], **evaluate})
    record = run.execute(planned, SingleProcess(), Store(tmp_path))
    assert record.cost.test_forwards == 24 * views


CACHED = {"train": {"examples": 96, "cache": "auto"}}
"""A budget of 96 shows each of 48 examples twice."""


@pytest.mark.parametrize(
    ("method", "settings", "frozen"),
    [
        ("offline_kd", {}, {"distil.teacher": 48}),
        # Its weights teach in two stages: what the first asked isn't asked again.
        ("assistant", {"dense": True}, {"assist_M.L": 48, "distil.L": 0, "distil.M": 48}),
        # A stage has half of the budget, and each example once: nothing repeats.
        ("hkd4vlm", {"augmentation": False}, {"tcrd.anchor": 48}),
        ("feature_kd", {}, {"distil.teacher": 48}),
        ("relation_kd", {}, {"distil.teacher": 96}),  # visual tokens aren't kept
    ],
)
def test_a_frozen_teacher_answers_an_example_once(
    toy_plan: ToyPlan, tmp_path: Path, method: str, settings: dict[str, Any], frozen: dict[str, int]
) -> None:
    off, on = toy_plan(method, settings=settings), toy_plan(method, settings=settings, **CACHED)
    assert on.run_id != off.run_id
    _, live = trained(off, tmp_path / "off")
    _, cached = trained(on, tmp_path / "on")
    assert {role: cached.costs[role].forwards for role in frozen} == frozen
    for role in cached.costs.keys() - frozen.keys():
        assert cached.costs[role].forwards == live.costs[role].forwards
    assert losses(cached) == pytest.approx(losses(live), rel=1e-3)


def test_with_the_cache_too_resume_equals_uninterrupted(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan("offline_kd", train={"examples": 72, "cache": "auto"})  # half of the examples come twice
    whole, straight = trained(planned, tmp_path / "straight")
    assert straight.costs["distil.teacher"].forwards == 48

    with pytest.raises(Killed):
        loop.train(planned, SingleProcess(die_at("distil", 7)), tmp_path / "broken")
    resumed, result = trained(planned, tmp_path / "broken")
    assert furthest(whole, resumed) == 0
    assert result.history == straight.history
    assert {k: c.forwards for k, c in result.costs.items()} == {k: c.forwards for k, c in straight.costs.items()}


def test_an_adapter_learns_and_is_billed_with_its_role(toy_plan: ToyPlan, tmp_path: Path) -> None:
    with_, without = (
        trained(toy_plan("feature_kd", settings={"feature_weight": w}, train={"examples": 240}), tmp_path / str(w))[1]
        for w in (1.0, 0.0)
    )
    feature = [row["value"] for row in with_.history if row["term"] == "loss/feature"]
    assert feature[0] > 0.5  # cosine of the states of two untrained models
    assert feature[-1] < feature[0] / 2
    size = 64 * 128
    more = with_.costs["distil.student"].flops - without.costs["distil.student"].flops
    assert more == pytest.approx(3 * 2 * size * 240)
    assert with_.costs["distil.student"].forwards == without.costs["distil.student"].forwards == 240


def test_adapters_start_from_the_seed_alone(toy_plan: ToyPlan, tmp_path: Path) -> None:
    first, _ = trained(toy_plan("feature_kd"), tmp_path / "a")
    torch.manual_seed(7)
    second, _ = trained(toy_plan("feature_kd"), tmp_path / "b")
    assert furthest(first, second) == 0


@pytest.mark.parametrize("method", ["mutual", "assistant", "relation_kd", "dkd"])
def test_other_methods_train(toy_plan: ToyPlan, tmp_path: Path, method: str) -> None:
    planned = toy_plan(method)
    _, result = trained(planned, tmp_path)
    kd = [row["value"] for row in result.history if row["term"] in ("loss/kd", "loss/relation")]
    assert kd
    assert kd[-1] < max(kd)


def test_validation_keeps_the_best(toy_plan: ToyPlan, tmp_path: Path) -> None:
    _, result = trained(toy_plan(train={"validations": 6}), tmp_path)
    seen = [row["value"] for row in result.history if row["term"] == "validation/accuracy"]
    assert len(seen) == 6
    assert result.stages[0].best["student"] == pytest.approx(max(seen))


def test_zero_shot_trains_nothing(toy_plan: ToyPlan, tmp_path: Path) -> None:
    record = run.execute(toy_plan("zero_shot"), SingleProcess(), Store(tmp_path))
    assert record.status == "done"
    assert record.cost.train_flops == 0
    assert record.stages == []


def test_stored_predictions_give_the_metrics(toy_plan: ToyPlan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = run.execute(toy_plan(), SingleProcess(), store)
    predictions = store.predictions(record.run_id, "test")
    right = predictions["gold"] == predictions["chosen"]
    assert record.metrics["test"]["accuracy"].value == pytest.approx(right.mean())
    cold = predictions["category"] == "cold"
    assert record.metrics["test"]["accuracy/cold"].value == pytest.approx(right[cold].mean())
    assert isinstance(store.history(record.run_id), pd.DataFrame)
    assert not store.work(record.run_id).exists()


def test_a_finished_run_is_not_repeated(toy_plan: ToyPlan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = run.execute(toy_plan(), SingleProcess(), store)
    assert run.execute(toy_plan(), SingleProcess(), store) == first


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("scalar_loss", r"'scalar_loss', stage 'only', step 0: loss term student.ce is \(\); expected \(8,\)"),
        ("wrong_role", r"loss\(\) returned \['pupil'\]; expected one entry for each trainable role: \['student'\]"),
        ("not_finite", r"stage 'only', step 6: the loss is not finite \(student.ce\); lower train.lr"),
    ],
)
def test_a_broken_method_is_named(toy_plan: ToyPlan, tmp_path: Path, method: str, expected: str) -> None:
    with pytest.raises(loop.TrainingError, match=expected):
        loop.train(toy_plan(method), SingleProcess(), tmp_path)
    record = run.execute(toy_plan(method), SingleProcess(), Store(tmp_path / "store"))
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.stage == "only"
    assert record.error.traceback is None


BREACHES = {
    "labels": r"loss\(\) changed labels_b in place; change a copy",
    "options": r"loss\(\) changed options_bk in place",
    "logits": r"loss\(\) changed the options of role 'student' in place",
    "teacher": r"loss\(\) changed the options of role 'teacher' in place",
    "no_gradient": r"the loss of role 'student' has no gradient; compute it from step.forward\('student'\)",
    "undeclared": r"step.hidden\('teacher'\) is not declared; add 'hidden' to the result of needs\(\)",
    "no_adapter": r"role 'student' has no adapter; give it a module in adapters\(\)",
    "adapter": r"adapters\(\) returned a module for \['teacher'\]; expected only trainable roles, of \['student'\]",
    "no_role": r"no role 'assistant' in this stage; it has teacher, student",
    "view": r"second_view\(\) returned example 't\d+' the options .*; expected .* at the same letters",
    "micro_batch": r"loss\(\) forwarded student and student, teacher in one step; forward the same roles for",
    "gradient": r"a gradient is not finite though the loss is; lower train.lr",
}


@pytest.mark.parametrize("how", BREACHES)
def test_a_breach_says_where_it_is_and_what_mends_it(toy_plan: ToyPlan, tmp_path: Path, how: str) -> None:
    planned = toy_plan("breach", settings={"how": how}, train={"micro_batch_size": 5})
    with pytest.raises(loop.TrainingError, match=rf"method 'breach', stage 'only', step 0: {BREACHES[how]}"):
        loop.train(planned, SingleProcess(), tmp_path)


STATES = {
    "none": r"step.observe\('ce'\) in a stage without state; give its values in state\(\)",
    "scalar": r"step.observe\('ce'\) of \(\); expected \(5, ...\), one row per example",
    "twice": r"step.observe\('ce'\) a second time in one loss\(\)",
    "in_place": r"loss\(\) changed state 'mean' in place; change a copy",
    "micro_batch": r"loss\(\) observed rows of {'ce': \(\), 'label': \(3,\)} and of {.*'more': \(\)} in one step",
    "not_finite": r"step.observe\('log'\) was given a value that is not finite",
    "shape": r"update\(\) returned {'seen': \(\), 'mean': \(\)}; expected .* {'seen': \(3,\), 'mean': \(\)}",
    "lost": r"update\(\) returned {'mean': \(\)}; expected the names and shapes of state\(\): {'seen': \(3,\)",
}


@pytest.mark.parametrize("how", STATES)
def test_a_breach_of_the_state_too(toy_plan: ToyPlan, tmp_path: Path, how: str) -> None:
    planned = toy_plan("stateful", settings={"how": how}, train={"micro_batch_size": 5})
    with pytest.raises(loop.TrainingError, match=rf"method 'stateful', stage 'only', step 0: {STATES[how]}"):
        loop.train(planned, SingleProcess(), tmp_path)


def test_a_state_is_updated_after_each_step_with_the_whole_batch(toy_plan: ToyPlan, tmp_path: Path) -> None:
    """Batches of 8: before step k the state has counted 8 (k - 1) labels, however the batch is divided."""
    for size in (0, 3):
        _, result = trained(
            toy_plan("stateful", train={"examples": 32, "micro_batch_size": size}), tmp_path / str(size)
        )
        assert [row["value"] for row in result.history if row["term"] == "loss/seen"] == [0, 8, 16, 24]


def test_what_is_made_ahead_comes_in_order_and_an_error_at_its_turn() -> None:
    made: list[tuple[int, bool]] = []

    def make(position: int) -> int:
        made.append((position, threading.current_thread() is threading.main_thread()))
        return 60 // position

    ahead = order.Prefetcher(make, [1, 2, 0, 3], lambda: None)
    assert [next(ahead), next(ahead)] == [60, 30]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert made == [(1, False), (2, False), (0, False)]
    assert list(order.Prefetcher(make, [4, 5], lambda: None)) == [15, 12]


def test_order_depends_on_seed_and_position_only() -> None:
    examples: Any = list(range(10))
    seen = [example for _, example in order.batch_at(examples, 0, 0, 20)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == examples  # whole epochs, each in its own order
    assert seen[:10] != seen[10:]
    pieces = [e for start in range(0, 20, 4) for _, e in order.batch_at(examples, 0, start, 4)]
    assert pieces == seen
    assert [e for _, e in order.batch_at(examples, 1, 0, 20)] != seen
