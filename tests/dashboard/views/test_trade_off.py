"""The trade-off: its front and names on rows checkable by hand, its points in a browser."""

from __future__ import annotations

import re

import pytest

from dashboard.views.trade_off import _positions, front_text, points
from harness.record import Interval
from helpers.browsing import Visitor
from helpers.tables import row


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


@pytest.mark.browser
def test_a_point_of_the_trade_off_leads_to_its_run(visitor: Visitor) -> None:
    page = visitor.open("/trade-off?benchmark=scenes_hallucination&cost=TFLOPs")
    assert re.search(r"\d+ of \d+ rows are on the Pareto front, cheapest first: zero_shot", visitor.text())
    chart = page.get_by_test_id("stVegaLiteChart")
    chart.locator("svg path[aria-roledescription=point]").first.wait_for()
    chart.locator("svg path[aria-roledescription=point]").last.click()
    page.wait_for_url("**/run?*run=*")
    visitor.settle()
    page.go_back()
    page.wait_for_url("**/trade-off?*cost=TFLOPs*")
    visitor.settle()
    chart.locator("svg path[aria-roledescription=point]").first.wait_for()
    visitor.shot("trade_off_tflops")
