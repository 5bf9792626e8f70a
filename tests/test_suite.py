"""A suite's labels: no part of a run's identity, and changed without training anew."""

from __future__ import annotations

import pytest

from harness import registry
from harness.config import parse
from harness.errors import ConfigError
from harness.events import Event
from harness.execution.launch import launch
from harness.experiments.sweep import SweepConfig
from harness.leaderboard.leaderboard import table
from harness.store import Store
from harness.store.compaction import compact
from harness.suite import SuiteConfig


def suite(label: str | None, toy: str, toy_ladder: str) -> SuiteConfig:
    line = {"method": "zero_shot"} if label is None else {"method": "zero_shot", "label": label}
    document = {"name": "s", "seeds": [0], "benchmarks": ["toy"], "ladder": toy_ladder, "plugins": [toy]}
    return parse(SuiteConfig, document | {"cluster": {"workers": 0}, "runs": [line]}, "suite.toml")


def trained(store: Store) -> str:
    (row,) = [row for row in table(store) if row.kind == "run"]
    return row.label


def test_a_label_isnt_part_of_the_identity_and_a_new_one_retrains_nothing(
    store: Store, toy: str, toy_ladder: str
) -> None:
    registry.load_plugin(toy)
    begun: list[int] = []

    def again(label: str | None) -> str:
        configs = suite(label, toy, toy_ladder).run_configs()
        events: list[Event] = []
        (record,) = launch(configs, store, "s", events.append)
        begun.append(sum(event.get("to_run", 0) for event in events))
        assert record.status == "done"
        return record.run_id

    run_id = again("asked as it is")
    before = (store.root / run_id / "record.json").read_bytes()
    assert trained(store) == "asked as it is"
    compact(store)
    assert {again("untrained"), again(None), again("untrained")} == {run_id}
    assert trained(store) == "untrained"  # None says nothing of labels
    assert again("asked as it is") == run_id
    assert trained(store) == "asked as it is"
    again("")
    assert trained(store) == "zero_shot"
    assert begun == [1, 0, 0, 0, 0, 0]
    assert (store.root / run_id / "record.json").read_bytes() == before


@pytest.mark.parametrize("label", ["two\nlines", " spaces ", "two  spaces", "x" * 81])
def test_a_label_is_one_short_line(label: str) -> None:
    document = {"name": "s", "seeds": [0], "benchmarks": ["b"], "runs": [{"method": "finetune", "label": label}]}
    with pytest.raises(ConfigError, match="label"):
        parse(SuiteConfig, document, "suite.toml")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seeds": [0, 1, 0]}, "seeds = .*: 0 is given twice; expected each once"),
        ({"benchmarks": ["toy", "toy"]}, "benchmarks = .*: 'toy' is given twice"),
        ({"runs": [{"method": "zero_shot", "seeds": [1, 1]}]}, "runs.0.seeds = .*: 1 is given twice"),
        ({"runs": [{"method": "zero_shot"}, {"method": "zero_shot"}]}, r"two lines \('zero_shot'\) give the same run"),
        (
            {"runs": [{"method": "zero_shot", "label": "a"}, {"method": "zero_shot", "label": "b", "seeds": [0]}]},
            r"two lines \('a' and 'b'\) give the same run of zero_shot on toy with seed 0; expected each once",
        ),
    ],
)
def test_what_is_given_twice_is_refused(changed: dict[str, object], said: str) -> None:
    document = {"name": "s", "seeds": [0], "benchmarks": ["toy"], "runs": [{"method": "zero_shot"}]} | changed
    with pytest.raises(ConfigError, match=said):
        parse(SuiteConfig, document, "suite.toml").run_configs()


def test_a_sweep_refuses_a_seed_given_twice() -> None:
    line = {"method": "finetune", "space": {"train.lr": {"uniform": [1e-4, 1e-3]}}}
    document = {"name": "s", "trials": 1, "benchmarks": ["toy"], "methods": [line], "seeds": [3, 3]}
    with pytest.raises(ConfigError, match="seeds = .*: 3 is given twice"):
        parse(SweepConfig, document, "sweep.toml")
