"""Runs in a tracker's form: every loss that the history has, and the figures of the record."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig, TrackConfig, parse
from harness.errors import ConfigError
from harness.execution.trackers import tracker
from harness.store import Store
from helpers.common import Cli


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the run was tracked in."""
    return tmp_path_factory.mktemp("boards")


@pytest.fixture
def run(cli: Cli, toy_run: list[str], boards: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of a run that all trackers follow, on this disk alone."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(boards))
    args = ["run", *toy_run, "--store", boards / "store", "--json"]
    tracks = {"tensorboard": boards / "events", "mlflow": f"file:{boards / 'mlflow'}", "wandb": "hkd"}
    tracks |= {"logs": boards / "logs"}
    said = cli(*args, *(part for name, where in tracks.items() for part in ("--set", f"track.{name}={where}")))
    assert said.code == 0, said.err
    assert "left out" not in said.err
    record: dict[str, Any] = said.json
    assert cli(*args).json == record  # tracked or not, it is the same run: it is there already
    return record


def losses(boards: Path, run_id: str) -> list[tuple[int, float]]:
    history = Store(boards / "store").history(run_id)
    found = history[history["term"] == "loss/ce"]
    assert len(found) == 12
    return [(step, pytest.approx(value)) for step, value in zip(found["step"], found["value"], strict=True)]


def framed(data: bytes) -> Iterator[bytes]:
    """The records of a TensorBoard file: length, sum, body, sum."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 12 + length + 4


def test_every_tracker_has_the_losses_and_the_figures(run: dict[str, Any], boards: Path) -> None:
    run_id, accuracy = run["run_id"], run["metrics"]["test"]["accuracy"]["value"]
    expected = losses(boards, run_id)

    from tensorboardX.proto.event_pb2 import Event

    (file,) = (boards / "events" / run_id).glob("events.*")
    scalars = [
        (v.tag, e.step, v.simple_value)
        for e in map(Event.FromString, framed(file.read_bytes()))
        for v in e.summary.value
    ]
    assert [(step, value) for tag, step, value in scalars if tag == "tune/student.ce"] == expected
    assert {tag: value for tag, _, value in scalars}["test/accuracy"] == pytest.approx(accuracy)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"file:{boards / 'mlflow'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "hkdbench"]
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.run_name == run_id
    assert kept.info.status == "FINISHED"
    assert kept.data.params["train.lr"] == "0.003"
    curve = client.get_metric_history(kept.info.run_id, "tune/student.ce")
    assert sorted((point.step, point.value) for point in curve) == expected
    assert kept.data.metrics["test/accuracy"] == pytest.approx(accuracy)

    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = boards.glob("wandb/offline-run-*/*.wandb")
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in map(Record.FromString, leveldb(file.read_bytes()))
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["step"], row["tune/student.ce"]) for row in rows if "tune/student.ce" in row] == expected
    assert rows[-1]["test/accuracy"] == pytest.approx(accuracy)

    # The log: one line an event.
    log = [json.loads(line) for line in (boards / "logs" / f"{run_id}.jsonl").read_text().splitlines()]
    assert {line["run_id"] for line in log} == {run_id}
    assert {line["level"] for line in log} == {"info"}
    assert [line["time"] for line in log] == sorted(line["time"] for line in log)
    assert [line["event"] for line in log[:1] + log[-1:]] == ["began", "ended"]
    told = [line for line in log if line["event"] == "losses"]
    assert [(line["step"], line["losses"]["student.ce"]) for line in told] == expected
    assert sum(line["examples"] for line in told) == run["budget"]
    assert sum(line["seconds"] for line in told) <= run["cost"]["train_seconds"]
    assert sum(line["waited"] for line in told) == pytest.approx(run["cost"]["data_seconds"])
    assert 0 < run["cost"]["data_seconds"] < run["cost"]["train_seconds"]
    assert log[-1]["accuracy"]["test"] == accuracy
    launched = [json.loads(line) for line in (boards / "logs" / "launch.jsonl").read_text().splitlines()]
    assert [(line["event"], line["run_id"]) for line in launched] == [("to_run", None)]


def leveldb(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file: blocks of 32 KiB, in them parts of records (sum, length, whole|first|middle|last)."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_a_tracker_that_fails_is_left_out(tmp_path: Path) -> None:
    config = parse(RunConfig, {"method": "finetune", "benchmark": "toy"}, "x")
    notes: list[str] = []
    (tmp_path / "file").write_text("")
    see = tracker(TrackConfig(tensorboard=tmp_path / "file"), Store(tmp_path / "store"), {"r": config}, notes.append)
    for step in (1, 2):
        see({"run_id": "r", "stage": "tune", "step": step, "steps": 2, "losses": {"student.ce": 1.0}})
    (note,) = notes
    assert note.startswith("track.tensorboard failed, and is switched off: ")


@pytest.mark.parametrize(("name", "library"), [("mlflow", "mlflow.tracking"), ("wandb", "wandb")])
def test_a_library_that_is_missing_is_named(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"track\.{name} needs .*hkdbench\[{name}\]"):
        tracker(TrackConfig(**{name: "x"}), Store(tmp_path), {}, lambda note: None)


def test_a_sweep_without_its_trackers_library_is_refused_at_once(
    cli: Cli, toy: str, toy_ladder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by each of its trials: nothing is written, no cluster started."""
    (tmp_path / "sweep.toml").write_text(
        f'name = "x"\ntrials = 2\nbenchmarks = ["toy"]\nladder = "{toy_ladder}"\nplugins = ["{toy}"]\n'
        'train = { examples = 16, batch_size = 8 }\n[[methods]]\nmethod = "finetune"\n'
        '[methods.space]\n"train.lr" = { choice = [0.001, 0.003] }\n'
    )
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = cli("sweep", tmp_path / "sweep.toml", "--store", tmp_path / "store", "--set", "track.wandb=x")
    assert said.code == 2
    assert "track.wandb needs wandb, which isn't installed: pip install 'hkdbench[wandb]'" in said.err
    assert not (tmp_path / "store").exists()
