"""The logic of the leaderboard and the trade-off on small tables that can be checked by hand; no browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboard import navigation
from dashboard.data import leaderboard, pairs
from dashboard.data.leaderboard import RowFilter
from dashboard.table import LONGEST, Link, TableCell, TableRow, _line
from dashboard.views.trade_off import _positions, front_text, points
from dashboard.widgets import url_state
from dashboard.widgets.escape import html, plain, visible
from dashboard.widgets.overall import shared_settings
from harness.leaderboard.schema import Overall, Pair, Row, Table
from harness.record import Interval
from harness.report.tables import sections
from harness.store import Store
from harness.store.catalog import View
from harness.store.index import from_arrow
from helpers.runs import add


def row(method: str, value: float | None, **fields: Any) -> Row:
    """A row of the toy benchmark, four examples, one seed."""
    base: dict[str, Any] = {
        "benchmark": "toy", "revision": "1", "fingerprint": "f", "split": "test", "kind": "run", "method": method,
        "label": method, "ladder": "tiny", "student": "S", "seeds": (0,), "examples": 4, "groups": 4,
        "metric": "accuracy", "values": {} if value is None else {"accuracy": Interval(value=value)},
        "train_tflops": 1.0, "train_seconds": 1.0, "forwards_per_answer": 1.0, "parameters": 100,
        "run_ids": (f"{method}-0",),
    }  # fmt: skip
    return Row(**base | fields)


def a_table(*rows: Row) -> Table:
    return Table(
        benchmark="toy", revision="1", fingerprint="f", split="test", metric="accuracy", rows=rows, budgets=(64,)
    )


# ------------------------------------------------------------------------------------------ leaderboard


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


def test_data_are_named_by_version_only_where_there_are_several(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a")
    found = url_state.data_names(from_arrow(View(store).lines()))
    assert list(found) == ["toy"]
    assert url_state.metrics_of(["accuracy/count", "chance", "official:f1", "ece"], None) == [
        "accuracy", "macro_f1", "micro_f1", "accuracy/count", "ece",  # chance says nothing of a row
    ]  # fmt: skip
    assert url_state.metrics_of(["accuracy", "official:f1"], "official") == ["official:f1"]


# ------------------------------------------------------------------------------------ all benchmarks


def test_settings_that_all_rows_of_a_method_have_are_said_once() -> None:
    def overall(label: str) -> Overall:
        return Overall(kind="run", method=label.split()[0], label=label, ladder="tiny", student="S", metric="accuracy",
                       asked=(), mean=None, mean_rank=None, iqm=None, benchmarks=())  # fmt: skip

    found = [overall("kd a=1 b=2"), overall("kd a=1 b=3"), overall("finetune a=1")]
    assert shared_settings(found) == {"kd": ("a=1",)}
    assert shared_settings([*found, overall("kd")]) == {}


# ------------------------------------------------------------------------------------------ trade-off


def test_the_front_is_who_nobody_beats_on_both() -> None:
    rows = [
        row("cheap", 0.5, train_tflops=1.0),
        row("dear", 0.9, train_tflops=5.0),
        row("beaten", 0.4, train_tflops=2.0),
        row("unknown", 0.9, train_tflops=None),
        row("majority", 0.2, kind="control"),
    ]
    placed = points(rows, "TFLOPs")
    assert [(p.row.method, p.front) for p in placed] == [("cheap", True), ("beaten", False), ("dear", True)]
    assert front_text(placed).startswith("2 of 3 rows are on the Pareto front, cheapest first: cheap (S), dear (S).")


def test_of_an_error_the_low_ones_are_on_the_front() -> None:
    rows = [
        row(name, None, metric="ece", values={"ece": Interval(value=value)}, train_tflops=cost)
        for name, value, cost in (("good", 0.1, 1.0), ("bad", 0.3, 2.0))
    ]
    assert [p.front for p in points(rows, "TFLOPs")] == [True, False]


def test_names_in_the_trade_off_do_not_cover_each_other() -> None:
    rows = [row(name, 0.5, train_tflops=cost) for name, cost in (("one", 2.4), ("two", 2.5), ("far", 9.0))]
    places = _positions(points([*rows, row("low", 0.1, train_tflops=1.0)], "TFLOPs"), 100, "accuracy", None)
    assert places == [(1.0, 10.0), (2.5, 50.0), (2.5, 48.0), (9.0, 50.0)]


# ------------------------------------------------------------------------------------------ pairs and ranks


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


# ------------------------------------------------------------------------------------------ the place


def test_links_keep_the_place_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"benchmark": ["toy"], "size": ["S", "M"]}
    monkeypatch.setattr(navigation, "place", lambda: here)
    assert navigation.href("trade_off") == "./trade-off?benchmark=toy&size=S&size=M"
    assert navigation.href("compare", benchmark="other") == "./compare?benchmark=other&size=S&size=M"


# ------------------------------------------------------------------------------------------------ text


def test_a_cell_has_neither_invisible_links_nor_turned_nor_endless_names() -> None:
    """A link that only a button's title tells, U+202E that turns a row round, a label of a hundred settings."""
    cells = (
        TableCell(links=(Link("7", "run", {"run": "a"}),)),
        TableCell("\u200b", links=(Link("\u200b", "run", {"run": "a"}),)),
        TableCell("a\u202eb", small="x=1 " * 100),
    )
    one, hidden, turned = _line(TableRow(cells))["cells"]
    assert one["links"][0]["text"] == "7"
    assert hidden["links"][0]["text"] == "⟨U+200B⟩"
    assert turned["text"] == "a⟨U+202E⟩b"
    assert len(turned["small"]) == LONGEST
    assert turned["title"] == "x=1 " * 100
    assert "202E" in plain("a\u202eb")
    assert html("\u3164") == "⟨U+3164⟩"
    assert visible("می‌خواهم 5\u00a0% 👩‍💻") == "می‌خواهم 5\u00a0% 👩‍💻"


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "[x](javascript:alert(1))", ":red[x] :smile:", "$x$ **b** `c`", "a\nb", "# h"]
)
def test_no_sign_of_a_text_is_left_as_markup(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for sign in "<>[]()*_`$:#!|~":
        assert all(bare[k - 1] == "\\" for k in range(len(bare)) if bare[k] == sign), (sign, shown)
    assert "<" not in html(text)


def test_escaping_changes_nothing_that_is_read() -> None:
    assert plain("offline_kd alpha=2").replace("\\", "") == "offline_kd alpha=2"
