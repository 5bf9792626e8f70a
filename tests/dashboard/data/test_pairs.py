"""Every row against every other."""

from __future__ import annotations

from dashboard.data import pairs
from harness.leaderboard.schema import Pair
from helpers.tables import row


def test_who_wins_is_said_in_both_directions() -> None:
    a, b = row("a", 0.9, rank=1, rank_low=1, rank_high=1, tier=(1,)), row("b", 0.5, rank=2, rank_low=2, rank_high=2)
    one = Pair(a="a-0", b="b-0", value=0.4, low=0.3, high=0.5, p=0.001, p_holm=0.01)
    lines = pairs.wins([a, b], [one])[1]
    assert [[(cell.text, cell.small) for cell in line.cells[1:]] for line in lines] == [
        [("1", ""), ("0", ""), ("·", ""), ("+40.0", "wins")],
        [("0", ""), ("1", ""), ("−40.0", "loses"), ("·", "")],
    ]
    unsure = pairs.wins([a, b], [one.model_copy(update={"p_holm": 0.06})])[1]
    assert [line.cells[1].text for line in unsure] == ["0", "0"]
    assert [line.cells[2].small for line in pairs.ranks([a, b])[1]] == ["[1, 1]", "[2, 2]"]
