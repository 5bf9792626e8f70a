"""`import-predictions`: answers from a file become a run beside the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.store import Store
from helpers.answer_files import ALL_YES, changed, save, write_pope
from helpers.common import Cli


def test_answers_become_a_run_beside_the_others(cli: Cli, pope: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    common = ["--benchmark", "pope", "--data-dir", pope, "--store", store]
    good = save(pope / "good.csv", {id_: "Yes, a dog." if id_.endswith("1") else "B" for id_ in ALL_YES})
    poor = save(pope / "poor.json", changed(**{"random/1": "hard to say", "random/2": "no"}))
    first = cli("import-predictions", good, *common, "--name", "gpt-x", "--tag", "paper", "--json")
    assert first.code == 0, first.err
    record = first.json
    assert (record["method"], record["kind"], record["tags"]) == ("gpt-x", "run", ["imported", "paper"])
    assert record["provenance"]["imported"].startswith("good.csv sha256:")
    assert str(pope) not in first.out
    assert record["metrics"]["test"]["accuracy"]["value"] == 1
    # "B" is No to the harness, and to POPE's own parser, which knows no letters, a yes.
    assert record["metrics"]["test"]["official:random/accuracy"]["value"] == 0.5
    assert record["metrics"]["test"]["parse_failures"]["value"] == 0
    assert cli("import-predictions", poor, *common, "--name", "other").code == 0
    rows = [r for r in cli("rank", "--store", store, "--json").json["rows"] if r["kind"] == "run"]
    assert [(r["method"], r["rank"], round(r["values"]["accuracy"]["value"], 3)) for r in rows] == [
        ("gpt-x", 1, 1.0),
        ("other", 2, 0.5),
    ]
    assert {r["train_tflops"] for r in rows} == {None}
    controls = {r["method"] for r in cli("rank", "--store", store, "--json").json["rows"] if r["kind"] == "control"}
    assert controls == {"majority_of_split", "random", "always_yes", "always_no"}
    text = cli("rank", "--store", store, "--metric", "official:random/accuracy").out
    assert "official:random/accuracy is in the protocol's own unit" in text
    opened = Store(store)
    assert not opened.read(next(id_ for id_ in opened.ids() if "majority" in id_)).provenance.imported
    frame = opened.predictions(rows[1]["run_ids"][0])
    unread = frame[frame["chosen"] == -1]
    assert list(zip(unread["id"], unread["text"], strict=True)) == [("random/1", "hard to say")]
    other = opened.read(rows[1]["run_ids"][0]).metrics["test"]
    assert other["parse_failures"].value == pytest.approx(1 / 6)
    assert "official:random/f1" in other
    assert "answers imported from good.csv" in cli("show", record["run_id"], "--store", store).out


def test_the_same_answers_are_the_same_run(cli: Cli, pope: Path, tmp_path: Path) -> None:
    path = save(pope / "p.csv", ALL_YES)
    args = ["import-predictions", path, "--benchmark", "pope", "--data-dir", pope, "--store", tmp_path / "s", "--json"]
    first, again, other = (cli(*args, "--name", "m", *more).json for more in ([], [], ["--seed", "1"]))
    assert first == again
    assert first["run_id"] != other["run_id"]
    assert len([id_ for id_ in Store(tmp_path / "s").ids() if id_.startswith("imported-")]) == 2


def test_what_a_protocol_leaves_undefined_has_no_figure(cli: Cli, pope: Path, tmp_path: Path) -> None:
    path = save(pope / "p.csv", dict.fromkeys(ALL_YES, "no"))
    args = ["--benchmark", "pope", "--data-dir", pope, "--store", tmp_path / "s", "--name", "m", "--json"]
    metrics = cli("import-predictions", path, *args).json["metrics"]["test"]
    assert metrics["official:random/TN"]["value"] == 1
    assert "official:random/f1" not in metrics


def test_imports_are_checked_against_the_benchmark(cli: Cli, pope: Path, tmp_path: Path, toy: str) -> None:
    store = tmp_path / "s"
    common = ["--benchmark", "pope", "--data-dir", pope, "--store", store]
    for answers, name, says in (
        (changed(drop="random/1"), "m", "1 unanswered id ('random/1') of 6"),
        (changed(more="yes"), "m", "1 unknown id ('more')"),
        (ALL_YES, "../m", "name '../m': expected at most 40 letters"),
        (ALL_YES, "finetune", "is the name of a method"),
        (ALL_YES, "majority", "name 'majority' is that of a control"),
        (ALL_YES, "control-x", "name 'control-x' is that of a control"),
    ):
        said = cli("import-predictions", save(pope / "p.csv", answers), *common, "--name", name)
        assert said.code == 2
        assert says in said.err
    assert not store.exists()
    toys = save(pope / "t.csv", {f"t{i}": ("red", "green", "blue")[i % 3] for i in range(24)})
    args = ["import-predictions", toys, "--benchmark", "toy", "--plugin", toy, "--name", "m", "--store", store]
    assert (
        "24 ambiguous ids ('t0', 't1', 't2', ...): several splits have them; choose one with --split" in cli(*args).err
    )
    record = cli(*args, "--split", "test", "--json").json
    assert {split: m["accuracy"]["value"] for split, m in record["metrics"].items()} == {"test": 1}


def test_examples_without_an_image_can_be_left_out(cli: Cli, pope: Path, tmp_path: Path) -> None:
    (pope / "images" / "i2.jpg").unlink()
    path = save(pope / "p.csv", ALL_YES)
    args = ["import-predictions", path, "--benchmark", "pope", "--data-dir", pope, "--store", tmp_path / "s"]
    said = cli(*args, "--name", "m")
    assert said.code == 2
    assert "the images of 3 of 6 examples are missing" in said.err
    record = cli(*args, "--name", "m", "--skip-missing", "--json").json
    assert (record["data"]["sizes"], record["data"]["skipped"]) == ({"test": 3}, {"test": 3})
    assert record["metrics"]["test"]["accuracy"]["value"] == 1


def test_tables_without_texts_are_read(root: Path) -> None:
    """Runs that were stored before answers had texts."""
    store = Store(root / "results" / "nlvr")
    frame = store.predictions(store.ids()[0])
    assert frame["text"].isna().all()
    assert len(frame) > 0


def test_figures_of_models_that_were_asked_for_a_letter_say_so(cli: Cli, tmp_path: Path) -> None:
    """`official` is for recorded answers; controls have both names, and `verify` recomputes each."""
    store = tmp_path / "s"
    args = ["--benchmark", "pope", "--data-dir", write_pope(tmp_path), "--store", store]
    for n in (1, 2):
        Image.new("RGB", (32, 32), (90 * n, 0, 0)).save(tmp_path / "images" / f"i{n}.jpg")
    run = cli("run", "--method", "zero_shot", *args, "--workers", "0", "--json")
    assert run.code == 0, run.err
    names = set(run.json["metrics"]["test"])
    assert {"official_letter:random/accuracy", "vlmevalkit_letter:Overall/acc", "strict:pooled/f1"} <= names
    assert not {n for n in names if n.startswith(("official:", "lmms_eval:", "vlmevalkit:"))}
    imported = cli("import-predictions", save(tmp_path / "p.csv", ALL_YES), *args, "--name", "m", "--json").json
    assert "official:random/accuracy" in imported["metrics"]["test"]
    control = next(Store(store).read(id_) for id_ in Store(store).ids() if "always_yes" in id_)
    assert {"official:random/accuracy", "official_letter:random/accuracy"} <= set(control.metrics["test"])
    said = cli("verify", "--all", "--store", store, "--data-dir", tmp_path)
    assert said.code == 0, said.out
    assert "no such figure" not in said.out
