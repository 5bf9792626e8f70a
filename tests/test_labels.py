"""What rows are called, what they share, and how many forward passes they take."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from common import Cli
from runs import add

from harness.config import SuiteConfig, parse
from harness.errors import ConfigError, StoreError
from harness.execution import launch
from harness.leaderboard import compare
from harness.leaderboard.leaderboard import Filters, ranking, table, to_html, to_latex, to_markdown, to_text
from harness.record import Cost
from harness.store import Store, maintenance
from harness.store.compaction import compact
from harness.store.packed.pack import pack


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(
    store: Store,
    run_id: str,
    method: str = "offline_kd",
    right: int = 6,
    seed: int = 0,
    forwards: int = 8,
    resolved: dict[str, Any] | None = None,
    given: dict[str, Any] | None = None,
    **config: Any,
) -> None:
    """A finished run; `given` of its settings were set by the user, `resolved` are all."""
    add(
        store,
        method,
        right,
        seed,
        run_id=run_id,
        settings=resolved or given or {},
        cost=Cost(test_forwards=forwards),
        config={"method": method, "settings": given or {}, "seed": seed, **config},
    )


def labels(store: Store, **filters: Any) -> list[str]:
    return [row.label for row in ranking(store, Filters(**filters)).rows]


def trained(store: Store) -> str:
    (row,) = [row for row in table(store) if row.kind == "run"]
    return row.label


# ---------------------------------------------------------------------------------------------------- labels


def suite(label: str | None, toy: str, toy_ladder: str) -> SuiteConfig:
    line = {"method": "zero_shot"} if label is None else {"method": "zero_shot", "label": label}
    document = {"name": "s", "seeds": [0], "benchmarks": ["toy"], "ladder": toy_ladder, "plugins": [toy]}
    return parse(SuiteConfig, document | {"cluster": {"workers": 0}, "runs": [line]}, "suite.toml")


def test_a_label_isnt_part_of_the_identity_and_a_new_one_retrains_nothing(
    store: Store, toy: str, toy_ladder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import registry

    registry.load_plugin(toy)
    begun: list[int] = []

    def again(label: str | None) -> str:
        configs = suite(label, toy, toy_ladder).run_configs()
        (record,) = launch.launch(configs, store, "s", lambda _, todo: begun.append(len(todo)), lambda _: None)
        assert record.status == "done"
        return record.run_id

    run_id = again("asked as it is")
    before = (store.root / run_id / "record.json").read_bytes()
    assert trained(store) == "asked as it is"
    compact(store)
    assert {again("untrained"), again(None), again("untrained")} == {run_id}
    assert trained(store) == "untrained"  # None says nothing of labels
    assert again("asked as it is") == run_id
    assert trained(store) == "asked as it is"
    again("")
    assert trained(store) == "zero_shot"
    assert begun == [1, 0, 0, 0, 0, 0]
    assert (store.root / run_id / "record.json").read_bytes() == before


@pytest.mark.parametrize("label", ["two\nlines", " spaces ", "two  spaces", "x" * 81])
def test_a_label_is_one_short_line(label: str) -> None:
    document = {"name": "s", "seeds": [0], "benchmarks": ["b"], "runs": [{"method": "finetune", "label": label}]}
    with pytest.raises(ConfigError, match="label"):
        parse(SuiteConfig, document, "suite.toml")


def test_every_format_shows_the_label(store: Store) -> None:
    run(store, "a", given={"alpha": 3.0}, label="KD on the <pool>")
    run(store, "b", "finetune")
    rows = table(store)
    assert [row.label for row in rows] == ["KD on the <pool>", "finetune"]
    for made, shown in (
        (to_text, "KD on the <pool>"),
        (to_markdown, "KD on the <pool>"),
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


def test_a_row_is_asked_for_by_its_label_or_its_settings(store: Store) -> None:
    run(store, "a", given={"alpha": 3.0}, label="KD on the pool")
    run(store, "b", "finetune", right=5)
    for name in ("KD on the pool", "KD on the pool@S", "offline_kd alpha=3.0", "offline_kd alpha=3.0@S"):
        found = ranking(store, Filters(baseline=name)).rows
        assert [row.baseline for row in found] == [True, False]
        side, _ = compare.sides(store, name if "=" not in name else "offline_kd@S alpha=3.0", "finetune")
        assert (side.name, dict(side.runs)) == ("KD on the pool@S", {0: "a"})
    with pytest.raises(ConfigError, match="no row 'KD on the pond' to be the baseline; did you mean 'KD on the pool'"):
        ranking(store, Filters(baseline="KD on the pond"))


def test_one_label_for_two_rows_is_told_apart(store: Store) -> None:
    for run_id, alpha in (("a", 1.0), ("b", 3.0)):
        run(store, run_id, given={"alpha": alpha}, label="KD")
    assert sorted(labels(store)) == ["KD settings.alpha=1.0", "KD settings.alpha=3.0"]


def test_the_newest_run_with_a_label_names_the_row(store: Store) -> None:
    from runs import provenance

    for seed, label in ((0, "older"), (1, "newer"), (2, None)):
        finished = provenance(f"2026-01-0{seed + 1}T00:00Z")
        config = {"method": "finetune", "settings": {}, "seed": seed, "label": label}
        add(store, "finetune", 6, seed, provenance=finished, config=config)
    assert labels(store) == ["newer"]


def test_what_a_record_calls_itself_is_a_line_of_text_or_nothing(store: Store) -> None:
    run(store, "a", label="\x1b[31mred")
    run(store, "b", "finetune", label=["KD"])
    assert sorted(labels(store)) == ["finetune", "offline_kd"]


def test_labels_travel_with_merged_and_packed_runs(store: Store, tmp_path: Path) -> None:
    run(store, "a", label="first")
    maintenance.relabel(store, {"a": "second", "gone": "x"})
    other = Store(tmp_path / "other")
    run(other, "b", "finetune")
    maintenance.merge(other, store)
    assert sorted(labels(other)) == ["finetune", "second"]
    assert other.labels() == {"a": "second"}
    pack(store, tmp_path / "results.tar.xz")
    assert labels(Store(tmp_path / "results.tar.xz")) == ["second"]


def test_damaged_labels_are_one_line(store: Store, cli: Cli) -> None:
    run(store, "a")
    (store.root / ".labels.json").write_text('{"a": 1}')
    with pytest.raises(StoreError, match="damaged"):
        store.versions()
    said = cli("rank", "--store", store.url)
    assert (said.code, said.err.count("\n")) == (2, 1)


# ------------------------------------------------------------------------------------------- what rows share


def test_what_all_runs_share_is_said_once_above(store: Store) -> None:
    train = {"examples": 4096, "lr": 0.001, "precision": "bf16", "clip": 1.0}
    run(store, "a", "finetune", train=train)
    run(store, "b", "offline_kd", given={"alpha": 3.0}, train=train)
    rows = table(store)
    assert sorted(row.label for row in rows) == ["finetune", "offline_kd alpha=3.0"]
    (line,) = [line for line in to_text(rows).splitlines() if line.startswith("all runs: ")]
    assert line == (
        "all runs: train.examples=4096 train.lr=0.001 train.precision=bf16; whatever isn't said is as by default"
    )
    assert to_text(rows).index("all runs: ") < to_text(rows).index("offline_kd")
    assert "- all runs: train.examples=4096" in to_markdown(rows)
    assert "<li>all runs: train.examples=4096" in to_html(rows)
    assert "All runs: train.examples=4096" in to_latex(rows)


def test_training_that_differs_stands_in_the_row(store: Store) -> None:
    run(store, "a", "finetune", train={"examples": 4096, "lr": 0.001})
    run(store, "b", "offline_kd", train={"examples": 4096, "lr": 0.002})
    assert sorted(labels(store)) == ["finetune train.lr=0.001", "offline_kd train.lr=0.002"]
    assert [row.baseline for row in ranking(store, Filters(baseline="finetune")).rows].count(True) == 1


def test_settings_that_all_rows_of_a_method_share_are_said_once(store: Store) -> None:
    for run_id, temperature in (("a", 1.0), ("b", 2.0), ("c", None)):
        given = {"alpha": 3.0} | ({} if temperature is None else {"temperature": temperature})
        run(store, run_id, given=given, resolved={"alpha": 3.0, "temperature": temperature or 4.0})
    run(store, "d", "hkd4vlm", given={"alpha": 3.0})
    assert sorted(labels(store)) == [
        "hkd4vlm alpha=3.0",
        "offline_kd",
        "offline_kd temperature=1.0",
        "offline_kd temperature=2.0",
    ]
    assert "\nall rows of offline_kd: alpha=3.0\n" in to_text(table(store))
    one, _ = compare.sides(store, "offline_kd alpha=3.0 temperature=2.0", "hkd4vlm")
    assert dict(one.runs) == {0: "b"}


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_that_differ_in_how_they_are_asked_stay_apart(store: Store, compacted: bool) -> None:
    """As many forwards or shifts: what a run answers; how it was batched and what was scored don't matter."""
    run(store, "a", evaluate={"batch_size": 64, "splits": ["test"]})
    run(store, "b", right=7, evaluate={"shifts": "cyclic"}, forwards=32)
    run(store, "c", right=5, seed=1, evaluate={"batch_size": 8, "splits": ["validation", "test"]})
    if compacted:
        compact(store)
    rows = {row.label: row.seeds for row in table(store)}
    assert rows == {"offline_kd": (0, 1), "offline_kd evaluate.shifts=cyclic": (0,)}
    shown = next(row for row in table(store) if row.seeds == (0,))
    assert json.loads(shown.model_dump_json())["spelled"] == "offline_kd evaluate.shifts=cyclic"


def test_labelled_rows_that_differ_in_how_they_are_asked_are_told_apart(store: Store) -> None:
    run(store, "a", label="KD")
    run(store, "b", label="KD", evaluate={"shifts": "cyclic"})
    assert sorted(labels(store)) == ["KD", "KD evaluate.shifts=cyclic"]


# -------------------------------------------------------------------------------------------- equal forwards


@pytest.fixture
def unequal(store: Store) -> Store:
    run(store, "a", "finetune", forwards=8)
    run(store, "b", "offline_kd", forwards=32)
    run(store, "c", "hkd4vlm", forwards=36)
    add(store, "majority", 4, kind="control", student="")
    return store


def test_unequal_forwards_are_said_in_words(unequal: Store) -> None:
    said = "an answer takes 1, 4 or 4.5 forward passes of the student, by row, which are not equal terms"
    for made in (to_text, to_markdown, to_latex, to_html):
        assert said in made(table(unequal))


def test_two_sides_of_unequal_forwards_are_told(unequal: Store, cli: Cli) -> None:
    said = "forward passes an answer: A 1, B 4.5, which are not equal terms"
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
    assert "an answer takes 1 or 4 forward passes" in to_text(table(store, split="ood"))
