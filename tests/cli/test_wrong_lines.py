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
            assert all(error[part] for part in ("message", "mend", "where")), line
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


PLAN = ["plan", "--method", "finetune", "--benchmark", "scenes_factuality", "--json", "--set"]


@pytest.mark.parametrize(
    ("setting", "where", "mend"),
    [
        ("train.lr=inf", "train.lr = inf", "input should be less than or equal to 10"),
        ("train.lr=nan", "train.lr = nan", "input should be"),
        ("train.lr_by_rung.S=-1", "train.lr_by_rung.S = -1", "input should be greater than 0"),
        ("train.weight_decay=inf", "train.weight_decay = inf", "input should be less than or equal to 10"),
        ("train.lora.alpha=inf", "train.lora.alpha = inf", "input should be less than or equal to 1000000"),
        ("train.batch_size=1000000000", "train.batch_size = 1000000000", "input should be less than or equal to 65536"),
        ("evaluate.resamples=100000000", "evaluate.resamples = 100000000", "input should be less than or equal to"),
        ("cluster.resources.memory=inf", "cluster.resources.memory = inf", "input should be a finite number"),
        ("settings.label_smoothing=nan", "method 'finetune'", ""),
        ("track.tensorboard=~nobody-at-all/x", "track.tensorboard = '~nobody-at-all/x'", "expected ~/folder"),
    ],
)
def test_settings_without_sense_are_refused_with_their_bound(
    setting: str, where: str, mend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hkdbench", *PLAN, setting])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    error = json.loads(capsys.readouterr().out)["error"]
    assert (end.value.code, error["where"]) == (2, where)
    assert error["mend"].startswith(mend)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            ["rank", "--store", "~nobody-at-all/runs"],
            "'~nobody-at-all/runs': nobody on this machine has this home folder",
        ),
        (["store", "unpack", "~nobody-at-all/x.tar.xz", "out"], "nobody on this machine has this home folder"),
        (["describe", "nlvr", "--data-dir", "~nobody-at-all"], "nobody on this machine has this home folder"),
        (["list", "runs", "--store", "ftp://host/runs"], ""),
        (["describe", os.fsdecode(b"\xff")], "argument '\\xff': isn't UTF-8"),
        (["store", "ls", "--where", os.fsdecode(b"\xff\xfe")], "argument '\\xff\\xfe': isn't UTF-8"),
        (["rank", "--store", os.fsdecode(b"runs\xff")], "isn't UTF-8; expected text"),
    ],
    ids=lambda value: "",
)
def test_names_that_the_machine_does_not_know(
    line: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hkdbench", *line])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert says in err
    assert not list(tmp_path.iterdir())


def test_a_data_folder_that_nothing_reads_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hkdbench", *PLAN, "student=Q", "--data-dir", str(tmp_path)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()
    said = "note: --data-dir isn't used: scenes_factuality reads no files; leave it out\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hkdbench run --method off", {"offline_kd"}),
        ("hkdbench rank --benchmark scenes_f", {"scenes_factuality"}),
        ("hkdbench show con", {"control-a"}),
    ],
)
def test_the_shell_completes_names(
    words: str, offered: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("control-a", "finetune-b", ".work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path))
    monkeypatch.setenv("_HKDBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setattr(sys, "argv", ["hkdbench"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, set(capsys.readouterr().out.split())) == (0, offered)


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
