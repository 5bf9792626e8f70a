"""A ranking as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from harness.leaderboard.leaderboard import table, tables
from harness.leaderboard.schema import Filters, Row
from harness.record import Cost
from harness.report.format import difference, percent
from harness.report.text import to_csv, to_json, to_markdown, to_text
from harness.store import Store
from helpers.common import Cli
from helpers.runs import add


def test_a_narrow_table_folds_and_says_what_it_leaves_out(varied_store: Store) -> None:
    rows = [row for found in tables(varied_store, Filters(baseline="finetune@S")) for row in found.rows]
    text = to_text(rows, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"left out at this width: .*TFLOPs, train s", text)
    for width in (80, 20):  # no terminal is so narrow that a figure is cut
        text = to_text(rows, width=width)
        for row in rows:
            for bounds in re.findall(r"\[.*?\]\*?", percent(row.values["accuracy"]) + difference(row.delta, False)):
                assert bounds in text


def test_names_from_records_cannot_break_text_or_markdown(varied_store: Store) -> None:
    add(varied_store, "a\x1b[31m\nb<i>[x](javascript:y)|", 8, run_id="evil-0", tags=["evil"])
    rows = tables(varied_store, Filters(tag="evil"))[0].rows
    assert "\x1b" not in to_text(rows, ["\x1b[2J"])
    text = to_markdown(rows, ["<script>"])
    assert "| a [31m b\\<i>[x]\\(javascript:y)\\| |" in text
    assert not re.search(r"(?<!\\)<|\]\(|\x1b", text)
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(bars) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_another_encoding_gets_a_plain_table(
    varied_store: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    add(varied_store, "größer", 8, run_id="other-0")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert cli("rank", "--store", varied_store.url, "--columns", "cost").code == 0
    out.seek(0)
    text = out.read()
    rule, name = ("─" if encoding == "utf-8" else "-"), (r"gr\u00f6\u00dfer" if encoding == "ascii" else "größer")
    assert re.search(f"^{rule}{{60,}}$", text, re.MULTILINE)
    assert name in text
    assert ("+ on the Pareto front" if encoding == "ascii" else "† on the Pareto front") in text


@pytest.mark.parametrize("form", ["latex", "html", "csv", "markdown", "json"])
def test_the_command_prints_every_form(varied_store: Store, cli: Cli, form: str) -> None:
    said = cli("rank", "--store", varied_store.url, "--format", form)
    assert said.code == 0
    start = {"latex": "% needs", "html": "<!doctype html>", "csv": "rank,benchmark", "markdown": "**toy,", "json": "{"}
    assert said.out.startswith(start[form])


def rows_of(store: Store) -> list[Row]:
    cost = Cost(train_flops=2e12, train_seconds=10, test_forwards=16)
    add(
        store,
        "offline_kd",
        [0, 1, 2, 4, 5, 6],
        cost=cost,
        settings={"divergence": "jsd|x", "note": "a [bold]long[/bold] value " * 4},
    )
    add(store, "finetune", 8, student="L", cost=cost)
    add(store, "finetune", 8, student="L", seed=1, status="failed")
    return table(store, metric="accuracy/object")


def test_text_is_narrow_and_plain(store: Store) -> None:
    text = to_text(rows_of(store), ["a broken run"])
    assert max(map(len, text.splitlines())) <= 110
    assert "\x1b" not in text
    assert "[bold]" in text
    assert "toy, test split: 8 examples about 8 images (revision 1, data aaaaaaaaaaaa)" in text
    assert "finetune (L): 1 failed" in text
    assert text.endswith("a broken run\n")
    line = next(line for line in text.splitlines() if "finetune" in line)
    assert " ".join(line.split()) == "1 1-2 1 finetune L 100.0 [100.0, 100.0] 100.0 100.0 1 2"
    assert "left out at this width: train s, params" in text


def test_json_and_csv_hold_the_figures(store: Store) -> None:
    rows = rows_of(store)
    document = json.loads(to_json(rows, ["a note"]))
    assert document["notes"] == ["a note"]
    assert [Row(**row) for row in document["rows"]] == rows
    first = next(csv.DictReader(io.StringIO(to_csv(rows))))
    assert (first["method"], first["accuracy"], first["accuracy/object_low"]) == ("finetune", "1.0", "1.0")
    assert (first["seeds"], first["note"]) == ("0", "1 failed")


def test_markdown_has_one_cell_a_column(store: Store) -> None:
    text = to_markdown(rows_of(store))
    header, rule, *body = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in (header, rule, *body)} == {header.count("|")}
    assert len(body) == 2
    assert "- finetune (L): 1 failed" in text
