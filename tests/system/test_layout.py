"""Rules that no other tool checks: sizes of files and packages, names of classes, paths and links in the pages."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
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


NOT_OURS = {"build", "dist", "node_modules"}
"""Folders that tools write; those whose name begins with a dot are passed over, too."""


def pages(folder: Path = ROOT) -> Iterator[Path]:
    """All Markdown files of the repository."""
    yield from sorted(folder.glob("*.md"))
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith(".") and inner.name not in NOT_OURS:
            yield from pages(inner)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8")))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's heads as GitHub, and the site, spell them: a second head of one text gets a number."""
    found: Counter[str] = Counter()
    names = set()
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))
    for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)
        name = re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def test_links_lead_to_files_and_heads() -> None:
    """In every Markdown file: to files of the repository, and to heads in them."""
    checked, broken = 0, []
    for page in pages():
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page)):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
            checked += 1
    assert broken == []
    assert checked > 200


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Two words, `one`\n## It's [new](x.md)\n## Two words one\n```\n# no head\n[l](code)\n```\n[a](b)")
    assert anchors(page) == {"two-words-one", "its-new", "two-words-one-1"}
    assert re.findall(r"\]\((.*?)\)", prose(page)) == ["x.md", "b"]
