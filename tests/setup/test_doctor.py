"""`hkdbench doctor`: each finding on a machine that lacks something, and that looking changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from harness.setup import doctor
from helpers.common import Cli


def test_a_sound_machine(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said = cli("doctor", "--store", tmp_path / "none", "--json")
    found = {one["name"]: one for one in said.json}
    assert (said.code, [one for one in said.json if one["state"] == "problem"]) == (0, [])
    assert {"python", "torch", "transformers", "ray", "datasets", "streamlit", "devices", "store"} <= found.keys()
    assert found["store"]["found"].endswith("isn't there yet: the first run makes it")
    assert found["ray"]["found"] == "not tried; --ray starts a cluster"
    assert not (tmp_path / "none").exists()


def test_a_problem_has_a_mend_and_is_exit_code_1(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(doctor, "_devices", lambda: doctor.Diagnosis("devices", "ok", ""))
    said = cli("doctor", "--store", tmp_path / "file")
    assert said.code == 1
    lines = said.out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert lines[at].split()[1] == "store"
    assert lines[at + 1].strip() == "-> choose another with --store or HKDBENCH_STORE"
    assert lines[-1].endswith("1 problem")


@pytest.mark.parametrize(
    ("asked", "state"), [("torch>=2", "ok"), ("torch>=99", "problem"), ("no-such-package>=1", "problem")]
)
def test_versions_are_compared_with_what_is_asked(asked: str, state: str) -> None:
    found = doctor._package(Requirement(asked))
    assert (found.state, found.mend) == (state, "" if state == "ok" else f"pip install '{asked}'")


@pytest.mark.parametrize(
    ("free", "state"), [(doctor.LITTLE_DISK - 1, "problem"), (doctor.FEW_DISK - 1, "warning"), (2**40, "ok")]
)
def test_disk(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert doctor._disk("disk", tmp_path).state == state


@pytest.mark.parametrize(
    ("look", "variable", "value"),
    [
        (doctor._cache, "HKDBENCH_CACHE", "~nobody-at-all/cache"),
        (doctor._cache, "HKDBENCH_CACHE", "/proc/cache"),
        (lambda: doctor._ray(False), "RAY_ADDRESS", "127.0.0.1:9"),
    ],
)
def test_variables_that_lead_nowhere(
    look: Callable[[], doctor.Diagnosis], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    found = look()
    assert found.state == "problem"
    assert found.mend


def test_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (64, 64))
    assert doctor._open_files().state == "problem"
