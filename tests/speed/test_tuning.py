"""`tune-speed`: which settings are tried, what counts as faster, and that the file it writes is a run's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig, parse
from harness.errors import ModelError
from harness.speed import steps, tuning
from harness.speed.steps import StageSpeed

CONFIG = parse(RunConfig, {"method": "finetune", "benchmark": "scenes_factuality"}, "test")


def priced(config: RunConfig) -> float:
    """A machine on which micro-batches of 8 and two threads are fast, fused attention isn't there, bf16 is slow."""
    if not isinstance(config.ladder, str) and config.ladder[0].attention == "sdpa":
        raise ModelError("no fused attention")
    size = config.train.micro_batch_size or config.train.batch_size
    seconds = 10.0 * {32: 1.0, 16: 0.99, 8: 0.5, 4: 0.8}[size]
    return seconds / config.cluster.cpus_per_worker * (3 if config.train.precision == "bf16" else 1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "timed", lambda config, *_: [StageSpeed("tune", 10, priced(config) / 10)])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)


def test_one_setting_after_the_other(machine: None) -> None:
    told: list[tuning.Measured] = []
    tuned = tuning.tune(CONFIG, 5, 2, True, told.append)
    assert told == tuned.trials
    assert [(t.setting.rpartition(".")[2], t.value, t.seconds) for t in told] == [
        ("given", "", 10.0),
        ("ladder", "attention = sdpa", None),
        ("micro_batch_size", "16", 9.9),
        ("micro_batch_size", "8", 5.0),
        ("micro_batch_size", "4", 8.0),
        ("cpus_per_worker", "2", 2.5),
        ("precision", "bf16", 7.5),
    ]
    assert told[1].problem == "no fused attention"
    assert tuned.changed == ("train.micro_batch_size", "cluster.cpus_per_worker")
    assert tuning.to_text(tuned).splitlines() == [
        "10.0 s -> 2.5 s for all steps with",
        "  --set train.micro_batch_size=8",
        "  --set cluster.cpus_per_worker=2",
    ]
    table = tomllib.loads(tuning.to_toml(tuned))
    assert table == {"train": {"micro_batch_size": 8}, "cluster": {"cpus_per_worker": 2}}
    given = CONFIG.model_dump(exclude_defaults=True)
    assert parse(RunConfig, given | table, "test") == tuned.config


def test_rounding_is_no_gain(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly(config: RunConfig, *_: int) -> list[StageSpeed]:
        return [StageSpeed("tune", 1, 1 - config.cluster.cpus_per_worker / 100)]

    monkeypatch.setattr(steps, "timed", nearly)
    tuned = tuning.tune(CONFIG, 5, 2, False)
    assert (tuned.changed, tuned.config) == ((), CONFIG)
    assert tuning.to_text(tuned) == "the given settings are the fastest of these"


def test_another_attention_is_a_ladder_of_its_own(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(config: RunConfig) -> float:
        return 1.0 if isinstance(config.ladder, str) else 0.5

    monkeypatch.setattr(steps, "timed", lambda config, *_: [StageSpeed("tune", 1, fused(config))])
    tuned = tuning.tune(CONFIG, 5, 2, False)
    table = tomllib.loads(tuning.to_toml(tuned))
    assert [rung["attention"] for rung in table["ladder"]] == ["sdpa"] * 3
    assert parse(RunConfig, CONFIG.model_dump(exclude_defaults=True) | table, "test") == tuned.config


@pytest.mark.slow
def test_real_steps(cli: Any, toy_run: list[str], tmp_path: Path) -> None:
    args = ["offline_kd" if word == "finetune" else word for word in toy_run if word not in ("--workers", "0")]
    said = cli("tune-speed", *args, "--steps", 1, "--warm", 1, "--out", tmp_path / "fast.toml", "--json")
    assert said.code == 0, said.err
    trials = said.json["trials"]
    assert trials[0]["setting"] == "given"
    assert {"train.micro_batch_size", "ladder"} <= {trial["setting"] for trial in trials}
    assert all(trial["seconds"] > 0 or trial["problem"] for trial in trials)
    tomllib.loads((tmp_path / "fast.toml").read_text())
    again = cli("tune-speed", *args, "--out", tmp_path / "fast.toml")
    assert (again.code, "exists already" in again.err) == (2, True)
