"""`hkdbench init`: what it asks for, what it writes, and that it writes nothing before all is checked."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from harness.config import parse, read_toml
from harness.errors import ConfigError
from harness.setup import first_suite
from harness.suite import SuiteConfig
from helpers.common import Cli

ALL = {
    "--model": "tiny",
    "--benchmark": "scenes_factuality",
    "--method": "finetune",
    "--gpus": "0",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows of a user: a file for each split, with images beside them."""
    folder = tmp_path / "rows"
    (folder / "images").mkdir(parents=True)
    for number, (split, count) in enumerate({"train": 8, "validation": 4, "test": 4}.items()):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "image", "question", "answer", "A", "B"])
            for at in range(count):
                name = f"images/{split}{at}.png"
                Image.new("RGB", (32, 32), (9 * at, 80 * number, 100)).save(folder / name)
                writer.writerow([f"{split}{at}", name, "What colour?", "AB"[at % 2], "red", "blue"])
    return folder


@pytest.mark.parametrize("flag", ALL)
def test_without_a_terminal_a_missing_answer_names_its_option(
    cli: Cli, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    given = [word for pair in ALL.items() if pair[0] != flag for word in pair]
    said = cli("init", *given)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"error: no {flag} given")
    error = cli("init", *given, "--json").json["error"]
    assert (error["code"], error["mend"]) == (2, f"give it, like {flag} {_usual(flag)}")
    assert not list(tmp_path.iterdir())


def _usual(flag: str) -> str:
    return {"--model": "tiny", "--benchmark": "scenes_hallucination", "--method": "zero_shot", "--gpus": "0"}[flag]


def test_at_a_terminal_it_asks(cli: Cli, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own rows on the embedded models: the file that is written is a suite, and its plan is what was priced."""
    asked = []

    def prompt(question: str, **options: object) -> object:
        asked.append(question)
        return "finetune" if question == "Methods" else options["default"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("typer.prompt", prompt)
    said = cli("init", "--benchmark", "mine", "--data", rows, "--out", tmp_path / "out", "--seeds", 2)
    assert said.code == 0, said.err
    assert asked == ["Models, the largest first, or tiny", "Methods", "GPUs of each run (0: the CPU)"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.toml", "mine.py", "test_mine.py"]
    assert "4 runs (2 seeds)" in said.out  # the student, and the largest rung as the reference
    assert f"hkdbench suite {tmp_path / 'out' / 'comparison.toml'}" in said.out

    file = tmp_path / "out" / "comparison.toml"
    suite = parse(SuiteConfig, read_toml(file), str(file))
    assert suite.plugins == (str(tmp_path / "out" / "mine.py"),)
    assert (suite.data_dir, suite.ladder, suite.seeds) == (rows, "tiny", (0, 1))
    assert [(run.method, run.student) for run in suite.runs] == [("finetune", "S"), ("finetune", "L")]

    before = file.read_bytes()
    again = cli("init", "--benchmark", "mine", "--data", rows, "--out", tmp_path / "out")
    assert (again.code, again.out) == (2, "")
    assert "comparison.toml exists already: choose another --name or --out, or add --force" in again.err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--benchmark": "nlvr"}, "give it"),
        ({"--benchmark": "nlwr"}, "unknown benchmark 'nlwr': did you mean 'nlvr'"),
        ({"--data-dir": "/"}, "--data-dir: benchmark 'scenes_factuality' reads no files; leave it out"),
        ({"--model": "./nowhere"}, "--model './nowhere': no such folder"),
        ({"--name": "a/b"}, "--name 'a/b': expected letters"),
        ({"--gpus": "99"}, "--gpus 99: torch sees"),
        ({"--gpus": "1", "--cluster": "nowhere"}, "RAY_ADDRESS = 'nowhere': expected host:port"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    cli: Cli, change: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    said = cli("init", *[word for pair in (ALL | change).items() for word in pair])
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert says in said.err
    assert not list(tmp_path.iterdir())


def test_rungs_are_named_after_their_models(tmp_path: Path) -> None:
    (tmp_path / "big model").mkdir()
    models = [str(tmp_path / "big model"), "Qwen/Qwen2.5-VL-3B-Instruct", "other/Qwen2.5-VL-3B-Instruct"]
    assert first_suite.ladder(models) == [
        ("big-model", str(tmp_path / "big model")),
        ("Qwen2.5-VL-3B-Instruct", models[1]),
        ("Qwen2.5-VL-3B-Instruct-2", models[2]),
    ]
    with pytest.raises(ConfigError, match="tiny is a ladder of its own"):
        first_suite.ladder(["tiny", "Qwen/Qwen2.5-VL-3B-Instruct"])
