"""Benchmarks without a train split, learning from another benchmark, and going on without missing images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from harness.config import RunConfig, parse
from harness.errors import ConfigError
from harness.execution import run
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.record import Record
from harness.report.run import record_text
from harness.store import Store
from harness.suite import SuiteConfig
from helpers.common import Cli, ToyPlan


@pytest.fixture
def exam_plan(toy_plan: ToyPlan) -> ToyPlan:
    """A plan on `exam`, which has a test split only."""
    return partial(toy_plan, benchmark="exam", evaluate={"resamples": 100})


def test_a_method_that_learns_needs_something_to_learn_from(exam_plan: ToyPlan) -> None:
    with pytest.raises(ConfigError, match=r"benchmark 'exam' has no train split: method 'finetune' learns, .*train_on"):
        exam_plan()
    with pytest.raises(ConfigError, match="benchmark 'exam' has no train split"):
        exam_plan(benchmark="toy", train_on="exam")
    assert exam_plan("zero_shot").dataset.sizes == {"test": 24}


def test_what_train_on_refuses(exam_plan: ToyPlan) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'tyo': did you mean 'toy'"):
        exam_plan(train_on="tyo")
    with pytest.raises(ConfigError, match="benchmark 'toy': unknown setting 'sise': did you mean 'size'"):
        exam_plan(train_on="toy", train_on_settings={"sise": 3})
    with pytest.raises(ConfigError, match="train_on_settings and train_on_data_dir go with train_on"):
        exam_plan(benchmark="toy", train_on_settings={"size": 24})
    with pytest.raises(ConfigError, match="benchmark 'nlvr' reads published files"):
        exam_plan(train_on="nlvr")


def test_the_other_benchmark_is_read_for_its_train_and_validation_splits_only(exam_plan: ToyPlan) -> None:
    planned = exam_plan(train_on="toy", train_on_settings={"fault": "empty"})  # its test split can't be read
    assert (planned.training.sizes, planned.dataset.sizes) == ({"train": 48, "validation": 24}, {"test": 24})


def test_it_is_part_of_the_identity_where_something_is_learnt(exam_plan: ToyPlan) -> None:
    ids = {
        exam_plan(**changes).run_id
        for changes in (
            {"train_on": "toy"},
            {"train_on": "toy", "train_on_settings": {"size": 24}},
            {"train_on": "toy", "skip_missing": True},
            {"train_on": "toy", "seed": 1},
        )
    }
    assert len(ids) == 4
    same = exam_plan(train_on="toy", train_on_settings={"size": 48}, train_on_data_dir="somewhere")  # the default
    assert same.run_id in ids
    assert exam_plan("zero_shot", train_on="toy").run_id == exam_plan("zero_shot").run_id


def test_training_elsewhere_on_the_same_examples_gives_the_same_student(exam_plan: ToyPlan, tmp_path: Path) -> None:
    """`exam` is the toy's test split: learning from the toy and sitting the exam is running on the toy."""
    store = Store(tmp_path)
    elsewhere = run.execute(exam_plan(train_on="toy"), SingleProcess(), store)
    own = run.execute(exam_plan(benchmark="toy"), SingleProcess(), store)
    assert elsewhere.status == own.status == "done"
    scores = [[list(row) for row in store.predictions(r.run_id, "test")["scores"]] for r in (elsewhere, own)]
    assert scores[0] == scores[1]
    assert list(elsewhere.metrics) == ["test"]
    assert elsewhere.trained_on is not None
    assert own.trained_on is None
    assert elsewhere.trained_on.benchmark == "toy"
    assert elsewhere.trained_on.data.sizes == {"train": 48, "validation": 24}
    assert "trained on toy, revision 1, fingerprint" in record_text(elsewhere)
    assert Record.model_validate_json(elsewhere.model_dump_json()) == elsewhere
    again = plan.make(parse(RunConfig, elsewhere.config, "the record"))
    assert again.run_id == elsewhere.run_id


def test_a_suite_hands_it_on() -> None:
    suite = {
        "name": "x",
        "seeds": [0],
        "benchmarks": ["exam"],
        "runs": [{"method": "zero_shot"}],
        "train_on": "toy",
        "train_on_settings": {"size": 24},
        "train_on_data_dir": "somewhere",
        "skip_missing": True,
    }
    config = parse(SuiteConfig, suite, "test").run_configs()[0]
    assert (config.train_on, config.train_on_settings, config.skip_missing) == ("toy", {"size": 24}, True)
    assert config.train_on_data_dir == Path("somewhere").resolve()


def test_skip_missing_goes_on_and_is_recorded(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    fault = ["--set", "benchmark_settings.fault=missing", "--set", "evaluate.resamples=100"]
    said = cli("run", *toy_run, *fault, "--method", "zero_shot", "--store", tmp_path)
    assert said.code == 2
    assert "the images of 1 of 24 examples are missing" in said.err
    assert "leave them out with --skip-missing" in said.err
    record = cli("run", *toy_run, *fault, "--method", "zero_shot", "--skip-missing", "--store", tmp_path, "--json").json
    assert (record["status"], record["data"]["skipped"]) == ("done", {"test": 1})
    assert (record["data"]["sizes"]["test"], record["config"]["skip_missing"]) == (23, True)
    priced = cli("plan", *toy_run, *fault, "--skip-missing", "--json").json
    assert priced["skipped"] == {"test": 1}
    assert "left out, image missing or damaged: test 1" in cli("plan", *toy_run, *fault, "--skip-missing").out


def test_a_test_split_alone_is_enough_for_what_does_not_learn(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    args = ["--benchmark", "exam", "--set", "evaluate.resamples=100", "--store", tmp_path]
    record = cli("run", *toy_run, *args, "--method", "zero_shot", "--json").json
    assert (record["status"], list(record["metrics"])) == ("done", ["test"])
    said = cli("run", *toy_run, *args)
    assert said.code == 2
    assert "benchmark 'exam' has no train split: method 'finetune' learns" in said.err
