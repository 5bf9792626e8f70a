"""An ablation as a table and in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.data import ablation as ablations
from harness.leaderboard.ablation import Ablation, AblationFigure, AblationLine, AblationResult, save
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


def test_an_ablation_says_what_is_significant(tmp_path: Path) -> None:
    frame = ablations.frame(ablation(), "toy", "test/accuracy")
    assert frame["verdict"].tolist() == [
        "the full method",
        "significant (Holm)",
        "not significant",
        "not tested",
    ]
    assert frame["value"].tolist()[1:] == pytest.approx([-20, 5, -40])
    assert frame["low"].tolist()[1] == pytest.approx(-30)
    assert ablations.in_words(frame, "test/accuracy") == (
        "Significantly different from the full method in test/accuracy (Holm, p < 0.05): -a (-20.0)."
        " Not significant: 1."
    )
    assert ablations.in_words(frame[2:], "x") == (
        "None of 1 ablations differs significantly from the full method in x (Holm, p < 0.05)."
    )
    changed = {
        "-a": {"warmth": 0.001},
        "frozen": {"online": False},
        "b": {"kind": "x", "warmth": False},
        "whole": {"kind": "y"},
    }
    groups = {k: ablations.group(AblationResult(label=k, part="ablation", changed=v)) for k, v in changed.items()}
    assert groups == {"-a": "parts", "frozen": "parts", "b": "kind, warmth", "whole": "kind"}
    store = Store(tmp_path)
    save(ablation(), store, "")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text('{"lines": [')
    assert ablations.names(store) == ["broken", "m_ablation"]
