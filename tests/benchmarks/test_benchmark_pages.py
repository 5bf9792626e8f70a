"""docs/benchmarks/ says what the loaders say."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def benchmark_pages(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root))
    return importlib.import_module("scripts.benchmark_pages")


def test_the_pages_are_up_to_date(benchmark_pages: ModuleType) -> None:
    assert benchmark_pages.stale() == [], "run python -m scripts.benchmark_pages"


def test_a_page_by_hand(benchmark_pages: ModuleType) -> None:
    found = {
        "name": "toy",
        "task": "factuality",
        "splits": ["train", "test"],
        "sizes": {"train": 4236, "test": 810},
        "positive": "Yes",
        "protocols": ["official"],
        "protocol_texts": {"official": "As published."},
        "revision": "1",
        "licence": "CC | BY",
        "homepage": "https://example.org",
        "citation": "A. Author.\n  A title.",
        "obtain": "Clone it.",
        "needs_data_dir": True,
        "text": "What it is.",
        "settings": [{"name": "order", "type": "int", "default": 1, "text": "How many."}],
    }
    text = benchmark_pages.page(found)
    for said in (
        "# toy\n",
        "| Splits | train 4,236, test 810 |",
        "| Positive class | Yes |",
        "| Licence | CC \\| BY |",
        "| Citation | A. Author. A title. |",
        "\n\nWhat it is.\n\n## Where to get it\n\nClone it.\n\n## Protocols\n\n**`official`**\n\nAs published.\n",
        "| `order` | `int` | `1` | How many. |",
        "hkdbench run --method finetune --benchmark toy --data-dir FOLDER --set control=text_only",
    ):
        assert said in text
    assert "\n\n\n" not in text


def test_what_is_stale(benchmark_pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_pages, "pages", lambda: {"a.md": "1", "b.md": "2"})
    (tmp_path / "gone.md").write_text("x")
    (tmp_path / "b.md").write_text("old")
    assert benchmark_pages.stale(tmp_path) == ["a.md", "b.md", "gone.md"]
    benchmark_pages.write(tmp_path)
    assert benchmark_pages.stale(tmp_path) == []


def test_the_page_of_controls_is_up_to_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the committed records, and says that words alone give nothing away."""
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    text = importlib.import_module("scripts.controls_page").page(Path("results/controls"))
    assert text == (root / "docs" / "controls.md").read_text(encoding="utf-8"), (
        "run python -m scripts.controls_page results/controls"
    )
    assert text.count("No flag: no control's interval is above chance.") == 2
    assert text.count("finetune/text_only") == text.count("finetune/shuffled_image") == 2
    assert text.count("order_consistency") == 2
