"""Which rows the leaderboard shows, in which order, with which columns."""

from __future__ import annotations

from dashboard.data import leaderboard
from dashboard.data.leaderboard import RowFilter
from harness.record import Interval
from harness.report.tables import sections
from helpers.tables import a_table, row


def test_filters_keep_controls_and_the_pinned_row() -> None:
    rows = [
        row("a", 0.7, student="S", budget=64),
        row("b", 0.6, student="L", budget=64, baseline=True),
        row("majority", 0.2, kind="control", student=""),
    ]

    def left(shown: RowFilter) -> list[str]:
        return [one.method for one in rows if shown.matches(one)]

    assert left(RowFilter()) == ["a", "b", "majority"]
    assert left(RowFilter(methods=("a",))) == ["a", "b", "majority"]
    assert left(RowFilter(students=("M",), controls=False)) == ["b"]
    assert left(RowFilter(budgets=(64,), search="A s")) == ["a"]
    assert left(RowFilter(search="nothing like it")) == []


def test_rows_without_a_figure_come_last_whichever_way_it_is_sorted() -> None:
    rows = [row("a", 0.1, train_tflops=None), row("b", 0.2, train_tflops=3.0), row("c", 0.3, train_tflops=2.0)]
    by = leaderboard.board_columns(a_table(*rows), rows)["TFLOPs"]
    assert [one.method for one in leaderboard.ordered(rows, by, False)] == ["c", "b", "a"]
    assert [one.method for one in leaderboard.ordered(rows, by, True)] == ["b", "c", "a"]
    assert leaderboard.ordered(rows, None, True) == rows


def test_a_scale_holds_every_interval_and_the_majority_line() -> None:
    one = row("a", None, values={"accuracy": Interval(value=0.5, low=0.4, high=0.7)})
    control = row("majority", 0.25, kind="control")
    assert leaderboard.domain([one], "accuracy") == (0.4, 0.7)
    whole = a_table(one, control)
    assert leaderboard.board_columns(whole, whole.rows)["score"].column.domain == (0.25, 0.7)
    hidden = leaderboard.board_columns(whole, [one])["score"].column  # a filter moves the scale
    assert (hidden.domain, hidden.reference) == ((0.4, 0.7), None)
    assert leaderboard.domain([], "accuracy") is None


def test_the_leaderboard_and_the_printed_table_have_one_list_of_columns() -> None:
    rows = [row("a", 0.5, rank=1, rank_low=1, rank_high=2, tier=(1,)), row("b", 0.4, budget=64, train_tflops=None)]
    printed = sections(rows)[0].tables[0]
    shown = leaderboard.board_columns(a_table(*rows), rows)
    usual = [*leaderboard.ALWAYS, *leaderboard.default_columns(shown, rows)]
    assert usual == [
        "rank", "method", "student", "score", "ranks", "tier", "seeds", "TFLOPs", "train time", "parameters",
    ]  # fmt: skip
    assert {column.name for column in printed.columns} == {*usual, "macro_f1"}
    for column in printed.columns:
        assert shown[column.name].column.label == column.head
        texts = [shown[column.name].cell(one).text for one in rows]
        if column.name != "seeds":  # links to the runs
            assert texts == [column.text(one) for one in rows]
