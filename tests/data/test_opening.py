"""All images of a run are opened once before it; what can't be used is told with its example, or left out."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.api import DataError, Example
from harness.config import RunConfig, parse
from harness.data import dataset, image_content, opening
from harness.execution import launch as launching
from harness.execution.launch import launch
from harness.images import reading
from harness.planning import plan
from harness.store import Store
from helpers import rows
from helpers.common import Cli
from helpers.rows import Rows

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no picture": lambda data: b"<html>404 Not Found</html>",
    "zeros": lambda data: data[:60] + bytes(len(data) - 60),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "_sizes", {})


def config(folder: Path, **table: Any) -> RunConfig:
    own = {"method": "zero_shot", "benchmark": "rows", "plugins": [str(Path(rows.__file__))], "data_dir": str(folder)}
    return parse(RunConfig, own | {"cluster": {"workers": 0}, "evaluate": {"resamples": 100}} | table, "test")


def refused(folder: Path, **table: Any) -> str:
    """What a run says of the data before anything is written."""
    store = folder.parent / "runs"
    with pytest.raises(DataError) as error:
        launch([config(folder, **table)], Store(store), "test", lambda _: None)
    assert not store.exists()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_image_is_told_before_training_or_left_out_and_counted(damage: str, tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    for path in (paths[4], paths[7]):  # two of the four of validation
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    said = refused(tmp_path / "data")
    assert said.startswith(f"benchmark 'rows', split 'validation': example 'r4': image {paths[4]} can't be read: ")
    assert said.endswith("; so are those of 1 more of its 4 examples; leave such examples out with --skip-missing")
    left = dataset.load(Rows(tmp_path / "data"), skip_missing=True)
    assert left.sizes == {"train": 4, "validation": 2, "test": 4}
    assert left.skipped == {"validation": 2}
    paths[1].unlink()  # missing ones are counted with them
    assert dataset.load(Rows(tmp_path / "data"), skip_missing=True).skipped == {"validation": 3}
    paths[10].write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no image can be used: 1 are missing, 3 are damaged, first .* of example 'r4'"
    ):
        dataset.load(Rows(tmp_path / "data"), skip_missing=True)


def test_only_what_a_run_reads_is_opened(tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    paths[0].write_bytes(b"")  # of train, which zero_shot doesn't read
    assert "split 'train': example 'r0'" in refused(tmp_path / "data", method="finetune")
    assert launching._open_images([plan.make(config(tmp_path / "data"))]) == []


def test_each_content_is_opened_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = rows.write(tmp_path / "data")
    opened: list[object] = []
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda source: opened.append(source) or read(source))
    seen: list[tuple[int, int]] = []
    with opening.reporting(lambda done, count: seen.append((done, count))):
        first = opening.open_all(e for split in ("train", "test") for e in Rows(tmp_path / "data").load(split))
    assert sorted(map(str, opened)) == sorted(str(p) for k, p in enumerate(paths) if k % 3 != 1)
    assert seen == [(k, 8) for k in range(1, 9)]
    opened.clear()
    again = opening.open_all(e for split in ("train", "test") for e in Rows(tmp_path / "data").load(split))
    assert again == first
    assert opened == []
    paths[3].write_bytes(paths[0].read_bytes())  # a content that is known, under another name
    opening.open_all(Rows(tmp_path / "data").load("train"))
    assert opened == []
    Image.new("RGB", (9, 9)).save(paths[3])
    found = opening.open_all(Rows(tmp_path / "data").load("train"))
    assert opened == [paths[3]]
    assert found[paths[3]] == opening.Opened(9, 9)


def test_a_file_that_cannot_be_reached_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that doesn't answer must not shrink the data."""
    paths = rows.write(tmp_path / "data")
    whole = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path == paths[4]:
            raise OSError(5, "Input/output error")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    left = dataset.load(Rows(tmp_path / "data"), skip_missing=True)
    assert left.skipped == {}
    with pytest.raises(DataError, match=r"example 'r4': image .* can't be read: .*Input/output error$"):
        opening.check([("here", left.splits["validation"])], 10**6)
    monkeypatch.undo()


def test_an_image_above_the_limit_names_example_file_and_setting(tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    Image.new("1", (1000, 700)).save(paths[5])
    said = refused(tmp_path / "data", max_image_pixels=600_000)
    assert said == (
        f"benchmark 'rows', split 'test': example 'r5': image {paths[5]} has 700,000 pixels, more than the limit of "
        "600,000; scale it down, or allow it with --set max_image_pixels=700000"
    )
    refused(tmp_path / "data", max_image_pixels=600_000, skip_missing=True)  # it isn't damaged
    assert opening.check([("t", list(Rows(tmp_path / "data").load("test")))], 700_000) == []


def test_an_image_above_pillows_limit_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    paths = rows.write(tmp_path / "data")
    Image.new("1", (100, 70)).save(paths[5])
    assert f"image {paths[5]} has 7,000 pixels, more than the limit of 2,000" in refused(
        tmp_path / "data", max_image_pixels=2000
    )
    reading.allow(7000)
    found = opening.open_all(Rows(tmp_path / "data").load("test"))
    assert found[paths[5]] == opening.Opened(100, 70)  # the refusal wasn't kept


def test_animated_images_are_told(tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind, path in (("GIF", paths[2]), ("WEBP", paths[5]), ("MPO", paths[8])):
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    (note,) = opening.check([("test", list(Rows(tmp_path / "data").load("test")))], 10**6)
    assert note == f"2 images have several frames, of which the first is used, like {paths[2]} of example 'r2'"


@dataclass(frozen=True)
class Cell:
    """An image in a table."""

    data: bytes
    table: Path

    def content(self) -> bytes:
        return self.data

    def stored(self) -> tuple[Sequence[Path], str]:
        return (self.table,), str(hash(self.data))

    def __call__(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))


@dataclass(frozen=True)
class Half:
    """An image that a benchmark makes of a file."""

    path: Path

    def __call__(self) -> Image.Image:
        whole = reading.read(self.path)
        return whole.crop((0, 0, whole.width // 2, whole.height))


def test_every_kind_of_source_is_opened_and_drawn_ones_are_not(tmp_path: Path) -> None:
    (path, *_) = rows.write(tmp_path / "data")
    data = path.read_bytes()
    one = Example("x", "g", path, "q", "c", ("a", "b"), 0, "c", "s")
    sources: list[Any] = [path, data, Cell(data, path), Half(path), lambda: Image.new("RGB", (3, 3))]
    found = opening.open_all(replace(one, id=str(k), image=source) for k, source in enumerate(sources))
    assert sorted((o.width, o.height) for o in found.values()) == [(20, 40), (40, 40), (40, 40), (40, 40)]
    path.write_bytes(data[:50])
    for source in (path, data[:50], Cell(data[:50], path), Half(path)):
        assert list(opening.damaged([replace(one, image=source)])) == ["x"]


@dataclass(frozen=True)
class Nothing(Cell):
    """A cell without an image."""

    def content(self) -> bytes:
        raise ValueError("the cell is empty")


def test_a_cell_without_an_image_is_damaged(tmp_path: Path) -> None:
    (path, *_) = rows.write(tmp_path / "data")
    example = Example("x", "g", Nothing(b"", path), "q", "c", ("a", "b"), 0, "c", "s")
    assert opening.damaged([example]) == {"x": "can't be read: the cell is empty"}


def test_hashes_and_facts_are_kept_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the data's fingerprint has read, opening needn't hash again; and the other way round."""
    monkeypatch.setattr(image_content, "SETTLED_NS", 0)
    paths = rows.write(tmp_path / "data")
    examples = list(Rows(tmp_path / "data").load("train"))
    known = opening.open_all(examples)
    assert sorted(path.suffix for path in (tmp_path / "cache" / "images").iterdir()) == [".json", ".sqlite"]
    read: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or whole(path))
    assert len(set(image_content.contents(examples))) == 4
    assert opening.open_all(examples) == known
    assert not set(read) & set(paths)


def test_the_most_unusual_images_are_found(tmp_path: Path) -> None:
    paths = rows.write(tmp_path / "data")
    for k, size in ((0, (400, 4)), (3, (4, 400)), (6, (300, 300)), (9, (2, 2))):
        Image.new("L", size).save(paths[k])
    examples = list(Rows(tmp_path / "data").load("train")) + list(Rows(tmp_path / "data").load("test"))
    assert [e.id for e in opening.extremes(examples)] == ["r0", "r3", "r6", "r9"]
    assert opening.extremes([replace(examples[0], image=lambda: Image.new("RGB", (3, 3)))]) == []


# ------------------------------------------------------------------------------------- names and types


@pytest.mark.parametrize("there", ["NFC", "NFD"])
def test_a_name_with_accents_is_one_in_both_forms(there: Any, tmp_path: Path) -> None:
    """macOS writes NFD, Linux and most annotation files NFC."""
    name, folder = "Zürich été.png", "Bücher"
    paths = rows.write(tmp_path / "data")
    made = tmp_path / "data" / "images" / unicodedata.normalize(there, folder)
    made.mkdir()
    paths[4].rename(made / unicodedata.normalize(there, name))
    lines = (tmp_path / "data" / "rows.jsonl").read_text().splitlines()
    found = []
    for form in ("NFC", "NFD"):
        row = json.loads(lines[4]) | {"image": unicodedata.normalize(form, f"{folder}/{name}")}
        lines[4] = json.dumps(row)
        (tmp_path / "data" / "rows.jsonl").write_text("\n".join(lines))
        found.append(dataset.load(Rows(tmp_path / "data")))
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].splits["validation"][1] == found[1].splits["validation"][1]  # group and file included
    assert found[0].splits["validation"][1].load_image().size == (40, 40)
    lines[4] = json.dumps(json.loads(lines[4]) | {"image": "Bücher/fehlt ä.png"})
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"images of 1 of 4 examples are missing, first .*fehlt ä.png"):
        dataset.load(Rows(tmp_path / "data"))


def test_a_callable_that_reads_a_file_gets_the_name_that_the_file_has(tmp_path: Path) -> None:
    rows.write(tmp_path / "data")
    path = tmp_path / "data" / "images" / "é.png"
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "images" / unicodedata.normalize("NFD", path.name))

    class Halves(Rows):
        """Rows with half of each image, and one of another name."""

        def load(self, split: Any) -> Any:
            for k, e in enumerate(super().load(split)):
                yield replace(e, image=Half(path if k == 0 else e.image))  # type: ignore[arg-type]

    found = dataset.load(Halves(tmp_path / "data"))
    assert found.splits["test"][0].load_image().size == (20, 40)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"options": ["True", "True", "False"]}, "options 1 and 2 are both 'True'; expected each once"),
        ({"options": ["True", " True"]}, "options 1 and 2 are both 'True'; expected each once"),
        ({"options": ["True", " "]}, "option 2 is empty; expected a text that can be chosen"),
        ({"options": [1, 2]}, "option 1 is 1 (int), expected text"),
        ({"options": ["1", 2.5]}, "option 2 is 2.5 (float), expected text"),
        ({"options": [True, False]}, "option 1 is True (bool), expected text"),
        ({"options": ["a", None]}, "option 2 is null, expected text"),
        ({"category": None}, "category is null, expected text"),
        ({"category": float("nan")}, "category is nan (float), expected text"),
        ({"claim": None}, 'claim is null, expected text ("" for none)'),
        ({"claim": 7}, "claim is 7 (int), expected text"),
        ({"claim": "half \ud800 a pair"}, "claim 'half \\ud800 a pair' has half a surrogate pair"),
        ({"gold": 1.0}, "gold 1.0 (float) is not among its 2 options (0 to 1)"),
        ({"gold": True}, "gold True (bool) is not among its 2 options (0 to 1)"),
        ({"gold": None}, "gold None is not among its 2 options (0 to 1)"),
    ],
)
def test_values_that_are_no_text_are_refused_in_one_line(
    fields: dict[str, Any], said: str, tmp_path: Path, cli: Cli
) -> None:
    rows.write(tmp_path / "data", **fields)
    options = [
        "--plugin",
        rows.__file__,
        "--benchmark",
        "rows",
        "--method",
        "zero_shot",
        "--data-dir",
        tmp_path / "data",
    ]
    told = cli("run", *options, "--workers", 0, "--store", tmp_path / "runs")
    assert told.code == 2
    assert f"benchmark 'rows', split 'train', example 'r0': {said}" in told.err
    assert len(told.err.splitlines()) == 1
    assert said in cli("check-benchmark", "rows", "--plugin", rows.__file__, "--data-dir", tmp_path / "data").out
