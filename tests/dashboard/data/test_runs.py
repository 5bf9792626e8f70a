"""All runs: filters, groups, costs and curves."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dashboard.data import runs as listed
from harness.store.index import RunSummary
from harness.store.schemas import HistoryRow, history_frame
from helpers.runs import record


def line(run_id: str, **fields: Any) -> RunSummary:
    return RunSummary(**({"run_id": run_id, "stamp": "1", "status": "done", "row": "r", "student": "S"} | fields))


LINES = [
    line("a0", method="a", label="a alpha=1 soft=true", seed=0, finished="2026-01-02", tags=["x"], train_flops=1e12),
    line("a1", method="a", label="a alpha=1 soft=true", seed=1, status="failed", problem="the loss is not finite"),
    line("a2", method="a", label="a alpha=2 soft=true", row="q", finished="2026-01-01", tags=["x", "y"],
         train_flops=3e12, total_seconds=3600.0),
    line("b0", method="b", label="b", row="s", student="M"),
]  # fmt: skip


def test_runs_are_filtered_by_everything_newest_first() -> None:
    def ids(**asked: Any) -> list[str]:
        return [one.run_id for one in listed.sift(LINES, listed.RunFilter(**asked))]

    assert ids() == ["a0", "a2", "b0", "a1"]
    assert ids(states=("failed",)) == ["a1"]
    assert ids(methods=("a",), students=("S",), tags=("y",)) == ["a2"]
    assert ids(words=("finite",)) == ["a1"]
    assert ids(row="a0") == ["a0", "a1"]  # the failed seed, too
    assert ids(row="a0", methods=("b",)) == ["a0", "a1"]
    assert ids(row="gone") == ids()
    assert ids(data=("other",)) == []
    assert ids(data=(LINES[0].data_key,)) == ids(data=(LINES[0].benchmark,)) == ids()


def test_groups_count_states_and_costs() -> None:
    frame = listed.grouped(LINES, "method").set_index("method")
    assert frame.loc["a", ["runs", "done", "failed", "TFLOP", "hours"]].tolist() == [3, 2, 1, 4.0, 1.0]
    assert listed.grouped(LINES, "tag").values[:, :2].tolist() == [["no tag", 2], ["x", 2], ["y", 1]]


def test_labels_leave_out_what_all_runs_of_a_method_share() -> None:
    assert listed.short_labels([one.label for one in LINES]) == ["a alpha=1", "a alpha=1", "a alpha=2", "b"]
    assert listed.short_labels(["a alpha=1"]) == ["a alpha=1"]


def test_a_row_has_its_cost_and_accuracy() -> None:
    row = listed.frame(LINES[2:3], {"a2": 0.625}).iloc[0]
    assert row[["accuracy, %", "TFLOP", "seconds"]].tolist() == [62.5, 3.0, 3600.0]


def test_curves_are_the_students() -> None:
    rows = [("kd", 1, "student", 0.5), ("kd", 2, "student", 0.7), ("kd", 2, "teacher", 0.9)]
    history = history_frame(HistoryRow(s, k, 0.0, role, "validation/accuracy", v) for s, k, role, v in rows)
    failed = record(status="failed", run_id="f")
    frame = listed.joined_curves([record(run_id="a"), failed], [history, history[:1]], ["one", "two"])
    assert frame["value"].tolist() == [0.5, 0.7, 0.5]
    assert frame["ended"].tolist() == ["", "", "failed"]
    assert not len(listed.joined_curves([], [], []))
    assert isinstance(frame, pd.DataFrame)
