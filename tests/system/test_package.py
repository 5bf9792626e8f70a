"""The package as it is shipped: locks, entry points, suites, the wheel, and what an import costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from harness import provenance, registry
from harness.api import Benchmark, Method
from helpers.common import ROOT


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())
    return found


def locked(path: Path) -> dict[str, str]:
    """The pins of a lock, by normalised name. Every line must be an exact pin or a lock it builds on."""
    pins = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            pins |= locked(path.parent / line[3:])
        elif line and not line.startswith("#"):
            name, pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+)", line).groups()  # type: ignore[union-attr]
            pins[normal(name)] = pin
    return pins


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(("lock", "extra"), [("requirements.lock", None), ("requirements-dev.lock", "dev")])
def test_the_locks_hold_what_the_project_asks_for(
    root: Path, project: dict[str, Any], lock: str, extra: str | None
) -> None:
    pins = locked(root / lock)
    asked = project["project"]["dependencies"] + (project["project"]["optional-dependencies"][extra] if extra else [])
    for text in asked:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[normal(requirement.name)]), text


def test_the_lock_brings_neither_cuda_nor_torchvision(root: Path) -> None:
    pins = locked(root / "requirements-dev.lock")
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton", "torchvision"))]


def test_the_locks_fit_this_interpreter(root: Path) -> None:
    """`make test` runs what the lock says; elsewhere only the packages that decide results must agree."""
    pins = locked(root / "requirements.lock")
    for name in ("torch", "transformers", "ray", "numpy", "pillow", "scipy"):
        assert version(name).split("+")[0] == pins[name], name


def test_every_built_in_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_problems", {})
    loaded = {**dict(registry.load_all(registry.methods())), **dict(registry.load_all(registry.benchmarks()))}
    assert registry.problems() == []
    for name, cls in loaded.items():
        assert name == cls.name or name in getattr(cls, "presets", {})
        assert issubclass(cls, Method | Benchmark)
        assert cls.__doc__
        assert len(provenance.source_digest(cls)) == 64


@pytest.mark.parametrize("suite", sorted((ROOT / "suites").glob("*.toml")), ids=lambda p: p.stem)
def test_suites_name_what_exists(suite: Path) -> None:
    found = tomllib.loads(suite.read_text())
    assert found["name"] == suite.stem
    assert set(found["benchmarks"]) <= registry.benchmarks().keys()
    assert set(found.get("benchmark_settings", {})) <= set(found["benchmarks"])
    # Settings are chosen on one seed, and a control that learns nothing shows it on one.
    assert len(set(found["seeds"])) >= (1 if suite.stem in ("tuning", "controls", "ladder") else 2)
    for plugin in found.get("plugins", ()):
        registry.load_plugin(str(ROOT / plugin))
    for run in found["runs"]:
        registry.make_method(run["method"], run.get("settings", {}))


def test_the_demo_runs_what_it_promises(root: Path) -> None:
    demo = tomllib.loads((root / "suites" / "demo.toml").read_text())
    runs = {(run["method"], run.get("student", "S")) for run in demo["runs"]}
    small = {(method, "S") for method in ("finetune", "offline_kd", "hkd4vlm", "zero_shot")}
    assert small | {("finetune", "L")} <= runs
    assert set(demo["benchmarks"]) == {"scenes_hallucination", "scenes_factuality"}


@pytest.fixture(scope="module")
def packages(project: dict[str, Any]) -> list[str]:
    """The folders of the packages that are shipped."""
    return [name.replace(".", "/") for name in project["tool"]["setuptools"]["packages"]]


@pytest.fixture(scope="module")
def wheel(root: Path, packages: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for top in {package.split("/")[0] for package in packages}:
        shutil.copytree(root / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_every_package_is_listed(root: Path, packages: list[str]) -> None:
    """One that isn't would be missing from the wheel."""
    tops = {package.split("/")[0] for package in packages}
    found = {str(path.parent.relative_to(root)) for top in tops for path in (root / top).rglob("__init__.py")}
    assert found <= set(packages)


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_the_weights(root: Path, packages: list[str], wheel: Path) -> None:
    tops = {package.split("/")[0] for package in packages}
    shipped = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(p.relative_to(root)) for package in packages for p in (root / package).glob("*.py")}
    weights = root / "harness" / "weights"
    expected |= {str(p.relative_to(root)) for p in weights.rglob("*") if p.is_file()}
    expected |= {"dashboard/table.js", "dashboard/table.css", "dashboard/bundle/bundle.js"}
    expected |= {f"suites/{path.name}" for path in (root / "suites").glob("*.toml")}
    assert expected <= shipped
    assert {name.split("/")[0] for name in shipped} == {*tops, wheel.name.split("-py3")[0] + ".dist-info"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment into which pip installed the wheel.

    Its dependencies are those that are installed here, by a path file: to download torch again would take minutes.
    """
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.mark.slow
def test_the_installed_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    """By its own command, in a folder that has nothing else: a method on a benchmark, the ranking, the dashboard."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    small = [f"benchmark_settings.{split}=16" for split in ("train", "validation", "test", "ood")]
    settings = [arg for one in (*small, "train.examples=16", "train.batch_size=8") for arg in ("--set", one)]
    run = ["run", "--method", "offline_kd", "--benchmark", "scenes_factuality", "--workers", "0"]

    def said(command: str, *args: str) -> str:
        done = subprocess.run([installed / command, *args], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    record = json.loads(said("hkdbench", *run, *settings, "--json"))
    assert (record["status"], record["provenance"]["git_commit"]) == ("done", None)
    assert "offline_kd" in said("hkdbench", "rank")
    where, suite, ranked, titles = said(
        "python",
        "-c",
        "import harness; print(harness.__file__)\n"
        "from harness.cli.runs import SUITES; print((SUITES / 'demo.toml').is_file())\n"
        "print(harness.open_store().ranking()['method'].tolist())\n"
        "import dashboard; from pathlib import Path; from streamlit.testing.v1 import AppTest\n"
        "page = AppTest.from_file(Path(dashboard.__file__).with_name('app.py'), default_timeout=120).run()\n"
        "print([title.value for title in page.title], len(page.exception))",
    ).splitlines()
    assert where.startswith(str(installed.parent))
    assert suite == "True"
    assert "'offline_kd'" in ranked
    assert titles == "['Leaderboard'] 0"
