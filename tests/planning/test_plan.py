"""The planner's promises: what names a run, what is refused before training, and a price that the bill confirms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import provenance
from harness.config import RunConfig, parse
from harness.errors import ConfigError, ModelError
from harness.execution import run
from harness.models.distributed import SingleProcess
from harness.planning import cost as price
from harness.planning import plan
from harness.store import Store
from harness.suite import SuiteConfig
from helpers.common import ToyPlan


def test_a_line_of_a_suite_has_its_own_learning_rate_but_not_its_own_budget() -> None:
    table = {"name": "two", "seeds": [0], "benchmarks": ["toy"], "train": {"examples": 96, "lr": 1e-3}}
    runs = [{"method": "finetune"}, {"method": "finetune", "train": {"lr": 2e-3, "lr_by_rung": {"L": 1e-4}}}]
    one, two = parse(SuiteConfig, table | {"runs": runs}, "test").run_configs()
    assert (one.train.lr, two.train.lr, two.train.lr_by_rung) == (1e-3, 2e-3, {"L": 1e-4})
    assert one.train.examples == two.train.examples == 96
    with pytest.raises(ConfigError, match="the student budget is the same"):
        parse(SuiteConfig, table | {"runs": [{"method": "finetune", "train": {"examples": 9}}]}, "t").run_configs()
    runs = [{"method": "finetune", "train": {"questions_per_image": 9}}]
    with pytest.raises(ConfigError, match="train.questions_per_image = 9: all runs of a suite see the examples in one"):
        parse(SuiteConfig, table | {"runs": runs}, "t").run_configs()
    with pytest.raises(ConfigError, match="runs: finetune: train: unknown setting 'lrr': did you mean 'lr'"):
        parse(SuiteConfig, table | {"runs": [{"method": "finetune", "train": {"lrr": 9}}]}, "t").run_configs()


def test_a_line_of_a_suite_has_its_own_data_and_evaluation() -> None:
    table = {
        "name": "two", "seeds": [0], "benchmarks": ["toy", "exam"], "benchmark_settings": {"toy": {"size": 8}},
        "runs": [
            {"method": "finetune", "evaluate": {"shifts": "cyclic"}},
            {"method": "finetune", "benchmarks": ["toy"], "benchmark_settings": {"fault": "gold"}},
        ],
    }  # fmt: skip
    configs = parse(SuiteConfig, table, "test").run_configs()
    assert [(c.benchmark, c.benchmark_settings, c.evaluate.shifts) for c in configs] == [
        ("toy", {"size": 8}, "cyclic"),
        ("toy", {"size": 8, "fault": "gold"}, "method"),
        ("exam", {}, "cyclic"),
    ]
    runs = [{"method": "finetune", "benchmarks": ["tox"]}]
    with pytest.raises(ConfigError, match="benchmarks names 'tox', which is not among the suite's benchmarks"):
        parse(SuiteConfig, table | {"runs": runs}, "t").run_configs()
    runs = [{"method": "finetune", "train": {"lr": 0.1}, "train_by_benchmark": {"exam": {"lr": 0.2}}}]
    configs = parse(SuiteConfig, table | {"runs": runs}, "t").run_configs()
    assert [(c.benchmark, c.train.lr) for c in configs] == [("toy", 0.1), ("exam", 0.2)]
    for own, says in (
        ({"exma": {"lr": 0.2}}, "train_by_benchmark names 'exma', which is not among the suite's benchmarks"),
        ({"exam": {"examples": 9}}, "train.examples = 9: the student budget is the same for all runs of a suite"),
        ({"exam": {"rl": 0.2}}, "runs: finetune: train: unknown setting 'rl': did you mean 'lr'"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse(SuiteConfig, table | {"runs": [runs[0] | {"train_by_benchmark": own}]}, "t").run_configs()
    runs = [{"method": "finetune", "evaluate": {"shift": "all"}}]
    with pytest.raises(ConfigError, match="runs: finetune: evaluate: unknown setting 'shift': did you mean 'shifts'"):
        parse(SuiteConfig, table | {"runs": runs}, "t").run_configs()


# ----------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"student": "M"},
        {"method": "zero_shot"},
        {"settings": {"alpha": 2.0}, "method": "offline_kd"},
        {"train": {"lr": 1e-4}},
        {"train": {"lr_by_rung": {"S": 1e-4}}},
        {"train": {"examples": 104}},
        {"train": {"micro_batch_size": 1}},  # rounding, and with it the last bits
        {"evaluate": {"splits": ["test"]}},
        {"benchmark_settings": {"size": 24}},
    ],
    ids=str,
)
def test_what_changes_the_numbers_changes_the_id(toy_plan: ToyPlan, change: dict[str, Any]) -> None:
    changed = toy_plan(**{"method": "finetune"} | change).run_id
    assert changed != toy_plan().run_id
    assert changed != toy_plan("offline_kd").run_id
    assert changed == toy_plan(**{"method": "finetune"} | change).run_id


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": {"workers": 2, "max_failures": 7}},
        {"tags": ["suite:demo"]},
        {"data_dir": "somewhere"},
        {"save_student": True},
        {"settings": {}},
        {"train": {"lr": 0.003}},  # as it was
    ],
    ids=str,
)
def test_where_and_how_a_run_is_executed_does_not(toy_plan: ToyPlan, change: dict[str, Any]) -> None:
    assert toy_plan(**change).run_id == toy_plan().run_id


def test_a_version_stands_for_our_code_and_a_digest_for_a_plugins(
    toy_plan: ToyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, toys = "method finetune", "benchmark toy"
    before = toy_plan()
    assert before.sources.keys() == {ours, toys}
    assert before.identity["plugins"] == {toys: before.sources[toys]}
    monkeypatch.setattr(provenance, "source_digest", lambda cls: f"{cls.__name__} changed")
    assert toy_plan().sources[ours] == "Finetune changed"
    assert toy_plan().run_id != before.run_id
    assert toy_plan(benchmark="scenes_factuality").identity["plugins"] == {}
    monkeypatch.undo()
    monkeypatch.setattr(plan, "TRAINING", 99)
    assert toy_plan().identity == before.identity | {"training": 99}
    assert toy_plan().run_id != before.run_id


def test_a_setting_at_its_default_is_the_same_run(toy_plan: ToyPlan) -> None:
    default = toy_plan("offline_kd").settings["alpha"]
    assert toy_plan("offline_kd", settings={"alpha": default}).run_id == toy_plan("offline_kd").run_id


def test_a_preset_is_the_run_that_it_stands_for(toy_plan: ToyPlan) -> None:
    planned = toy_plan("dkd", settings={"alpha": 2.0})
    assert planned.run_id == toy_plan("offline_kd", settings={"divergence": "dkd", "alpha": 2.0}).run_id
    assert (planned.config.method, planned.config.settings) == ("offline_kd", {"divergence": "dkd", "alpha": 2.0})


def test_the_id_can_be_read(toy_plan: ToyPlan) -> None:
    assert toy_plan(seed=3, student="M").run_id.startswith("finetune-M-toy-s3-")


def test_only_the_rungs_in_use_count(toy_plan: ToyPlan) -> None:
    assert list(toy_plan().infos) == ["S"]
    assert list(toy_plan("offline_kd").infos) == ["L", "S"]


def test_a_records_config_gives_the_same_run(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan(seed=2)
    record = run.execute(planned, SingleProcess(), Store(tmp_path))
    assert plan.make(parse(RunConfig, record.config, "the record")).run_id == planned.run_id


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"student": "XS"}, r"unknown student 'XS' on ladder 'toy': did you mean 'S'\? known: L, M, S"),
        ({"train": {"lr_by_rung": {"XL": 1.0}}}, "train.lr_by_rung: unknown rung 'XL': did you mean 'L'"),
        ({"cluster": {"workers": 9}}, "train.batch_size = 8 is less than cluster.workers = 9"),
        ({"ladder": "tyni"}, "unknown ladder 'tyni': did you mean 'tiny'"),
        ({"ladder": "nowhere.toml"}, "nowhere.toml: no such file"),
        (
            {"ladder": [{"name": "S", "model": "a"}, {"name": "S", "model": "b"}]},
            "two rungs have the same name; the names are S, S",
        ),
    ],
)
def test_what_does_not_fit_is_refused(toy_plan: ToyPlan, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        toy_plan(**change)


def test_a_rung_without_a_folder_is_refused(toy_plan: ToyPlan, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model 'S': no such folder: .*gone"):
        toy_plan(ladder=[{"name": "S", "model": str(tmp_path / "gone")}])


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("unknown_rung", "stage 'only', role 'teacher': unknown rung 'XL': did you mean 'L'"),
        ("unknown_stage", "stage 'two', role 'student': takes weights from stage 'onee': did you mean 'one'"),
        ("unknown_role", "stage 'two', role 'student': stage 'one' has no role 'pupil': known: student"),
        ("later_stage", "stage 'two', role 'student': takes weights from stage 'one': known: none"),
        ("one_name", "stage 'one': two stages have this name"),
        ("no_share", "stage 'two': share = 0.0; expected a number above 0"),
        ("all_frozen", "stage 'only': no role is trainable"),
        ("too_much", "the stages in which 'student'.* learns have shares that sum to 1.5; .* must sum to 1"),
        ("no_student", "the last stage has no role 'student' to evaluate"),
        ("own_order", "stage 'two': seed = 3; expected 0, because the student learns in it"),
        ("other_rung", "its role 'student' ends as rung 'L', not as the student 'S'"),
        (
            "average_of_nobody",
            "role 'a': average_of = 'pupil', expected a trainable role of this stage: known: student",
        ),
        ("average_of_frozen", "role 'a': average_of = 't', expected a trainable role of this stage: known: student"),
        ("learning_average", "role 'a': trainable, and the average of 'student': expected one of the two"),
        ("average_of_smaller", "role 'a': has the architecture of rung 'L', and 'student' that of 'S'; expected the"),
        ("endless", r"role 'a': decay = 1.0; expected a number from 0 to below 1, like 0.99"),
    ],
)
def test_stages_are_checked(toy_plan: ToyPlan, mistake: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"method 'stages'.*{says}"):
        toy_plan("stages", settings={"mistake": mistake})


def test_a_state_that_nothing_changes_is_refused(toy_plan: ToyPlan) -> None:
    with pytest.raises(ConfigError, match=r"'constant', stage 'only': state\(\) returned mean, which nothing changes"):
        toy_plan("constant")
    with pytest.raises(
        ConfigError, match=r"'constant', stage 'only': state\(\) returned float 'mean'; expected tensors"
    ):
        toy_plan("constant", settings={"number": True})


@pytest.mark.parametrize("divided", [{"train": {"micro_batch_size": 4}}, {"cluster": {"workers": 2}}], ids=str)
def test_a_batch_whose_examples_are_compared_is_not_divided(toy_plan: ToyPlan, divided: dict[str, Any]) -> None:
    assert toy_plan("coupled", train={"micro_batch_size": 8}).stages  # one micro-batch
    with pytest.raises(
        ConfigError, match="'coupled', stage 'only': an example's loss depends on the other examples of"
    ):
        toy_plan("coupled", **divided)


def test_vocabularies_must_number_their_tokens_alike(toy_plan: ToyPlan, toy_ladder: str, tmp_path: Path) -> None:
    over_vocabulary = {"support": "vocab", "divergence": "jsd"}
    assert toy_plan("offline_kd", settings=over_vocabulary).stages
    folder = shutil.copytree(Path(toy_ladder).parent, tmp_path / "ladder")
    tokenizer = json.loads((folder / "L" / "tokenizer.json").read_text())
    numbers = tokenizer["model"]["vocab"]
    numbers["red"], numbers["green"] = numbers["green"], numbers["red"]
    (folder / "L" / "tokenizer.json").write_text(json.dumps(tokenizer))
    ladder = str(folder / "ladder.toml")
    with pytest.raises(
        ConfigError,
        match=r"'offline_kd', stage 'distil': compares vocabularies, but 2 of \d+ tokens, like 'green', have "
        r"different ids in rung 'S' and rung 'L'; compare the options",
    ):
        toy_plan("offline_kd", settings=over_vocabulary, ladder=ladder)
    assert toy_plan("offline_kd", ladder=ladder).stages  # over the options they need not


def test_half_of_the_budget_is_refused(toy_plan: ToyPlan) -> None:
    with pytest.raises(ConfigError, match="method 'half_budget': .* shares that sum to 0.5"):
        toy_plan("half_budget")


def test_stages_share_the_order_of_the_data(toy_plan: ToyPlan) -> None:
    """Half of 96 examples each, 8 a step: the second stage goes on where the first one stopped."""
    planned = toy_plan("stages").stages
    assert [(p.stage.name, p.steps, p.position) for p in planned] == [("one", 6, 0), ("two", 6, 48)]


def test_an_averages_budget_is_that_of_the_learner_that_it_follows(toy_plan: ToyPlan) -> None:
    planned = toy_plan("averaged").stages
    assert [(p.stage.name, p.steps, p.position) for p in planned] == [("one", 6, 0), ("two", 6, 48)]
    with pytest.raises(ConfigError, match="'averaged': .* 'average', or the model .* have shares that sum to 1.5"):
        toy_plan("averaged", settings={"before": True})


# -------------------------------------------------------------------------------------------- price


@pytest.mark.parametrize("method", ["finetune", "offline_kd", "hkd4vlm"])
def test_the_price_is_what_is_billed(toy_plan: ToyPlan, tmp_path: Path, method: str) -> None:
    planned = toy_plan(method)
    priced = {
        f"{stage['name']}.{name}": role["flops"]
        for stage in price.of(planned)["stages"]
        for name, role in stage["roles"].items()
    }
    billed = run.execute(planned, SingleProcess(), Store(tmp_path)).cost.roles
    assert priced.keys() == billed.keys()
    for key, cost in billed.items():  # the price counts the tokens of the first examples only
        assert priced[key] == pytest.approx(cost.flops, rel=0.2), key


def test_memory_is_weights_and_optimizer(toy_plan: ToyPlan) -> None:
    """4 bytes a frozen weight; a learner has weight, gradient, two moments and a best copy: 20."""
    priced = price.of(toy_plan("offline_kd"))
    sizes = {name: info.parameters for name, info in toy_plan("offline_kd").infos.items()}
    assert priced["memory_bytes"] == max(20 * sizes["L"], 4 * sizes["L"] + 20 * sizes["S"])


def test_an_average_has_weights_and_a_best_copy_and_its_forwards_cost(toy_plan: ToyPlan) -> None:
    """4 bytes a weight, and 4 of the best copy; it passes each example of its stage forward once."""
    planned = toy_plan("averaged")
    stage = price.of(planned)["stages"][0]
    size, roles = planned.infos["S"].parameters, stage["roles"]
    assert (roles["student"]["bytes"], roles["average"]["bytes"]) == (20 * size, 8 * size)
    assert roles["student"]["flops"] == 3 * roles["average"]["flops"] > 0
    assert roles["average"]["average_of"] == "student"
    narrow = toy_plan("averaged", train={"frozen_weights": "bf16", "precision": "bf16"})
    assert price.of(narrow)["stages"][0]["roles"]["average"]["bytes"] == 8 * size  # in bfloat16 it would stand still


def test_zero_shot_has_no_price(toy_plan: ToyPlan) -> None:
    priced = price.of(toy_plan("zero_shot"))
    assert (priced["stages"], priced["train_flops"]) == ([], 0)
