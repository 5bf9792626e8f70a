"""The table over all benchmarks."""

from __future__ import annotations

from dashboard.widgets.overall import shared_settings
from harness.leaderboard.schema import Overall


def test_settings_that_all_rows_of_a_method_have_are_said_once() -> None:
    def overall(label: str) -> Overall:
        return Overall(kind="run", method=label.split()[0], label=label, ladder="tiny", student="S", metric="accuracy",
                       asked=(), mean=None, mean_rank=None, iqm=None, benchmarks=())  # fmt: skip

    found = [overall("kd a=1 b=2"), overall("kd a=1 b=3"), overall("finetune a=1")]
    assert shared_settings(found) == {"kd": ("a=1",)}
    assert shared_settings([*found, overall("kd")]) == {}
