"""What the tests share: where the real data lie, and a quiet, deterministic environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Ray turns authentication on when a token lies in the home folder: say explicitly that tests use none.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HKDBENCH_SHARED", ROOT.parent / "shared"))
"""Published data sets and the golden figures of their own scoring scripts."""


def _present(path: Path) -> Path:
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing, and CI must have it")
        pytest.skip(f"{path} isn't here: set HKDBENCH_SHARED to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The figures that the authors' scoring scripts give."""
    return _present(SHARED / "golden")


@pytest.fixture(scope="session")
def nlvr_dir() -> Path:
    """The published NLVR files."""
    return _present(SHARED / "data" / "nlvr")


@pytest.fixture(scope="session")
def toy() -> str:
    """The plugin spec of the tests' own benchmark and methods."""
    return str(ROOT / "tests" / "toy.py")


@pytest.fixture(scope="session")
def toy_ladder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ladder file L > M > S of untrained tiny models, which is all that tests of the machinery need."""
    from harness import tiny

    folder = tmp_path_factory.mktemp("ladder")
    words = ["what", "colour", "is", "it", "?", "red", "green", "blue"]
    for rung in ("L", "M", "S"):
        tiny.save(*tiny.build(rung, words, seed=0), folder / rung)
    rungs = "".join(f'[[rungs]]\nname = "{rung}"\nmodel = "{rung}"\n' for rung in ("L", "M", "S"))
    (folder / "ladder.toml").write_text(f'name = "toy"\n{rungs}')
    return str(folder / "ladder.toml")
