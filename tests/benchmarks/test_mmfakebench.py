"""MMFakeBench from files in its published layout. The real ones are lent on conditions, so none are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.mmfakebench import CLASSES, OPTIONS, MMFakeBench
from helpers.damage import says


def row(label: str, **more: Any) -> dict[str, Any]:
    return {
        "image_path": f"/fake/some_source/{label}.jpg",
        "text": "Wi-Fi is a trademark of Microsoft.",
        "fake_cls": label,
        "gt_answers": ["True" if label == "original" else "Fake"],
        **more,
    }


def write(folder: Path, rows: list[dict[str, Any]], part: str = "test") -> Path:
    (folder / "source").mkdir(parents=True, exist_ok=True)
    (folder / "source" / f"MMFakeBench_{part}.json").write_text(json.dumps(rows))
    return folder


def test_the_four_classes(tmp_path: Path) -> None:
    write(tmp_path, [row(label) for label in CLASSES])
    examples = list(MMFakeBench(tmp_path).load("test"))
    assert [(e.id, e.gold, e.category) for e in examples] == [(str(k), k, name) for k, name in enumerate(CLASSES)]
    assert {e.options for e in examples} == {OPTIONS}
    assert examples[1].image == tmp_path / "fake" / "some_source" / "textual_veracity_distortion.jpg"
    assert (examples[1].claim, examples[1].source) == ("Wi-Fi is a trademark of Microsoft.", "mmfakebench/some_source")


def test_the_repository_on_the_hub(tmp_path: Path) -> None:
    """The files beside the folders that the archives make, perhaps one level deeper; gt_answers a bare text."""
    rows = [row("original", gt_answers="True"), row("mismatch", gt_answers="Fake")]
    (tmp_path / "MMFakeBench_test.json").write_text(json.dumps(rows))
    picture = Path("MMFakeBench_test", "fake", "some_source", "mismatch.jpg")
    assert [e.gold for e in MMFakeBench(tmp_path).load("test")] == [0, 3]
    assert MMFakeBench(tmp_path).load("test")[1].image == tmp_path / picture
    (tmp_path / "MMFakeBench_test" / picture).parent.mkdir(parents=True)
    assert MMFakeBench(tmp_path).load("test")[1].image == tmp_path / "MMFakeBench_test" / picture


def test_both_parts_may_lie_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "MMFakeBench_val", [row("mismatch")], "val")
    write(tmp_path / "MMFakeBench_test", [row("original"), row("mismatch")])
    assert len(list(MMFakeBench(tmp_path).load("test"))) == 2
    (one,) = MMFakeBench(tmp_path, part="val").load("test")
    assert one.image == tmp_path / "MMFakeBench_val" / "fake" / "some_source" / "mismatch.jpg"


def test_errors_name_file_and_item(tmp_path: Path) -> None:
    bench = MMFakeBench(tmp_path)
    says(lambda: bench.load("test"), r"MMFakeBench_test\.json: does not exist")
    for bad, pattern in (
        (row("mismatch", gt_answers=["True"]), r"item 2: gt_answers is \['True'\] but fake_cls 'mismatch'"),
        (row("mismatch", gt_answers="True"), "item 2: gt_answers is 'True' but fake_cls 'mismatch'"),
        (row("mismatch", gt_answers=[]), "item 2: gt_answers is .., expected a list of 1 or more items"),
        (row("mismatch", fake_cls="fake"), "item 2: fake_cls is 'fake', expected one of 'original'"),
        (row("mismatch", image_path="//etc/passwd"), "item 2: image is '/etc/passwd'"),
        (row("mismatch", image_path="/fake/../../x"), "item 2: image is"),
        (row("mismatch", text=" "), "item 2: text is ' '"),
    ):
        write(tmp_path, [row("original"), bad])
        says(lambda: bench.load("test"), pattern)
