"""The page of the arena's own controls: differences, differences of differences, and what it says of their sign."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from harness.config import parse, read_toml
from harness.errors import ConfigError
from harness.leaderboard.seed_results import SeedResults
from harness.suite import SuiteConfig
from helpers.common import ROOT

BENCHMARK = "scenes_hallucination"


@pytest.fixture
def sanity_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("scripts.sanity_page")


@pytest.fixture
def suite() -> SuiteConfig:
    path = ROOT / "suites" / "sanity.toml"
    return parse(SuiteConfig, read_toml(path), str(path))


def row(*accuracies: float) -> SeedResults:
    """Three seeds whose replicates over images lie within a tenth of a point of the seed's own figure."""
    points = np.array(accuracies)
    drawn = points + np.random.default_rng(0).normal(0, 0.001, (2000, 1))
    return SeedResults(
        seeds=(0, 1, 2), groups=500, size=500, examples="same", points={"accuracy": points},
        replicates={"accuracy": drawn},
    )  # fmt: skip


def test_the_suite_has_the_rows_of_every_check(sanity_page: ModuleType, suite: SuiteConfig) -> None:
    labels = [run.label for run in suite.runs]
    assert len(set(labels)) == len(labels)
    for check in sanity_page.CHECKS:
        assert {*check.pair, *(check.minus or ())} <= set(labels), check.key


def test_two_lines_with_one_label_are_refused(sanity_page: ModuleType, suite: SuiteConfig) -> None:
    twice = suite.model_copy(
        update={"runs": (suite.runs[0], suite.runs[1].model_copy(update={"label": "direct tuning"}))}
    )
    with pytest.raises(ConfigError, match="two lines are called 'direct tuning'"):
        sanity_page.run_ids(twice)


def test_signs_of_differences(sanity_page: ModuleType, suite: SuiteConfig) -> None:
    rows = {
        "direct tuning": row(0.60, 0.61, 0.62),
        "KD on the pool": row(0.70, 0.71, 0.72),
        "wrong teacher": row(0.55, 0.56, 0.57),
        "twin": row(0.70, 0.71, 0.72),
        "untuned teacher": row(0.73, 0.74, 0.75),
    }
    found = {one.check: one for one in sanity_page.outcomes({(k, BENCHMARK): v for k, v in rows.items()}, suite)}
    assert set(found) == {"a", "d", "e", "g"}  # the others' rows aren't there
    assert found["a"].value == pytest.approx(10)
    assert {key: (one.found, one.holds) for key, one in found.items()} == {
        "a": ("above 0", True), "d": ("below 0", True), "e": ("below 0", False), "g": ("around 0", True),
    }  # fmt: skip
    page = sanity_page.page(list(found.values()))
    assert "| a | KD on the pool beats direct tuning on the labels | +10.0 [" in page
    assert page.count("as known |") == 3
    assert "**below 0**" in page


def test_a_gain_in_one_situation_less_the_gain_in_another(sanity_page: ModuleType) -> None:
    """(0.70 - 0.50) - (0.80 - 0.75) = 0.15, seed by seed."""
    (check,) = (one for one in sanity_page.CHECKS if one.key == "c1")
    rows = dict(zip((*check.pair, *check.minus), (row(0.70, 0.71, 0.72), row(0.50, 0.51, 0.52), row(0.80, 0.81, 0.82),
                                                  row(0.75, 0.76, 0.77)), strict=True))  # fmt: skip
    found = sanity_page.difference(rows, check)
    assert found.value == pytest.approx(0.15)
    assert found.low > 0
    assert sanity_page.difference({k: v for k, v in rows.items() if k != check.pair[0]}, check) is None
