"""The catalogue: it changes no figure, it opens no folder that it knows, and it never hides what is new."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from harness.leaderboard import build
from harness.leaderboard.leaderboard import Filters, Ranking, ranking, table
from harness.store import Store, catalog, manifest
from harness.store.catalog import View
from harness.store.compaction import compact
from harness.store.local import LocalBackend
from helpers.runs import add


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files of runs that are opened."""
    seen: list[str] = []

    def watch(verb: str) -> None:
        real = getattr(LocalBackend, verb)

        def watched(self: LocalBackend, name: str) -> Any:
            seen.extend([name] if not name.startswith(".") else [])
            return real(self, name)

        monkeypatch.setattr(LocalBackend, verb, watched)

    watch("open")
    watch("read")
    return seen


# --------------------------------------------------------------------------------- what is opened, what is seen


def test_a_compacted_store_is_ranked_without_its_folders(filled: Store, opened: list[str]) -> None:
    compact(filled)
    opened.clear()
    assert len(table(filled)) == 4
    assert len(table(filled, metric="micro_f1")) == 4
    assert opened == []


def test_new_runs_are_seen_and_only_they_are_opened(filled: Store, opened: list[str]) -> None:
    compact(filled)
    add(filled, "hkd4vlm", 8)
    opened.clear()
    assert (table(filled)[0].method, table(filled)[0].rank) == ("hkd4vlm", 1)
    assert set(opened) == {"hkd4vlm-S-0/record.json", "hkd4vlm-S-0/predictions.parquet"}


def test_replaced_and_deleted_runs(filled: Store) -> None:
    compact(filled)
    assert next(row for row in table(filled) if row.method == "broken").note == "1 failed"
    add(filled, "broken", 8)
    shutil.rmtree(filled.root / "finetune-S-2")
    rows = {row.method: row for row in table(filled) if row.fingerprint[0] == "a"}
    assert rows["broken"].values["accuracy"].value == 1
    assert rows["finetune"].seeds == (0, 1)
    done = compact(filled)
    assert (done.runs, done.new, done.gone) == (8 - 1, 1, 2)
    assert {row.method: row for row in table(filled) if row.fingerprint[0] == "a"} == rows


def test_broken_records_are_named_and_the_others_ranked(filled: Store, opened: list[str]) -> None:
    (filled.root / "empty").mkdir()
    (filled.root / "finetune-S-0" / "record.json").write_text("{")
    before = ranking(filled)
    assert [str(broken) for broken in before.broken] == [
        "empty: record.json is missing; delete the folder",
        "finetune-S-0: record.json is damaged: Invalid JSON: EOF while parsing an object at line 1 column 1",
    ]
    assert len(before.rows) == 4
    assert compact(filled).broken == 2
    opened.clear()
    assert ranking(filled) == before
    assert set(opened) == {"empty/record.json", "finetune-S-0/record.json"}  # they may be readable the next time


def test_a_damaged_or_foreign_catalogue_is_left_aside(filled: Store) -> None:
    compact(filled)
    before = table(filled)
    folder = filled.root / ".catalogue"
    shutil.rmtree(folder / "cache")
    newest = folder / manifest.manifests(filled.backend)[-1]
    text = newest.read_text()
    newest.write_text(json.dumps(json.loads(text) | {"version": 99}))
    assert View(filled).manifest is None
    assert table(filled) == before
    newest.write_text(text[:50])
    assert table(filled) == before
    newest.write_text(text)
    next(folder.glob("runs-*")).write_bytes(b"PAR1")
    assert table(filled) == before
    compact(filled)
    assert View(filled).fresh.num_rows == 0


def test_a_state_swept_under_a_reader(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader took the manifest; before it opens the files, a newer state takes their place."""
    compact(filled)
    real, raced = catalog.read, False

    def racing(store: Store, name: str, *args: Any, **options: Any) -> Any:
        nonlocal raced
        if not raced:
            raced = True
            compact(filled)
            (filled.root / ".catalogue" / name).unlink()
        return real(store, name, *args, **options)

    monkeypatch.setattr(catalog, "read", racing)
    assert View(filled).compacted.num_rows == 8
    assert raced


# ---------------------------------------------------------------------------------------------- what is kept


def test_answers_are_kept_until_something_changes(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    real = build.make_table

    def counted(view: Any, data_key: Any, *args: Any) -> Any:
        computed.append(data_key[2][0])
        return real(view, data_key, *args)

    monkeypatch.setattr(build, "make_table", counted)
    ranking(filled)
    ranking(filled)
    assert computed == ["a", "b"] * 2  # not compacted: nothing is kept
    assert not (filled.root / ".catalogue").exists()
    compact(filled)
    computed.clear()
    first = ranking(filled)
    assert ranking(filled) == first
    assert computed == ["a", "b"]
    compact(filled)  # nothing new: the tables are known
    assert ranking(filled) == first
    assert computed == ["a", "b"]
    add(filled, "hkd4vlm", 8)
    ranking(filled)
    assert computed == ["a", "b", "a"]
    ranking(filled, Filters(metric="macro_f1"))
    assert computed == ["a", "b", "a", "a", "b"]


def test_a_store_that_may_only_be_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(filled)

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.leaderboard.cache.os.replace", refused)
    assert isinstance(ranking(filled), Ranking)
