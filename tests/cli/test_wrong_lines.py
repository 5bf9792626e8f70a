"""Wrong command lines, made from the command line's own description: exit 2, and one line or one JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer

from harness import cli
from harness.cli.options import app

VERBS = sorted(getattr(typer.main.get_command(app), "commands"))  # noqa: B009


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("wrong", [["--no-such-option"], ["--no-such-option", "--json"]])
def test_an_unknown_option(
    verb: str, wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hkdbench", verb, *wrong])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    if "--json" in wrong:
        assert json.loads(out)["error"]["code"] == 2
        assert not err
    else:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not out
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
