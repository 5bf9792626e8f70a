"""What `new-method` writes works as it stands, and overwrites nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry
from harness.authoring.method_checks import check_method
from helpers.common import Cli


def test_it_writes_a_method_that_keeps_the_contract_and_its_test(
    cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = cli("new-method", "my_margin2", "--out", tmp_path / "new", "--json")
    assert said.code == 0
    method, test = map(Path, said.json["files"])
    assert (method.name, test.name) == ("my_margin2.py", "test_my_margin2.py")
    config = ["--config", str(root / "pyproject.toml")]
    for check in (["check", "--ignore", "I001"], ["format", "--check"]):  # who is first-party depends on the folder
        subprocess.run([sys.executable, "-m", "ruff", *check, *config, method, test], check=True)
    assert [f"{f.check}: {f.message}" for f in check_method("my_margin2", plugins=[str(method)]) if f.message] == []
    # Its test, as pytest would run it.
    spec = importlib.util.spec_from_file_location("test_my_margin2", test)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.test_the_term_by_hand()
    module.test_contract("gradients")
    assert registry.make_method("my_margin2", {"weight": 0.0}).stages(("L", "S"), "S")[0].name == "tune"


@pytest.mark.parametrize("there", [True, False])
def test_it_says_how_to_get_pytest(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """What `make demo` installs has none."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name != "pytest" or there else None)
    said = cli("new-method", "my_own", "--out", tmp_path)
    assert said.code == 0
    assert "python -m pytest" in said.out
    assert ("pip install pytest" in said.out) != there


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    said = cli("new-method", "mine", "--out", tmp_path)
    assert said.code == 2
    assert "exists already" in said.err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("mine.py", "precious")]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("finetune", "method 'finetune' exists already"),
        ("dkd", "method 'dkd' exists already"),
        ("My-Method", "expected lower-case letters"),
        ("../mine", "expected lower-case letters"),
        ("lambda", "expected lower-case letters"),
    ],
)
def test_a_name_that_can_not_be(cli: Cli, name: str, told: str, tmp_path: Path) -> None:
    said = cli("new-method", name, "--out", tmp_path)
    assert said.code == 2
    assert told in said.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = cli("new-method", "mine", "--out", tmp_path / "file")
    assert said.code == 2
    assert "can't be written" in said.err
