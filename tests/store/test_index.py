"""The line of a run that rankings read says the same of its record before and after it is compacted."""

from __future__ import annotations

import pytest

from harness.leaderboard.leaderboard import table
from harness.record import Interval
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
