"""The results page says what the stored predictions say, and the bare loop of the bench is the harness's own work."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from harness.errors import StoreError
from harness.leaderboard.inference import difference
from harness.leaderboard.leaderboard import table
from harness.record import Cost, Provenance
from harness.stats.inference import Difference
from harness.store import Store
from harness.store.compaction import compact
from helpers import runs
from helpers.common import ToyPlan
from helpers.runs import results_of, spread_of

PROVENANCE = Provenance(
    package="hkdbench 0",
    code="c0de",
    git_commit="0123456789abcdef",
    git_dirty=False,
    versions={"torch": "2"},
    machine={"processor": "abacus", "cores": 1, "system": "Linux", "architecture": "wood"},
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-02T00:00:00+00:00",
)


@pytest.fixture
def results_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root))
    return importlib.import_module("scripts.results_page")


def add(store: Store, method: str, right: Sequence[int], seed: int, student: str = "S", **fields: Any) -> None:
    """A run of the suite `results` that gets those of `right` right."""
    own: dict[str, Any] = {
        "run_id": f"{method}-{student}-{seed}",
        "tags": ["suite:results"],
        "config": {"method": method, "seed": seed, "train": {"examples": 64}},
        "provenance": PROVENANCE,
    }
    runs.add(store, method, right, seed, student=student, **own | fields)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """hkd4vlm gets all 8 right, offline_kd 6, finetune 2 (S) and 7 (L), in both seeds."""
    monkeypatch.chdir(tmp_path)
    made = Store("results/toy")
    for seed in (0, 1):
        add(made, "hkd4vlm", range(8), seed)
        add(made, "offline_kd", range(6), seed)
        add(made, "finetune", [0, 1], seed)
        add(made, "finetune", range(7), seed, student="L", parameters=1_200_000)
    return made


def cells(page: str, *start: str) -> list[str]:
    """The cells of the page's one table line that begins so."""
    lines = [line for line in page.splitlines() if line.startswith("| " + " | ".join(start) + " |")]
    assert len(lines) == 1
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_the_page_holds_the_differences(results_page: ModuleType, store: Store) -> None:
    page = results_page.page([Path("results/toy")])
    # 8 of 8 against 2 of 8, in both seeds.
    found = cells(page, "hkd4vlm (S)", "finetune (S)", "test", "accuracy")
    assert found[4] == "+75.0"
    assert found[6:] == [f"{off(store, 'hkd4vlm-S', 'finetune-S').p:.2g}", "2", "outside"]
    # One question of eight more, with Student's t over the images and what all rows say of their seeds.
    d = off(store, "hkd4vlm-S", "finetune-L")
    assert d.low is not None
    assert d.high is not None
    assert cells(page, "hkd4vlm (S)", "finetune (L)", "test", "accuracy")[4:] == [
        "+12.5", f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]", f"{d.p:.2g}", "2", "inside",
    ]  # fmt: skip
    assert "**hkd4vlm (S)** is above finetune (S) in test accuracy (+75.0) and test macro-F1" in page
    assert "**hkd4vlm (S)** is not significantly different from finetune (L) in test accuracy (+12.5)" in page
    assert page == results_page.page([Path("results/toy")])


def off(store: Store, a: str, b: str) -> Difference:
    of_a, of_b = ({seed: store.predictions(f"{name}-{seed}") for seed in (0, 1)} for name in (a, b))
    found = difference(*results_of(of_a, of_b, labels=2, spread=spread_of(store)), "accuracy")
    assert found is not None
    return found


def test_the_page_says_where_its_figures_come_from(results_page: ModuleType, store: Store) -> None:
    page = results_page.page([Path("results/toy")])
    assert "reconstruction" in page
    assert "2506.13038" in page
    assert "- Records: `results/toy` (8 runs, 2026-01-01 to 2026-01-02)" in page
    assert "- Run by: `hkdbench suite suites/results.toml --store results/toy`" in page
    assert "- Training: examples = 64" in page
    assert "- Machine: abacus, 1 cores, Linux wood" in page
    assert "- Code: commit `0123456789ab`\n" in page
    assert str(Path.cwd()) not in results_page.page([store.root])


def test_only_runs_of_one_budget_are_paired(results_page: ModuleType, store: Store) -> None:
    add(store, "hkd4vlm", [], 0, run_id="longer", config={"method": "hkd4vlm", "train": {"examples": 128}})
    page = results_page.page([Path("results/toy")])
    pairs = [line for line in page.splitlines() if "| finetune (S) | test | accuracy |" in line]
    assert [line.split(" | ")[0] for line in pairs if "hkd4vlm" in line] == ["| hkd4vlm train.examples=64 (S)"]


def test_every_row_is_paired_with_direct_tuning(results_page: ModuleType, store: Store) -> None:
    for seed in (0, 1):
        add(store, "hkd4vlm", range(5), seed, run_id=f"less-{seed}", settings={"msi": False})
        thrice: dict[str, Any] = {"method": "finetune", "seed": seed, "train": {"examples": 64}}
        thrice["evaluate"] = {"shifts": "cyclic"}
        add(store, "finetune", range(3), seed, run_id=f"thrice-{seed}", config=thrice, cost=Cost(test_forwards=24))
    page = results_page.page([Path("results/toy")])
    lines = [line.split(" | ") for line in page.splitlines() if re.search(r"\| test \| accuracy \|", line)]
    found = {(a.removeprefix("| "), b): value for a, b, _, _, value, *_ in lines}
    thrice, less, direct, large = (
        "finetune evaluate.shifts=cyclic (S)", "hkd4vlm settings.msi=false (S)", "finetune (S)", "finetune (L)",
    )  # fmt: skip
    assert found == {
        ("hkd4vlm (S)", direct): "+75.0", ("hkd4vlm (S)", large): "+12.5",
        (less, direct): "+37.5", (less, large): "-25.0",
        ("offline_kd (S)", direct): "+50.0", ("offline_kd (S)", large): "-12.5",
        (thrice, direct): "+12.5", (thrice, large): "-50.0", (direct, large): "-62.5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "above"),
        (-0.03, -0.01, "below"),
        (-0.01, 0.03, "not significantly different from"),
        (0.0, 0.03, "not significantly different from"),
        (None, None, "not significantly different from"),
    ],
)
def test_a_verdict_is_the_intervals(results_page: ModuleType, low: float, high: float, said: str) -> None:
    assert results_page.verdict(Difference(0.01, low, high, None, (0,), 8)) == said


def test_words_of_mixed_verdicts(results_page: ModuleType) -> None:
    compared = results_page.Comparison(
        "a (S)",
        "b (S)",
        {
            ("test", "accuracy"): Difference(0.02, 0.01, 0.03, 0.01, (0,), 8),
            ("test", "macro_f1"): Difference(0.01, -0.01, 0.03, 0.3, (0,), 8),
            ("ood", "accuracy"): Difference(-0.02, -0.03, -0.01, 0.01, (0,), 8),
        },
    )
    assert results_page.in_words(compared) == (
        "**a (S)** is above b (S) in test accuracy (+2.0); below b (S) in ood accuracy (-2.0); "
        "not significantly different from b (S) in test macro-F1 (+1.0): 2 of 3 intervals exclude 0."
    )


def test_the_ladder_table(results_page: ModuleType, store: Store) -> None:
    add(store, "majority", [0], 0, student="", run_id="control-majority", kind="control", config={})
    text = results_page.ladder_table(store.root)
    of_s, of_l = cells(text, "toy", "S", "230,000", "2"), cells(text, "toy", "L", "1,200,000", "2")
    assert of_s[4].startswith("25.0 [")
    assert of_s[5].startswith("+12.5 [")  # 2 of 8, and the majority 1
    assert of_s[6] == "-"
    assert of_l[6].startswith("+62.5 [")  # 7 of 8 against 2


def test_a_store_without_runs_is_refused(results_page: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished run"):
        results_page.page([tmp_path / "nothing"])


def test_the_bare_loop_does_the_same_steps(toy_plan: ToyPlan, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 30 steps of 8 examples from 48: several epochs. The bench's ratio means nothing unless the weights agree.
    monkeypatch.syspath_prepend(str(root))
    overhead = importlib.import_module("benches.overhead")
    torch.set_num_threads(1)
    planned = toy_plan(train={"examples": 240, "validations": 1, "validation_examples": 1})
    start = overhead.loading.load_vlm(planned.rungs["S"]).state_dict()
    _, ours = overhead.harness_loop(planned, overhead.CLOCKS["wall"])
    _, bare = overhead.bare_loop(planned, overhead.CLOCKS["wall"])
    assert overhead.furthest(ours, bare) < 1e-5
    assert overhead.furthest(ours, start) > 1e-2


def test_the_generated_store_is_ranked(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(root))
    store_size = importlib.import_module("benches.store_size")
    store_size.generate(tmp_path / "store", 20, 60, 2)  # 2 benchmarks x 2 settings x 5 seeds
    store = Store(tmp_path / "store")
    before = table(store)
    assert {(row.benchmark, row.label) for row in before} == {
        (f"bench0{b}", f"method{m} alpha=0") for b in range(2) for m in range(2)
    }
    assert {(row.seeds, row.examples, row.groups) for row in before} == {(tuple(range(5)), 60, 30)}
    compact(store)
    assert table(store) == before
    # No two runs have the same answers.
    assert len({tuple(store.predictions(run_id)["chosen"]) for run_id in store.ids()}) == 20


def test_what_a_larger_store_would_take(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root))
    store_size = importlib.import_module("benches.store_size")

    def measured(runs: int, cpu: float) -> dict[str, Any]:
        each = {"cpu_s": cpu, "peak_gib": 0.5}
        return {"runs": runs, "examples": 10} | {name: each for name in store_size.MEASURED}

    found = store_size.growth({"a": measured(1000, 1.0), "b": measured(10_000, 4.0), "growth": {}}, 10)
    assert (found["from"], found["to"], found["runs_times"]) == (1000, 10_000, 10)
    assert found["cold"] == {  # 1 s, and 3 s more for 9,000 runs more: 33 s more for 99,000
        "cpu_s": {"times": 4.0, "hundred_thousand": 34.0},
        "peak_gib": {"times": 1.0, "hundred_thousand": 0.5},
    }
    assert store_size.growth({"a": measured(1000, 1.0)}, 10) == {}
