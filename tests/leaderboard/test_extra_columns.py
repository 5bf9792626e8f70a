"""What a ranking says beside its figures when asked: the price, distillation, power; and figures over benchmarks."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.leaderboard import inference
from harness.leaderboard.extra_columns import with_pareto
from harness.leaderboard.leaderboard import ranking
from harness.leaderboard.schema import Filters, Overall, Ranking, Row
from harness.record import Cost, RoleCost, RoleRecord, StageRecord
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.text import to_json, to_markdown, to_text
from harness.stats import aggregate, distillation, moderated, power
from harness.store import Store
from harness.store.compaction import compact
from harness.store.index import training_cost
from helpers.common import Cli
from helpers.runs import DATA, GOLD, add, results_of

MIB = 2**20


@pytest.fixture
def store(store: Store) -> Store:
    """Tuned L and S, a distilled S and a control, two seeds each, on one benchmark; two of them on another."""
    for seed in range(2):
        add(store, "finetune", 8, seed, student="L", parameters=1_200_000, cost=price(8, 1))
        add(store, "finetune", 3, seed, cost=price(1, 1))
        add(store, "offline_kd", [0, 1, 2, 3, 4, 5 + seed], seed, cost=price(9, 2), stages=STAGES)
        add(store, "finetune", 6, seed, run_id=f"t2-{seed}", **SECOND)
        add(store, "offline_kd", 5 + seed, seed, run_id=f"o2-{seed}", **SECOND)
    add(store, "majority", 4, kind="control", student="", parameters=0, budget=0)
    return store


SECOND: dict[str, Any] = {
    "benchmark": "toy2",
    "data": DATA.model_copy(update={"fingerprint": "c" * 64}),
}


def price(tflops: float, ms: float) -> Cost:
    return Cost(
        train_flops=tflops * 1e12, train_seconds=tflops, test_seconds=ms * 8 / 1000, test_forwards=8,
        peak_memory_bytes=int(tflops * MIB),
    )  # fmt: skip


def role(weights: str, trainable: bool) -> RoleRecord:
    return RoleRecord(weights=weights, trainable=trainable, parameters=1)


STAGES = [
    StageRecord(name="tune", share=0.0, steps=2, examples=64, roles={"teacher": role("L", True)}),
    StageRecord(
        name="distil", share=1.0, steps=2, examples=64,
        roles={"student": role("S", True), "teacher": role("tune.teacher", False)},
    ),
]  # fmt: skip
ROLES = {
    "tune.teacher": RoleCost(forwards=64, trained=64, flops=6e12, seconds=5),
    "distil.student": RoleCost(forwards=64, trained=64, flops=1e12, seconds=1),
    "distil.teacher": RoleCost(forwards=16, flops=2e12, seconds=2),
}


def rows(store: Store, benchmark: str = "toy", **asked: Any) -> dict[str, Row]:
    found = ranking(store, Filters(benchmark=benchmark, **asked))
    return {f"{row.method}@{row.student}": row for row in found.rows}


# ---------------------------------------------------------------------------------------------------- cost


def test_who_spent_what(store: Store) -> None:
    record = store.read("offline_kd-S-0")
    found = training_cost(record.model_copy(update={"cost": Cost(roles=ROLES, train_flops=9e12)}))
    assert (found.student_flops, found.teacher_flops) == (1e12, 8e12)
    assert (found.student_seconds, found.teacher_seconds) == (1, 7)
    assert found.cache_share == 1 - 16 / 64
    # Whose weights a role began with counts, through all stages; a frozen copy of the student teaches.
    later = StageRecord(
        name="refine", share=0.5, steps=1, examples=32,
        roles={"student": role("distil.student", True), "anchor": role("distil.student", False)},
    )  # fmt: skip
    billed = ROLES | {"refine.student": RoleCost(flops=3e12), "refine.anchor": RoleCost(forwards=32, flops=1e12)}
    found = training_cost(record.model_copy(update={"stages": [*STAGES, later], "cost": Cost(roles=billed)}))
    assert (found.student_flops, found.teacher_flops) == (4e12, 9e12)
    assert found.cache_share == 1 - 48 / 96
    assert training_cost(store.read("finetune-S-0")).cache_share is None


def test_cost_columns(store: Store) -> None:
    for seed in range(2):
        cost = price(9, 2 + 2 * seed).model_copy(update={"roles": ROLES})
        add(store, "offline_kd", 6, seed, cost=cost, stages=STAGES, settings={"alpha": 1}, run_id=f"alpha-{seed}")
    row = next(row for row in ranking(store).rows if row.label == "offline_kd alpha=1")
    assert (row.student_tflops, row.teacher_tflops, row.train_tflops) == (1, 8, 9)
    assert (row.student_seconds, row.teacher_seconds, row.train_seconds) == (1, 7, 9)
    assert (row.cache_share, row.peak_memory_mib, row.forwards_per_answer) == (0.75, 9, 1)
    assert row.ms_per_example == pytest.approx(3)  # of 2 and 4
    before = ranking(store)
    compact(store)
    assert ranking(store) == before


def test_unequal_forwards_are_shown(store: Store) -> None:
    """A row that is asked three times an answer says so without being asked; equal ones, or none, don't."""
    assert "forwards" not in to_text(ranking(store, Filters(benchmark="toy")).rows)
    cost = price(2, 1).model_copy(update={"test_forwards": 3 * 8})
    add(store, "shifted", 5, cost=cost)
    add(store, "shifted", status="failed", run_id="failed-0", settings={"alpha": 3})
    text = to_text(ranking(store, Filters(benchmark="toy")).rows).splitlines()
    head, *lines = text[next(k for k, line in enumerate(text) if line.lstrip().startswith("#")) :]
    column = head.index("forwards")
    forwards = {line.split()[3]: line[column : column + 8].strip() for line in lines if " S " in line}
    assert (forwards["shifted"], forwards["finetune"]) == ("3", "1")


def test_pareto_fronts(store: Store) -> None:
    """L has all right and costs 8; S tuned has 3/8 for 1; S distilled has 6/8 for 9, more than L costs."""
    found = rows(store)
    assert set(found["finetune@L"].pareto) >= {"train_tflops", "parameters", "ms_per_example", "peak_memory_mib"}
    assert "train_tflops" in found["finetune@S"].pareto
    assert "parameters" not in found["finetune@S"].pareto  # as many as the distilled one has, which is better
    assert "train_tflops" not in found["offline_kd@S"].pareto
    assert "parameters" in found["offline_kd@S"].pareto
    assert found["majority@"].pareto == ()


def test_pareto_against_its_definition() -> None:
    scores = [0.5, 0.7, 0.7, 0.7, 0.9, None, 0.2, 0.9]
    costs = [1.0, 2.0, 2.0, 3.0, 5.0, 0.0, None, 4.0]

    def beaten(k: int) -> bool:
        pairs = [(s, c) for s, c in zip(scores, costs, strict=True) if s is not None and c is not None]
        score, cost = scores[k], costs[k]
        assert score is not None
        assert cost is not None
        return any(s >= score and c <= cost and (s > score or c < cost) for s, c in pairs)

    wanted = [
        s is not None and c is not None and not beaten(k) for k, (s, c) in enumerate(zip(scores, costs, strict=True))
    ]
    assert distillation.pareto(scores, costs) == wanted == [True, True, True, False, False, False, False, True]


def test_a_smaller_error_is_on_the_front(store: Store) -> None:
    whole = list(rows(store).values())
    turned = [row.model_copy(update={"metric": "ece", "values": {"ece": row.values["accuracy"]}}) for row in whole]
    by_name = {f"{row.method}@{row.student}": row.pareto for row in with_pareto(turned)}
    assert "train_tflops" in by_name["finetune@S"]  # the least accuracy, read as an error, at the least cost
    assert "train_tflops" not in by_name["finetune@L"]


# -------------------------------------------------------------------------------------------- distillation


def test_distillation_is_that_of_the_predictions(store: Store) -> None:
    before = rows(store, columns=("distil",))
    compact(store)
    assert rows(store, columns=("distil",)) == before
    found = before["offline_kd@S"].distil
    assert found is not None
    assert (found.teacher, found.baseline, found.why) == ("finetune@L", "finetune@S", "")
    frames = (
        {seed: store.predictions(f"{name}-{seed}", "test") for seed in (0, 1)}
        for name in ("offline_kd-S", "finetune-S", "finetune-L")
    )
    sides = results_of(*frames, labels=2)
    drawn = [d_ns for side in sides if (d_ns := side.replicates["accuracy"]) is not None]
    wanted = distillation.gap_closed(np.stack([side.points["accuracy"] for side in sides]), np.stack(drawn), 8)
    assert (found.gap_closed, found.gap) == (wanted.closed, wanted.gap)
    assert found.gap_closed is not None
    assert found.gap_closed.value == pytest.approx((6 / 8 - 3 / 8) / (8 / 8 - 3 / 8))
    student, teacher = (inference.choices_of(side, [0, 1]) for side in (sides[0], sides[2]))
    shares = distillation.shares(student, teacher, np.array(GOLD), np.arange(8), 8)
    assert (found.agreement, found.inherited, found.copied) == (shares["same"], shares["inherited"], shares["copied"])
    assert (found.introduced, found.fixed) == (shares["introduced"], shares["fixed"])
    assert before["finetune@L"].distil is None  # the teacher itself
    tuned = before["finetune@S"].distil
    assert tuned is not None
    assert tuned.gap_closed is None
    assert tuned.agreement is not None
    assert before["majority@"].distil is None


def test_the_teacher_and_the_baseline_may_be_named(store: Store) -> None:
    found = rows(store, columns=("distil",), teacher="offline_kd@S", baseline="finetune@L")
    assert found["offline_kd@S"].distil is None
    of_s = found["finetune@S"].distil
    assert of_s is not None
    assert (of_s.teacher, of_s.baseline) == ("offline_kd@S", "finetune@L")
    assert "isn't significantly above the baseline" in of_s.why
    narrowed = rows(store, columns=("distil",), teacher="finetune@L", method="offline_kd")
    assert narrowed.keys() == {"offline_kd@S", "finetune@L", "majority@"}  # a row that is named stays in


def test_the_teacher_need_not_be_asked_for(store: Store) -> None:
    whole = rows(store, columns=("distil",))
    narrowed = rows(store, columns=("distil",), method="offline_kd")
    assert narrowed.keys() == {"offline_kd@S", "majority@"}
    assert narrowed["offline_kd@S"].distil == whole["offline_kd@S"].distil


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"teacher": "finetune@XL"}, "no row 'finetune@XL' to be the teacher; did you mean 'finetune'"),
        ({"columns": ("costs",)}, "--columns 'costs': did you mean 'cost'? known: cost, distil, power"),
        ({"aggregate": ("median",)}, "--aggregate 'median': did you mean 'mean'? known: iqm, mean, rank"),
    ],
)
def test_names_that_there_are_not(store: Store, asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        ranking(store, Filters(**asked))


# --------------------------------------------------------------------------------------------------- power


def test_power_is_that_of_the_predictions(store: Store) -> None:
    found = rows(store, columns=("power",))
    assert found["finetune@L"].power is None  # nothing above it
    told = found["offline_kd@S"].power
    assert told is not None
    assert told.against == "finetune@L"
    a, b = ({s: store.predictions(f"{name}-{s}", "test") for s in (0, 1)} for name in ("offline_kd-S", "finetune-L"))
    one, other = results_of(a, b, labels=2)
    point_s, replicates_ns = inference.paired_difference(one, other, [0, 1], "accuracy")
    assert replicates_ns is not None
    known = moderated.of_pairs(np.array([[8, 8], [3, 3], [6, 6]]) / 8)  # what the three rows say of their seeds
    noise = power.noise(point_s, replicates_ns, 8, known)
    assert told.difference == pytest.approx(6 / 8 - 8 / 8)
    assert told.detectable == pytest.approx(power.detectable(noise))
    needed = power.needed(noise, told.difference)
    assert (told.images, told.seeds) == (needed.groups, needed.seeds)
    assert told.more_images == (None if needed.groups is None else needed.groups - 8)
    against = rows(store, columns=("power",), baseline="finetune@S")
    assert against["finetune@S"].power is None
    assert {name: row.power.against for name, row in against.items() if row.power} == {
        "finetune@L": "finetune@S",
        "offline_kd@S": "finetune@S",
    }


def test_enough_is_no_more() -> None:
    noise = power.Noise(images=0.1, answers=0.2, seeds=0.0001, measured_groups=500, measured_seeds=3)
    sure = power.power_report(noise, 0.5)
    assert (sure.images, sure.seeds, sure.more_images, sure.more_seeds) == (500, 3, 0, 0)
    unsure = power.power_report(noise, 0.04)
    needed = power.needed(noise, 0.04)
    assert needed.groups is not None
    assert needed.seeds is not None
    assert (unsure.more_images, unsure.more_seeds) == (needed.groups - 500, needed.seeds - 3)
    assert power.power_report(noise, 0.001).more_seeds is None
    same = power.power_report(power.Noise(0.0, 0.0, 0.0, 500, 3), 0.0)
    assert (same.detectable, same.images, same.more_images, same.more_seeds) == (0, None, None, None)


# --------------------------------------------------------------------------------------- over all benchmarks


def test_aggregates_over_benchmarks(store: Store) -> None:
    before = ranking(store, Filters(aggregate=("mean", "rank", "iqm")))
    compact(store)
    assert ranking(store, Filters(aggregate=("mean", "rank", "iqm"))) == before
    found = {f"{row.method}@{row.student}": row for row in before.overall}
    # toy and toy2: finetune 3/8 and 6/8; offline_kd 6/8 in both seeds, and 5/8 and 6/8.
    assert value(found["finetune@S"], "mean") == pytest.approx((3 / 8 + 6 / 8) / 2)
    assert value(found["offline_kd@S"], "mean") == pytest.approx((6 / 8 + 5.5 / 8) / 2)
    assert value(found["finetune@S"], "mean_rank") == value(found["offline_kd@S"], "mean_rank") == 1.5
    assert value(found["offline_kd@S"], "iqm") == pytest.approx(6 / 8)  # of 5/8, 6/8, 6/8, 6/8 the middle two
    for name, missing in (("finetune@L", ("toy2",)), ("majority@", ("toy2",))):
        one = found[name]
        assert (one.mean, one.mean_rank, one.iqm, one.missing) == (None, None, None, missing)
    assert [row.method for row in before.overall[:2]] == ["offline_kd", "finetune"]
    # The same from the predictions: values exactly; intervals from other draws, so nearly.
    frames = {
        benchmark: {name: {s: store.predictions(f"{ids}-{s}", "test") for s in (0, 1)} for name, ids in of.items()}
        for benchmark, of in {
            "toy": {"finetune@S": "finetune-S", "offline_kd@S": "offline_kd-S"},
            "toy2": {"finetune@S": "t2", "offline_kd@S": "o2"},
        }.items()
    }
    figures = []
    seeds = {"toy": [[8, 8], [3, 3], [6, 6]], "toy2": [[6, 6], [5, 6]]}  # right answers of 8, of all rows
    for number, (benchmark, rows_of) in enumerate(frames.items()):
        sides = results_of(*rows_of.values(), labels=2)
        points = [side.points["accuracy"] for side in sides]
        drawn = [d_ns for side in sides if (d_ns := side.replicates["accuracy"]) is not None]
        other_order = [drawn_ns[:: 1 - 2 * number] for drawn_ns in drawn]
        known = moderated.of_rows(np.array(seeds[benchmark]) / 8)
        figures.append(aggregate.benchmark_figures(points, other_order, [8, 8], number, [known, known]))
    for name, one in zip(frames["toy"], aggregate.aggregated(figures), strict=True):
        for figure in ("mean", "iqm"):
            mine, theirs = getattr(found[name], figure), getattr(one, figure)
            assert [mine.value, mine.low, mine.high] == pytest.approx([theirs.value, theirs.low, theirs.high], abs=0.05)
    assert ranking(store, Filters(benchmark="toy", aggregate=("mean",))).overall == ()  # one benchmark: nothing to say
    assert ranking(store).overall == ()


def test_a_label_stands_for_one_row_over_benchmarks_that_it_is_tuned_for_each(store: Store) -> None:
    def overall(**config: Any) -> dict[str, Overall]:
        for number, benchmark in enumerate(({}, SECOND)):
            for seed in range(2):
                tuned = config | {"train": {"lr": 10.0 ** -(3 + number)}}
                add(
                    store,
                    "mutual",
                    4 + number,
                    seed,
                    run_id=f"m{len(config)}{number}-{seed}",
                    config=tuned,
                    **benchmark,
                )
        rows = ranking(store, Filters(aggregate=("mean",))).overall
        return {",".join(row.run_ids): row for row in rows if row.method == "mutual"}

    apart = overall()
    assert {row.missing for row in apart.values()} == {("toy2",), ("toy",)}
    named = overall(label="tuned")["m10-0,m10-1"]
    assert (named.missing, value(named, "mean")) == ((), pytest.approx(4.5 / 8))


def test_two_rows_of_one_label_are_told_by_their_configuration(store: Store) -> None:
    for lr, of_toy, of_toy2 in (
        (0.1, 4, 6),
        (0.2, 5, 3),
    ):  # the better one of the first table is the worse of the second
        for number, (right, benchmark) in enumerate(((of_toy, {}), (of_toy2, SECOND))):
            for seed in range(2):
                config = {"label": "tuned", "train": {"lr": lr}}
                add(store, "mutual", right, seed, run_id=f"m{lr}{number}-{seed}", config=config, **benchmark)
    rows = [row for row in ranking(store, Filters(aggregate=("mean",))).overall if row.method == "mutual"]
    assert [value(row, "mean") for row in rows] == pytest.approx([5 / 8, 4 / 8])


def value(row: Overall, figure: str) -> float:
    found = getattr(row, figure)
    assert found.low <= found.value <= found.high
    return float(found.value)


# ------------------------------------------------------------------------------------------------- printed


ASKED = ("--columns", "cost,distil,power", "--aggregate", "mean,rank,iqm")


@pytest.fixture
def whole(store: Store) -> Ranking:
    return ranking(store, Filters(columns=("cost", "distil", "power"), aggregate=("mean", "rank", "iqm")))


@pytest.mark.parametrize("show", [to_text, to_markdown, to_latex, to_html])
def test_every_form_shows_them(whole: Ranking, show: Any) -> None:
    text = show(whole.rows, [], ("cost", "distil", "power"), whole.overall)
    named = {
        "cost of training", "cached", "cost of an answer", "ms / answer", "distillation, compared with finetune@L",
        "gap closed", "agreement", "inherited", "introduced", "fixed", "power", "detectable", "more images",
        "or more seeds", "All benchmarks", "mean rank", "IQM", "missing",
    }  # fmt: skip
    assert {name for name in named if name not in text} == set()
    assert ("textdagger" if show is to_latex else "†") in text
    plain = show(whole.rows)
    assert not {"gap closed", "IQM", "detectable", "cached"} & set(
        re.findall(r"gap closed|IQM|detectable|cached", plain)
    )
    if show is to_text:
        assert max(map(len, text.splitlines())) <= 110
    if show is to_html:
        assert text.count("<svg") >= 4  # the intervals of two tables, and scores against costs
        assert text.count("<polyline") == text.count("a line connects the front") >= 2
        assert "script" not in text.replace("'none'", "")


def test_json_and_csv_hold_them(store: Store, cli: Cli) -> None:
    document = cli("rank", "--store", store.url, "--json", *ASKED).json
    found = ranking(store, Filters(columns=("cost", "distil", "power"), aggregate=("mean", "rank", "iqm")))
    assert [Row(**row) for row in document["rows"]] == found.rows
    assert [Overall(**row) for row in document["overall"]] == list(found.overall)
    assert "overall" not in json.loads(to_json(found.rows))
    said = cli("rank", "--store", store.url, "--format", "csv", "--columns", "distil,power").out
    lines = {(line["benchmark"], line["label"], line["student"]): line for line in csv.DictReader(io.StringIO(said))}
    line, row = lines["toy", "offline_kd", "S"], next(row for row in found.rows if row.method == "offline_kd")
    assert row.distil is not None
    assert row.distil.agreement is not None
    assert row.power is not None
    assert float(line["distil_agreement_low"]) == row.distil.agreement.low
    assert line["distil_teacher"] == "finetune@L"
    assert float(line["power_detectable"]) == row.power.detectable
    assert line["pareto"].split() == list(row.pareto)
    over = cli("rank", "--store", store.url, "--format", "csv", "--aggregate", "mean").out
    first = next(csv.DictReader(io.StringIO(over)))
    assert (first["label"], first["missing"], float(first["mean"])) == ("offline_kd", "", found.overall[0].mean.value)  # type: ignore[union-attr]
