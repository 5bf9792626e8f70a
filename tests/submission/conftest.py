"""A packed run, and what `add` must do with one that it refuses."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import Store
from harness.submission import submit
from harness.submission.bundle import MANIFEST
from helpers.bundles import Files, tree
from helpers.common import Cli


@pytest.fixture(scope="module")
def run_id(small_store: Path) -> str:
    (found,) = (name for name in Store(small_store).ids() if not name.startswith("control-"))
    return found


@pytest.fixture(scope="module")
def packed(small_store: Path, run_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one file, its student with it."""
    out = tmp_path_factory.mktemp("packed") / "run.zip"
    submit.pack(Store(small_store), run_id, out, with_student=True)
    return out


@pytest.fixture
def files(packed: Path) -> Files:
    """What the packed run holds, but for its manifest."""
    with zipfile.ZipFile(packed) as opened:
        return {name: opened.read(name) for name in opened.namelist() if name != MANIFEST}


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[[Path, str], None]:
    """`add` says why in one line, ends with 2, and writes nothing anywhere near."""

    def check(file: Path, says: str) -> None:
        before = tree(tmp_path)
        said = cli("add", file, "--store", tmp_path / "store")
        assert (said.code, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1, said.err
        assert says in said.err, said.err
        assert tree(tmp_path) == before

    return check
