"""What the cards of methods, benchmarks and models say of results so far."""

from __future__ import annotations

from pathlib import Path

from dashboard.data import cards
from harness.leaderboard import leaderboard
from harness.leaderboard.schema import Filters
from harness.record import Received
from harness.store import Store, index
from harness.store.checksums import RECEIVED
from helpers.runs import add


def test_results_have_rank_score_and_who_made_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, right in (("a", 8), ("b", 6)):
        add(store, name, right, 0)
    received = Received(time="2026-03-04T05:06:07Z", file="theirs.zip", sha256="0" * 64)
    (tmp_path / "b-S-0" / RECEIVED).write_text(received.model_dump_json())
    ranking = leaderboard.ranking(store, Filters())
    frame, count = cards.results(ranking, lambda row: row.student == "S", store)
    assert count == 2
    assert frame["rank"].tolist() == ["1 of 2", "2 of 2"]
    assert frame["made"].tolist() == ["made in this store", "submitted as theirs.zip, 2026-03-04"]
    assert frame["accuracy (%)"].str.partition(" ")[0].tolist() == ["100.0", "75.0"]
    assert cards.results(ranking, lambda row: False, store)[1] == 0


def test_models_are_the_rungs_that_were_students(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a", 8, 0, student="S", parameters=1000)
    add(store, "b", 8, 0, student="S", parameters=1000)
    add(store, "b", 8, 0, student="L", parameters=9000)
    add(store, "majority", 4, kind="control", student="")
    lines = index.from_arrow(index.to_arrow((record, "1") for record in store.records()))
    frame = cards.models(lines)
    assert [name.partition(" ")[0] for name in frame["model"]] == ["S", "L"]
    assert frame["runs in this store"].tolist() == [2, 1]
    assert frame["methods"].tolist() == [2, 1]
