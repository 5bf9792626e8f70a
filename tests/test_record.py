"""Records of older schemas are read as of today's, without being rewritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.leaderboard.leaderboard import table
from harness.record import SCHEMA_VERSION
from harness.store import Store
from helpers.runs import add


def test_records_of_schema_1_are_lifted(store: Store) -> None:
    """As hkdbench 0.1.0 wrote them: no budget beside the configuration."""
    old = add(store, "old", 6, settings={"alpha": 1}, train={"examples": 1234})
    path = old / "record.json"
    document = json.loads(path.read_text())
    assert document["schema_version"] == SCHEMA_VERSION == 3
    stage = {"name": "tune", "share": 1.0, "steps": 2, "examples": 64, "roles": {}, "best": {}}
    del document["budget"], document["seal"]
    path.write_text(json.dumps(document | {"schema_version": 1, "stages": [stage]}))
    lifted = store.read("old-S-0")
    assert (lifted.schema_version, lifted.budget) == (3, 1234)
    assert (lifted.provenance.training, lifted.provenance.scoring) == (1, 1)
    assert '"schema_version": 1' in path.read_text()  # files aren't rewritten
    assert table(store)[0].budget == 1234
    for untrained in ({"kind": "control"}, {"stages": []}):
        path.write_text(json.dumps(document | {"schema_version": 1} | untrained))
        assert store.read("old-S-0").budget == 0
    path.write_text(json.dumps({"schema_version": 1, "config": 3}))
    assert store.problems()[0].message == "record.json is damaged: it doesn't fit its schema"


@pytest.mark.parametrize("name", ["controls", "nlvr", "scenes", "tuning"])
def test_the_committed_results_are_read(root: Path, name: str) -> None:
    committed = Store(root / "results" / name)
    assert committed.problems() == []
    budgets = {record.budget for record in committed.records() if record.kind == "run" and record.stages}
    assert budgets == {4096}
