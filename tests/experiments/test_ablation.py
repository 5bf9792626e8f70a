"""The ablation: what is laid out, what the table says of planned predictions, and that nothing is run twice."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.config import parse
from harness.errors import ConfigError, StoreError
from harness.experiments import ablation as experiment
from harness.leaderboard import ablation as ablate
from harness.leaderboard.ablation import Ablation, AblationLine
from harness.record import Cost
from harness.report import ablation as ablation_page
from harness.stats import inference
from harness.store import Store
from harness.suite import SuiteConfig, SuiteRun
from helpers import runs
from helpers.common import Cli

# ------------------------------------------------------------------------------------------ laid out


def suite(toy: str, ladder: str, runs: Sequence[dict[str, Any]], **changes: Any) -> SuiteConfig:
    registry.load_plugin(toy)
    table = {
        "name": "trial",
        "seeds": [0, 1],
        "benchmarks": ["toy"],
        "ladder": ladder,
        "plugins": [toy],
        "cluster": {"workers": 0},
        "train": {"examples": 24, "batch_size": 8, "validations": 1},
        "runs": list(runs),
    }
    return parse(SuiteConfig, table | changes, "test")


def test_the_method_says_what_its_parts_are(toy: str, toy_ladder: str) -> None:
    made = suite(toy, toy_ladder, [{"method": "zero_shot"}, {"method": "parted", "settings": {"loud": True}}])
    kept, left_out = experiment.variants("parted", made)
    assert [(v.label, v.part, v.run.method, v.run.settings) for v in kept] == [
        ("full", "full", "parted", {"loud": True}),
        ("-warmth", "ablation", "parted", {"loud": True, "warmth": 0.001}),
        ("zero_shot (S)", "rival", "zero_shot", {}),
    ]
    # The suite shouts already; and the toy method refuses a negative warmth.
    assert left_out == {
        "louder": "the same run as 'full'",
        "colder": "parted: warmth = -1.0: expected a number from 0",
    }
    assert len(experiment.configs(made, kept)) == 6


def test_lines_have_seeds_of_their_own(toy: str, toy_ladder: str) -> None:
    """Four for the full method and the part that the suite lists, two for the rest."""
    many, cool = {"seeds": [0, 1, 2, 3]}, {"warmth": 0.001}
    listed = [
        {"method": "parted", **many},
        {"method": "parted", "settings": cool, **many},
        {"method": "zero_shot"},
    ]
    made = suite(toy, toy_ladder, listed)
    assert [(c.method, c.settings, c.seed) for c in made.run_configs()] == [
        *(line for seed in (0, 1) for line in (("parted", {}, seed), ("parted", cool, seed), ("zero_shot", {}, seed))),
        *(("parted", settings, seed) for seed in (2, 3) for settings in ({}, cool)),
    ]  # fmt: skip
    kept, left_out = experiment.variants("parted", made)
    assert {v.label: v.run.seeds for v in kept} == {
        "full": (0, 1, 2, 3), "-warmth": (0, 1, 2, 3), "louder": (), "zero_shot (S)": (),
    }  # fmt: skip
    assert left_out["parted warmth=0.001 (S)"] == "the same run as '-warmth'"
    seeds = {line.label: list(line.runs["toy"]) for line in experiment.lay_out("parted", made, kept, left_out).lines}
    assert seeds == {"full": [0, 1, 2, 3], "-warmth": [0, 1, 2, 3], "louder": [0, 1], "zero_shot (S)": [0, 1]}


def test_lines_have_the_labels_of_the_suite(toy: str, toy_ladder: str) -> None:
    runs = [{"method": "parted", "label": "All of it"}, {"method": "zero_shot", "label": "Untrained"}]
    kept, _ = experiment.variants("parted", suite(toy, toy_ladder, runs))
    assert [(v.label, v.run.label) for v in kept if v.label != "louder"] == [
        ("All of it", "All of it"),
        ("-warmth", "All of it, -warmth"),
        ("Untrained", "Untrained"),
    ]


def test_a_suite_without_the_method_is_refused(toy: str, toy_ladder: str) -> None:
    with pytest.raises(ConfigError, match="has no run of 'parted'"):
        experiment.variants("parted", suite(toy, toy_ladder, [{"method": "finetune"}]))


def test_a_suite_of_its_own_has_the_rivals_that_exist() -> None:
    table = experiment.suite_table("offline_kd", [0, 1, 2], ["toy"], "S", "tiny")
    assert [(run["method"], run["student"]) for run in table["runs"]] == [
        ("offline_kd", "S"),
        ("zero_shot", "S"),
        ("finetune", "L"),
        ("finetune", "M"),
        ("finetune", "S"),
        *((name, "S") for name in ("mutual", "assistant") if name in registry.methods()),
    ]
    assert parse(SuiteConfig, table, "test").runs[0] == SuiteRun(method="offline_kd")


def test_the_committed_suite_has_the_budget_of_the_results(root: Path) -> None:
    made, results = (
        tomllib.loads((root / "suites" / name).read_text()) for name in ("hkd4vlm_ablation.toml", "results.toml")
    )
    for key in ("benchmarks", "benchmark_settings", "train"):
        assert made[key] == results[key]
    assert len(made["seeds"]) == 3
    listed = [{name: value for name, value in run.items() if name != "seeds"} for run in made["runs"]]
    rows = {(run["label"], run["student"]) for run in made["runs"] if run.get("seeds") == results["seeds"]}
    assert {("HKD4VLM", "S"), ("direct tuning", "S"), ("direct tuning", "M"), ("direct tuning", "L")} <= rows
    of_results = [run for run in listed if (run["label"], run["student"]) in {
        ("HKD4VLM", "S"), ("direct tuning", "S"), ("KD on the pool", "S"), ("mutual learning", "S"), ("assistant", "S"),
    }]  # fmt: skip
    assert len(of_results) == 5
    assert all(run in results["runs"] for run in of_results)
    full = next(run for run in listed if run["method"] == "hkd4vlm")
    assert full in results["runs"]
    ablations = registry.methods()["hkd4vlm"].load().ablations
    assert {"-PPOD", "-TCRD", "-MSI"} <= set(ablations)
    for override in ablations.values():
        registry.make_method("hkd4vlm", {**full["settings"], **override})


# --------------------------------------------------------------------------------------- what came out


def add(store: Store, run_id: str, right: Sequence[int], seed: int, flops: float = 1e12, views: int = 1) -> None:
    """A run that gets the questions of `right` right."""
    cost = Cost(train_flops=flops, test_forwards=8 * views)
    runs.add(store, "finetune", right, seed, run_id=run_id, train={"examples": 64}, cost=cost)


def line(label: str, part: Any, ids: Sequence[str], **settings: Any) -> AblationLine:
    runs = {"toy": dict(enumerate(ids))}
    return AblationLine(label=label, part=part, method="finetune", student="S", settings=settings, runs=runs)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Ablation, Store]:
    """The whole method gets all 8 right; without its heart 2; without its hat 8 too; its rival 6, once."""
    store = Store(tmp_path / "store")
    for seed in (0, 1):
        add(store, f"full-{seed}", range(8), seed, flops=3e12, views=4)
        add(store, f"heart-{seed}", [0, 1], seed, flops=2e12, views=4)
        add(store, f"hat-{seed}", range(8), seed, flops=3e12, views=1)
    add(store, "rival-0", range(6), 0)
    lines = (
        line("full", "full", ["full-0", "full-1"], heart=True, hat=True),
        line("-heart", "ablation", ["heart-0", "heart-1"], heart=False, hat=True),
        line("-hat", "ablation", ["hat-0", "hat-1"], heart=True, hat=False),
        line("rival (S)", "rival", ["rival-0", "rival-1"]),
    )
    return Ablation(name="trial", method="finetune", lines=lines, left_out={"x": "no such rung"}), store


def test_differences_costs_and_holm(planned: tuple[Ablation, Store]) -> None:
    ablation, store = planned
    full, heart, hat, rival = ablate.evaluated(ablation, store).tables["toy"]
    assert full.figures["test/accuracy"].value.value == 1
    assert full.figures["test/accuracy"].difference is None
    assert heart.changed == {"heart": False}
    difference = heart.figures["test/accuracy"].difference
    assert difference is not None
    assert difference.value == pytest.approx(-0.75)
    assert difference.high is not None
    assert difference.high < 0
    assert (heart.train_tflops, heart.train_tflops_change) == (2, -1)
    assert (hat.forwards, hat.forwards_change) == (1, -3)
    hat_difference = hat.figures["test/accuracy"].difference
    assert hat_difference is not None
    assert hat_difference.value == 0
    # The rival finished one seed of two: it is paired on that one.
    assert rival.seeds == (0,)
    assert rival.note == "1 of its runs did not finish"
    rival_difference = rival.figures["test/accuracy"].difference
    assert rival_difference is not None
    assert rival_difference.value == pytest.approx(-0.25)
    # Holm: three p values; the smallest is multiplied by 3.
    ps = [r.figures["test/accuracy"].p for r in (heart, hat, rival)]
    holm = [r.figures["test/accuracy"].p_holm for r in (heart, hat, rival)]
    assert None not in ps
    assert holm == pytest.approx(inference.holm([p for p in ps if p is not None]))
    assert holm[0] == pytest.approx(min(1, 3 * ps[0]))  # type: ignore[operator]


def test_the_page_comes_from_stored_records(planned: tuple[Ablation, Store]) -> None:
    ablation, store = planned
    ablate.save(ablate.evaluated(ablation, store), store, "table\n")
    assert (store.root / "trial.md").read_text() == "table\n"
    assert sorted(store.ids()) == sorted({f"{n}-{s}" for n in ("full", "heart", "hat") for s in (0, 1)} | {"rival-0"})
    again = ablate.evaluated(ablate.load(store, "trial"), store)
    text = ablation_page.page(again, store)
    assert text == ablation_page.page(ablate.evaluated(ablation, store), store)
    assert "# Ablation of finetune" in text
    assert "7 of 8 runs finished" in text
    assert "Seeds: 0, 1" in text
    assert "- Left out: x: no such rung" in text
    (heart,) = [row for row in text.splitlines() if row.startswith("| -heart |")]
    assert [cell.strip() for cell in heart.split("|")][2:5] == ["2", "25.0", "-75.0"]
    assert "| 2 (-1) | 4 (+0) |" in heart
    assert str(store.root) not in text  # no machine's own paths
    assert "Significantly different from finetune in accuracy (Holm p below 0.05): -heart (-75.0)" in text


def test_a_store_without_it_or_with_a_damaged_one(planned: tuple[Ablation, Store]) -> None:
    _, store = planned
    with pytest.raises(StoreError, match="no ablation 'trial'"):
        ablate.load(store, "trial")
    (store.root / "trial.json").write_text('{"name": "trial"}')
    with pytest.raises(StoreError, match="is damaged"):
        ablate.load(store, "trial")
    with pytest.raises(ConfigError, match="it becomes a file name"):
        ablate.load(store, "../trial")


# ----------------------------------------------------------------------------------------------- the verb


@pytest.fixture
def file(toy_suite: str, tmp_path: Path) -> Path:
    path = tmp_path / "trial.toml"
    runs = '[[runs]]\nmethod = "parted"\n[[runs]]\nmethod = "zero_shot"\n'
    path.write_text(f'name = "trial"\nseeds = [0, 1]\n{toy_suite}{runs}'.replace("examples = 96", "examples = 16"))
    return path


def test_ablate_runs_once_resumes_and_writes_the_page(cli: Cli, file: Path, tmp_path: Path) -> None:
    args = ["ablate", "parted", file, "--store", tmp_path / "store", "--workers", "0"]
    said = cli(*args)
    assert said.code == 0, said.err
    assert "parted on toy" in said.out
    store = Store(tmp_path / "store")
    times = {run_id: (store.root / run_id / "record.json").stat().st_mtime_ns for run_id in store.ids()}
    assert len(times) == 4 * 2 + 2  # full, two ablations and a rival from two seeds; the controls
    # One run is lost: only that one is made again.
    lost = next(run_id for run_id in times if run_id.startswith("parted"))
    (store.root / lost).rename(tmp_path / "lost")
    again = cli(*args, "--json")
    assert again.code == 0
    after = {run_id: (store.root / run_id / "record.json").stat().st_mtime_ns for run_id in store.ids()}
    assert {run_id for run_id in times if after[run_id] != times[run_id]} == {lost}
    found = again.json
    assert [r["label"] for r in found["tables"]["toy"]] == [
        "full", "-warmth", "louder", "zero_shot (S)", "majority", "random",
    ]  # fmt: skip
    assert found == json.loads((store.root / "trial.json").read_text())
    page = tmp_path / "docs" / "ablation.md"
    assert cli("ablate", "parted", file, "--store", store.root, "--page", page).code == 0
    assert page.read_text().startswith("# Ablation of parted")
    assert "8 of 8 runs finished" in page.read_text()


def test_ablate_dry_run(cli: Cli, file: Path, tmp_path: Path) -> None:
    said = cli("ablate", "parted", file, "--store", tmp_path / "store", "--dry-run", "--seeds", "0,1,2", "--json")
    assert said.code == 0
    assert [(row["label"], row["runs"]) for row in said.json["lines"]] == [
        ("full", 3), ("-warmth", 3), ("louder", 3), ("zero_shot (S)", 3),
    ]  # fmt: skip
    assert list(said.json["left_out"]) == ["colder"]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nothing"], "unknown method 'nothing'"),
        (["finetune", "--seeds", "a"], "expected integers separated by commas"),
        (["finetune", "--benchmark", "toyy"], "unknown benchmark 'toyy'"),
        (["finetune", "--page", "page.md", "--store", "nowhere"], "no store at"),
    ],
)
def test_ablate_of_bad_input(cli: Cli, args: list[str], told: str) -> None:
    said = cli("ablate", *args)
    assert said.code == 2
    assert told in said.err
