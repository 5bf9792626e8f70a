"""The files for GitHub, citation and Docker fit the project: read as their readers read them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import __version__


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(workflow: dict[str, Any]) -> list[str]:
    """All commands of a workflow."""
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_the_version_is_said_once(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    cited = read(root / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)  # the schema's, and ours
    assert str(cited["version"]) == project["version"] == __version__
    assert cited["license"] == project["license"]
    assert f"\n## {__version__}\n" in (root / "CHANGELOG.md").read_text()


def test_github_runs_what_ci_runs(root: Path) -> None:
    workflow = read(root / ".github" / "workflows" / "ci.yml")
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads `on` as true
    lines = (root / ".ci" / "run").read_text().splitlines()
    made = [line for line in lines if line.startswith("make ")]
    assert made == ["make check", "make test"]
    assert [run for run in steps(workflow) if run.startswith("make ")] == made
    needed = re.findall(r"missing\+=\((\S+)\)", "\n".join(lines))
    assert all(any(name in run for run in steps(workflow)) for name in needed)
    assert all(
        "container" in job and job["steps"][0]["uses"].startswith("actions/checkout@")
        for job in workflow["jobs"].values()
    )
    hooks = read(root / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["make check"]


def test_the_templates_workflow_uses_what_there_is(root: Path) -> None:
    folder = root / "examples" / "plugin_template"
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    runs = steps(read(folder / ".github" / "workflows" / "test.yml"))
    for group, verb in (("hkdbench.methods", "check-method"), ("hkdbench.benchmarks", "check-benchmark")):
        for name in points[group]:
            assert f"hkdbench {verb} {name}" in runs


def test_the_forms_for_issues(root: Path) -> None:
    """By the rules of GitHub's forms: unique ids, known types, a label for each field."""
    forms = sorted(path for path in (root / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
    assert [path.stem for path in forms] == ["addition", "bug", "number"]
    for path in forms:
        form = read(path)
        assert set(form) == {"name", "description", "labels", "body"}
        assert len({field["id"] for field in form["body"]}) == len(form["body"])
        for field in form["body"]:
            assert field["type"] in ("input", "textarea", "checkboxes")
            assert field["attributes"]["label"]


@pytest.mark.parametrize("name", ["Dockerfile", "demo.Dockerfile"])
def test_images_are_built_from_what_is_here(root: Path, name: str) -> None:
    text = (root / "deploy" / name).read_text().replace("\\\n", " ")
    sources = [part for line in re.findall(r"^COPY (.+)$", text, re.M) for part in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (root / source).exists(), source


def test_the_demos_image_has_every_package_and_runs_the_demo(root: Path) -> None:
    text = (root / "deploy" / "demo.Dockerfile").read_text()
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(re.findall(r"^COPY (\S+) /src/\1$", text, re.M)) == {name.split(".")[0] for name in packages}
    shell, flag, command = json.loads(text.rpartition("\nCMD ")[2])
    assert (shell, flag) == ("bash", "-c")
    demo, shown = command.split(" && exec ")
    assert demo == "hkdbench demo"
    assert "--address 0.0.0.0" in shown
    (port,) = re.findall(r"^EXPOSE (\d+)$", text, re.M)
    assert f"--port {port}" in shown


def test_what_is_said_about_security_is_there(root: Path) -> None:
    text = (root / "SECURITY.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (root / link).is_file(), link
    assert "Report a vulnerability" in text
