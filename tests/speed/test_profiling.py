"""Where a step's time goes: nested spans by hand, and a few steps of a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.speed.profiling import PARTS, exclusive


def test_a_span_counts_without_what_is_in_it() -> None:
    """loss [0, 100] holds data [10, 30] and language [30, 90], which holds vision [40, 60]; backward comes after."""
    spans = [("vision", 40, 60), ("loss", 0, 100), ("backward", 100, 150), ("language", 30, 90), ("data", 10, 30)]
    assert exclusive(spans) == {"loss": 20, "data": 20, "language": 40, "vision": 20, "backward": 50}
    assert exclusive([]) == {}


@pytest.mark.slow
def test_the_parts_of_a_step(cli: Any, toy_run: list[str], tmp_path: Path) -> None:
    args = ["offline_kd" if word == "finetune" else word for word in toy_run if word not in ("--workers", "0")]
    found = cli("profile", *args, "--steps", 2, "--warm", 1, "--trace", tmp_path / "traces", "--json").json
    assert [stage["stage"] for stage in found["stages"]] == ["teacher", "distil"]
    for stage in found["stages"]:
        assert stage["steps"] == 2
        assert list(stage["parts"]) == list(PARTS)
        assert 0 < stage["share_of_limit"] < 1
        assert stage["flops"] == pytest.approx(stage["share_of_limit"] * found["limit_flops"])
        assert len(stage["wastes"]) == 3
        assert 0 < sum(waste["share"] for waste in stage["wastes"]) <= 1.01
        assert not any("mm" in waste["what"] for waste in stage["wastes"])
        for part in ("data", "vision", "language", "loss", "backward", "optimizer"):
            assert stage["parts"][part] > 0, part
        assert sum(stage["parts"].values()) == pytest.approx(stage["seconds_a_step"], rel=0.01)
        events = json.loads(Path(stage["trace"]).read_text())["traceEvents"]
        assert {"hkdbench:vision", "hkdbench:backward"} <= {event.get("name") for event in events}


def test_nothing_to_profile(cli: Any, toy_run: list[str]) -> None:
    args = ["zero_shot" if word == "finetune" else word for word in toy_run if word not in ("--workers", "0")]
    said = cli("profile", *args)
    assert said.code == 2
    assert "trains nothing" in said.err
