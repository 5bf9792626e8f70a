"""The line of a run that rankings read says the same of its record before and after it is compacted."""

from __future__ import annotations

import pytest

from harness.leaderboard.leaderboard import table
from harness.record import Interval, StageRecord
from harness.store import Store
from harness.store.compaction import compact
from helpers.runs import add


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "micro_f1", "accuracy/count"])
def test_a_ranking_reads_the_same_before_and_after(filled: Store, metric: str) -> None:
    before = table(filled, metric=metric)
    compact(filled)
    assert table(filled, metric=metric) == before
    assert len(before) == 4


def test_figures_that_only_records_state(store: Store) -> None:
    for seed, value in ((0, 0.5), (1, 0.75)):
        add(store, "a", seed=seed, metrics={"test": {"official:f1": Interval(value=value)}})
    compact(store)
    (row,) = table(store, metric="official:f1")
    assert row.values["official:f1"] == Interval(value=0.625)


def test_an_older_budget_is_read_in_whole_steps(store: Store) -> None:
    """5,000 examples in steps of 32 were 157 steps; a newer record says so, and both are in one budget."""
    train = {"examples": 5000, "batch_size": 32}
    stage = StageRecord(name="tune", share=1, steps=157, examples=5024, roles={})
    for method, stated in (("older", 5000), ("newer", 5024)):
        add(store, method, budget=stated, train=train, stages=[stage])
    add(store, "untrained", budget=0, train=train)
    assert {row.method: row.budget for row in table(store)} == {"older": 5024, "newer": 5024, "untrained": 0}
