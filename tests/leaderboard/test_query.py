"""What can be asked of a ranking: filters, differences to a baseline, budgets."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from dashboard.widgets import url_state
from harness.errors import ConfigError
from harness.leaderboard import inference
from harness.leaderboard.leaderboard import ranking, table, tables
from harness.leaderboard.schema import Filters, Row
from harness.leaderboard.seed_spread import SeedSpread
from harness.record import Interval
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.tables import headline
from harness.report.text import to_json, to_markdown, to_text
from harness.store import Store
from harness.store.compaction import compact
from helpers.common import Cli
from helpers.runs import add, results_of


def methods(store: Store, **asked: Any) -> list[str]:
    return [f"{row.method}@{row.student}" for found in tables(store, Filters(**asked)) for row in found.rows]


# --------------------------------------------------------------------------------------------------- filters


def test_filters(varied_store: Store) -> None:
    everything = ["hkd4vlm@S", "finetune@L", "finetune@S", "majority@", "other@S"]
    assert methods(varied_store) == everything
    assert methods(varied_store, benchmark="toy2") == methods(varied_store, task="hallucination") == everything[-1:]
    assert methods(varied_store, method="finetune") == ["finetune@L", "finetune@S", "majority@"]
    assert methods(varied_store, tag="good") == ["hkd4vlm@S", "majority@"]
    assert methods(varied_store, size="L") == methods(varied_store, size="1M..") == ["finetune@L", "majority@"]
    assert methods(varied_store, size="100k..0.5M", benchmark="toy") == ["hkd4vlm@S", "finetune@S", "majority@"]
    assert methods(varied_store, size="..100k") == []
    assert methods(varied_store, budget=100) == ["finetune@L", "majority@"]
    first, second = tables(varied_store)
    assert (first.benchmark, first.budgets, second.budgets) == ("toy", (100, 4096), (4096,))


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (
            {"task": "fact"},
            "no run of task 'fact' in the store; did you mean 'factuality'? known: factuality, hallucination",
        ),
        ({"method": "hkd4vml"}, "no run of method 'hkd4vml' in the store; did you mean 'hkd4vlm'"),
        ({"size": "XL"}, "no run of student 'XL' in the store; did you mean 'L'? known: L, S"),
        ({"size": "1..x"}, "--size '1..x': expected a student's name or a range like 100k..2M"),
        ({"tag": "goad"}, "no run of tag 'goad' in the store; did you mean 'good'"),
        ({"budget": 5}, "no run of budget 5 in the store; known: 100, 4096"),
        ({"baseline": "finetune@M"}, "no row 'finetune@M' to be the baseline; did you mean 'finetune'"),
        ({"protocol": "official"}, "no run has metric 'official:accuracy' on split 'test'; did you mean 'accuracy'"),
    ],
)
def test_names_that_no_run_has(varied_store: Store, asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        tables(varied_store, Filters(**asked))


def test_a_protocols_figure_and_an_error_that_is_better_small(varied_store: Store) -> None:
    for method, value in (("one", 0.4), ("two", 0.1)):
        figures = {"official:f1": Interval(value=value), "ece": Interval(value=value)}
        add(varied_store, method, metrics={"test": figures})
    found = tables(varied_store, Filters(protocol="official", metric="f1"))[0].rows
    assert [row.method for row in found if row.figure is not None] == ["one", "two"]
    found = tables(varied_store, Filters(metric="ece"))[0].rows
    assert [(row.method, row.rank) for row in found if row.figure is not None] == [("two", 1), ("one", 2)]


def test_nats_are_no_per_cent(varied_store: Store) -> None:
    for method, value in (("one", 0.631), ("two", 0.4)):
        add(varied_store, method, metrics={"test": {"nll": Interval(value=value), "chance": Interval(value=0.5)}})
    found = tables(varied_store, Filters(metric="nll"))[0]
    assert headline(found.rows)[0].startswith("Best for student S: two, nll 0.4000 nats, lower is better")
    for written in (to_text(found.rows), to_markdown(found.rows), to_latex(found.rows), to_html(found.rows)):
        words = " ".join(written.split())
        assert "nll (nats)" in words
        assert "lower is better" in words
        assert "0.6310" in words
        assert "63.1" not in words
    assert " ".join(to_text(found.rows).split()).endswith("nll is in nats, lower is better.")


@pytest.mark.parametrize("metric", ["chance", "parse_failures"])
def test_what_says_nothing_of_a_row_is_not_ranked(varied_store: Store, metric: str) -> None:
    add(varied_store, "one", metrics={"test": {metric: Interval(value=0.5), "ece": Interval(value=0.1)}})
    with pytest.raises(ConfigError, match=f"metric '{metric}' can't be ranked: it .*; choose another"):
        tables(varied_store, Filters(metric=metric))
    assert metric not in url_state.metrics_of(["ece", metric], None)


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-1e999"])
def test_a_figure_that_is_no_number_is_damage(varied_store: Store, figure: str, compacted: bool) -> None:
    before = [row for row in tables(varied_store)[0].rows if row.method != "bad"]
    path = varied_store.root / add(varied_store, "bad", 7, 0).name / "record.json"
    text = re.sub(r'("accuracy": \{\s*"value": )[0-9.]+', rf"\g<1>{figure}", path.read_text(), count=1)
    assert figure in text
    path.write_text(text)
    if compacted:
        compact(varied_store)
    found = ranking(varied_store)
    assert [str(one) for one in found.broken] == [
        f"bad-S-0: record.json is damaged: metrics.test.accuracy is {float(figure)}: expected a finite number"
    ]
    assert list(found.tables[0].rows) == before


# -------------------------------------------------------------------------------------------------- baseline


def test_filters_hide_rows_and_rank_among_the_shown_on_request(varied_store: Store, cli: Cli) -> None:
    (whole,) = tables(varied_store, Filters(benchmark="toy"))
    (hidden,) = tables(varied_store, Filters(benchmark="toy", method="finetune", baseline="finetune@S"))
    assert [row.rank for row in whole.rows] == [1, 2, 3, None]
    assert [row.rank for row in hidden.rows] == [2, 3, None]
    assert [row.rank_high for row in hidden.rows] == [row.rank_high for row in whole.rows[1:]]
    asked = Filters(benchmark="toy", rows=("finetune@L", "finetune@S"), among_shown=True)
    (among,) = tables(varied_store, asked)
    assert [(row.student, row.rank) for row in among.rows] == [("L", 1), ("S", 2), ("", None)]
    assert among.rows[0].rank_high == 2
    (best,) = tables(varied_store, Filters(benchmark="toy", method="hkd4vlm", among_shown=True))
    assert best.rows[0].direct == whole.rows[0].direct  # the tuned row need not be shown
    assert best.rows[0].direct is not None
    at = ("rank", "--store", varied_store.url, "--benchmark", "toy", "--method", "finetune")
    assert "filters hide rows: ranks, tiers and Holm p are among all rows of a table" in cli(*at).out
    assert "Holm p are among the rows shown" in cli(*at, "--among-shown").out


def test_differences_to_a_baseline_are_paired(varied_store: Store) -> None:
    found = tables(varied_store, Filters(baseline="finetune@S", method="hkd4vlm"))[0]
    rows = {f"{row.method}@{row.student}": row for row in found.rows}
    assert rows.keys() == {"hkd4vlm@S", "finetune@S", "majority@"}
    assert (rows["finetune@S"].baseline, rows["finetune@S"].delta) == (True, None)
    delta = rows["hkd4vlm@S"].delta
    assert delta is not None
    assert delta.value == pytest.approx(3 / 8)
    a, b = ({s: varied_store.predictions(f"{m}-S-{s}") for s in (0, 1)} for m in ("hkd4vlm", "finetune"))
    # What the rows say of their seeds, filtered or not: 4 and 5, 7 and 8, 6 and 6 of 8.
    known = SeedSpread(lambda metric: np.array([[4, 5], [7, 8], [6, 6]]) / 8)
    one, other = results_of(a, b, labels=2, spread=known)
    wanted = inference.difference(one, other, "accuracy")
    assert wanted is not None
    assert (delta.low, delta.high, delta.p, delta.seeds) == (wanted.low, wanted.high, wanted.p, (0, 1))
    control = rows["majority@"].delta  # 4 of 8 whatever the seed, to 4 and 5
    assert control is not None
    assert (control.value, control.seeds) == (-1 / 16, (0, 1))
    assert tables(varied_store, Filters(baseline="finetune@S"))[1].rows[0].delta is None
    assert [Row(**row) for row in json.loads(to_json(found.rows))["rows"]] == list(found.rows)
    every = {row.method: row.delta for row in tables(varied_store, Filters(baseline="finetune@S"))[0].rows if row.delta}
    assert every["hkd4vlm"].p_holm == 2 * delta.p  # of two runs beside the baseline, the smaller p
    assert every["majority"].p_holm is None


def test_the_baseline_is_said(varied_store: Store, cli: Cli) -> None:
    said = cli("rank", "--store", varied_store.url, "--baseline", "finetune@S", "--benchmark", "toy").out
    assert "difference: from finetune (S), paired by seed and example" in said
    line = next(line for line in said.splitlines() if "hkd4vlm alpha=2" in line)
    assert "+37.5 [" in line
    assert max(map(len, said.splitlines())) <= 110


def test_budgets_are_never_mixed_unseen(varied_store: Store) -> None:
    text = to_text(table(varied_store, "toy"))
    assert "budget" in next(line for line in text.splitlines() if line.lstrip().startswith("#"))
    assert "rows of 2 budgets (training examples), which can't be compared on equal terms: 100, 4,096" in text
    assert "budget" not in to_text(table(varied_store, "toy2"))
