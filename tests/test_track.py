"""Runs in TensorBoard's form: every loss that the history has, and the figures of the record."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import Cli

from harness.store import Store


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each scalar, from the records of the event files: length, sum, body, sum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value


def test_a_run_in_tensorboards_form(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    args = ["run", *toy_run, "--store", tmp_path / "store", "--json"]
    record = cli(*args, "--set", f"track.tensorboard={tmp_path / 'boards'}").json
    found = list(events(tmp_path / "boards" / record["run_id"]))
    history = Store(tmp_path / "store").history(record["run_id"])
    losses = history[history["term"] == "loss/ce"]
    assert len(losses) == 12
    assert [(step, value) for tag, step, value in found if tag == "tune/student.ce"] == [
        (step, pytest.approx(value)) for step, value in zip(losses["step"], losses["value"], strict=True)
    ]
    figures = {tag: value for tag, _, value in found}
    assert figures["test/accuracy"] == pytest.approx(record["metrics"]["test"]["accuracy"]["value"])
    said = cli(*args)
    assert said.code == 0, said.err
    assert said.json == record  # tracked or not, it is the same run: it is there already
