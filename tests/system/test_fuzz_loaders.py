"""Damaged files: every loader says in one line which file and which item is wrong, and reads nothing else."""

from __future__ import annotations

import copy
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.shared import hf_datasets
from benchmarks.shared.annotations import MAX_TEXT, image_in, read_rows
from harness import registry
from harness.api import Benchmark, DataError
from harness.data import dataset
from helpers.standins import MFC_BENCH, NATURALBENCH, STAND_INS, VERITE_, Key, Row, StandIn, encoded

T = TypeVar("T")

A_FILE = 1000
"""Damaged versions of each annotation file."""
OF_PARQUET = int(os.environ.get("HKDBENCH_FUZZ_PARQUET", "40"))
"""Fewer of a Parquet file: each costs a copy in the cache. All 1,000 pass too (1000 here; a minute)."""

NO_TEXTS: tuple[Any, ...] = (None, 3, -1.5, True, [], {}, ["a"], {"a": "b"}, "", " \n", "x\0y", "\ud800")
NO_CHOICES: tuple[Any, ...] = (None, 7.5, -1, [], {}, "maybe", "", "A\0", 10**30, "true or false", "ZZ")
OUTSIDE = (
    "/etc/passwd",
    "../secret.png",
    "images/../../secret.png",
    "a/../../../etc/passwd",
    "..",
    "..\\secret.png",
    "x\0.png",
    "C:/secret.png",
    "n" * 300 + ".png",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` keeps its copies with the test's other files."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


# -------------------------------------------------------------------------------------------- damage


def damaged(stand_in: StandIn, rng: random.Random) -> tuple[str, bytes]:
    """A word for the damage, and the annotation file's content after it."""
    rows = copy.deepcopy(list(stand_in.rows))
    number = rng.randrange(len(rows))
    row = rows[number]
    kinds = ["truncated", "missing"] + (["text", "huge"] if stand_in.texts else [])
    kinds += ["choice"] if stand_in.choices else []
    kinds += ["image"] if stand_in.images else []
    kinds += ["twice"] if stand_in.unique else []
    kinds += ["bytes"] if stand_in.layout == "parquet" else ["encoding", "top", "not a row"]
    kind = rng.choice(kinds)
    content = encoded(stand_in.layout, rows)
    match kind:
        case "truncated":
            return kind, _cut(stand_in, content, rng)
        case "bytes":
            at = rng.randrange(len(content) - 8)
            return kind, content[:at] if at % 2 else content[-at - 1 :]
        case "encoding":
            return kind, rng.choice([content.decode().encode("utf-16"), _with_byte(content, rng)])
        case "top":
            return kind, rng.choice([b"", b"\n", b"null", b"3", b'"rows"', b"{}", b"[]", b"[[]]", b"[" * 100_000])
        case "not a row":
            return kind, _not_a_row(stand_in, rows, number, rng)
        case "twice":
            rows.insert(rng.randrange(len(rows)), copy.deepcopy(row))
        case "missing":
            _drop(row, rng.choice([*stand_in.texts, *stand_in.choices, *stand_in.images]))
        case "text":
            _set(row, rng.choice([*stand_in.texts]), rng.choice(_values(stand_in, NO_TEXTS)))
        case "choice":
            _set(row, rng.choice([*stand_in.choices]), rng.choice(_values(stand_in, NO_CHOICES)))
        case "huge":
            _set(row, rng.choice([*stand_in.texts]), "x" * (MAX_TEXT + rng.randrange(1, 1000)))
        case "image":
            _set(
                row,
                rng.choice([*stand_in.images]),
                rng.choice([n for n in OUTSIDE if ".." in n or not stand_in.rebased]),
            )
    return kind, encoded(stand_in.layout, rows)


def _cut(stand_in: StandIn, content: bytes, rng: random.Random) -> bytes:
    """The content up to a point at which it can't be whole."""
    if stand_in.layout in ("array", "table"):
        return content[: rng.randrange(1, len(content) - 1)]
    if stand_in.layout == "parquet":
        return content[: rng.randrange(len(content))]
    lines = content.splitlines(keepends=True)
    number = rng.randrange(1, len(lines))
    line = lines[number].rstrip()
    last_field = line.rfind(b",") if stand_in.layout == "csv" else len(line) - 1
    return b"".join(lines[:number]) + line[: rng.randrange(1, last_field)]


def _with_byte(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + b"\xff" + content[at:]


def _not_a_row(stand_in: StandIn, rows: list[Row], number: int, rng: random.Random) -> bytes:
    wrong: Any = rng.choice([None, 3, "row", [], ["a"], True])
    if stand_in.layout == "csv":
        lines = encoded("csv", rows).splitlines()
        lines[number + 1] += rng.choice([b",more", b',"open', b',"a"b'])
        return b"\n".join(lines)
    rows[number] = wrong
    return encoded(stand_in.layout, rows)


def _values(stand_in: StandIn, values: tuple[Any, ...]) -> list[Any]:
    """Those that the layout can hold as they are: in a CSV file all is text, in Parquet a column has one type."""
    if stand_in.layout == "csv":
        return [v for v in values if isinstance(v, str) and "\ud800" not in v]
    if stand_in.layout == "parquet":
        return [None]
    return list(values)


def _place(row: Row, key: Key) -> Any:
    inner: Any = row
    for part in key[:-1]:
        inner = inner[part]
    return inner


def _set(row: Row, key: Key, value: Any) -> None:
    _place(row, key)[key[-1]] = value


def _drop(row: Row, key: Key) -> None:
    inner = _place(row, key)
    if isinstance(key[-1], int):
        inner[key[-1]] = None
    else:
        del inner[key[-1]]


# ------------------------------------------------------------------------------------------ the watch

_watched: list[str] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watched is not None and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        _watched.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of the files that are opened meanwhile."""
    global _watched
    _watched = []
    try:
        yield _watched
    finally:
        _watched = None


def refused(benchmark: Benchmark, folder: Path) -> str:
    """What the loader says of the folder; it must be a `DataError` in one line, and no other file may be opened."""
    hf_datasets._open.cache_clear()
    with opened() as files, pytest.raises(DataError) as error:
        dataset.load(benchmark)
    outside = [f for f in files if not Path(f).resolve().is_relative_to(folder.resolve()) and _is_data(f)]
    assert not outside
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 2000
    assert "its loader failed" not in said  # what the loader itself foresaw, not what the harness caught
    return said


def _is_data(file: str) -> bool:
    """Not part of a package, nor what `datasets` keeps for itself."""
    own = "cache" in file or "site-packages" in file
    return file.endswith(("passwd", "secret.png", ".jpg", ".csv", ".json")) and not own


# ------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("stand_in", STAND_INS, ids=lambda s: s.name)
def test_the_whole_data_set_loads(stand_in: StandIn, tmp_path: Path) -> None:
    benchmark = stand_in.make(stand_in.write(tmp_path))
    examples = [e for split in dataset.load(benchmark).splits.values() for e in split]
    assert len(examples) >= 4
    assert all(e.load_image().mode == "RGB" for e in examples)


@pytest.mark.parametrize("stand_in", STAND_INS, ids=lambda s: s.name)
def test_every_damage_names_file_and_item(stand_in: StandIn, tmp_path: Path) -> None:
    rng = random.Random(stand_in.name)
    stand_in.write(tmp_path)
    (tmp_path.parent / "secret.png").write_bytes(b"secret")
    path = tmp_path / stand_in.file
    whole_file = ("truncated", "bytes", "encoding", "top")
    for _ in range(OF_PARQUET if stand_in.layout == "parquet" else A_FILE):
        kind, content = damaged(stand_in, rng)
        path.write_bytes(content)
        said = refused(stand_in.make(tmp_path), tmp_path)
        where = path.name if stand_in.layout != "parquet" else str(tmp_path)
        assert where in said, (kind, said)
        if kind not in whole_file:
            assert any(word in said for word in ("item ", "line ", "lines ")), (kind, said)


def test_every_loader_of_files_is_among_them() -> None:
    classes = [cls for _, cls in registry.load_all(registry.benchmarks()) if cls.__module__.startswith("benchmarks.")]
    assert {cls.name for cls in classes if cls.needs_data_dir} == {s.name.partition("-")[0] for s in STAND_INS}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("stand_in", STAND_INS, ids=lambda s: s.name)
def test_a_file_that_is_missing_or_no_file(stand_in: StandIn, tmp_path: Path) -> None:
    path = stand_in.write(tmp_path) / stand_in.file
    path.unlink()
    said = refused(stand_in.make(tmp_path), tmp_path)
    assert path.name in said or "Parquet" in said
    path.mkdir()
    refused(stand_in.make(tmp_path), tmp_path)
    path.rmdir()
    os.mkfifo(path)  # reading it would wait for ever
    refused(stand_in.make(tmp_path), tmp_path)


@pytest.mark.parametrize("stand_in", [s for s in STAND_INS if s.images], ids=lambda s: s.name)
def test_a_folder_of_links_is_read(stand_in: StandIn, tmp_path: Path) -> None:
    """As a Hugging Face cache, DVC and dataset stores have it: every file is a link to a nameless one elsewhere."""
    inside, blobs = tmp_path / "data", tmp_path / "blobs"
    stand_in.write(inside)
    blobs.mkdir()
    for number, path in enumerate([path for path in sorted(inside.rglob("*")) if path.is_file()]):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    found = dataset.load(stand_in.make(inside))
    assert all(e.load_image() for examples in found.splits.values() for e in examples)


def test_parquet_files_in_linked_folders_are_found(tmp_path: Path) -> None:
    stand_in = NATURALBENCH.write(tmp_path / "real")
    (tmp_path / "data").mkdir()
    for folder in [path for path in stand_in.iterdir() if path.is_dir()]:
        (tmp_path / "data" / folder.name).symlink_to(folder)
    hf_datasets._open.cache_clear()
    assert len(list(NATURALBENCH.make(tmp_path / "data").load("test"))) >= 4


@pytest.mark.parametrize("stand_in", [s for s in STAND_INS if s.images], ids=lambda s: s.name)
def test_missing_images_are_counted_or_skipped(stand_in: StandIn, tmp_path: Path) -> None:
    benchmark = stand_in.make(stand_in.write(tmp_path))
    whole = dataset.load(benchmark)
    (tmp_path / stand_in.pictures[0]).unlink()
    assert f"first {tmp_path / stand_in.pictures[0]} of example" in refused(benchmark, tmp_path)
    left = dataset.load(benchmark, skip_missing=True)
    assert sum(left.skipped.values()) == sum(whole.sizes.values()) - sum(left.sizes.values()) > 0


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^x\.json: item 3: image is .*expected the name of a file inside"):
        image_in(tmp_path, name, "x.json: item 3")


def attempt(read: Callable[[], T]) -> T | str:
    """What was read, or what the `DataError` says."""
    try:
        return read()
    except DataError as error:
        return str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from(["json", "jsonl", "csv", "tsv", "parquet"]))
def test_any_bytes_give_rows_or_a_reason(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    found = attempt(lambda: read_rows(path))
    assert str(path) in found if isinstance(found, str) else all(isinstance(row, dict) for row in found)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_json, pick=st.integers(0, 10**6))
def test_any_value_anywhere_loads_or_gives_a_reason(value: Any, pick: int, tmp_path: Path) -> None:
    stand_ins = [s for s in STAND_INS if s.layout in ("array", "lines", "table")]
    stand_in = stand_ins[pick % len(stand_ins)]
    rows = copy.deepcopy(list(stand_in.rows))
    places = [*stand_in.texts, *stand_in.choices, *stand_in.images]
    _set(rows[pick % len(rows)], places[pick % len(places)], value)
    stand_in.write(tmp_path, encoded(stand_in.layout, rows))
    found = attempt(lambda: dataset.load(stand_in.make(tmp_path), skip_missing=True))
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
    else:  # what was let through is text that a tokenizer can take
        "".join(e.prompt() for examples in found.splits.values() for e in examples).encode()


# --------------------------------------------------------------------------------------------- memory


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["files", "columns"])
def test_memory_stays_flat_while_images_are_read(kind: str, tmp_path: Path) -> None:
    """150 images of 600 x 600 are 154 MiB decoded; each is read, and none is kept."""
    import io

    from PIL import Image

    noise = Image.effect_noise((600, 600), 80).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "JPEG")
    if kind == "files":
        rows = [
            {**VERITE_.rows[0], "": str(n), "caption": f"number {n}", "image_path": f"images/true_{n}.jpg"}
            for n in range(150)
        ]
        VERITE_.write(tmp_path, encoded("csv", rows))
        for n in range(150):
            (tmp_path / f"images/true_{n}.jpg").write_bytes(out.getvalue())
        benchmark = VERITE_.make(tmp_path)
    else:
        cell = {"bytes": out.getvalue(), "path": None}
        rows = [{**MFC_BENCH.rows[0], "id": f"m{n}", "image": cell} for n in range(150)]
        MFC_BENCH.write(tmp_path, encoded("parquet", rows))
        benchmark = MFC_BENCH.make(tmp_path)
    examples = list(benchmark.load("test"))
    assert len(examples) == 150
    examples[0].load_image()
    before, most = _resident(), 0
    for example in examples:
        assert example.load_image().size == (600, 600)
        most = max(most, _resident())
    assert most - before < 60 * 2**20


def test_a_columns_image_travels_light(tmp_path: Path) -> None:
    """What a worker gets is the place of the cell, not the table."""
    import pickle

    example = next(iter(NATURALBENCH.make(NATURALBENCH.write(tmp_path)).load("test")))
    packed = pickle.dumps(example.image)
    assert len(packed) < 1000
    assert pickle.loads(packed)().getpixel((0, 0)) == (0, 100, 200)
