"""The pages of runs, examples, ablations, sweeps, texts and what goes on, in a browser, on runs of the command."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.report.format import percent
from harness.store import Store, live
from helpers.browsing import SECONDS, Visitor, scenes_run, serving
from helpers.common import ROOT

HKD = scenes_run("hkd4vlm-S-scenes_factuality-s0", ppod=True)
TUNED = scenes_run("finetune-S-scenes_factuality-s0")

pytestmark = pytest.mark.browser


def says(visitor: Visitor, *parts: str) -> None:
    """Waits until the page says all of this."""
    visitor.until(lambda: all(part in visitor.text() for part in parts))


# --------------------------------------------------------------------------------------------- run


def test_a_run_has_figures_curves_costs_and_an_origin(visitor: Visitor) -> None:
    page = visitor.open(f"/run?run={HKD}")
    accuracy = Store(ROOT / "results" / "scenes").read(HKD).metrics["test"]["accuracy"]
    says(visitor, "hkd4vlm on scenes_factuality", percent(accuracy), "reconstruction", "Accuracy by category")
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


# ---------------------------------------------------------------------------------------- examples


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
    says(visitor, counted[0])
    visitor.open(f"/examples?run={HKD}&id=nothing-like-it")
    assert "loosen the filters" in visitor.text()


# ------------------------------------------------------------------- ablation, sweep: runs of the toy


def test_an_ablation_is_a_forest_with_costs_beside(toy_served: str, visitor_of: Callable[..., Visitor]) -> None:
    visitor = visitor_of(toy_served)
    page = visitor.open("/ablation")
    says(
        visitor,
        "Full method: parted, 1 seed",
        "(Holm, p < 0.05)",
        "Parts switched off",
        "Variants, by the setting that they change",
        "-warmth",
        "warmth = 0.001",
        "finetune (S)",
        "majority",
    )
    says(
        visitor,
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


def test_trials_lead_to_their_runs(toy_served: str, visitor_of: Callable[..., Visitor]) -> None:
    visitor = visitor_of(toy_served)
    page = visitor.open("/sweep?method=parted")
    says(visitor, "5 trials", "Best so far", "Curves of all trials", "Importance of settings", "warmth",
         "Two settings together", "Result by setting", "loud")  # fmt: skip
    # best so far, importance, curves, parallel, two together, two slices
    assert page.locator("[data-testid=stVegaLiteChart]").count() == 7
    visitor.shot("sweep")
    page.get_by_role("link", name=re.compile("^parted-S-toy-s")).last.click()
    page.get_by_text("parted on toy").wait_for()
    assert "/run?run=parted-S-toy-s" in page.url
    page.go_back()
    page.get_by_text("5 trials").wait_for()


def test_pictures_of_a_plugin_need_the_plugin(
    toy_store: Path, toy_served: str, visitor_of: Callable[..., Visitor]
) -> None:
    visitor = visitor_of(toy_served)
    visitor.open("/examples").locator(".hkd-card img").nth(7).wait_for()
    with serving(toy_store) as url:
        other = visitor_of(url)
        other.open("/examples").locator(".hkd-card").nth(7).wait_for()
        says(other, "Only answers are shown", "hkdbench dashboard --plugin FILE.py")
        assert other.page.locator(".hkd-card img").count() == 0
        other.close()


# ------------------------------------------------------------------------------ texts, live, empty


def test_methods_and_benchmarks_are_told(visitor: Visitor) -> None:
    page = visitor.open("/about?what=Methods&which=hkd4vlm")
    says(visitor, "is a reconstruction", "softmax(z_m", "ppod_share", "topology = chain", "arXiv 2506.13038")
    visitor.open("/about?what=Benchmarks&which=scenes_factuality")
    says(visitor, "Apache-2.0", "test 1,000", "Measured in this store", "With 1,000 test examples")
    visitor.shot("about_benchmark")
    visitor.open("/about?what=Benchmarks&which=pope")
    page.get_by_text("hkdbench dashboard --data-dir pope=FOLDER").wait_for()
    visitor.open("/about")
    page.get_by_role("link", name="hallusionbench").click()
    page.wait_for_url("**which=hallusionbench*")
    says(visitor, "BSD-3-Clause")


def test_a_run_in_progress_is_followed_without_the_page_running_again(
    tmp_path: Path, visitor_of: Callable[..., Visitor]
) -> None:
    store = Store(tmp_path / "runs")
    work = store.work("finetune-S-toy-s0-0")
    work.mkdir(parents=True)

    def say(step: int) -> None:
        points = [["tune", k, k / 40, "student", "loss/ce", 1 / k] for k in range(1, step + 1)]
        now = {"run_id": "finetune-S-toy-s0-0", "method": "finetune", "benchmark": "toy", "student": "S", "seed": 0,
               "stages": ["tune"], "started": time.time() - 90, "updated": time.time(), "stage": "tune",
               "step": step, "steps": 40, "points": points}  # fmt: skip
        (work / "part").write_text(json.dumps(now))
        (work / "part").rename(work / live.FILE)

    say(3)
    with serving(store.root) as url:
        visitor = visitor_of(url)
        page = visitor.open("/live")
        page.get_by_text("3 of 40").wait_for()
        page.evaluate("window.still = true")
        say(12)
        page.get_by_text("12 of 40").wait_for(timeout=1000 * SECONDS)
        assert page.evaluate("window.still")  # the page wasn't loaded again
        assert page.locator("[data-testid=stVegaLiteChart]").count() == 1
        visitor.shot("live")
        (work / live.FILE).unlink()
        page.get_by_text("No run is in progress").wait_for(timeout=1000 * SECONDS)
        visitor.settle()
        visitor.close()
