"""Structured logs: what went wrong is there with its reason, and a full disk stops the log alone."""

from __future__ import annotations

import json
from pathlib import Path

from harness.execution.logs import log
from harness.record import Failure
from harness.store import Store
from helpers.runs import add


def test_levels_and_reasons(store: Store, tmp_path: Path) -> None:
    add(store, "finetune", status="failed", run_id="bad", error=Failure(type="X", message="out of memory"))
    add(store, "finetune", status="interrupted", run_id="cut", error=Failure(type="X", message="stopped"))
    see = log(tmp_path / "logs", "nightly", store, lambda text: None)
    see({"note": "waiting for 8 CPUs (2 of 16 free)"})
    see({"images": (5, 10)})  # progress of no run: it isn't logged
    for run_id, status in (("bad", "failed"), ("cut", "interrupted"), ("gone", "done")):
        see({"run_id": run_id, "stage": "load", "step": 0, "steps": 1})
        see({"run_id": run_id, "status": status})
    read = {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in tmp_path.glob("logs/*")}
    assert {name: [(line["level"], line["event"]) for line in lines] for name, lines in read.items()} == {
        "launch": [("warning", "note")],
        "bad": [("info", "began"), ("error", "ended")],
        "cut": [("info", "began"), ("warning", "ended")],
        "gone": [("info", "began"), ("info", "ended")],  # its record can't be read now
    }
    assert read["bad"][1]["error"] == "out of memory"
    assert {line["suite"] for lines in read.values() for line in lines} == {"nightly"}


def test_a_folder_that_cannot_be_written_is_told_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    notes: list[str] = []
    see = log(tmp_path / "file", "x", store, notes.append)
    for step in (1, 2):
        see({"run_id": "r", "stage": "tune", "step": step, "steps": 2})
    (note,) = notes
    assert note.startswith(f"track.logs: {tmp_path / 'file'} can't be written, and is switched off: ")
