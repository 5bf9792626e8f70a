"""HallusionBench from its published files."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.hallusionbench import HallusionBench, no_image
from helpers.damage import says


def row(figure: int, question: int = 0, **more: Any) -> dict[str, Any]:
    """A question of a VS set: figure 0 is no image."""
    numbers = {
        "visual_input": str(min(figure, 2)),
        "set_id": "3",
        "figure_id": str(figure),
        "question_id": str(question),
    }
    texts = {
        "question": "Is it larger?",
        "gt_answer": "1",
        "filename": f"./VS/chart/3_{figure}.png" if figure else None,
    }
    return {"category": "VS", "subcategory": "chart", **numbers, **texts, **more}


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    return folder


def test_the_published_files(published: Callable[[str], Path]) -> None:
    bench = HallusionBench(published("hallusionbench"))
    examples = list(bench.load("test"))
    bare = [e for e in examples if e.image is no_image]
    assert (len(examples), len(bare)) == (1129, 178)
    assert {"test": len(examples)} == HallusionBench.published
    assert [e.id for e in HallusionBench(bench.data_dir, rows="image").load("test")] == [
        e.id for e in examples if e.image is not no_image
    ]
    assert sum(e.options[e.gold] == "Yes" for e in examples) == 484
    assert {e.group for e in bare} <= {e.group for e in examples if e.image is not no_image}
    asked = [e for e in examples if bench.asked("vlmevalkit", e)]
    assert len(asked) == 951
    assert all(bench.asked("official", e) for e in examples)


def test_images_with_and_without_a_folder_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, [row(0), row(1), row(2, filename="./hallusion_bench/VS/chart/3_2.png")])
    bare, first, second = HallusionBench(tmp_path).load("test")
    assert first.image == tmp_path / "VS" / "chart" / "3_1.png"
    assert second.image == tmp_path / "VS" / "chart" / "3_2.png"
    assert (bare.id, bare.group) == ("VS_chart_0_3_0_0", "VS_chart_3")
    assert pickle.loads(pickle.dumps(bare)).load_image().getcolors() == [(64 * 64, (128, 128, 128))]
    (tmp_path / "hallusion_bench").mkdir()
    assert (
        list(HallusionBench(tmp_path).load("test"))[1].image
        == tmp_path / "hallusion_bench" / "VS" / "chart" / "3_1.png"
    )


def test_the_parquet_form_is_the_same(tmp_path: Path) -> None:
    """The columns of lmms-lab/HallusionBench, in two splits; the images are cells."""
    picture = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(picture, "PNG")
    (tmp_path / "data").mkdir()
    for part, rows in (("image", [row(1), row(2)]), ("non_image", [row(0)])):
        table = {key: [r[key] for r in rows] for key in rows[0]}
        if part == "image":
            table["image"] = [{"bytes": picture.getvalue(), "path": None}] * 2
        pq.write_table(pa.table(table), tmp_path / "data" / f"{part}-00000-of-00001.parquet")
    ours = list(HallusionBench(tmp_path).load("test"))
    assert [e.id for e in ours] == [f"VS_chart_{figure}_3_{figure}_0" for figure in (0, 1, 2)]
    assert ours[1].load_image().size == (3, 2)
    assert ours[0].image is no_image
    assert len(list(HallusionBench(tmp_path, rows="image").load("test"))) == 2


def test_errors_name_file_and_item(tmp_path: Path) -> None:
    bench = HallusionBench(tmp_path)
    says(lambda: bench.load("test"), r"HallusionBench\.json: does not exist")
    for bad, pattern in (
        (row(1), "item 2: the id 'VS_chart_1_3_1_0' is already"),
        (row(2, gt_answer="2"), "item 2: gt_answer is '2'"),
        (row(2, subcategory="illusion"), "item 2: subcategory is 'illusion', expected one of 'chart'"),
        (row(2, filename=None), "item 2: filename is None"),
        (row(2, filename="./../../x.png"), "item 2: image is"),
        (row(2, set_id="3/.."), "item 2: set_id is"),
    ):
        write(tmp_path, [row(1), bad])
        says(lambda: bench.load("test"), pattern)
