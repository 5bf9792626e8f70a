"""The commands of README, tutorial and how-to pages: they can be given as they stand, and each is run by a test."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from harness.store import Store
from helpers.common import ROOT, Cli
from helpers.pages import PROGRAMS, blocks, of_nav, own, parsed, tree

RANKING = ROOT / "docs" / "ranking.md"
PAGES = [ROOT / "README.md", *of_nav("Tutorial", "How to"), RANKING]
EXECUTED = {
    "adding_a_method.md": "system/test_tutorial_method.py::test_the_tutorial",
    "adding_a_benchmark.md": "system/test_tutorial_benchmark.py::test_the_tutorial_works",
}
"""Pages of which a test runs everything. Here, as those of RANKING, which are about no store, they are only read."""
RUN = {"list", "describe", "new-method", "new-benchmark", "show", "rank", "store ls", "store export", "store pack"}
"""Verbs that are run here as they stand; the others, which train or take long, by the tests below."""
RUN |= {"store unpack", "store gc", "store compact"}
ELSEWHERE = {
    "plan": "train/test_preflight.py",
    "run": "evaluation/test_controls.py",
    "suite": "cli/test_cli.py",
    "profile": "speed/test_profiling.py",
    "tune-speed": "speed/test_tuning.py",
    "sweep": "experiments/test_sweep.py",
    "ablate": "experiments/test_ablation.py",
    "compare": "experiments/test_equal_flops.py",
    "verify": "submission/test_verify.py",
    "pack": "submission/test_submit.py",
    "add": "submission/test_submit.py",
    "score": "evaluation/test_answer_files.py",
    "import-predictions": "evaluation/test_import_answers.py",
    "leaks": "data/test_leakage.py",
    "check-benchmark": "authoring/test_benchmark_checks.py",
    "robustness": "evaluation/test_robustness.py",
    "reproduce": "submission/test_reproduce.py",
    "audit": "submission/test_reproduce.py",
    "check-method": "authoring/test_method_checks.py",
    "dashboard": "dashboard/test_dashboard.py",
    "store merge": "store/test_maintenance.py",
    "cache ls": "store/test_tensor_cache.py",
    "cache verify": "store/test_tensor_cache.py",
    "cache rm": "store/test_tensor_cache.py",
    "make demo": "system/test_package.py",
}
"""By verb, the tests that run it."""
PLACEHOLDER = re.compile(r"(^|/)[A-Z]{2,}(\.|$|/)|^path/to/|^s3://|^/(shared|scratch)/")
"""What the reader puts something of their own for: a word in capitals, or a folder that can't be here."""
FILE = re.compile(r"[\w./-]+\.(toml|csv|py|parquet|zip|tar\.xz)$")
MADE = {"out", "trace", "export", "page"}
"""Parameters that name what the command writes."""


def made_by(verb: str, params: dict[str, Any]) -> list[str]:
    """The files that a command writes."""
    name = params.get("name")
    if verb in ("new-method", "new-benchmark"):
        return [f"{name}.py", f"test_{name}.py"]
    names = {"store pack": ["file"], "store export": ["file", "predictions"], "store unpack": ["folder"]}
    return [str(params[key]) for key in (*names.get(verb, []), *MADE) if params.get(key)]


def taken_by(verb: str, params: dict[str, Any]) -> list[str]:
    """The files and folders that a command reads, without placeholders."""
    written = made_by(verb, params)
    given = [one for value in params.values() for one in (value if isinstance(value, list | tuple) else [value])]
    found = [str(one) for one in given if isinstance(one, Path) or (isinstance(one, str) and FILE.match(one))]
    return [one for one in found if one not in written and not PLACEHOLDER.search(one)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page(
    page: Path, cli: Cli, varied_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands and options exist, files are there or made before, and what is cheap is run, in the page's order."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").rename("runs")
    run_id = Store("runs").ids()[0]
    only_read = page.name in EXECUTED or page == RANKING
    made: set[str] = set()
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        for words in block.commands():
            rest = own(words)
            if rest is None:
                assert words[0] in PROGRAMS or "=" in words[0], words
                if words[0] == "python" and not only_read:
                    runpy.run_path(words[1])
                continue
            verb, params = parsed(rest)
            if only_read:
                continue
            for name in taken_by(verb, params):
                assert Path(name).exists() or (ROOT / name).exists() or name in made, f"{words}: no {name} before"
            made |= set(made_by(verb, params))
            open_ = any(PLACEHOLDER.search(word) for word in rest if word != "RUN")
            if verb in RUN and not open_ and not params.get("prompt") and "--benchmark" not in rest:
                said = cli(*(run_id if word == "RUN" else word for word in rest if word != ">"))
                assert said.code == 0, f"{words}: {said.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_where_they_are_found(page: Path) -> None:
    """Commands stand in blocks of the language sh or console; those in the text have verbs and options that exist."""
    prose = page.read_text(encoding="utf-8")
    for block in blocks(page):
        if block.language not in ("sh", "console"):
            assert not re.search(r"^(\$ )?(hkdbench|make) ", block.text, re.M), block.text
    prose = re.sub(r"(?ms)^```.*?^```$", "", prose)
    assert not re.search(r"^    (hkdbench|python|make) ", prose, re.M)
    for said in re.findall(r"`hkdbench ([^`]+)`", prose):
        for verb in re.split(r"\|", said.split()[0]):
            assert verb.isupper() or verb.startswith("-") or verb in VERBS, said
        for option in re.findall(r"(?<!\S)--[\w-]+", said):
            assert option in OPTIONS, said


def _known() -> tuple[set[str], set[str]]:
    waiting: list[Any] = [tree()]
    verbs, options = set(waiting[0].commands), {"--help", "--version"}
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        options |= {name for one in command.params for name in one.opts}
    return verbs, options


VERBS, OPTIONS = _known()


def test_each_command_is_run_by_a_test() -> None:
    """By those of this file, by the test of a page, or by the one that is named for its verb."""
    found = set()
    for page in PAGES:
        for block in blocks(page):
            for words in block.commands():
                rest = own(words)
                if words[0] == "make":
                    found.add("make demo")
                elif rest is not None:
                    found.add(parsed(rest)[0])
    assert found - RUN - ELSEWHERE.keys() == set()
    for verb, file in ELSEWHERE.items():
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        *_, last = verb.split()
        assert re.search(rf'"{last}"|_{last}_', text), f"{file} doesn't run {verb}"
    for test in EXECUTED.values():
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    for picture in (ROOT / "docs" / "pictures").glob("*.png"):
        assert picture.stat().st_size <= 150_000


def test_what_is_checked_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --seeed"):
        parsed(["run", "--seeed", "3"])
    with pytest.raises(AssertionError, match="no such command"):
        parsed(["store", "burn"])
    verb, params = parsed(["plan", "mine.toml", "--plugin", "x.py", "--data-dir", "path/to/nlvr"])
    assert sorted(taken_by(verb, params)) == ["mine.toml", "x.py"]
    assert made_by(*parsed(["new-method", "mine"])) == ["mine.py", "test_mine.py"]
    assert own(["ray", "job", "submit", "--", "python", "-m", "harness", "list", "runs"]) == ["list", "runs"]
