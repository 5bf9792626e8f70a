"""Rules that no other tool checks: sizes of files and packages, names of classes, paths and links in the pages."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers.common import ROOT

PRODUCT = ("harness", "methods", "benchmarks", "dashboard")
FILES = sorted(path for top in PRODUCT for path in (ROOT / top).rglob("*.py"))


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lengths.items() if count > 400} == {}


def test_no_package_has_more_than_14_files() -> None:
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in FILES)
    assert {name: count for name, count in sizes.items() if count > 14} == {}


def test_no_class_name_is_defined_twice() -> None:
    names = Counter(
        node.name for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "harness").iterdir() if path.is_dir()))
def test_each_package_has_its_tests(folder: str) -> None:
    if (ROOT / "harness" / folder / "__init__.py").is_file():
        assert list((ROOT / "tests" / folder).glob("test_*.py"))


def test_the_paths_that_contributing_names_exist() -> None:
    tops = "|".join((*PRODUCT, "tests", "scripts", "benches", "suites", "sweeps", "deploy", "docs"))
    named = set(re.findall(rf"`((?:{tops})/[\w./]*)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


PAGES = [
    path
    for folder in (".", "docs", "docs/methods", "docs/benchmarks", "benches")
    for path in ROOT.glob(f"{folder}/*.md")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_heads(page: Path) -> None:
    """To files of the repository, and to heads in them as GitHub spells their anchors."""
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target
