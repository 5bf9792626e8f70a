"""The descriptions of methods and benchmarks."""

from __future__ import annotations

import pytest

from dashboard.data import catalog
from harness.errors import ConfigError
from harness.leaderboard.ablation import Ablation, AblationFigure, AblationLine, AblationResult
from harness.record import Interval
from harness.store import Store


def ablation() -> Ablation:
    def result(label: str, part: str, difference: float | None, p: float | None) -> AblationResult:
        apart = None if difference is None else Interval(value=difference, low=difference - 0.1, high=difference + 0.1)
        figure = AblationFigure(value=Interval(value=0.5), difference=apart, p=p, p_holm=p)
        figures = {"test/accuracy": figure}
        return AblationResult(label=label, part=part, changed={"warmth": 0.0}, seeds=(0, 1), figures=figures)  # type: ignore[arg-type]

    results = (result("full", "full", None, None), result("-a", "ablation", -0.2, 0.01),
               result("-b", "ablation", 0.05, 0.5), result("majority", "control", -0.4, None))  # fmt: skip
    line = AblationLine(label="full", part="full", method="m", student="S", settings={}, runs={"toy": {0: "r"}})
    return Ablation(name="m_ablation", method="m", lines=(line,), tables={"toy": results})


def test_every_method_and_benchmark_is_described() -> None:
    methods, benchmarks = catalog.methods(), catalog.benchmarks()
    assert {"hkd4vlm", "reverse_kl"} <= set(methods["method"])
    assert {"pope", "scenes_factuality"} <= set(benchmarks["benchmark"])
    assert not benchmarks["summary"].str.contains("`group`").any()
    found = catalog.method("hkd4vlm")
    assert found["stages"]["stage"].unique().tolist() == ["ppod", "tcrd"]
    assert "-MSI" in found["ablations"]["ablation"].tolist()
    assert len(catalog.settings(found)) > 20
    assert catalog.method("zero_shot")["stages"].empty
    with pytest.raises(ConfigError):
        catalog.benchmark("scenes_halucination", Store("nowhere"))


def test_the_smallest_difference_by_size() -> None:
    """A tenth of 1,000 examples is discordant: (1.96 + 0.84) x sqrt(0.1 / 1000) = 2.80 points."""
    frame = catalog.by_size(1000).set_index("discordant")
    assert frame.loc[10.0, "difference"] == pytest.approx(2.80, abs=0.02)
