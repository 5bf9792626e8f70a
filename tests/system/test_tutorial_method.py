"""docs/adding_a_method.md does what it says: its files are written, its commands run, its output is compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry
from helpers.common import Cli

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"\n]*)\")?\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """The page's code blocks: language, title, and the text."""
    return [(m[1], m[2] or "", m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[tuple[list[str], list[str]]]:
    """Each command of a console block, with the output that the page shows for it."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        else:
            found[-1][1].append(line)
    return found


def assert_shown(shown: list[str], output: str) -> None:
    """The shown lines are in the output, in this order; spaces are as they may be, and `...` stands for anything."""
    squeezed, at = " ".join(output.split()), 0
    for line in shown:
        for part in filter(None, (" ".join(piece.split()) for piece in line.split("..."))):
            found = squeezed.find(part, at)
            assert found >= 0, f"{part!r} is not in the output after {squeezed[:at][-80:]!r}:\n{output}"
            at = found + len(part)


@pytest.mark.slow
def test_the_tutorial(root: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    ran = 0
    for language, title, text in blocks(root / "docs" / "adding_a_method.md"):
        if language == "python":
            (tmp_path / title).write_text(text, encoding="utf-8")
        elif language == "console":
            for (program, *args), shown in commands(text):
                if program == "hkdbench":
                    monkeypatch.setattr(registry, "_plugins", {})  # each command reads the file as it is now
                    said = cli(*args)
                    code, output = said.code, said.out + said.err
                else:
                    assert program == "python"
                    done = subprocess.run([sys.executable, *args], env=os.environ, capture_output=True, text=True)
                    code, output = done.returncode, done.stdout + done.stderr
                assert (code != 0) == (title == "fails"), output
                assert_shown(shown, output)
                ran += 1
    assert ran == 9


def test_a_page_that_shows_something_else_is_told() -> None:
    assert_shown(["ok  stages", "broken ... masked"], "ok   stages 0.1 s\nbroken x: be masked")
    with pytest.raises(AssertionError, match="'masked' is not in the output"):
        assert_shown(["broken ... masked"], "masked\nbroken x")
