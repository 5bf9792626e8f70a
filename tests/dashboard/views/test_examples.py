"""The page of examples in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.browsing import Visitor, scenes_run, serving

HKD = scenes_run("hkd4vlm-S-scenes_factuality-s0", ppod=True)


TUNED = scenes_run("finetune-S-scenes_factuality-s0")


pytestmark = pytest.mark.browser


def test_examples_show_pictures_texts_and_answers(visitor: Visitor) -> None:
    page = visitor.open(f"/examples?run={HKD}&run={TUNED}")
    cards = page.locator(".hkd-card")
    cards.nth(7).wait_for()
    assert page.locator(".hkd-card img").count() == 8
    first = cards.first.inner_text()
    for part in ("test-0", "Context", "Claim", "right answer", "hkd4vlm", "finetune S s0", "%", "chosen"):
        assert part in first, part
    loaded = "all => all.every(image => image.complete && image.naturalWidth == 256)"
    visitor.until(lambda: page.locator(".hkd-card img").evaluate_all(loaded))
    visitor.shot("examples")
    page.get_by_role("button", name="Next page").click()
    page.wait_for_url("**page=2*")
    page.get_by_text("test-8", exact=True).wait_for()
    visitor.open(f"/examples?run={HKD}&page=125")
    page.get_by_text("test-999", exact=True).wait_for()


def test_filters_of_examples_stand_in_the_url(visitor: Visitor) -> None:
    page = visitor.open(f"/examples?run={HKD}&run={TUNED}&show=the+runs+disagree&category=count&order=surest+first")
    counted = re.search(r"(\d+) of 1,000 examples", visitor.text())
    assert counted
    assert 0 < int(counted[1]) < 43
    cards = page.locator(".hkd-card p:has(> b)")
    cards.nth(min(8, int(counted[1])) - 1).wait_for()
    heads = cards.all_inner_texts()
    assert len(heads) == min(8, int(counted[1]))
    assert all(head.endswith("· count") for head in heads)
    page.get_by_label("Id contains").fill("test-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**id=test-1*")
    visitor.settle()
    fewer = re.search(r"(\d+) of 1,000 examples", visitor.text())
    assert fewer
    assert int(fewer[1]) < int(counted[1])
    page.go_back()
    visitor.says(counted[0])
    visitor.open(f"/examples?run={HKD}&id=nothing-like-it")
    assert "loosen the filters" in visitor.text()


def test_pictures_of_a_plugin_need_the_plugin(
    toy_store: Path, toy_served: str, visitor_of: Callable[..., Visitor]
) -> None:
    visitor = visitor_of(toy_served)
    visitor.open("/examples").locator(".hkd-card img").nth(7).wait_for()
    with serving(toy_store) as url:
        other = visitor_of(url)
        other.open("/examples").locator(".hkd-card").nth(7).wait_for()
        other.says("Only answers are shown", "hkdbench dashboard --plugin FILE.py")
        assert other.page.locator(".hkd-card img").count() == 0
        other.close()
