"""Pictures of published files come from the folder of the command line only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from dashboard import options as started
from dashboard.data import images
from harness import registry
from harness.api import Benchmark, Example
from harness.errors import DataError
from helpers import runs


@dataclass(frozen=True)
class Filed(Benchmark):
    """Pictures in files."""

    name = "filed"
    task = "factuality"
    splits = ("test",)
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"
    needs_data_dir = True

    def load(self, split: object) -> list[Example]:
        assert self.data_dir is not None
        options = ("no", "yes")
        files = [self.data_dir / f"{k}.png" for k in range(3)]
        return [
            Example(f"e{k}", f"i{k}", file, "which?", "", options, runs.GOLD[k], "object", "t")
            for k, file in enumerate(files)
        ]


@pytest.fixture
def filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its files, and the benchmark known."""
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"not a picture")
    entry = registry.Registered("filed", "test", "t:Filed", lambda: Filed)
    monkeypatch.setattr(registry, "benchmarks", lambda: {"filed": entry})
    return tmp_path


def record_of(**config: object) -> object:
    return runs.record(benchmark="filed", config={"benchmark_settings": config})


def test_pictures_are_read_from_the_folder_of_the_command_line(filed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="the dashboard wasn't given the files of filed"):
        images.key(record_of())  # type: ignore[arg-type]
    monkeypatch.setenv(started.VARIABLE, '{"data_dirs": {"filed": "%s"}}' % filed)  # noqa: UP031
    key = images.key(record_of())  # type: ignore[arg-type]
    found = images.examples(key, "test")
    assert list(found) == ["e0", "e1", "e2"]
    shown = images.picture(key, "test", "e0")
    assert isinstance(shown, tuple)
    assert shown[1] == (8, 8)
    assert shown[0][8:12] == b"WEBP"
    assert "can't be read" in str(images.picture(key, "test", "e1"))
    assert "does not exist" in str(images.picture(key, "test", "e2"))
    row = {"gold": 0, "group": "i0", "category": "object"}
    assert images.fits(found["e0"], row)
    assert not images.fits(found["e0"], row | {"gold": 1})
    assert started.command("filed") == "hkdbench dashboard --data-dir filed=FOLDER"


def test_a_record_names_neither_files_nor_repositories(filed: Path) -> None:
    with pytest.raises(DataError, match="downloads nothing"):
        images.key(record_of(repo="someone/else"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="it needs the plugin that defines it"):
        images.key(runs.record(benchmark="gone"))


def test_another_revision_is_not_shown(filed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(started.VARIABLE, '{"data_dirs": {"filed": "%s"}}' % filed)  # noqa: UP031
    monkeypatch.setattr(Filed, "revision", "2")
    with pytest.raises(DataError, match="now at revision 2, but the run used 1"):
        images.examples(images.key(record_of()), "test")  # type: ignore[arg-type]
