"""The pages of docs/methods are what the code says, but for "When to use it", which is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import registry
from harness.authoring import method_docs
from helpers.common import Cli


def built_ins() -> dict[str, type]:
    return {name: cls for name, cls in registry.load_all(registry.methods()) if cls.name == name}


def test_the_committed_pages_are_in_step_with_the_code(root: Path) -> None:
    folder = root / "docs" / "methods"
    expected = {"README.md": method_docs.index(built_ins().values())}
    for name, cls in built_ins().items():
        by_hand = method_docs.handwritten(folder / f"{name}.md")
        assert by_hand, f"docs/methods/{name}.md: say when to use the method"
        expected[f"{name}.md"] = method_docs.page(cls, by_hand)
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert found == expected, "run `hkdbench method-pages`"


def test_what_is_kept_by_hand_stays(cli: Cli, tmp_path: Path) -> None:
    assert cli("method-pages", "offline_kd", "--out", tmp_path).code == 0
    path = tmp_path / "offline_kd.md"
    assert method_docs.handwritten(path) == ""
    path.write_text(path.read_text().replace("## When to use it\n", "## When to use it\n\nOn Mondays.\n\nOften.\n"))
    assert cli("method-pages", "offline_kd", "--out", tmp_path).code == 0
    assert method_docs.handwritten(path) == "On Mondays.\n\nOften."
    assert [p.name for p in tmp_path.iterdir()] == ["offline_kd.md"]  # an index only with all of them


def test_a_page_counts_passes_and_names_settings() -> None:
    """offline_kd: L is tuned, then forwarded frozen beside the student."""
    text = method_docs.page(built_ins()["offline_kd"], "")
    assert "| `distil` | 1 | `teacher` (L, from `teacher` of `teacher`; frozen), `student` (S; learns) |" in text
    assert "2 forward and 1 backward passes of L; 1 forward and 1 backward passes of S" in text
    assert "| `divergence` | `'forward_kl'` | forward_kl, reverse_kl, jsd, skew_kl, dkd, logit_std, dist |" in text
    assert "- `dkd`: `divergence = 'dkd'`" in text


@pytest.mark.parametrize("args", [["offline"], ["toy", "finetune"]])
def test_an_unknown_method(cli: Cli, args: list[str], tmp_path: Path) -> None:
    said = cli("method-pages", *args, "--out", tmp_path / "pages")
    assert said.code == 2
    assert f"unknown method {args[0]!r}" in said.err
    assert not (tmp_path / "pages").exists()
