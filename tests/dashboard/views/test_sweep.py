"""The page of a sweep in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


def test_trials_lead_to_their_runs(toy_served: str, visitor_of: Callable[..., Visitor]) -> None:
    visitor = visitor_of(toy_served)
    page = visitor.open("/sweep?method=parted")
    visitor.says("5 trials", "Best so far", "Curves of all trials", "Importance of settings", "warmth",
         "Two settings together", "Result by setting", "loud")  # fmt: skip
    # best so far, importance, curves, parallel, two together, two slices
    assert page.locator("[data-testid=stVegaLiteChart]").count() == 7
    visitor.shot("sweep")
    page.get_by_role("link", name=re.compile("^parted-S-toy-s")).last.click()
    page.get_by_text("parted on toy").wait_for()
    assert "run=parted-S-toy-s" in page.url
    page.go_back()
    page.get_by_text("5 trials").wait_for()
