"""Changed pictures are another run, and `verify` finds them; records with older fingerprints are still checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.dataset import Dataset
from harness.data.dataset import _dataset as loaded
from harness.leaderboard import leaderboard
from harness.record import Record
from harness.store import Store
from harness.submission.checks import Report
from harness.submission.flops import plan_flops
from harness.submission.verify import verify
from helpers.common import ROOT, Cli
from helpers.pictures import publish, swap

PLUGIN = str(ROOT / "tests" / "helpers" / "pictures.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "published")


@pytest.fixture
def run(cli: Cli, toy_ladder: str, tmp_path: Path, folder: Path) -> Callable[[], Record]:
    """Runs the untrained student on the pictures, as another process would: with data that are read anew."""

    def once() -> Record:
        loaded.cache_clear()
        args = ["--method", "zero_shot", "--benchmark", "pictures", "--ladder", toy_ladder, "--data-dir", folder]
        said = cli("run", *args, "--plugin", PLUGIN, "--workers", "0", "--store", tmp_path / "runs", "--json")
        assert said.code == 0, said.err
        return Record.model_validate(said.json)

    return once


@pytest.fixture
def checked(tmp_path: Path, folder: Path) -> Callable[[str], Report]:
    def once(run_id: str) -> Report:
        loaded.cache_clear()
        return verify(Store(tmp_path / "runs"), run_id, folder, plan_flops)

    return once


def test_swapped_pictures_are_another_run(
    run: Callable[[], Record], checked: Callable[[str], Report], folder: Path
) -> None:
    first = run()
    assert run().run_id == first.run_id
    assert checked(first.run_id).of("changed") == []
    swap(folder)
    (found,) = checked(first.run_id).of("changed")
    assert (found.check, found.detail.partition(" is ")[0]) == ("data", "fingerprint")
    second = run()
    assert second.run_id != first.run_id
    assert second.metrics["test"]["accuracy"] != first.metrics["test"]["accuracy"] or second.data != first.data
    assert checked(second.run_id).of("changed") == []


def test_an_older_fingerprint_is_known_and_its_limit_said(
    run: Callable[[], Record],
    checked: Callable[[str], Report],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as before:
        before.setattr(Dataset, "fingerprint", Dataset.fingerprint_by_names)
        older = run()
    report = checked(older.run_id)
    assert [f.check for f in report.of("unverified") if f.check != "commit"] == ["images"]
    assert {"data", "golds", "config", "run id"} <= {f.check for f in report.of("ok")}
    swap(folder)
    assert checked(older.run_id).of("changed") == []  # what it can't see, which it says
    (folder / "test-0.bmp").write_bytes(b"of another size")
    assert [f.check for f in checked(older.run_id).of("changed")] == ["data"]
    swap(folder, "test-0", "test-3")
    newer = run_again(run, folder)
    assert newer.run_id != older.run_id
    tables = leaderboard.tables(Store(tmp_path / "runs"))
    assert [len([row for row in table.rows if row.kind == "run"]) for table in tables] == [1, 1]


def run_again(run: Callable[[], Record], folder: Path) -> Record:
    """With sound pictures."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    publish(folder)
    return run()
