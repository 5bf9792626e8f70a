"""The leaderboard in a browser: what is in its rows; links, filters, pins, sorting, back and downloads work."""

from __future__ import annotations

import csv
import re
from typing import Any

import pytest

from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


def board(visitor: Visitor) -> Any:
    """The ranking's table: the last one, below those of the answers."""
    return visitor.page.locator("table").last


def column(visitor: Visitor, number: int) -> list[str]:
    """The texts in a column of the table, from 0."""
    cells = board(visitor).locator(f"tbody td:nth-child({number + 1})").all_inner_texts()
    return [text.split("\n")[0].strip() for text in cells]


def methods(visitor: Visitor) -> list[str]:
    heads = [text.strip() for text in board(visitor).locator("thead th").all_inner_texts()]
    found = [k for k, head in enumerate(heads) if head.startswith("method")]
    return column(visitor, found[0]) if found else []


def test_rows_have_scores_with_intervals_drawn_and_lead_to_their_runs(visitor: Visitor) -> None:
    page = visitor.open("/?benchmark=scenes_hallucination")
    assert board(visitor).locator("tbody tr").count() >= 8
    answer = page.get_by_role("table", name="Student S: differences to direct tuning; dotted line: finetune (L)")
    assert re.search(
        r"hkd4vlm.*\+6\.9 \[\+4\.2, \+9\.5\].*significant.*2\.56.*3", answer.inner_text().replace("\n", " ")
    )
    page.get_by_text("What the columns mean").first.click()  # by touch; the keyboard opens it, too
    page.get_by_text("Paired by seed and example, with its 95 % interval.").first.wait_for()
    assert re.search(
        r"Best for student S: .*, \d\d\.\d \[\d\d\.\d, \d\d\.\d\] %: .*compared with direct tuning", visitor.text()
    )
    assert page.locator("tbody tr svg.interval .range").count() >= 3 * 8
    assert page.locator("tr.quiet", has_text="majority").count() == 1
    visitor.shot("leaderboard_rows")
    board(visitor).get_by_role("link", name="finetune").first.click()
    page.wait_for_url("**/run?*run=finetune-L-scenes_hallucination-s0-*")
    visitor.settle()
    page.go_back()
    page.wait_for_url(re.compile(r"/\?benchmark=scenes_hallucination$"))
    visitor.settle()
    page.locator("tbody tr").first.wait_for()


def test_filters_stand_in_the_url_and_back_undoes_them(visitor: Visitor) -> None:
    page = visitor.open("/?benchmark=scenes_hallucination&size=S&controls=false&q=kd")
    assert {method.partition(" ")[0] for method in methods(visitor)} == {"offline_kd", "hkd4vlm"}
    page = visitor.open("/?benchmark=scenes_hallucination")
    everyone = methods(visitor)
    page.get_by_placeholder("method, setting or student").fill("offline")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=offline*")
    visitor.until(lambda: [m.partition(" ")[0] for m in methods(visitor)] == ["offline_kd"] * 2)
    page.go_back()
    visitor.until(lambda: methods(visitor) == everyone)
    page.go_forward()
    visitor.until(lambda: [m.partition(" ")[0] for m in methods(visitor)] == ["offline_kd"] * 2)


def test_a_pinned_row_is_what_others_are_compared_with(visitor: Visitor) -> None:
    page = visitor.open("/?benchmark=scenes_hallucination")
    page.get_by_role("button", name="Pin finetune (S) as the row").click()
    page.wait_for_url("**baseline=finetune%40S*")
    page.get_by_role("button", name="Unpin finetune (S)").wait_for()
    visitor.until(lambda: "pinned" in board(visitor).locator("tr.marked").all_inner_texts()[0])
    row = board(visitor).locator("tbody tr", has_text="ppod_weight").filter(has=page.get_by_text("S", exact=True))
    difference = row.locator("a", has_text=re.compile(r"^[+−]\d"))
    assert difference.count() == 1
    visitor.shot("leaderboard_pinned")
    difference.click()
    page.wait_for_url("**/compare?*baseline=finetune%40S&a=hkd4vlm-*&b=finetune-S-*")
    visitor.until(lambda: "in accuracy: " in visitor.text())
    assert "scenes_hallucination" in page.title()
    page.get_by_role("link", name="Trade-off").click()  # the menu keeps the place
    page.wait_for_url("**/trade-off?benchmark=scenes_hallucination&baseline=finetune%40S")
    visitor.settle()
    page.go_back()
    page.wait_for_url("**/compare?*")
    visitor.settle()
    page.go_back()
    page.wait_for_url(lambda url: "/compare" not in url)
    visitor.settle()
    page.get_by_role("button", name="Unpin finetune (S)").click()
    page.wait_for_url(lambda url: "baseline" not in url)
    visitor.until(lambda: not board(visitor).locator("tr.marked").count())


def test_sorting_by_keyboard_both_ways(visitor: Visitor) -> None:
    page = visitor.open("/?benchmark=scenes_hallucination")
    head = page.get_by_role("button", name="Sort by params")
    head.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**sort=parameters*")
    page.locator("th[aria-sort=ascending]", has_text="params").wait_for()
    assert column(visitor, 4)[-3] == "L"  # the controls have none: they come last
    page.keyboard.press("Enter")  # the focus stays where it was
    page.locator("th[aria-sort=descending]", has_text="params").wait_for()
    assert column(visitor, 4)[0] == "L"


@pytest.mark.parametrize(("kind", "start"), [("CSV", "rank,benchmark"), ("LaTeX", "% needs"), ("Markdown", "**scenes")])
def test_downloads_hold_what_is_shown(visitor: Visitor, kind: str, start: str) -> None:
    page = visitor.open("/?benchmark=scenes_hallucination&size=S&controls=false&sort=score")
    shown = methods(visitor)
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind, exact=True).click()
    text = waiting.value.path().read_text("utf-8")
    assert text.startswith(start)
    if kind == "CSV":
        assert [row["label"] for row in csv.DictReader(text.splitlines())] == shown
    else:
        rows = text[text.index({"LaTeX": "midrule", "Markdown": "|---"}[kind]) :].replace("\\_", "_")
        places = [rows.index(name.split()[0]) for name in shown]
        assert places == sorted(places)
        assert "majority" not in text


def test_all_benchmarks_with_weights(visitor: Visitor) -> None:
    page = visitor.open("/?benchmark=All+benchmarks")
    assert "weighted mean of accuracy" in visitor.text()
    page.get_by_text("Weights of the benchmarks").click()
    visitor.shot("leaderboard_all")
    one = visitor.open("/?benchmark=All+benchmarks&weight+scenes_factuality=0")
    heads = one.locator("thead th").all_inner_texts()
    means = column(visitor, 3)
    alone = column(visitor, next(k for k, head in enumerate(heads) if head.startswith("scenes_hallucination")))
    assert [mean.split()[0] for mean in means] == [figure.split()[0] for figure in alone]
