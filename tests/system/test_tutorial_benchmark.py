"""docs/adding_a_benchmark.md, executed: its files are written, its commands run, in the order of the page."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from harness.data import dataset
from helpers.common import Cli


def test_the_tutorial_works(cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (root / "docs" / "adding_a_benchmark.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    ran, failed = [], ""
    for language, text in blocks:
        if language == "python":
            Path(re.match(r"# (\w+\.py)\n", text)[1]).write_text(text)  # type: ignore[index]
            continue
        if language == "text":  # what the last command said
            assert text.strip() in failed
            continue
        assert language == "sh"
        for command in text.splitlines():
            program, *args = shlex.split(command)
            ran.append(args[0])
            if program == "python":
                runpy.run_path(args[0])
                continue
            assert program == "hkdbench"
            dataset._dataset.cache_clear()  # each command is a process of its own
            said = cli(*args)
            after_damage = "damage.py" in ran
            assert said.code == (2 if after_damage else 0), said.err
            failed = said.err
    assert ran == ["draw_shapes.py", "describe", "check-benchmark", "plan", "run", "rank", "damage.py", "plan"]
    records = [json.loads(path.read_text()) for path in Path("runs").glob("**/record.json")]
    record = next(r for r in records if r["method"] == "zero_shot")
    assert record["status"] == "done"
    assert 0 <= record["metrics"]["test"]["per_picture:all_right"]["value"] <= 1
    assert sum(record["data"]["sizes"].values()) == 16
