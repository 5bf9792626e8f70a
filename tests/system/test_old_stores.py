"""A store that release 0.1.0 wrote is read, ranked, shown and verified; none of its files changes.

`old_stores/0.1.0.tar.xz` has two runs of schema 1 (the first records), compacted and ranked by 0.1.0, and beside them
five of schema 2 (its last ones).
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from statistics import fmean

import pytest

from harness.leaderboard.leaderboard import tables
from harness.leaderboard.schema import Filters
from harness.store import Store
from harness.store.backend import CATALOGUE
from harness.store.compaction import compact
from harness.submission.verify import Report, verify
from helpers.common import Cli

FIRST = ("control-majority-scenes_factuality-720675e755f5", "finetune-S-scenes_factuality-s0-3847b5a131")
OF_ANOTHER_VERSION = {
    "code": "the run is of hkdbench 0.1.0, version 1 of training; this is hkdbench",
    "config": "with different code it may give another run",
    "bill": "FLOPs follow from the plan, which can't be made here",
}
WITHOUT_CHECKSUMS = {"seal": "the record has no checksums: what can't be recomputed may have changed"}
WITHOUT_IDENTITY = {"run id": "the record doesn't say what it is the hash of"}


@pytest.fixture
def old(root: Path, tmp_path: Path) -> Store:
    with tarfile.open(root / "tests" / "system" / "old_stores" / "0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return Store(tmp_path / "old")


def files(store: Store) -> dict[str, bytes]:
    """All files of runs, by path."""
    found = (path for path in store.root.rglob("*") if path.is_file() and CATALOGUE not in path.parts)
    return {str(path.relative_to(store.root)): path.read_bytes() for path in found}


def test_all_records_are_read_and_none_is_rewritten(old: Store) -> None:
    before = files(old)
    written = [json.loads(text)["schema_version"] for path, text in before.items() if path.endswith("record.json")]
    assert sorted(written) == [1, 1, 2, 2, 2, 2, 2]
    assert old.problems() == []
    assert {(r.schema_version, r.provenance.training, r.provenance.scoring) for r in old.records()} == {(3, 1, 1)}
    assert {r.budget for r in old.records() if r.kind == "run"} == {4096}
    for run_id in old.ids():
        verify(old, run_id)
    compact(old)
    tables(old)
    assert files(old) == before


def test_rows_are_the_means_of_the_records_whatever_0_1_0_had_cached(old: Store) -> None:
    """Its catalogue and its cached ranking have another version: they are left aside until `store compact`."""
    assert list((old.root / CATALOGUE / "cache").iterdir())
    found = tables(old)
    assert {table.benchmark: len(table.rows) for table in found} == {"scenes_factuality": 2, "scenes_hallucination": 3}
    for table in found:
        for row in table.rows:
            records = [r for r in old.records() if (r.benchmark, r.method) == (row.benchmark, row.method)]
            assert sorted(r.seed for r in records) == sorted(row.seeds)
            for metric in ("accuracy", "macro_f1"):
                mean = fmean(r.metrics["test"][metric].value for r in records)
                assert row.values[metric].value == pytest.approx(mean, abs=1e-12)
    hallucination = next(table for table in found if table.benchmark == "scenes_hallucination")
    assert [(row.method, row.rank, row.rank_low, row.rank_high) for row in hallucination.rows if row.kind == "run"] == [
        ("hkd4vlm", 1, 1, 2), ("finetune", 2, 1, 2)]  # fmt: skip
    compact(old)
    assert tables(old) == found
    (delta,) = (row.delta for row in tables(old, Filters(baseline="finetune"))[1].rows if row.method == "hkd4vlm")
    assert delta is not None
    assert delta.seeds == (0, 1)


def test_its_runs_are_shown_and_compared(old: Store, cli: Cli) -> None:
    for run_id in old.ids():
        said = cli("show", run_id, "--store", old.url)
        assert said.code == 0
        assert "hkdbench 0.1.0" in said.out
    said = cli("compare", "hkd4vlm", "finetune", "--benchmark", "scenes_hallucination", "--store", old.url, "--json")
    assert said.code == 0
    assert said.json["difference"]["value"] == pytest.approx(0.0655, abs=1e-12)


def unverified(report: Report) -> dict[str, str]:
    return {finding.check: finding.detail for finding in report.of("unverified") if finding.check != "commit"}


def test_verify_says_which_checks_cannot_be_made_and_why(old: Store) -> None:
    for run_id in old.ids():
        report, expected = verify(old, run_id), {}
        if run_id in FIRST:
            expected |= WITHOUT_CHECKSUMS
        if not run_id.startswith("control-"):
            expected |= OF_ANOTHER_VERSION
            expected |= WITHOUT_IDENTITY if run_id in FIRST else {}
        assert report.of("changed") == []
        said = unverified(report)
        assert said.keys() == expected.keys(), run_id
        assert all(said[check].startswith(why) for check, why in expected.items())
        assert {"record", "data", "answers", "golds", "figures"} <= {finding.check for finding in report.of("ok")}


def test_a_run_id_of_0_1_0_is_checked_by_its_own_rule(old: Store) -> None:
    """It is the hash of version and code, among others."""
    run_id = next(name for name in old.ids() if name.startswith("hkd4vlm-"))
    assert "run id" in {finding.check for finding in verify(old, run_id).of("ok")}
    path = old.root / run_id / "record.json"
    edited = json.loads(path.read_text())
    edited["provenance"]["code"] = "0" * 64
    path.write_text(json.dumps(edited))
    assert "run id" in {finding.check for finding in verify(old, run_id).of("changed")}
