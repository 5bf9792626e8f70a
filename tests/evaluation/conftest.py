"""What the tests of evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.answer_files import write_pope


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    return write_pope(tmp_path)
