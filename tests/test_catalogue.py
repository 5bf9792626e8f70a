"""The catalogue: it changes no figure, it opens no folder that it knows, and it never hides what is new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from runs import DATA, add, answers

from harness.leaderboard import build
from harness.leaderboard.leaderboard import Filters, Ranking, ranking, table
from harness.record import SCHEMA_VERSION, Interval
from harness.stats import inference, replicates
from harness.store import Store, catalog, compaction, manifest
from harness.store.catalog import View
from harness.store.compaction import compact
from harness.store.local import LocalBackend


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def filled(store: Store) -> Store:
    """Two methods, three seeds, a failed run, and a second version of the data."""
    for seed in range(3):
        add(store, "finetune", [0, 1, 2, 5, 6 + seed % 2], seed)
        add(store, "offline_kd", 7 - seed, seed, splits=("test", "ood"))
    add(store, "broken", status="failed")
    add(store, "finetune", 4, seed=9, data=DATA.model_copy(update={"fingerprint": "b" * 64}), run_id="other-data")
    return store


def files(store: Store) -> set[str]:
    return {path.name for path in (store.root / ".catalogue").glob("*.parquet")}


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


# ------------------------------------------------------------------------------------------ no figure changes


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "micro_f1", "accuracy/count"])
def test_a_ranking_reads_the_same_before_and_after(filled: Store, metric: str) -> None:
    before = table(filled, metric=metric)
    compact(filled)
    assert table(filled, metric=metric) == before
    assert len(before) == 4


def test_draws_are_those_of_the_bootstrap(filled: Store) -> None:
    compact(filled)
    for metric in ("accuracy", "macro_f1"):
        for row in table(filled, metric=metric):
            if not row.values:
                continue
            frames = [filled.predictions(run_id, "test") for run_id in row.run_ids]
            expected = inference.across_seeds(frames, DATA.options, metric)
            found = row.values[metric]
            assert [found.value, found.low, found.high] == pytest.approx(
                [expected.value, expected.low, expected.high], abs=1e-7
            )


@pytest.mark.parametrize(("groups", "labels", "known"), [(40, 4, True), (40, 4, False), (7, 2, True), (1, 3, True)])
def test_draws_of_many_runs_at_once(groups: int, labels: int, known: bool) -> None:
    """Against `stats.summarise` of each run alone; some answers are missing."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, labels, 60)
    frame = (
        answers(8)
        .iloc[[0] * 60]
        .assign(
            id=[f"e{k}" for k in range(60)],
            group=[f"g{g}" for g in rng.integers(0, groups, 60)],
            gold=gold.astype("int32"),
        )
    )
    chosen_rn = rng.integers(-1, labels, (5, 60)).astype(np.int16)
    order = replicates.ExampleOrder()

    key, _ = order.take(pa.Table.from_pandas(frame.assign(chosen=chosen_rn[0]), preserve_index=False))
    drawn = replicates.draw_all(order.sets[key], chosen_rn, labels if known else None, inference.METRICS)
    names = [str(k) for k in range(labels)] if known else None
    for r, chosen in enumerate(chosen_rn):
        alone = inference.summarise(frame.assign(chosen=chosen), names)
        for metric, of_runs in drawn.items():
            draws = None if of_runs.draws_rn is None else of_runs.draws_rn[r]
            found = inference.interval(float(of_runs.points_r[r]), draws)
            wanted = alone[metric]
            assert [found.value, found.low, found.high] == pytest.approx(
                [wanted.value, wanted.low, wanted.high], abs=1e-7
            )


def test_packing_loses_nothing() -> None:
    golds_n = np.full(replicates.RESAMPLES, 7)
    right_rn = np.random.default_rng(0).integers(0, 8, (3, replicates.RESAMPLES))
    draws_rn = right_rn / golds_n
    rounded_rn = replicates.kept("macro_f1", draws_rn)
    for metric, given_rn in (("accuracy", draws_rn), ("macro_f1", rounded_rn)):
        rows = [replicates.encode(metric, draws_n, golds_n) for draws_n in given_rn]
        column = pa.chunked_array([replicates.to_column(metric, [*rows, None])])
        assert column.null_count == 1
        assert (replicates.from_column(metric, column.slice(0, 3), golds_n) == given_rn).all()
    for chosen in ([-1, 0, 127], [-1, 0, 128]):
        one = replicates.pack_choices(np.array(chosen, dtype=np.int16))
        assert replicates.unpack_choices([one], 3).tolist() == [chosen]


def test_runs_in_another_order_are_brought_into_one(store: Store) -> None:
    add(store, "a", [0, 1, 2], 0)
    add(store, "a", [5, 6], 1, order=[3, 1, 0, 7, 6, 5, 4, 2])
    (row,) = table(store)
    expected = inference.across_seeds([store.predictions(f"a-S-{seed}") for seed in (0, 1)], DATA.options)
    assert row.values["accuracy"] == expected
    compact(store)
    assert table(store) == [row]


def test_answers_that_cannot_be_paired_have_no_figures(store: Store) -> None:
    add(store, "a", seed=0)
    add(store, "a", seed=1, order=range(7))
    add(store, "twice", order=[0, 1, 1])
    first, second = table(store)
    notes = {row.method: row.note for row in (first, second)}
    assert notes["a"].startswith("no figures: runs on different examples (8 and 7) can't be paired")
    assert notes["twice"] == "no figures: example 'e1' is predicted twice: expected one prediction an example"
    compact(store)
    assert table(store) == [first, second]


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


def test_tables_without_changes_keep_their_files(filled: Store) -> None:
    compact(filled)
    before = files(filled)
    again = compact(filled)
    assert again.files_written == 2  # the list of runs, and the manifest
    assert len(files(filled) - before) == 1
    add(filled, "hkd4vlm", 8)
    before = files(filled)
    compact(filled)
    new = files(filled) - before
    assert sorted(name.split("-")[0] for name in new) == ["answers", "runs"]  # of one data; its examples are known
    found = manifest.newest(filled.backend)
    assert found is not None
    assert [part.runs for of_data in found.tables for part in of_data.parts] == [7, 1]


def test_large_files_are_left_alone(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SMALL", 3)
    compact(filled)
    before = table(filled)
    add(filled, "finetune", 8, seed=7)
    compact(filled)
    found = manifest.newest(filled.backend)
    assert found is not None
    assert [part.runs for part in found.tables[0].parts] == [6, 1]
    rows = table(filled)
    assert len(rows) == len(before)
    assert next(row for row in rows if row.method == "finetune").seeds == (0, 1, 2, 7)


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
    assert opened == []


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


# ------------------------------------------------------------------------------------------------- migration


def test_records_of_schema_1_are_lifted(store: Store) -> None:
    """As hkdbench 0.1.0 wrote them: no budget beside the configuration."""
    old = add(store, "old", 6, settings={"alpha": 1}, train={"examples": 1234})
    path = old / "record.json"
    document = json.loads(path.read_text())
    assert document["schema_version"] == SCHEMA_VERSION == 2
    stage = {"name": "tune", "share": 1.0, "steps": 2, "examples": 64, "roles": {}, "best": {}}
    del document["budget"]
    path.write_text(json.dumps(document | {"schema_version": 1, "stages": [stage]}))
    lifted = store.read("old-S-0")
    assert (lifted.schema_version, lifted.budget) == (2, 1234)
    assert '"schema_version": 1' in path.read_text()  # files aren't rewritten
    assert table(store)[0].budget == 1234
    for untrained in ({"kind": "control"}, {"stages": []}):
        path.write_text(json.dumps(document | {"schema_version": 1} | untrained))
        assert store.read("old-S-0").budget == 0
    path.write_text(json.dumps({"schema_version": 1, "config": 3}))
    assert store.problems()[0].message == "record.json is damaged: it doesn't fit its schema 1"


@pytest.mark.parametrize("name", ["controls", "nlvr", "scenes", "tuning"])
def test_the_committed_results_are_read(root: Path, name: str) -> None:
    committed = Store(root / "results" / name)
    assert committed.problems() == []
    budgets = {record.budget for record in committed.records() if record.kind == "run" and record.stages}
    assert budgets == {4096}


def test_figures_that_only_records_state(store: Store) -> None:
    for seed, value in ((0, 0.5), (1, 0.75)):
        add(store, "a", seed=seed, metrics={"test": {"official:f1": Interval(value=value)}})
    compact(store)
    (row,) = table(store, metric="official:f1")
    assert row.values["official:f1"] == Interval(value=0.625)
