"""A line of a suite with the training FLOPs of another line: its number of examples, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config import ClusterConfig, RunConfig, parse
from harness.errors import ConfigError
from harness.execution import run
from harness.experiments.equal_flops import priced
from harness.leaderboard.leaderboard import table
from harness.models.distributed import SingleProcess
from harness.planning import cost, plan
from harness.report.tables import footnotes
from harness.report.text import to_text
from harness.store import Store
from harness.suite import SuiteConfig
from helpers.common import Cli
from helpers.runs import add

TRAIN = {"examples": 96, "batch_size": 8}
TUNED = {"method": "finetune", "label": "as many FLOPs"}


@pytest.fixture
def suite(toy: str, toy_ladder: str) -> Any:
    """A suite of these lines on the toy benchmark."""

    def made(*runs: dict[str, Any], **changes: Any) -> SuiteConfig:
        head = {"name": "equal", "seeds": [3, 4], "benchmarks": ["toy"], "ladder": toy_ladder, "plugins": [toy]}
        return parse(SuiteConfig, head | {"train": TRAIN, "runs": list(runs)} | changes, "test")

    return made


def flops(config: RunConfig) -> float:
    return float(cost.of(plan.make(config))["train_flops"])


def test_a_baseline_has_the_flops_of_the_line_that_it_names(suite: Any) -> None:
    """Only its number of examples follows: whole steps, the same for all seeds, within half a step of the FLOPs."""
    distilled = {"method": "offline_kd", "label": "KD"}
    made = priced(suite({"method": "finetune"}, distilled, TUNED | {"flops_of": "KD"}))
    same, taught, tuned = made.run_configs()[:3]
    assert same.train.examples == taught.train.examples == 96
    assert tuned.train.examples > 96
    assert tuned.train == same.train.model_copy(update={"examples": tuned.train.examples})
    assert plan.make(tuned).budget == tuned.train.examples
    a_step = flops(same) / 12
    assert abs(flops(tuned) - flops(taught)) <= a_step / 2 * (1 + 1e-9)
    assert {c.train.examples for c in made.run_configs() if c.label == "as many FLOPs"} == {tuned.train.examples}
    assert (tuned.tags, taught.tags) == (("flops_of:KD", "suite:equal"), ("suite:equal",))


def test_what_is_billed_is_equal_too(suite: Any, store: Store) -> None:
    made = priced(suite({"method": "hkd4vlm", "label": "H"}, TUNED | {"flops_of": "H"}, seeds=[0]))
    configs = [config.model_copy(update={"cluster": ClusterConfig(workers=0)}) for config in made.run_configs()]
    taught, tuned = (run.execute(plan.make(config), SingleProcess(), store) for config in configs)
    assert tuned.budget == configs[1].train.examples > taught.budget == 96  # type: ignore[operator]
    assert tuned.cost.train_flops == pytest.approx(taught.cost.train_flops, rel=0.05)


def test_a_line_without_a_label_has_its_methods_name(suite: Any) -> None:
    """And of several of one name, the one of the same student is meant."""
    lines = [{"method": "offline_kd", "student": student} for student in ("M", "S")]
    config = priced(suite(*lines, TUNED | {"flops_of": "offline_kd"})).run_configs()[2]
    alone = priced(suite(lines[1], TUNED | {"flops_of": "offline_kd"})).run_configs()[1]
    assert config.train.examples == alone.train.examples


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([{"method": "offline_kd", "label": "KD"}, TUNED | {"flops_of": "KDD"}], "'KDD': did you mean 'KD'"),
        ([TUNED | {"flops_of": "as many FLOPs"}], "flops_of = 'as many FLOPs': known: none"),
        ([{"method": "mutual"}, {"method": "mutual"}, TUNED | {"flops_of": "mutual"}], "2 lines have this name"),
        ([{"method": "zero_shot"}, TUNED | {"flops_of": "zero_shot"}], "'zero_shot' trains nothing"),
        ([{"method": "mutual"}, {"method": "zero_shot", "flops_of": "mutual"}], "'zero_shot' trains nothing"),
        (
            [{"method": "mutual", "benchmarks": ["exam"]}, TUNED | {"flops_of": "mutual"}],
            "flops_of = 'mutual' isn't run on 'toy', but on exam",
        ),
    ],
)
def test_a_line_that_cannot_be_priced_is_refused(suite: Any, runs: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        priced(suite(*runs, benchmarks=["toy", "exam"]))


def test_no_line_chooses_its_own_budget(suite: Any) -> None:
    with pytest.raises(ConfigError, match="examples = {'toy': 9}: a line's own budget is computed from flops_of"):
        suite(TUNED | {"examples": {"toy": 9}}).run_configs()
    with pytest.raises(ConfigError, match="flops_of = 'KD' has no number of examples yet"):
        suite({"method": "mutual", "label": "KD"}, TUNED | {"flops_of": "KD"}).run_configs()


def test_a_table_says_why_the_rows_examples_differ(store: Store, cli: Cli) -> None:
    add(store, "hkd4vlm", 6)
    add(store, "finetune", 7, budget=12288, tags=["flops_of:HKD4VLM"], config={"method": "finetune"})
    rows = table(store)
    assert footnotes(rows)[-2:] == [
        "rows of 2 budgets (training examples), which can't be compared on equal terms: 4,096, 12,288",
        "finetune (S): learned from 12,288 examples: as many as its training takes for the FLOPs of HKD4VLM, as "
        "planned",
    ]
    printed = to_text(rows)
    assert "12,288" in next(line for line in printed.splitlines() if line.lstrip().startswith("1 "))  # its column
    assert "12,288" in to_text(rows, [], ("cost",)).partition("cost of training")[2]
    said = cli("compare", "hkd4vlm", "finetune", "--store", store.url).out
    assert "training examples: A 4,096, B 12,288; they can't be compared on equal terms" in said


def test_the_command_line_prices_a_suite(toy_suite: str, tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "suite.toml"
    lines = '[[runs]]\nmethod = "offline_kd"\n[[runs]]\nmethod = "finetune"\nflops_of = "offline_kd"\n'
    file.write_text(f'name = "equal"\nseeds = [0]\n{toy_suite}{lines}')
    taught, tuned = cli("suite", file, "--dry-run", "--json").json
    assert taught["budget"] == 96
    assert tuned["budget"] == tuned["stages"][0]["examples"] > 96
    assert tuned["train_flops"] == pytest.approx(taught["train_flops"], rel=0.05)
    assert f"{tuned['budget']} examples" in cli("suite", file, "--dry-run").out
