"""What stands above and below a table, in all formats: labels, common settings, unequal forward passes."""

from __future__ import annotations

import csv
import io
import json
import re
from html import escape, unescape
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.leaderboard.leaderboard import ranking, table
from harness.leaderboard.schema import Delta, DirectlyTuned, Filters, Power, Row
from harness.record import Cost, Interval
from harness.report.format import p_value, percent, short
from harness.report.html import to_html
from harness.report.latex import to_latex
from harness.report.tables import headline, seeds_needed
from harness.report.text import to_json, to_markdown, to_text
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


def a_row(method: str, value: float, student: str = "S", metric: str = "accuracy", **fields: Any) -> Row:
    base: dict[str, Any] = {
        "benchmark": "toy", "revision": "1", "fingerprint": "f", "split": "test", "kind": "run", "method": method,
        "label": method, "ladder": "tiny", "student": student, "seeds": (0,), "examples": 4, "groups": 4,
        "metric": metric, "values": {metric: Interval(value=value)}, "train_tflops": 1.0, "train_seconds": 1.0,
        "forwards_per_answer": 1.0, "parameters": {"S": 100, "L": 400}.get(student), "run_ids": (f"{method}-0",),
    }  # fmt: skip
    return Row(**base | fields)


def test_how_many_more_seeds_a_difference_needs() -> None:
    def powered(method: str, difference: float, images: int | None, seeds: int | None, student: str = "S") -> Row:
        power = Power(
            against="finetune@S", difference=difference, detectable=0.05, images=None, seeds=None, more_images=images,
            more_seeds=seeds,
        )  # fmt: skip
        return a_row(method, 0.5 + difference, student, power=power)

    base = a_row("finetune", 0.5, baseline=True)
    rows = [
        powered("finetune", 0.2, None, 3, "L"),  # another student
        powered("dml", 0.1, 0, 0),  # detectable
        powered("offline_kd", 0.027, 1200, 1),
        base,
        powered("hkd4vlm", -0.01, None, 12),
        powered("fitnets", -0.001, None, None),
    ]
    assert seeds_needed(rows) == (
        "To show such differences to finetune (S) with 80 % power: offline_kd (+2.7) 1 more seed or 1,200 more images; "
        "hkd4vlm (-1.0) 12 more seeds; fitnets (-0.1) more of both."
    )
    assert seeds_needed([rows[1], base]) == ""


def over_direct(value: float, p: float | None, **fields: Any) -> DirectlyTuned:
    delta = Delta(value=value, low=value - 0.05, high=value + 0.05, p=p, p_holm=p)
    return DirectlyTuned(**{"label": "finetune", "figure": 0.5, "train_tflops": 0.5, "forwards_per_answer": 1.0,
                           "difference": delta} | fields)  # fmt: skip


def test_the_headline_answers_the_projects_question() -> None:
    larger, direct = a_row("finetune", 0.8, "L"), a_row("finetune", 0.5)
    kd = a_row("kd", 0.6, direct=over_direct(0.1, 8.6e-80), train_tflops=1234.5, forwards_per_answer=3.0)
    majority = a_row("majority", 0.25, "", kind="control")
    assert headline([larger, kd, direct, majority]) == [
        "Best for student S: kd, 60.0 %: +10.0 [+5.0, +15.0] points compared with direct tuning (significant, Holm p "
        "< 0.0001). Training: 1,234 TFLOPs (direct tuning: 0.5); forward passes per answer: 3 (direct tuning: 1).",
        "For reference, L tuned directly: 80.0 %.",
        "Always giving the most frequent answer: 25.0 %.",
    ]
    # Filters change it: without its rivals the best of the rest is named.
    worse = a_row("worse", 0.45, direct=over_direct(-0.05, 0.31), tier=(2,))
    (said,) = headline([worse])
    assert "worse, 45.0 %: -5.0 [-10.0, +0.0] points compared with direct tuning (not significant, Holm p 0.31)" in said
    (said,) = headline([direct, worse])
    assert said.startswith(
        "Best for student S: direct tuning (finetune), 50.0 %; the best other row, worse, is at 45.0 %"
    )
    assert headline([larger, direct]) == ["Only direct tuning is shown: S 50.0 %, L 80.0 %."]
    assert headline([majority])[0] == "No finished run is ranked here yet."
    (said,) = headline([a_row("kd", 0.6)])
    assert "no direct tuning to compare with" in said
    tied = [kd.model_copy(update={"tier": (1,), "label": f"k{n}"}) for n in range(4)]
    assert headline(tied)[0].endswith("Not significantly different from it (Holm p over all pairs): k1, k2 and 1 more.")


def test_the_headline_of_an_error_has_its_unit_and_direction() -> None:
    rows = [a_row("kd", 0.6, metric="nll", direct=over_direct(0, None, difference=None)), a_row("b", 0.7, metric="nll")]
    assert headline(rows)[0].startswith(
        "Best for student S: kd, nll 0.6000 nats, lower is better; direct tuning is at nll 0.5000 nats"
    )


@pytest.mark.parametrize(("p", "text"), [(8.6e-80, "< 0.0001"), (0.00012, "0.00012"), (0.0468, "0.047"), (1, "1")])
def test_a_p_in_words(p: float, text: str) -> None:
    rows = [a_row("a", 0.6, delta=Delta(value=0.1, low=0.05, high=0.2, p=p, p_holm=p)), a_row("b", 0.5, baseline=True)]
    assert p_value(p) == text
    for made, shown in ((to_text, text), (to_markdown, text.replace("<", r"\<")), (to_html, escape(text)),
                        (to_latex, text.replace("<", r"\textless{}"))):  # fmt: skip
        assert shown in made(rows)
        assert "e-80" not in made(rows)
    assert json.loads(to_json(rows))["rows"][0]["delta"]["p"] == p


def test_exports_hold_the_chosen_columns() -> None:
    rows = [a_row("a", 0.6, budget=64), a_row("b", 0.5, budget=64)]
    chosen = ["rank", "method", "score", "budget"]
    assert "| # | method | accuracy (%) | budget |" in to_markdown(rows, chosen=chosen)
    assert r"\# & method & accuracy (\%) & budget \\" in to_latex(rows, chosen=chosen)
    assert re.findall(r"<th[^>]*>(.*?)</th>", to_html(rows, chosen=chosen)) == ["#", "method", "accuracy (%)", "budget"]


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
    assert to_text(rows).index("all runs: ") < to_text(rows).rindex("offline_kd")
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


@pytest.mark.parametrize(
    ("number", "text"), [(0.1584, "0.158"), (9876.5, "9,876"), (12_345, "12.3k"), (123_456, "123k"), (2e6, "2e+06")]
)
def test_a_cost_in_words_has_at_most_four_digits(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0.631, "0.6310"), (1.23456, "1.235"), (123.456, "123.5"), (1234.5, "1234")]
)
def test_a_figure_in_its_own_unit_has_four_digits(number: float, text: str) -> None:
    assert percent(Interval(value=number), own_unit=True) == text
