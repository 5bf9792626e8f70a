"""The page of an ablation in a browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


def test_an_ablation_is_a_forest_with_costs_beside(toy_served: str, visitor_of: Callable[..., Visitor]) -> None:
    visitor = visitor_of(toy_served)
    page = visitor.open("/ablation")
    visitor.says(
        "Full method: parted, 1 seed",
        "(Holm, p < 0.05)",
        "Parts switched off",
        "Variants, by the setting that they change",
        "-warmth",
        "warmth = 0.001",
        "finetune (S)",
        "majority",
    )
    visitor.says(
        "Not run: colder",
        "training TFLOP (change)",
        "Two against each other",
        " points in test/accuracy, raw p ",
    )
    assert "Difference to the full method in test/accuracy, points" in page.content()
    visitor.shot("ablation")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    assert (download.value.path()).read_text().startswith("line,part,value")
