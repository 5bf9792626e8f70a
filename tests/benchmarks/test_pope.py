"""POPE and RePOPE from their published files."""

from __future__ import annotations

import io
import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.pope import POPE, VARIANTS, RePOPE
from harness.api import ConfigError
from helpers.damage import says


def row(number: int, label: str = "yes", **more: Any) -> dict[str, Any]:
    return {
        "question_id": number,
        "image": f"i{number}.jpg",
        "text": f"Is there a dog {number}?",
        "label": label,
        **more,
    }


def write(folder: Path, rows: list[dict[str, Any]], name: str = "coco_pope_random.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_the_published_files_load_whole(published: Callable[[str], Path]) -> None:
    folder = published("pope")
    examples = list(POPE(folder).load("test"))
    assert Counter((e.category, e.options[e.gold]) for e in examples) == {
        (variant, said): 1500 for variant in VARIANTS for said in ("Yes", "No")
    }
    assert (len({e.id for e in examples}), len({e.group for e in examples})) == (9000, 500)
    assert len({(e.image, e.question) for e in examples}) == 5127
    first = examples[0]
    assert (first.id, first.group) == ("random/1", "COCO_val2014_000000310196.jpg")
    assert (first.question, first.claim, first.options) == ("Is there a snowboard in the image?", "", ("Yes", "No"))
    assert first.image == folder / first.group
    assert {"test": len(examples)} == POPE.published


def test_one_variant_may_be_named_by_its_numbers(tmp_path: Path) -> None:
    folder = write(tmp_path, [row(1), row(2, "no")])
    one = POPE(folder, variant="random")
    examples = list(one.load("test"))
    assert [e.id for e in examples] == ["random/1", "random/2"]
    assert [one.names(e) for e in examples] == [("random/1", "1"), ("random/2", "2")]
    assert POPE(folder).names(examples[0]) == ("random/1",)


def test_where_files_and_images_may_lie(tmp_path: Path) -> None:
    write(tmp_path / "output" / "coco", [row(1)])
    (tmp_path / "val2014").mkdir()
    (example,) = POPE(tmp_path, variant="random").load("test")
    assert example.image == tmp_path / "val2014" / "i1.jpg"
    write(tmp_path / "annotations", [row(7, "no")], "coco_repope_popular.json")
    (example,) = RePOPE(tmp_path, variant="popular").load("test")
    assert (example.id, example.gold, example.source) == ("popular/7", 1, "repope/popular")


def test_the_parquet_form_is_the_same(tmp_path: Path) -> None:
    """The columns of lmms-lab/POPE; the images are cells, read one by one."""
    picture = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(picture, "PNG")
    table = {
        "question_id": ["1", "2", "1"],
        "question": ["Is there a dog 1?", "Is there a dog 2?", "Is there a cat?"],
        "answer": ["yes", "no", "no"],
        "image_source": ["i1", "i2", "i1"],
        "image": [{"bytes": picture.getvalue(), "path": None}] * 3,
        "category": ["random", "random", "popular"],
    }
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(table), tmp_path / "data" / "test-00000-of-00001.parquet")
    ours = list(POPE(tmp_path, variant="random").load("test"))
    theirs = list(POPE(write(tmp_path / "plain", [row(1), row(2, "no")]), variant="random").load("test"))
    assert [replace(e, image=b"") for e in ours] == [replace(e, image=b"") for e in theirs]
    assert pickle.loads(pickle.dumps(ours[1])).load_image().size == (3, 2)
    assert [e.id for e in POPE(tmp_path).load("test")] == ["random/1", "random/2", "popular/1"]


def test_errors_name_file_and_item(tmp_path: Path) -> None:
    bench = POPE(tmp_path, variant="random")
    says(lambda: bench.load("test"), r"coco_pope_random\.json: does not exist")
    for bad, pattern in (
        (row(2, "maybe"), "item 2: label is 'maybe', expected one of 'yes', 'no'"),
        (row(1), r"item 2: the id 'random/1' is already used by .*item 1"),
        (row(2, image="../x.jpg"), r"item 2: image is '\.\./x\.jpg'"),
        ({"question_id": 2}, "item 2: image is missing"),
    ):
        write(tmp_path, [row(1), bad])
        says(lambda: bench.load("test"), pattern)
    with pytest.raises(ConfigError, match="no split 'train'"):
        bench.load("train")
    with pytest.raises(ConfigError, match="--data-dir"):
        POPE().load("test")
