"""Methods that cheat: each is refused, gains nothing, or is shown for what it is; and what can't be found out.

docs/trust.md says the same in words.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.config import RunConfig
from harness.errors import ConfigError
from harness.execution import run
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.record import Record
from harness.report.run import record_text
from harness.store import Store
from harness.submission.verify import verify
from helpers.common import ROOT, ToyConfig

CHEATS = str(ROOT / "tests" / "helpers" / "cheats.py")


@pytest.fixture(scope="module")
def configure(toy_config: ToyConfig) -> ToyConfig:
    """The configuration of a run of a cheating method, 4 steps of 8 examples."""

    def made(method: str, **changes: Any) -> RunConfig:
        train = {"examples": 32, "validations": 1} | changes.pop("train", {})
        return toy_config(method, **({"benchmark": "telling", "plugins": [CHEATS], "train": train} | changes))

    return made


@pytest.fixture
def ran(configure: ToyConfig, store: Store) -> Any:
    """Runs a method in the test's store."""
    return lambda method, **changes: run.execute(plan.make(configure(method, **changes)), SingleProcess(), store)


def refused(record: Record) -> str:
    assert (record.status, record.metrics) == ("failed", {})
    assert record.error is not None
    assert record.error.traceback is None  # told in words
    return record.error.message


def accuracy(record: Record) -> float:
    assert record.status == "done", record.error
    return record.metrics["test"]["accuracy"].value


# ------------------------------------------------------------------------------------------ golds


def test_an_example_that_is_scored_tells_nothing(ran: Any, store: Store) -> None:
    """Gold through fuse, views, category, source and extra: the answers are those of an honest method."""
    honest = store.predictions(ran("untrained").run_id).drop(columns="seconds")
    assert 0 < (honest["gold"] == honest["chosen"]).mean() < 0.9  # there is something to gain
    for where in ("fuse", "views"):
        for door in ("gold", "category", "source", "extra"):
            record = ran("peeks_at_scoring", settings={"where": where, "door": door})
            assert store.predictions(record.run_id).drop(columns="seconds").equals(honest), (where, door)


def test_answers_that_are_looked_up_are_not_the_students(ran: Any, store: Store) -> None:
    """A closure over a benchmark, and the store of other runs."""
    ran("untrained")
    assert "fuse() chooses option 0 whatever the student says" in refused(ran("looks_up"))
    from harness import registry

    registry.methods()["reads_the_store"].load().folder = store.root  # type: ignore[attr-defined]
    assert "fuse() chooses option 0 whatever the student says" in refused(ran("reads_the_store"))


def test_what_a_plugin_can_still_do_is_on_record_as_its_code(ran: Any) -> None:
    """A small push towards a gold that was looked up isn't found: whoever has the file sees what was run."""
    honest, pushed = ran("untrained"), ran("looks_up", settings={"lift": 2.0})
    assert accuracy(pushed) > accuracy(honest)
    digest = pushed.identity["plugins"]["method looks_up"]
    assert digest == pushed.provenance.sources["method looks_up"]
    assert pushed.config["plugins"] == [CHEATS]


@pytest.mark.parametrize(("where", "says"), [("fuse", "it must not learn from"), ("views", "from the example alone")])
def test_a_method_does_not_learn_from_what_it_is_asked(ran: Any, where: str, says: str) -> None:
    told = refused(ran("learns_when_asked", settings={"where": where}))
    assert f"{where}() returned" in told
    assert says in told


def test_the_pool_keeps_its_golds(ran: Any) -> None:
    assert "augment() gave example 'pool" in refused(ran("labels_the_pool"))


def test_a_test_split_to_learn_from_is_on_record(ran: Any) -> None:
    """All 24 test examples are among those that it learned from; an honest run shares none."""
    record = ran("tunes", train_on="borrowed")
    assert record.trained_on.leaks["train/test"]["both"] == 24
    assert "borrowed/train and telling/test: examples of the second with a duplicate" in record_text(record)
    assert record.data.leaks.get("train/test", {}).get("both", 0) == 0


# ------------------------------------------------------------------------------------------ budgets and bills


def test_a_budget_follows_the_weights(configure: ToyConfig) -> None:
    with pytest.raises(ConfigError, match="'student', or the model that its weights come from, learns .* sum to 21"):
        plan.make(configure("other_name"))


def test_no_budget_is_free(configure: ToyConfig, ran: Any) -> None:
    with pytest.raises(ConfigError, match="stage 'more': share = 0.0; expected a number above 0"):
        plan.make(configure("free_budget"))
    with pytest.raises(ConfigError, match="train.examples = 0: input should be greater than or equal to 1"):
        configure("tunes", train={"examples": 0})
    record = ran("free_budget", settings={"none": True})
    assert (record.budget, record.stages) == (0, [])  # scored untrained, and its row says so


def test_a_frozen_role_does_not_learn(ran: Any) -> None:
    assert "the weights of teacher changed, and the stage says that it is frozen" in refused(ran("frozen_learns"))


def test_a_bill_of_nothing_is_found(ran: Any, store: Store) -> None:
    honest, record = ran("tunes"), ran("pays_nothing")
    assert (record.status, record.cost.train_flops) == ("done", 0)
    told = {one.check: one.detail for one in verify(store, record.run_id).of("changed")}
    assert "only.student was asked 0 times about 32 examples" in told["bill"]
    assert not verify(store, honest.run_id).of("changed")
