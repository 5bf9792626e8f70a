"""The cards of methods and benchmarks in a browser."""

from __future__ import annotations

import pytest

from helpers.browsing import Visitor

pytestmark = pytest.mark.browser


def test_methods_and_benchmarks_are_told(visitor: Visitor) -> None:
    page = visitor.open("/about?what=Methods&which=hkd4vlm")
    visitor.says("is a reconstruction", "softmax(z_m", "ppod_share", "topology = chain", "arXiv 2506.13038")
    visitor.open("/about?what=Benchmarks&which=scenes_factuality")
    visitor.says("Apache-2.0", "test 1,000", "Measured in this store", "With 1,000 test examples")
    visitor.shot("about_benchmark")
    visitor.open("/about?what=Benchmarks&which=pope")
    page.get_by_text("hkdbench dashboard --data-dir pope=FOLDER").wait_for()
    visitor.open("/about")
    page.get_by_role("link", name="hallusionbench").click()
    page.wait_for_url("**which=hallusionbench*")
    visitor.says("BSD-3-Clause")
