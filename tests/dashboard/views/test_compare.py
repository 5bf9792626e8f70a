"""The comparison of two rows in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.leaderboard import compare
from harness.store import Store
from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


def test_compare_says_what_the_command_says(visitor: Visitor, scenes_store: Path) -> None:
    store = Store(scenes_store)
    one, other = compare.sides(store, "hkd4vlm@S ppod_weight=3.0", "finetune@S", benchmark="scenes_hallucination")
    found = compare.compare(store, one, other)
    d = found.difference
    page = visitor.open(f"/compare?a={one.runs[0]}&b={other.runs[0]}")
    text = visitor.text().replace("−", "-").replace("\u2060", "")
    assert d.low is not None
    assert d.high is not None
    assert f"A - B in accuracy: {100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] points" in text
    for category in found.categories:
        assert f"{100 * category.difference.value:+.1f}" in text
    assert f"{100 * found.errors.introduced.value:.1f}" in text
    visitor.shot("compare_rows")
    page.get_by_role("link", name=found.parted[0].id, exact=True).click()
    page.wait_for_url("**/examples?*run=*")
    assert page.url.count("run=") == 2
    assert f"id={found.parted[0].id}" in page.url


def test_sides_and_seeds_are_chosen_on_the_page(visitor: Visitor, scenes_store: Path) -> None:
    page = visitor.open("/compare?benchmark=scenes_factuality&seed=1")
    assert "one seed" in visitor.text()
    assert "McNemar" in visitor.text()
    page.get_by_role("combobox", name="B", exact=True).click()
    page.get_by_role("option", name="zero_shot (S)").click()
    page.wait_for_url("**b=zero_shot-S-scenes_factuality-*")
    visitor.until(lambda: "B, zero_shot (S)" in visitor.text())
    page.go_back()
    page.wait_for_url(lambda url: "zero_shot" not in url)
    visitor.until(lambda: "B, zero_shot (S)" not in visitor.text())
