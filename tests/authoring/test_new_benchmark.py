"""`new-benchmark`: what the columns of somebody's rows mean is proposed; the loader that it writes reads them so."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness import registry
from harness.api import DataError, Example
from harness.authoring.benchmark_checks import assert_sound
from harness.authoring.mapping import Source, propose
from helpers.common import Cli

Row = dict[str, Any]


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 7 % 256, 90, 200 - number)).save(out, "PNG")
    return out.getvalue()


def pictures(folder: Path, count: int = 40) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(number))


def table(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(cli: Cli, name: str, source: Path, folder: Path) -> dict[str, list[Example]]:
    """What the loader that is written makes of the rows, by split; its files are as they should be."""
    said = cli("new-benchmark", name, "--from", source, "--out", folder, "--json")
    assert said.code == 0, said.err
    files = [Path(file) for file in said.json["files"]]
    root = Path(__file__).parents[2]
    for check in (["check", "--ignore", "I001"], ["format", "--check"]):
        config = ["--config", str(root / "pyproject.toml")]
        subprocess.run([sys.executable, "-m", "ruff", *check, *config, *map(str, files)], check=True)
    registry.load_plugin(str(files[0]))
    made = registry.make_benchmark(name, {}, said.json["data_dir"])
    assert_sound(made)
    return {str(split): list(made.load(split)) for split in made.splits}


def test_columns_of_options_and_a_letter(cli: Cli, tmp_path: Path) -> None:
    """One file without splits: images, not rows, are split."""
    pictures(tmp_path / "data" / "pics")
    rows = [
        {
            "id": n,
            "image": f"{n // 2}.png",
            "question": f"Who is in {n}?",
            "A": "a cat",
            "B": f"dog {n}",
            "answer": "AB"[n % 2],
        }
        for n in range(80)
    ]
    table(tmp_path / "data" / "rows.csv", rows)
    found = read(cli, "new_letters", tmp_path / "data", tmp_path / "out")
    assert set(found) == {"train", "validation", "test"}
    examples = {int(e.id): e for some in found.values() for e in some}
    assert len(examples) == 80
    for n, e in examples.items():
        assert (e.question, e.options, e.gold) == (f"Who is in {n}?", ("a cat", f"dog {n}"), n % 2)
        assert e.image == tmp_path / "data" / "pics" / f"{n // 2}.png"
    test = (tmp_path / "out" / "test_new_letters.py").read_text()
    assert "def test_the_first_example" in test
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", tmp_path / "out"], capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout


def test_a_file_for_each_split_and_labels(cli: Cli, tmp_path: Path) -> None:
    pictures(tmp_path / "data" / "images")
    for part, numbers in (("train", range(20)), ("val", range(20, 30)), ("test", range(30, 40))):
        rows = [{"image": f"images/{n}.png", "caption": f"It's {n}.", "label": bool(n % 2)} for n in numbers]
        (tmp_path / "data" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(cli, "new_labels", tmp_path / "data", tmp_path / "out")
    assert {split: len(some) for split, some in found.items()} == {"train": 20, "validation": 10, "test": 10}
    first = found["train"][0]
    assert (first.claim, first.options, first.gold) == ("It's 0.", ("True", "False"), 1)


def test_a_hugging_face_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data" / "data").mkdir(parents=True)
    for start, split in ((0, "train"), (10, "dev"), (20, "test")):
        rows = [
            {
                "image": {"bytes": png(n), "path": f"{n}.png"},
                "question": f"What is {n}?",
                "choices": ["a", f"b{n}"],
                "answer": n % 2,
            }
            for n in range(start, start + 8)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "data" / f"{split}-00000-of-00001.parquet")
    found = read(cli, "new_parquet", tmp_path / "data", tmp_path / "out")
    assert [(e.question, e.options, e.gold) for e in found["validation"][:2]] == [
        ("What is 10?", ("a", "b10"), 0),
        ("What is 11?", ("a", "b11"), 1),
    ]


GOLDS: Mapping[str, Any] = {
    "index": lambda k, options: k,
    "index from 1": lambda k, options: k + 1,
    "letter": lambda k, options: "ABCDEFG"[k],
    "text": lambda k, options: options[k],
}


@given(st.sampled_from(list(GOLDS)), st.integers(2, 5), st.booleans(), st.integers(0, 10**6))
def test_how_the_answer_is_given_is_recognised(form: str, size: int, as_text: bool, seed: int) -> None:
    """Every position occurs, as it does in any file that isn't tiny."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for n in range(30):
        k = n % size if n < size else rng.randrange(size)
        options = [f"thing {n} {j}" for j in range(size)]
        gold = GOLDS[form](k, options)
        rows.append(
            {"image": f"{n}.jpg", "question": "?", "choices": options, "answer": str(gold) if as_text else gold}
        )
    assert propose(Source(Path("x"), {"": Path("x.json")}, {"": rows})).gold_form == form


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"a": "1", "b": "2"}], "no column for the image among a, b"),
        ([{"image": "x.png", "question": "?"}], "no column for the answer among image, question"),
        ([{"image": f"{n}.png", "label": f"words {n}"} for n in range(30)], "column 'label' has 30 different values"),
        ([{"image": "x.png", "A": "cat", "B": "dog", "answer": "Z"}], "column 'answer' is 'Z' in the first row"),
    ],
)
def test_rows_that_are_no_questions(rows: list[Row], says: str, cli: Cli, tmp_path: Path) -> None:
    said = cli("new-benchmark", "mine_bad", "--from", table(tmp_path / "x.csv", rows), "--out", tmp_path / "out")
    assert said.code == 2
    assert says in said.err
    assert not (tmp_path / "out").exists()


def test_names_and_files_that_can_not_be(cli: Cli, tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", [{"image": "x.png", "claim": "c", "label": n} for n in ("yes", "no")])
    (tmp_path / "mine_kept.py").write_text("precious")
    for name, source, says in (
        ("pope", path, "benchmark 'pope' exists already"),
        ("My-Own", path, "expected lower-case letters"),
        ("mine_kept", path, "exists already"),
        ("mine_new", tmp_path / "none", "no such file or folder"),
        ("lambda", path, "lower-case letters"),
    ):
        said = cli("new-benchmark", name, "--from", source, "--out", tmp_path)
        assert said.code == 2
        assert says in said.err
    assert (tmp_path / "mine_kept.py").read_text() == "precious"


def test_a_file_that_is_no_table(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "x.json").write_text("{")
    said = cli("new-benchmark", "mine_no", "--from", tmp_path / "x.json", "--out", tmp_path)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "can't be read" in said.err
    with pytest.raises(DataError, match="no column for the image"):
        propose(Source(tmp_path, {"": Path("x.json")}, {"": [{"image": "no picture", "label": "yes"}]}))
