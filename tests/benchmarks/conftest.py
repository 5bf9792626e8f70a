"""What the tests of benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.answer_files import write_pope


@pytest.fixture(autouse=True)
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` keeps its copies with the test's other files."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    (tmp_path / "pope").mkdir()
    return write_pope(tmp_path / "pope")
