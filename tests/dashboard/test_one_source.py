"""A pair of rows has one difference, one interval and one p: of the command line, an ablation and the dashboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.data import ablation as ablation_data
from dashboard.data import catalog
from dashboard.data import leaderboard as board
from dashboard.table import TableRow
from dashboard.views import compare as compare_page
from dashboard.widgets import overall as overall_page
from harness.evaluation.controls import control_id
from harness.leaderboard import ablation, inference, seed_results
from harness.leaderboard.ablation import Ablation, AblationLine
from harness.leaderboard.compare import compare, sides
from harness.leaderboard.leaderboard import ranking
from harness.leaderboard.schema import Filters
from harness.report.format import p_value
from harness.store import Store
from harness.store.compaction import compact
from helpers.common import Cli
from helpers.runs import DATA, add

Open = Callable[..., AppTest]
SEEDS = range(3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three rows of three seeds that err on different questions, and a control without a model."""
    made = Store(tmp_path)
    for seed in SEEDS:
        add(made, "finetune", [0, 1, 2 + seed, 6], seed)
        add(made, "offline_kd", [0, 1, 2, 3, 4, 5 + seed % 3], seed)
        add(made, "mutual", [seed, 2, 5, 7], seed)
    add(made, "majority", 3, kind="control", student="", parameters=0, budget=0,
        run_id=control_id("majority", "toy", DATA))  # fmt: skip
    return made


def numbers(found: Any) -> tuple[float, float, float, float, tuple[int, ...]]:
    return found.value, found.low, found.high, found.p, tuple(found.seeds)


def drawn(monkeypatch: pytest.MonkeyPatch, page: Any) -> list[TableRow]:
    """The lines of the tables that a page draws, as they are drawn; without costs."""
    lines: list[TableRow] = []

    def table(columns: Sequence[Any], of_table: Sequence[TableRow], **more: Any) -> None:
        lines.extend(of_table if more.get("key") != "costs" else ())

    monkeypatch.setattr(page, "table", table)
    return lines


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "micro_f1", "accuracy/count"])
def test_a_pair_has_one_difference(store: Store, cli: Cli, metric: str, compacted: bool) -> None:
    if compacted:
        compact(store)
    rows = {row.method: row for row in ranking(store, Filters(baseline="finetune@S", metric=metric)).rows}
    for method in ("offline_kd", "mutual", "majority"):
        delta = rows[method].delta
        assert delta is not None
        found = compare(store, *sides(store, method, "finetune"), metric=metric)
        assert numbers(found.difference) == numbers(delta)
        assert delta.seeds == tuple(SEEDS)
        ids = [dict(zip(rows[m].seeds, rows[m].run_ids, strict=True)) for m in (method, "finetune")]
        again = inference.difference(*seed_results.of_runs(store, ids, "test", [metric]), metric)
        assert numbers(again) == numbers(delta)
    said = cli("rank", "--store", store.url, "--baseline", "finetune@S", "--metric", metric, "--json").json["rows"]
    delta = next(row["delta"] for row in said if row["method"] == "mutual")
    told = cli("compare", "mutual", "finetune", "--store", store.url, "--metric", metric, "--json").json["difference"]
    assert {key: told[key] for key in delta if key != "p_holm"} == {k: v for k, v in delta.items() if k != "p_holm"}
    assert told["p"] < 1


@pytest.mark.parametrize("number", range(3))
def test_all_pairs_through_every_door(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Rows of one to three seeds, some without a seed in common, and a control, at random."""
    store, rng = Store(tmp_path), np.random.default_rng(number)
    names = ["finetune", "offline_kd", "mutual", "hkd4vlm"]
    for k, name in enumerate(names):
        seeds = SEEDS if k == 0 else np.flatnonzero(rng.random(3) < 0.7) if k < 3 else [int(rng.integers(3))]
        for seed in seeds:
            add(store, name, np.flatnonzero(rng.random(8) < 0.4 + 0.1 * k).tolist(), int(seed), tags=[name])
    add(store, "majority", 3, kind="control", student="", parameters=0, budget=0)
    plain = {row.method: row for row in ranking(store).rows if row.seeds}
    runs = {name: dict(zip(row.seeds, row.run_ids, strict=True)) for name, row in plain.items()}
    told, borrowed = 0, 0
    for base in plain:
        called = base if base == "majority" else f"{base}@S"
        table = ranking(store, Filters(baseline=called)).tables[0]
        rows = {row.method: row.delta for row in table.rows}
        drawn_as = board.board_columns(table, table.rows)["difference"].cell
        cells = {row.method: drawn_as(row) for row in table.rows}
        lines = [
            AblationLine(label=m, part="rival", method=m, student="S", settings={}, runs={"toy": runs[m]})
            for m in sorted(runs, key=lambda m: m != base)
        ]
        full = lines[0].model_copy(update={"part": "full"})
        tried = ablation.evaluated(Ablation(name="t", method=base, lines=(full, *lines[1:])), store).tables["toy"]
        figures = {one.label: one.figures.get("test/accuracy") for one in tried}
        for name in plain:
            delta = rows[name]
            if name == base or delta is None:
                assert name == base or not set(runs[name]) & set(runs[base])
                continue
            wanted = numbers(delta)
            found = compare(store, *sides(store, name, base)).difference
            assert numbers(found) == wanted
            assert found.borrowed == (len(delta.seeds) == 1)
            pair = seed_results.of_runs(store, [runs[name], runs[base]], "test")
            assert numbers(inference.difference(*pair, "accuracy")) == wanted
            assert inference.intervals(pair, "accuracy")[0] == plain[name].values["accuracy"]  # as a sweep has it
            cell = cells[name]
            assert (cell.value, cell.low, cell.high) == wanted[:3]
            assert f"raw p {p_value(delta.p)}" in cell.title
            if base == "finetune" and name != "majority":
                assert (direct := plain[name].direct) is not None
                assert direct.difference is not None
                assert numbers(direct.difference) == wanted
            if "majority" not in (name, base):  # filters change nothing; the baseline is always shown
                for among in (False, True):
                    filtered = ranking(store, Filters(baseline=called, method=name, among_shown=among)).rows
                    assert numbers(next(row.delta for row in filtered if row.method == name)) == wanted
            figure = figures[name]
            assert figure is not None
            assert figure.difference is not None
            assert (figure.difference.value, figure.difference.low, figure.difference.high) == wanted[:3]
            assert figure.p == wanted[3]
            told, borrowed = told + 1, borrowed + found.borrowed
        assert ranking(store, Filters(baseline=called)).rows[0].values == ranking(store).rows[0].values
    assert told >= 8
    assert borrowed
    name = next(one for one in names[1:] if set(runs[one]) & set(runs["finetune"]))
    page = drawn(monkeypatch, compare_page)
    opened("compare", a=plain[name].run_ids[0], b=plain["finetune"].run_ids[0], store=store.url)
    found = compare(store, *sides(store, name, "finetune")).difference
    assert (page[0].cells[2].low, page[0].cells[3].text) == (found.low, p_value(found.p))


def test_a_category_has_one_difference(store: Store) -> None:
    found = compare(store, *sides(store, "offline_kd", "finetune"))
    for category in found.categories:
        filters = Filters(baseline="finetune@S", metric=f"accuracy/{category.name}")
        delta = next(row.delta for row in ranking(store, filters).rows if row.method == "offline_kd")
        assert numbers(category.difference) == numbers(delta)


def test_an_ablation_has_the_differences_of_the_ranking(store: Store) -> None:
    rows = {row.method: row for row in ranking(store, Filters(baseline="offline_kd@S")).rows}
    lines = [
        AblationLine(label=m, part="ablation" if k else "full", method=m, student="S", settings={},
                     runs={"toy": dict(zip(rows[m].seeds, rows[m].run_ids, strict=True))})
        for k, m in enumerate(("offline_kd", "finetune", "mutual"))
    ]  # fmt: skip
    found = ablation.evaluated(Ablation(name="trial", method="offline_kd", lines=tuple(lines)), store).tables["toy"]
    assert [one.label for one in found] == ["offline_kd", "finetune", "mutual", "majority"]
    whole = Ablation(name="trial", method="offline_kd", lines=tuple(lines), tables={"toy": found})
    pair = ablation_data.difference(store, whole, "toy", "test/accuracy", "finetune", "mutual")
    other = {row.method: row for row in ranking(store, Filters(baseline="mutual@S")).rows}["finetune"].delta
    assert pair is not None
    assert other is not None
    assert (pair.value, pair.low, pair.high, pair.p) == (other.value, other.low, other.high, other.p)
    for one in found:
        figure = one.figures["test/accuracy"]
        assert figure.value == rows[one.label].values["accuracy"]
        delta = rows[one.label].delta
        if one.part == "full":
            assert (figure.difference, delta) == (None, None)
            continue
        assert delta is not None
        assert figure.difference is not None
        mine = (figure.difference.value, figure.difference.low, figure.difference.high)
        assert mine == (delta.value, delta.low, delta.high)
        assert figure.p == (None if one.part == "control" else delta.p)


def test_ranks_are_made_of_the_pairs(store: Store) -> None:
    found = ranking(store, Filters(pairs=True)).tables[0]
    assert ranking(store, Filters()).tables[0].pairs == ()
    assert len(found.pairs) >= 3
    worse = [one.a if one.value < 0 else one.b for one in found.pairs if one.p_holm is not None and one.p_holm <= 0.05]
    for row in found.rows:
        if row.rank_low is not None:
            assert row.rank_low == 1 + worse.count(row.run_ids[0])
    base = ranking(store, Filters(baseline="finetune@S")).tables[0]
    deltas = {row.run_ids[0]: row.delta for row in base.rows if row.delta}
    reference = next(row.run_ids[0] for row in base.rows if row.baseline)
    for one in found.pairs:
        if reference == one.b and (delta := deltas.get(one.a)):
            assert (one.value, one.low, one.high, one.p) == pytest.approx((delta.value, delta.low, delta.high, delta.p))


def test_the_dashboard_has_the_differences_of_the_ranking(
    store: Store, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ranking(store, Filters(baseline="finetune@S")).tables[0]
    rows = {row.method: row for row in found.rows}
    for method in ("offline_kd", "majority"):
        delta = rows[method].delta
        assert delta is not None
        cell = board.board_columns(found, found.rows)["difference"].cell(rows[method])
        assert (cell.value, cell.low, cell.high) == (delta.value, delta.low, delta.high)
        lines = drawn(monkeypatch, compare_page)
        opened("compare", a=rows[method].run_ids[0], b=rows["finetune"].run_ids[0])
        whole = lines[0].cells[2]  # all examples, above the categories
        assert (whole.value, whole.low, whole.high) == (delta.value, delta.low, delta.high)
        assert lines[0].cells[3].text == p_value(delta.p)


def test_the_weighted_mean_of_the_dashboard_is_the_rankings(
    store: Store, opened: Open, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DATA.model_copy(update={"fingerprint": "c" * 64})
    for seed in SEEDS:
        add(store, "finetune", [0, 3, 4 + seed], seed, benchmark="toy2", data=other, run_id=f"f2-{seed}")
    alike = json.loads(cli("rank", "--store", store.url, "--aggregate", "mean", "--json").out)["overall"]
    mean = next(one["mean"] for one in alike if one["method"] == "finetune")
    lines = drawn(monkeypatch, overall_page)
    opened("leaderboard", benchmark="All benchmarks")
    cell = lines[0].cells[3]
    assert (cell.value, cell.low, cell.high) == (mean["value"], mean["low"], mean["high"])
    assert [line.cells[3].value for line in lines[1:]] == [None] * 3  # the others lack a benchmark
    lines.clear()
    opened("leaderboard", **{"benchmark": "All benchmarks", "weight toy": "3"})
    assert lines[0].cells[3].value == pytest.approx((3 * 4 / 8 + 3 / 8) / 4)
    lines.clear()
    opened("leaderboard", **{"benchmark": "All benchmarks", "weight toy2": "0"})
    assert [line.cells[1].text for line in lines] == ["offline_kd", "finetune", "mutual", "majority"]


def test_the_smallest_difference_is_that_of_the_power_column(store: Store) -> None:
    found = ranking(store, Filters(columns=("power",))).tables[0]
    best, second = [row for row in found.rows if row.kind == "run"][:2]
    assert second.power is not None
    compared = compare(store, *sides(store, second.method, best.method)).power
    assert compared is not None
    shown = catalog.measured(found, store)
    assert shown == (f"{best.label} S", f"{second.label} S", second.power.detectable, 8, len(SEEDS))
    assert compared.detectable == second.power.detectable
