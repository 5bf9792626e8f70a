"""AMBER's discriminative part from its published files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.amber import AMBER
from helpers.damage import says

TRUTHS = [
    {"id": 1, "type": "generative", "truth": ["sky"], "hallu": ["cloud"]},
    {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 3, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 4, "type": "relation", "truth": "no"},
]
QUERIES = [{"id": t["id"], "image": f"AMBER_{t['id']}.jpg", "query": f"Is it so, {t['id']}?"} for t in TRUTHS]


def write(folder: Path, truths: list[dict[str, Any]] = TRUTHS, queries: list[dict[str, Any]] = QUERIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(truths))
    (folder / "query_all.json").write_text(json.dumps(queries))
    return folder


def test_the_published_files_load_whole(published: Callable[[str], Path]) -> None:
    examples = list(AMBER(published("amber")).load("test"))
    assert Counter(e.category for e in examples) == {
        "existence": 4924,
        "state": 4764,
        "number": 2072,
        "action": 792,
        "relation": 975 + 689,
    }
    assert {"test": len(examples)} == AMBER.published
    assert {e.gold for e in examples if e.category == "existence"} == {1}
    first = examples[0]
    assert (first.id, first.group, first.options[first.gold]) == ("1005", "AMBER_1.jpg", "Yes")


def test_dimensions(tmp_path: Path) -> None:
    write(tmp_path)
    ids = {
        name: [e.id for e in AMBER(tmp_path, dimension=name).load("test")]
        for name in ("all", "existence", "attribute", "relation")
    }  # type: ignore[arg-type]
    assert ids == {"all": ["2", "3", "4"], "existence": ["2"], "attribute": ["3"], "relation": ["4"]}


def test_the_repository_s_own_layout(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    (data / "query").mkdir()
    (data / "query_all.json").rename(data / "query" / "query_discriminative.json")
    (data / "image").mkdir()
    examples = list(AMBER(tmp_path).load("test"))
    assert examples[0].image == data / "image" / "AMBER_2.jpg"


def test_errors_name_file_and_item(tmp_path: Path) -> None:
    bench = AMBER(tmp_path)
    says(lambda: bench.load("test"), r"annotations\.json: does not exist")
    write(tmp_path, TRUTHS[:3])
    says(lambda: bench.load("test"), r"query_all\.json: item 4: id 4 has no annotation in .*annotations\.json")
    write(tmp_path, [{**TRUTHS[1], "truth": "perhaps"}])
    says(lambda: bench.load("test"), r"annotations\.json: item 1: truth is 'perhaps'")
    write(tmp_path, [{**TRUTHS[1], "type": "x"}])
    says(lambda: bench.load("test"), r"annotations\.json: item 1: type is 'x'")
    write(tmp_path, TRUTHS, [*QUERIES, QUERIES[0]])
    says(lambda: bench.load("test"), r"query_all\.json: item 5: the id '1' is already")
