"""Data are known by what their pictures hold, not by names and sizes; and a picture is read once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.nlvr import SquareImage
from benchmarks.pope import POPE
from benchmarks.shared import hf_datasets
from harness.api import Benchmark, DataError, Example, ImageSource
from harness.data import dataset as data
from harness.data import image_content, leakage
from harness.data.dataset import Dataset
from harness.paths import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which keeps the hashes of files that were written just now, too."""
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_content, "SETTLED_NS", 0)
    hf_datasets._open.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the image files that were read since, and the rows of cells."""
    found: list[str] = []
    read, content = Path.read_bytes, hf_datasets.ColumnImage.content

    def read_bytes(path: Path) -> bytes:
        if path.suffix in (".png", ".jpg"):
            found.append(path.name)
        return read(path)

    def of_cell(cell: hf_datasets.ColumnImage) -> bytes:
        found.append(f"row {cell.row}")
        return content(cell)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(hf_datasets.ColumnImage, "content", of_cell)
    return found


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG", compress_level=0)  # all of one size
    return buffer.getvalue()


RED, BLUE = png("red"), png("blue")


def example(id_: str, image: ImageSource) -> Example:
    return Example(id_, id_, image, "Is it red?", "", ("yes", "no"), 0, "c", "toy")


def of(*images: ImageSource) -> Dataset:
    return Dataset(Benchmark(), {"test": [example(f"e{k}", image) for k, image in enumerate(images)]})  # type: ignore[arg-type]


@pytest.fixture
def two(tmp_path: Path) -> Callable[[], Dataset]:
    """A benchmark of two picture files, read anew each time."""
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "b.png").write_bytes(BLUE)
    return lambda: of(tmp_path / "a.png", tmp_path / "b.png")


def swap(folder: Path) -> None:
    (folder / "a.png").rename(folder / "c.png")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "c.png").rename(folder / "b.png")


# ------------------------------------------------------------------------------------ content, not names


def test_two_swapped_pictures_are_other_data(two: Callable[[], Dataset], tmp_path: Path) -> None:
    before = two().fingerprint
    for name in ("a.png", "b.png"):  # as an archive leaves them: one time for all
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    assert two().fingerprint == before
    swap(tmp_path)
    assert two().fingerprint_by_names == of(tmp_path / "a.png", tmp_path / "b.png").fingerprint_by_names
    assert two().fingerprint != before
    swap(tmp_path)
    assert two().fingerprint == before


def test_another_picture_with_the_same_size_and_time(two: Callable[[], Dataset], tmp_path: Path) -> None:
    before, path = two().fingerprint, tmp_path / "a.png"
    stat = path.stat()
    path.write_bytes(BLUE)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert two().fingerprint != before


def test_neither_name_nor_folder_counts(tmp_path: Path, two: Callable[[], Dataset]) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "0001.png"
    other.write_bytes(RED)
    assert of(other, BLUE).fingerprint == two().fingerprint == of(RED, BLUE).fingerprint
    assert of(BLUE, other).fingerprint != two().fingerprint


def test_what_is_made_from_a_file_is_another_picture(tmp_path: Path, two: Callable[[], Dataset]) -> None:
    strip, square = of(tmp_path / "a.png"), of(SquareImage(tmp_path / "a.png"))
    assert strip.fingerprint != square.fingerprint
    assert of(SquareImage(tmp_path / "b.png")).fingerprint != square.fingerprint
    assert leakage.exact(Dataset(Benchmark(), {"train": strip.splits["test"], "test": square.splits["test"]})) == {  # type: ignore[arg-type]
        "train/test": {"text": 1}
    }


@dataclass(frozen=True)
class Dot:
    """A drawn picture, whose size is a setting that no text shows."""

    side: int

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (self.side, self.side))


@dataclass(frozen=True)
class Said(Dot):
    """One that says what it is drawn from."""

    def content(self) -> bytes:
        return str(self.side).encode()


def test_a_drawn_picture_follows_from_its_benchmark_or_says_what_it_is() -> None:
    assert of(Dot(8)).image_contents == {"test": [[None]]}
    assert of(Dot(8)).fingerprint == of(Dot(8)).fingerprint_by_names  # as in every older record
    assert of(Said(8)).fingerprint != of(Said(9)).fingerprint


def test_generated_benchmarks_have_the_fingerprints_that_they_had() -> None:
    """Of the code of TRAINING 3, before pictures were in fingerprints: runs under way keep their ids."""
    sizes = {"train": 20, "validation": 5, "test": 5, "ood": 5}
    for name, known in (
        ("scenes_factuality", "7ad1a123de29d81a39e2b687342d4e9fa265e691ccd21fbb94fcffacdb51c9bd"),
        ("scenes_hallucination", "363efb20c6a2c8761914cd0f4f627f2be3e419f48ebca2a832ba1a7fb964dc61"),
    ):
        assert data.load_data(name, sizes, None).fingerprint == known


def test_pictures_of_the_world_follow_from_settings_that_texts_show() -> None:
    """Another seed has other texts; sizes and label noise leave pictures as they are. So no picture needs a hash."""
    sizes = {"train": 20, "validation": 5, "test": 5, "ood": 5}
    usual = data.load_data("scenes_factuality", sizes, None)
    for settings in ({"label_noise": 0.5}, {"train": 30}):
        other = data.load_data("scenes_factuality", sizes | settings, None)
        for split, examples in usual.splits.items():
            there = {e.id: e.image for e in other.splits[split]}
            assert all(there[e.id] == e.image for e in examples)
    assert data.load_data("scenes_factuality", sizes | {"seed": 1}, None).fingerprint != usual.fingerprint


# ---------------------------------------------------------------------------------------- files and Parquet


def pope_files(folder: Path) -> POPE:
    (folder / "val2014").mkdir(parents=True)
    lines = []
    for number, picture in (("1", RED), ("2", BLUE)):
        (folder / "val2014" / f"i{number}.jpg").write_bytes(picture)
        row = {
            "question_id": int(number),
            "image": f"i{number}.jpg",
            "text": f"Is there a dog {number}?",
            "label": "yes",
        }
        lines.append(json.dumps(row))
    (folder / "coco_pope_random.json").write_text("\n".join(lines))
    return POPE(folder, variant="random")


def pope_parquet(folder: Path, cells: list[dict[str, Any]]) -> POPE:
    table = {
        "question_id": ["1", "2"],
        "question": ["Is there a dog 1?", "Is there a dog 2?"],
        "answer": ["yes", "yes"],
        "image_source": ["i1", "i2"],
        "image": cells,
        "category": ["random", "random"],
    }
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), folder / "data" / "test-00000-of-00001.parquet")
    return POPE(folder, variant="random")


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    return [{"bytes": RED, "path": "i1.jpg"}, {"bytes": BLUE, "path": None}]


def test_files_and_parquet_are_one(tmp_path: Path, cells: list[dict[str, Any]], reads: list[str]) -> None:
    files, table = pope_files(tmp_path / "files"), pope_parquet(tmp_path / "table", cells)
    assert data.load(files).fingerprint == data.load(table).fingerprint
    assert sorted(reads) == ["i1.jpg", "i2.jpg", "row 0", "row 1"]
    assert data.load(table).fingerprint == data.load(files).fingerprint
    assert len(reads) == 4
    hf_datasets._open.cache_clear()
    other = pope_parquet(tmp_path / "table", [*reversed(cells)])
    assert data.load(other).fingerprint != data.load(files).fingerprint


def test_cells_that_name_a_file(tmp_path: Path, reads: list[str]) -> None:
    files = pope_files(tmp_path / "files")
    folder = tmp_path / "table"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "i1.jpg").write_bytes(RED)
    table = pope_parquet(folder, [{"bytes": None, "path": "pictures/i1.jpg"}, {"bytes": BLUE, "path": None}])
    assert data.load(table).fingerprint == data.load(files).fingerprint
    (folder / "pictures" / "i1.jpg").write_bytes(BLUE)
    assert data.load(table).fingerprint != data.load(files).fingerprint
    hf_datasets._open.cache_clear()
    empty = pope_parquet(tmp_path / "empty", [{"bytes": None, "path": None}, {"bytes": BLUE, "path": None}])
    with pytest.raises(DataError, match="example 'random/1': image can't be read: .*contains no image"):
        _ = data.load(empty).fingerprint


# ------------------------------------------------------------------------------------------------ once


def test_the_second_run_reads_no_picture(two: Callable[[], Dataset], reads: list[str], tmp_path: Path) -> None:
    first = two()
    known = first.fingerprint
    assert sorted(reads) == ["a.png", "b.png"]
    leakage.exact(first)  # pictures are compared by the same hashes
    assert two().fingerprint == known
    assert len(reads) == 2
    (tmp_path / "b.png").write_bytes(RED)
    two().fingerprint  # noqa: B018
    assert reads[2:] == ["b.png"]


def test_a_file_that_changed_just_now_is_read_again(
    two: Callable[[], Dataset], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock it could change again with the same times."""
    monkeypatch.setattr(image_content, "SETTLED_NS", 10**12)
    assert two().fingerprint == two().fingerprint
    assert len(reads) == 4


@pytest.fixture
def damages() -> Iterator[bytes]:
    return iter((b"", b"[]", b'{"hashes": 3}', b'{"hashes": {"a.png": ["x"]}}', b"\xff"))


def test_a_damaged_cache_is_no_cache(two: Callable[[], Dataset], cache: Path, damages: Iterator[bytes]) -> None:
    known = two().fingerprint
    (kept,) = (cache / "images").iterdir()
    for text in damages:
        kept.write_bytes(text)
        assert two().fingerprint == known


def test_a_cache_that_cannot_be_written(
    two: Callable[[], Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = two().fingerprint
    (tmp_path / "file").touch()
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "file"))  # no folder can be made in it
    assert cache_folder() == tmp_path / "file"
    assert two().fingerprint == known


def test_a_picture_that_cannot_be_read_is_named(two: Callable[[], Dataset], tmp_path: Path) -> None:
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"example 'e1': image .*b\.png can't be read: No such file"):
        _ = two().fingerprint


def test_one_file_of_many_examples_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    many = [replace(example(f"e{k}", tmp_path / "a.png")) for k in range(50)]
    assert len(set(image_content.contents(many))) == 1
    assert reads == ["a.png"]
