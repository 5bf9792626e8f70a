"""The page of a run in a browser."""

from __future__ import annotations

import re

import pytest

from harness.report.format import percent
from harness.store import Store
from helpers.browsing import Visitor, scenes_run
from helpers.common import ROOT

HKD = scenes_run("hkd4vlm-S-scenes_factuality-s0", ppod=True)


pytestmark = pytest.mark.browser


def test_a_run_has_figures_curves_costs_and_an_origin(visitor: Visitor) -> None:
    page = visitor.open(f"/run?run={HKD}")
    accuracy = Store(ROOT / "results" / "scenes").read(HKD).metrics["test"]["accuracy"]
    visitor.says("hkd4vlm on scenes_factuality", percent(accuracy), "reconstruction", "Accuracy by category")
    visitor.until(lambda: page.locator("canvas, svg.marks").count() >= 3)  # categories, confusion, calibration
    visitor.shot("run_figures")
    page.get_by_role("tab", name="Curves").click()
    page.wait_for_url("**section=Curves*")
    charts = page.locator("[data-testid=stVegaLiteChart]")
    visitor.until(lambda: charts.count() == 6)  # every named loss term and the validation accuracy
    visitor.shot("run_curves")
    page.get_by_role("tab", name="Training").click()
    page.get_by_text("ppod.student").first.wait_for()
    page.get_by_role("tab", name="Cost").click()
    page.get_by_text("forward passes on test").wait_for()
    page.get_by_role("row", name=re.compile("^tcrd anchor 2,048 0")).wait_for()  # frozen: nothing was trained
    visitor.open(f"/run?run={HKD}&section=Training&split=ood")
    assert page.get_by_role("tab", name="Training").get_attribute("aria-selected") == "true"


def test_verify_says_whether_the_run_still_holds(visitor: Visitor) -> None:
    page = visitor.open(f"/run?run={HKD}&section=Provenance")
    page.get_by_text("data fingerprint", exact=True).wait_for()
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("nothing changed").wait_for()
    page.get_by_text(re.compile("42 recomputed")).wait_for()
    visitor.shot("run_verified")


def test_a_run_that_is_not_there_and_a_path_are_no_runs(visitor: Visitor) -> None:
    for run in ("gone", "../../etc/passwd", "%2e%2e%2fscenes"):
        visitor.open(f"/run?run={run}")
        visitor.page.get_by_text("The most recent runs:").wait_for()
    visitor.page.get_by_role("link", name=re.compile("-s4-")).first.click()
    visitor.page.get_by_text("test accuracy").first.wait_for()
    visitor.page.go_back()
    visitor.page.get_by_text("The most recent runs:").wait_for()
