"""The numbers that a version stands for: whoever changes one raises the version, in `harness/versions.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import versions
from scripts import golden
from scripts.golden import Golden

ALL = {(kind.version, case): kind for kind in golden.all_golden() for case in kind.cases}


@pytest.mark.parametrize(("version", "case"), ALL, ids=[" ".join(key) for key in ALL])
def test_the_numbers_are_those_of_the_version(version: str, case: str) -> None:
    kind = ALL[version, case]
    stored = kind.stored()
    renew = "run `python -m scripts.golden`"
    assert stored["version"] == kind.now, f"{version} was raised: {renew}"
    assert case in stored["numbers"], f"{case} is new: {renew}"
    changed = golden.changes(stored, case, kind.cases[case]())
    assert not changed, f"raise {version} in harness/versions.py and {renew}; changed: {'; '.join(changed)}"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Golden]:
    """Golden numbers of scoring in a folder of their own, with these values now."""
    monkeypatch.setattr(golden, "FOLDER", tmp_path)

    def made(**cases: Any) -> Golden:
        kind = Golden("SCORING", {name: lambda value=value: value for name, value in cases.items()})  # type: ignore[misc]
        monkeypatch.setattr(golden, "all_golden", lambda: [kind])
        return kind

    return made


def test_numbers_are_renewed_with_a_new_version_only(
    kept: Callable[..., Golden], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = kept(a={"x": [0.5, 1.0]}, b="says")
    assert golden.main() == 0
    written = kind.path.read_text()
    assert kept(a={"x": [0.5, 1.0]}, b="says").cases.keys() == {"a", "b"}
    assert golden.main() == 0  # the same again
    assert kind.path.read_text() == written
    kept(a={"x": [0.5, 1.25]}, b="says")
    capsys.readouterr()
    assert golden.main() == 1
    said = capsys.readouterr()
    assert said.err == "scoring.json: a: x.1 is 1.25, was 1.0\n"
    assert said.out == "scoring.json stays as it is: raise SCORING in harness/versions.py, and run this again\n"
    assert kind.path.read_text() == written
    monkeypatch.setattr(versions, "SCORING", 99)
    assert golden.main() == 0
    assert json.loads(kind.path.read_text())["version"] == 99


def test_bits_are_compared_on_a_known_kind_of_machine(
    kept: Callable[..., Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, other = kept(a=[0.123456789012]), [0.123456789013]
    golden.main()
    assert golden.changes(kind.stored(), "a", other) == ["the last bits of some numbers"]
    monkeypatch.setattr(golden, "machine", lambda: "another")
    assert golden.changes(kind.stored(), "a", other) == []
    assert golden.changes(kind.stored(), "a", [0.1234]) == ["0 is 0.1234, was 0.12345679"]
    golden.main()
    assert len(kind.stored()["bits"]) == 2
