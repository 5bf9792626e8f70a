"""Records of older schemas are read as of today's, without being rewritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.leaderboard.leaderboard import table
from harness.record import SCHEMA_VERSION
from harness.store import Store
from harness.submission.verify import verify
from helpers.common import ROOT
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


STORES = sorted({path.parent.parent for path in (ROOT / "results").glob("*/*/record.json")})


@pytest.mark.parametrize("folder", STORES, ids=lambda path: path.name)
def test_the_committed_results_are_as_they_were(folder: Path) -> None:
    """Whatever version made them: each is read, and the figures of one of each kind are the same to the last digit."""
    committed = Store(folder)
    assert committed.problems() == []
    one_of_each = {record.kind: record.run_id for record in committed.records() if record.kind != "robustness"}
    for run_id in one_of_each.values():
        report = verify(committed, run_id)
        assert report.of("changed") == []
        assert {"record", "answers"} <= {finding.check for finding in report.of("ok")}
