"""`score`: answers from a file of any format, by the authors' protocols; a wrong file is one line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.evaluation.answer_files import read
from helpers.answer_files import ALL_YES, changed, save
from helpers.common import Cli
from helpers.damage import damaged

Scored = Callable[..., Any]


# ------------------------------------------------------------------------------ the golden files as they are


@pytest.mark.parametrize(
    ("benchmark", "file", "protocol", "key", "more"),
    [
        ("pope", "pope_messy", "official", "pope_official", ()),
        ("pope", "pope_all_no", "official", "pope_official", ()),
        ("pope", "pope_messy", "vlmevalkit", "vlmevalkit", ()),
        ("amber", "amber_subset2000", "official", "amber_official_d", ("--allow-missing",)),
        ("amber", "amber_all_yes", "vlmevalkit", "vlmevalkit", ()),
        ("hallusionbench", "hallusion_codes_mixed", "lmms_eval", "lmms_eval_image_split_951", ()),
        ("hallusionbench", "hallusion_text_messy", "vlmevalkit", "vlmevalkit", ()),
    ],
)
def test_golden_files_are_scored_as_they_are(
    benchmark: str,
    file: str,
    protocol: str,
    key: str,
    more: tuple[str, ...],
    cli: Cli,
    golden: Path,
    published: Callable[[str], Path],
) -> None:
    path = golden / f"{file}.json"
    args = ["--benchmark", benchmark, "--predictions", path, "--protocol", protocol]
    said = cli("score", *args, "--data-dir", published(benchmark), "--json", *more)
    assert said.code == 0, said.err
    theirs = json.loads(path.read_text())["scores"][key]
    for part, figures in theirs.items():
        for name, value in figures.items() if isinstance(figures, dict) else [("", figures)]:
            ours = f"{part}/{name}".rstrip("/")
            if name != "error":
                assert said.json["figures"][ours] == pytest.approx(value, rel=1e-9)
            else:
                assert f"{part}/f1" in said.json["undefined"]
                assert "ZeroDivisionError" in said.json["about"]


@pytest.mark.parametrize("file", ["nlvr_images_messy", "nlvr_structured"])
def test_golden_nlvr_over_all_splits(file: str, cli: Cli, golden: Path, nlvr_dir: Path, tmp_path: Path) -> None:
    """Names of images and of items: an item's answer counts for its six orders, which changes neither figure."""
    stored = json.loads((golden / f"{file}.json").read_text())
    given, scores = stored["predictions"], stored["scores"]
    if file == "nlvr_structured":
        given, scores = given["messy"], scores["messy"]
    args = ["--predictions", save(tmp_path / "p.json", given), "--protocol", "official"]
    said = cli("score", "--benchmark", "nlvr", *args, "--data-dir", nlvr_dir, "--json")
    assert (said.json["splits"], said.json["examples"]) == (["train", "validation", "test"], 5934)
    assert said.json["figures"] == {"accuracy": scores["precision"], "consistency": scores["consistency"]}


def test_golden_mmfakebench(cli: Cli, golden: Path, tmp_path: Path) -> None:
    path = golden / "mmfakebench_text.json"
    stored = json.loads(path.read_text())
    rows = [
        {"image_path": "/a/b.jpg", "text": "x", "fake_cls": p["multiple_gt_answers"], "gt_answers": p["gt_answers"]}
        for p in stored["predictions"].values()
    ]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "MMFakeBench_test.json").write_text(json.dumps(rows))
    args = ["--benchmark", "mmfakebench", "--predictions", path, "--protocol", "official", "--data-dir", tmp_path]
    figures = cli("score", *args, "--json").json["figures"]
    assert figures.pop("X_label_num") == 0
    assert figures == pytest.approx(stored["scores"]["result_json"], rel=1e-9)


def test_it_needs_neither_torch_nor_ray(pope: Path) -> None:
    path = save(pope / "p.csv", ALL_YES)
    code = (
        "import sys; from harness.cli import app; "
        f"app(['score', '--benchmark', 'pope', '--predictions', {str(path)!r}, '--protocol', 'official', "
        f"'--data-dir', {str(pope)!r}, '--json'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"]["random/recall"] == 1


# ------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.parquet", "p.json", "array.json"])
def test_every_format_says_the_same(name: str, cli: Cli, pope: Path) -> None:
    path = save(pope / name, ALL_YES)
    said = cli("score", "--benchmark", "pope", "--predictions", path, "--protocol", "official", "--data-dir", pope)
    assert said.code == 0, said.err
    assert "6 examples of test" in said.out
    assert "random/f1              0.6667" in said.out


def test_texts_stay_as_they_are_written(cli: Cli, pope: Path) -> None:
    """What spreadsheet readers take for missing values are answers: "NA" holds no "no", so POPE's parser says yes."""
    path = pope / "p.csv"
    lines = [
        f'"{id_}","{text}"' for id_, text in zip(ALL_YES, ["NA", "", "null", "nan", "no, x", " yes\n"], strict=True)
    ]
    path.write_text("id,answer,more\n" + "\n".join(f"{line},1" for line in lines))
    args = ["--benchmark", "pope", "--predictions", path, "--data-dir", pope, "--json"]
    assert cli("score", *args, "--protocol", "official").json["figures"]["adversarial/FN"] == 1
    assert cli("score", *args, "--protocol", "lmms_eval").json["figures"]["pooled/accuracy"] == 0


def test_numbers_of_one_variant_and_answers_by_split(cli: Cli, pope: Path) -> None:
    args = ["--benchmark", "pope", "--protocol", "official", "--data-dir", pope, "--json", "--predictions"]
    one = save(pope / "one.csv", {"1": "yes", "2": "no"})
    setting = ["--set", "benchmark_settings.variant=popular"]
    assert cli("score", *args, one, *setting).json["figures"]["popular/accuracy"] == 1
    nested = {variant: {"1": "yes", "2": "no"} for variant in ("random", "popular", "adversarial")}
    assert cli("score", *args, save(pope / "n.json", nested)).json["figures"]["adversarial/accuracy"] == 1
    constant = save(pope / "c.json", {"constant": "yes"})
    assert cli("score", *args, constant).json["figures"]["random/yes_ratio"] == 1


# ----------------------------------------------------------------------------------------- bad input


def test_every_damaged_file_is_one_line(tmp_path: Path) -> None:
    """800 damaged files: each is read, or refused in one line that names it."""
    rng = random.Random(0)
    rows = [{"id": str(n), "answer": text} for n, text in enumerate(["yes", "no", "Yes, but"])]
    refused = 0
    for name in ("p.json", "p.jsonl"):
        for _ in range(400):
            (tmp_path / name).write_bytes(damaged(rows, rng, lines=name == "p.jsonl"))
            fault = said_of(tmp_path / name)
            if fault:
                assert (name in fault, "\n" in fault, len(fault) < 600) == (True, False, True)
                refused += 1
    assert refused > 200


def said_of(path: Path) -> str:
    """Why a file is refused; empty where it is read."""
    try:
        assert all(isinstance(text, str) for _, text in read(path).given)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,answer\n", "contains no answers"),
        ("id,reply\nrandom/1,yes\n", "no column 'answer'; expected id and answer, found id, reply"),
        (
            "id,answer\nrandom/1,yes\nrandom/9,no\nx,no\n",
            "2 unknown ids ('random/9', 'x'); its ids are like 'random/1'",
        ),
        ("id,answer\nrandom/1,yes\nrandom/1,no\n", "1 duplicate id ('random/1')"),
        (
            "id,answer\nrandom/1,yes\n",
            "5 unanswered ids ('random/2', 'popular/1', 'popular/2', ...) of 6 in the split test",
        ),
        ('id,answer\n"random/1,yes\n', "unexpected end of data"),
        ('{"random/1": "yes", "random/1": "no"}', "1 duplicate id ('random/1'); expected one answer per id"),
        ("id,answer\nrandom/1\n", "line 2: expected 2 fields"),
        ("id,answer\nrandom/1,yes,no\n", "line 2: expected 2 fields"),
        ('{"random/1": true', "can't be read: "),
        ('{"random/1": ' + "9" * 5000 + "}", "can't be read: "),
        ('{"random/1": "\\ud800"}', "half a surrogate pair"),
        ('["random/1"]', "item 1: expected an object with id and answer"),
        ('[{"id": true, "answer": "x"}]', "item 1: id is True"),
        ('{"random/1": {"answer": {}}}', "answer to 'random/1': the answer is a dict"),
        ("3", "a JSON int, expected an object {id: answer} or an array"),
        ("[" * 100_000, "nested too deeply"),
        (b"id,answer\nrandom/1,\xff\n", "not UTF-8 text"),
    ],
)
def test_a_bad_file_is_one_line(content: str | bytes, says: str, cli: Cli, pope: Path) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    path = pope / ("p.csv" if raw.startswith(b"id") else "p.json")
    path.write_bytes(raw)
    said = cli("score", "--benchmark", "pope", "--predictions", path, "--protocol", "official", "--data-dir", pope)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert path.name in said.err
    assert says in said.err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "id,answer,answer\n1,Yes,No\n", "line 1: two columns have the name 'answer'"),
        ("p.csv", "id,id,answer\n1,2,No\n", "line 1: two columns have the name 'id'"),
        ("p.jsonl", '{"id": 1, "answer": "Yes", "answer": "No"}', "line 1: .*the key 'answer' occurs twice"),
        ("p.csv", "id,answer\n1,Y\0e\n", "line 2: the answer contains a NUL"),
        ("p.jsonl", '{"id": 1.5, "answer": "Yes"}', "id is 1.5, expected a string or an integer"),
    ],
)
def test_what_would_be_read_as_another_answer_is_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path / name)


def test_numbers_as_tables_write_them(tmp_path: Path) -> None:
    """A column of whole numbers with a gap is one of floats; a missing answer is NaN."""
    (tmp_path / "p.jsonl").write_text('{"id": 1.0, "answer": NaN}\n{"id": 2.0, "answer": 0.5}\n')
    assert list(read(tmp_path / "p.jsonl").given) == [("1", ""), ("2", "0.5")]


def test_other_mistakes_are_one_line(cli: Cli, pope: Path, toy: str) -> None:
    path = save(pope / "p.csv", ALL_YES)
    args = ["--benchmark", "pope", "--data-dir", pope, "--predictions"]
    for more, says in (
        ([path, "--protocol", "offical"], "unknown protocol 'offical'; did you mean 'official'?"),
        ([path], "no protocol given (--protocol); known: lmms_eval, official, strict, vlmevalkit"),
        ([pope / "none.csv", "--protocol", "official"], "none.csv: no such file"),
        ([pope / "p.docx", "--protocol", "official"], "unknown file type"),
        ([path, "--protocol", "official", "--split", "train"], "has no split 'train'"),
        ([path, "--protocol", "official", "--set", "train.lr=1"], "no model is run here"),
        ([path, "--protocol", "official", "--set", "benchmark_settings.variant=x"], "setting variant = 'x'"),
    ):
        said = cli("score", *args, *more)
        assert said.code == 2
        assert says in said.err
        assert "Traceback" not in said.err
    several = save(pope / "t.csv", {"t1": "red"})
    said = cli("score", "--benchmark", "toy", "--plugin", toy, "--predictions", several, "--protocol", "x")
    assert "unknown protocol 'x'; known: none" in said.err


def test_missing_answers_count_as_the_protocol_says(cli: Cli, pope: Path) -> None:
    path = save(pope / "p.csv", changed(drop="random/1"))
    args = ["--benchmark", "pope", "--data-dir", pope, "--predictions", path, "--json", "--protocol"]
    assert "'random/1'" in cli("score", *args, "official", "--allow-missing").out
    assert "--allow-missing protocol 'strict' counts them as wrong" in cli("score", *args, "strict").out
    said = cli("score", *args, "strict", "--allow-missing").json
    assert (said["missing"], said["examples"], said["figures"]["random/recall"]) == (1, 6, 0)


def test_training_on_a_benchmark_without_a_train_split_is_refused(cli: Cli, pope: Path, tmp_path: Path) -> None:
    args = [
        "--method",
        "finetune",
        "--benchmark",
        "pope",
        "--data-dir",
        pope,
        "--store",
        tmp_path / "s",
        "--workers",
        "0",
    ]
    said = cli("run", *args)
    assert said.code == 2
    assert "benchmark 'pope' has no train split" in said.err


def test_describe_tells_where_to_get_it_and_how_it_is_scored(cli: Cli) -> None:
    found = cli("describe", "amber", "--json").json
    assert (found["positive"], found["sizes"], found["protocols"]) == (
        "No",
        {"test": 14216},
        ["official", "vlmevalkit", "strict"],
    )
    text = cli("describe", "amber").out
    for part in (
        "obtain: data/ of the repository",
        "licence: Apache-2.0",
        "protocol official:",
        "Per cent, one decimal",
    ):
        assert part in text
