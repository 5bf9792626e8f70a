"""What stands above and below a table, in all formats: labels, common settings, unequal forward passes."""

from __future__ import annotations

import csv
import io
from html import unescape
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.leaderboard.leaderboard import ranking, table
from harness.leaderboard.schema import Filters
from harness.record import Cost
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import to_markdown, to_text
from harness.store import Store
from helpers.common import Cli
from helpers.runs import add
from helpers.runs import configured as run


def labels(store: Store, **filters: Any) -> list[str]:
    return [row.label for row in ranking(store, Filters(**filters)).rows]


def test_every_format_shows_the_label(store: Store) -> None:
    run(store, "a", given={"alpha": 3.0}, label="KD on the <pool>")
    run(store, "b", "finetune")
    rows = table(store)
    assert [row.label for row in rows] == ["KD on the <pool>", "finetune"]
    for made, shown in (
        (to_text, "KD on the <pool>"),
        (to_markdown, r"KD on the \<pool>"),
        (to_latex, r"KD on the \textless{}pool\textgreater{}"),
        (to_html, "KD on the &lt;pool&gt;"),
    ):
        assert shown in made(rows)
        assert "alpha" not in made(rows)


def test_csv_and_json_say_both(store: Store, cli: Cli) -> None:
    run(store, "a", given={"alpha": 3.0}, label="KD on the pool")
    (line,) = csv.DictReader(io.StringIO(cli("rank", "--store", store.url, "--format", "csv").out))
    (row,) = cli("rank", "--store", store.url, "--json").json["rows"]
    for found in (line, row):
        assert (found["label"], found["name"], found["spelled"]) == (
            "KD on the pool",
            "KD on the pool",
            "offline_kd alpha=3.0",
        )


def test_what_all_runs_share_is_said_once_above(store: Store) -> None:
    train = {"examples": 4096, "lr": 0.001, "precision": "bf16", "clip": 1.0}
    run(store, "a", "finetune", train=train)
    run(store, "b", "offline_kd", given={"alpha": 3.0}, train=train)
    rows = table(store)
    assert sorted(row.label for row in rows) == ["finetune", "offline_kd alpha=3.0"]
    (line,) = [line for line in to_text(rows).splitlines() if line.startswith("all runs: ")]
    assert line == (
        "all runs: train.examples=4096 train.lr=0.001 train.precision=bf16; other settings are the defaults"
    )
    assert to_text(rows).index("all runs: ") < to_text(rows).index("offline_kd")
    assert "- all runs: train.examples=4096" in to_markdown(rows)
    assert "<li>all runs: train.examples=4096" in to_html(rows)
    assert "All runs: train.examples=4096" in to_latex(rows)


# -------------------------------------------------------------------------------------------- equal forwards


@pytest.fixture
def unequal(store: Store) -> Store:
    run(store, "a", "finetune", forwards=8)
    run(store, "b", "offline_kd", forwards=32)
    run(store, "c", "hkd4vlm", forwards=36)
    add(store, "majority", 4, kind="control", student="")
    return store


def test_unequal_forwards_are_said_in_words(unequal: Store) -> None:
    said = "rows differ in the forward passes of the student per answer (1, 4 or 4.5), so they can't be compared"
    for made in (to_text, to_markdown, to_latex, to_html):
        assert said in " ".join(unescape(made(table(unequal))).split())


def test_two_sides_of_unequal_forwards_are_told(unequal: Store, cli: Cli) -> None:
    said = "forward passes per answer: A 1, B 4.5; they can't be compared on equal terms"
    assert said in cli("compare", "finetune", "hkd4vlm", "--store", unequal.url).out


def test_rows_of_equal_forwards(unequal: Store, cli: Cli) -> None:
    assert labels(unequal, forwards=4.0) == ["offline_kd", "majority"]
    assert labels(unequal, forwards=4.5) == ["hkd4vlm", "majority"]
    said = cli("rank", "--store", unequal.url, "--forwards", "1")
    assert "finetune" in said.out
    assert "forward passes" not in said.out
    with pytest.raises(ConfigError, match=r"no run of forwards 2 in the store; known: 1, 4, 4\.5"):
        ranking(unequal, Filters(forwards=2))


def test_forwards_count_on_other_splits_too(store: Store) -> None:
    for method, forwards in (("finetune", 8), ("offline_kd", 32)):
        add(store, method, splits=("test", "ood"), cost=Cost(test_forwards=forwards))
    assert "forward passes of the student per answer (1 or 4)" in to_text(table(store, split="ood"))
