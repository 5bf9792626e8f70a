"""Benchmarks without a train split, learning from another benchmark, and going on without missing images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig, SuiteConfig, parse
from harness.errors import ConfigError
from harness.execution import run
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.planning.plan import Plan
from harness.record import Record
from harness.report.run import record_text
from harness.store import Store
from helpers.common import Cli


@pytest.fixture
def table(toy: str, toy_ladder: str) -> dict[str, Any]:
    """`finetune` on `exam`, which has a test split only: 12 steps of 8 examples."""
    return {
        "method": "finetune",
        "benchmark": "exam",
        "ladder": toy_ladder,
        "plugins": [toy],
        "cluster": {"workers": 0},
        "train": {"examples": 96, "batch_size": 8, "lr": 3e-3, "validations": 2},
        "evaluate": {"resamples": 100},
    }


def made(table: dict[str, Any], **changes: Any) -> Plan:
    return plan.make(parse(RunConfig, table | changes, "test"))


def test_a_method_that_learns_needs_something_to_learn_from(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"benchmark 'exam' has no train split: method 'finetune' learns, .*train_on"):
        made(table)
    with pytest.raises(ConfigError, match="benchmark 'exam' has no train split"):
        made(table, benchmark="toy", train_on="exam")
    assert made(table, method="zero_shot").dataset.sizes == {"test": 24}


def test_what_train_on_refuses(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'tyo': did you mean 'toy'"):
        made(table, train_on="tyo")
    with pytest.raises(ConfigError, match="benchmark 'toy': unknown setting 'sise': did you mean 'size'"):
        made(table, train_on="toy", train_on_settings={"sise": 3})
    with pytest.raises(ConfigError, match="train_on_settings and train_on_data_dir go with train_on"):
        made(table, benchmark="toy", train_on_settings={"size": 24})
    with pytest.raises(ConfigError, match="benchmark 'nlvr' reads published files"):
        made(table, train_on="nlvr")


def test_the_other_benchmark_is_read_for_its_train_and_validation_splits_only(table: dict[str, Any]) -> None:
    planned = made(table, train_on="toy", train_on_settings={"fault": "empty"})  # its test split can't be read
    assert (planned.training.sizes, planned.dataset.sizes) == ({"train": 48, "validation": 24}, {"test": 24})


def test_it_is_part_of_the_identity_where_something_is_learnt(table: dict[str, Any]) -> None:
    ids = {
        made(table, **changes).run_id
        for changes in (
            {"train_on": "toy"},
            {"train_on": "toy", "train_on_settings": {"size": 24}},
            {"train_on": "toy", "skip_missing": True},
            {"train_on": "toy", "seed": 1},
        )
    }
    assert len(ids) == 4
    same = made(table, train_on="toy", train_on_settings={"size": 48}, train_on_data_dir="somewhere")  # the default
    assert same.run_id in ids
    untrained = table | {"method": "zero_shot"}
    assert made(untrained, train_on="toy").run_id == made(untrained).run_id


def test_training_elsewhere_on_the_same_examples_gives_the_same_student(table: dict[str, Any], tmp_path: Path) -> None:
    """`exam` is the toy's test split: learning from the toy and sitting the exam is running on the toy."""
    store = Store(tmp_path)
    elsewhere = run.execute(made(table, train_on="toy"), SingleProcess(), store)
    own = run.execute(made(table, benchmark="toy"), SingleProcess(), store)
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


def test_a_suite_hands_it_on(table: dict[str, Any]) -> None:
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
    assert "left out, image missing: test 1" in cli("plan", *toy_run, *fault, "--skip-missing").out


def test_a_test_split_alone_is_enough_for_what_does_not_learn(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    args = ["--benchmark", "exam", "--set", "evaluate.resamples=100", "--store", tmp_path]
    record = cli("run", *toy_run, *args, "--method", "zero_shot", "--json").json
    assert (record["status"], list(record["metrics"])) == ("done", ["test"])
    said = cli("run", *toy_run, *args)
    assert said.code == 2
    assert "benchmark 'exam' has no train split: method 'finetune' learns" in said.err
