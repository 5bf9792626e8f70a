"""What a reader comes for, in a browser: ten tasks, each with the clicks that it may take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


class Reader:
    """A visitor whose clicks are counted."""

    def __init__(self, visitor: Visitor, path: str = "/") -> None:
        self.visitor = visitor
        self.page = visitor.open(path)
        self.clicks = 0

    def click(self, found: Any) -> None:
        found.click()
        self.clicks += 1
        self.visitor.settle()

    def reads(self, *parts: str) -> None:
        """Waits until the page has text that fits these patterns."""
        texts = [re.compile(part, re.DOTALL) for part in parts]
        self.visitor.until(lambda: all(text.search(self.visitor.text()) for text in texts))


def test_who_wins_by_how_much_and_what_it_costs_here_and_on_another_benchmark(visitor: Visitor) -> None:
    reader = Reader(visitor)
    answers = r"Best for student S: .*compared with direct tuning", r"Holm p.*TFLOPs.*forwards"
    reader.reads(*answers)
    assert reader.page.get_by_role("table", name=re.compile("^Student S: differences to direct tuning")).count() == 1
    reader.click(reader.page.get_by_role("button", name="scenes_hallucination"))
    reader.page.wait_for_url("**benchmark=scenes_hallucination")
    reader.reads(*answers)
    assert reader.clicks == 1


def test_the_pictures_on_which_two_methods_disagree(visitor: Visitor) -> None:
    reader = Reader(visitor)
    answer = reader.page.get_by_role("table", name=re.compile("^Student S: differences"))
    reader.click(answer.get_by_role("link", name=re.compile(r"^\+")).first)
    cards = reader.page.locator(".hkd-card img")
    visitor.until(lambda: cards.count() == 5)
    assert reader.clicks <= 2


def test_a_filtered_view_opens_the_same_elsewhere(
    visitor: Visitor, served: str, visitor_of: Callable[..., Visitor]
) -> None:
    reader = Reader(visitor)
    reader.page.get_by_placeholder("method, setting or student").fill("hkd4vlm")
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_url("**q=hkd4vlm*")
    visitor.settle()
    said = reader.page.locator("table").last.inner_text()
    other = visitor_of(served)
    other.open(reader.page.url.removeprefix(served))
    assert other.page.locator("table").last.inner_text() == said
    assert reader.clicks == 0  # but for the copy of the address


def test_latex_of_the_ranking_and_what_a_column_means(visitor: Visitor) -> None:
    reader = Reader(visitor)
    reader.click(reader.page.get_by_role("button", name="Download"))
    with reader.page.expect_download() as waiting:
        reader.page.get_by_role("button", name="LaTeX", exact=True).click()  # the second click
    assert r"\begin{tabular" in waiting.value.path().read_text("utf-8")
    assert reader.clicks + 1 == 2
    reader.page.keyboard.press("Escape")
    with reader.page.expect_download() as waiting:
        reader.page.get_by_role("button", name=re.compile("^JSON: save the table “Student S")).click()
    assert '"student S": "' in waiting.value.path().read_text("utf-8")
    before = reader.clicks
    reader.click(reader.page.get_by_text("What the columns mean").last)
    reader.reads("forward passes", "Holm")
    assert reader.clicks - before == 1


def test_how_to_reproduce_a_row(visitor: Visitor) -> None:
    reader = Reader(visitor)
    answer = reader.page.get_by_role("table", name=re.compile("^Student S: differences"))
    reader.click(answer.get_by_role("link", name="hkd4vlm").first)
    reader.click(reader.page.get_by_role("tab", name="Provenance"))
    reader.reads("hkdbench run --method hkd4vlm", "hkdbench reproduce hkd4vlm-S-")
    assert reader.clicks == 2


def test_why_a_seed_failed(toy_served: str, visitor_of: Callable[..., Visitor]) -> None:
    reader = Reader(visitor_of(toy_served))
    reader.click(reader.page.get_by_role("link", name=re.compile("Runs$")))
    reader.click(reader.page.get_by_role("link", name="finetune-failed"))
    reader.reads("the loss is not finite: lower train.lr", "runs it again")
    assert reader.clicks == 2


def test_the_best_trial_of_a_sweep_and_two_switches_of_an_ablation(
    toy_served: str, visitor_of: Callable[..., Visitor]
) -> None:
    reader = Reader(visitor_of(toy_served))
    reader.click(reader.page.get_by_role("link", name=re.compile("Sweep$")))
    reader.reads(r"Best trial: number \d", "Curves of all trials")
    assert reader.clicks == 1
    reader = Reader(reader.visitor, "/ablation")
    second = reader.page.get_by_role("combobox", name="Second")
    second.scroll_into_view_if_needed()  # a list that is open closes when the page scrolls
    reader.page.wait_for_timeout(500)
    reader.click(second)
    reader.click(reader.page.get_by_role("option").last)
    reader.reads(r"minus .* points in test/accuracy, raw p")
    assert "second=" in reader.page.url
    assert reader.clicks == 2
