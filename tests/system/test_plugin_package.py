"""The template of one's own package, installed by pip: its method and its benchmark run by name, as built-ins do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `python ARGS...` where the package is installed; the installation goes with the tests' folder."""
    folder = tmp_path_factory.mktemp("plugin")
    # Building writes into the source: it gets a copy.
    source = shutil.copytree(root / "examples" / "plugin_template", folder / "source")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{root}", "HKDBENCH_STORE": str(folder / "store")}

    def python(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *args], cwd=source, env=environment, capture_output=True, text=True)

    return python


def test_it_is_listed_with_where_it_comes_from(run: Run) -> None:
    code = (
        "from harness import registry\n"
        "for found in (registry.methods()['confident_kd'], registry.benchmarks()['stripes']):\n"
        "    print(found.origin)\n"
    )
    assert run("-c", code).stdout.splitlines() == [
        "hkdbench-stripes, hkdbench_stripes.confident_kd:ConfidentKD",
        "hkdbench-stripes, hkdbench_stripes.stripes:Stripes",
    ]


def test_the_command_line_lists_it(run: Run) -> None:
    assert "\nconfident_kd " in run("-m", "harness", "list", "methods").stdout


def test_it_runs_by_name(run: Run) -> None:
    args = ["--method", "confident_kd", "--benchmark", "stripes", "--workers", "0"]
    settings = ["--set", "train.examples=16", "--set", "train.batch_size=8", "--set", "settings.floor=0.4"]
    said = run("-m", "harness", "run", *args, *settings, "--json")
    assert said.returncode == 0, said.stderr
    record = json.loads(said.stdout)
    assert (record["status"], record["method"], record["benchmark"]) == ("done", "confident_kd", "stripes")
    assert record["settings"] == {"weight": 1.0, "floor": 0.4}
    assert record["stages"][0]["roles"]["teacher"]["weights"] == "M"
    ranked = json.loads(run("-m", "harness", "rank", "--benchmark", "stripes", "--json").stdout)
    assert {"confident_kd", "majority", "random"} <= {row["method"] for row in ranked["rows"]}


def test_its_own_tests_check_the_contract(run: Run) -> None:
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests")
    assert said.returncode == 0, said.stdout
    assert "16 passed" in said.stdout
