"""Wrong command lines, made from the command line's own description: exit 2, and one line or one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import typer

from harness import cli
from harness.cli.options import app
from helpers.common import ROOT


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command with its words, those of groups too."""
    waiting: list[tuple[list[str], Any]] = [([], typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        for name, below in sorted(getattr(command, "commands", {}).items()):
            waiting.append(([*words, name], below))
        if words:
            yield words, command


def wrong_lines() -> Iterator[list[str]]:
    """An unknown option, an unknown verb, a missing value, a value of the wrong kind: for every command and option."""
    for words, command in commands():
        yield [*words, "--no-such-option"]
        if getattr(command, "commands", None):
            yield [*words, "no-such-verb"]
            continue
        options = [p for p in command.params if p.param_type_name == "option" and not p.is_flag and p.opts]
        json_ = ["--json"] if any("--json" in p.opts for p in command.params) else []
        for option in options:
            yield [*words, *json_, option.opts[0]]  # its value is missing
            kind = option.type_descriptor.annotation
            if kind in (int, float) or get_origin(kind) is Literal:
                yield [*words, option.opts[0], "no-such-value", *json_]


LINES = list(wrong_lines())


def test_there_are_many() -> None:
    assert len(LINES) >= 200
    assert len({tuple(line) for line in LINES}) == len(LINES)


@pytest.mark.parametrize("part", range(8))
def test_a_wrong_line_is_one_line_or_one_object(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for line in LINES[part::8]:
        monkeypatch.setattr(sys, "argv", ["hkdbench", *line])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert end.value.code == 2, line
        if "--json" in line:
            error = json.loads(out)["error"]
            assert (error["code"], err) == (2, ""), line
            assert error["message"], line
        else:
            assert err.startswith("error: "), line
            assert (err.count("\n"), out) == (1, ""), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["rank", "--json", "--format", "csv"], "two forms of one output"),
        (["check-method", "x", "--plugin", "absent.py", "--json"], "can't load plugin"),
        (["plan", "--method", "ce", "--benchmark", "nlvr", "--set", "seed=1\ntrain.lr=2", "--json"], "one assignment"),
    ],
)
def test_json_errors_of_users(
    line: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if line[0] == "rank":
        line = [*line, "--store", str(request.config.rootpath / "results" / "scenes")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hkdbench", *line])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert says in json.loads(capsys.readouterr().out)["error"]["message"]


def test_nobody_reads_the_output() -> None:
    """A reader that has gone, and a device that is full: no traceback."""
    command = [sys.executable, "-m", "harness", "list", "methods"]
    read, write = os.pipe()
    os.close(read)
    gone = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(write)
    assert (gone.returncode, gone.stderr) == (1, "")
    with open("/dev/full", "wb") as full:
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (said.returncode, said.stderr) == (2, "error: No space left on device\n")
