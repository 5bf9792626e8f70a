"""Benchmarks out of Hugging Face `datasets` repositories: in their layout, pinned, images unread until asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as Pillow

from benchmarks.hallusionbench import HallusionBench
from benchmarks.mfc_bench import MFCBench
from benchmarks.mhalubench import MHaluBench
from benchmarks.naturalbench import NaturalBench
from benchmarks.pope import POPE
from benchmarks.shared import hf_datasets
from harness.api import Benchmark, ConfigError, DataError, Example
from helpers.standins import (
    MHALUBENCH,
    NATURALBENCH,
    png,
)

COMMIT = "0123456789" * 4
TEXT, NUMBER = Value("string"), Value("int64")
Parts = dict[str, list[dict[str, Any]]]
"""Rows by the Parquet file that holds them, `[CONFIG/]SPLIT`."""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository `owner/name` lies in the working folder, where `datasets` looks before it asks the hub."""
    monkeypatch.chdir(tmp_path)
    hf_datasets._open.cache_clear()


def picture(number: int, folder: Path, by_path: bool) -> dict[str, Any]:
    """An image as bytes, or as the path of a file beside."""
    if not by_path:
        return {"bytes": png(number), "path": f"{number}.png"}
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    (folder / "pictures" / f"{number}.png").write_bytes(png(number))
    return {"bytes": None, "path": f"pictures/{number}.png"}


def write(folder: Path, features: Features, parts: Parts, head: str) -> Path:
    """The files as `push_to_hub` lays them, features in their metadata; and the head of the card, which names them."""
    for file, rows in parts.items():
        path = folder / ("data" if "/" not in file else "") / f"{file}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, features.arrow_schema), path)
    (folder / "README.md").write_text(f"---\n{head}---\n")
    return folder


def config(name: str, *splits: str, default: bool = False) -> str:
    inside = "data" if name == "default" else name
    files = "".join(f"  - split: {split}\n    path: {inside}/{split}-*\n" for split in splits)
    return f"- config_name: {name}\n" + ("  default: true\n" if default else "") + f"  data_files:\n{files}"


def pope(folder: Path, by_path: bool) -> Benchmark:
    """Two configurations, as lmms-lab/POPE has them; the first is read."""
    names = ("id", "question_id", "question", "answer", "image_source", "category")
    features = Features({name: TEXT for name in names} | {"image": Image()})
    rows = [
        {
            "id": str(n),
            "question_id": str(n),
            "question": f"Is there a dog {n}?",
            "answer": "yes" if n % 2 else "no",
            "image_source": f"COCO_val2014_{n}",
            "category": "random" if n < 3 else "adversarial",
            "image": picture(n, folder, by_path),
        }
        for n in range(1, 5)
    ]
    parts = {"test": rows, "Full/random": rows[:2]}
    write(folder, features, parts, "configs:\n" + config("default", "test") + config("Full", "random"))
    return POPE(folder)


def hallusionbench(folder: Path, by_path: bool) -> Benchmark:
    names = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer")
    features = Features({name: TEXT for name in (*names, "filename")} | {"image": Image()})
    said = ("VS", "chart", "1", "3", "1", "0", "Is it larger?", "1", "VS/chart/3_1.png")
    row = dict(zip((*names, "filename"), said, strict=True))
    parts = {
        "image": [{**row, "figure_id": str(n), "image": picture(n, folder, by_path)} for n in (1, 2, 3)],
        "non_image": [{**row, "visual_input": "0", "figure_id": "0", "filename": None, "image": None}],
    }
    write(folder, features, parts, "configs:\n" + config("default", "image", "non_image"))
    return HallusionBench(folder)


def naturalbench(folder: Path, by_path: bool) -> Benchmark:
    row = NATURALBENCH.rows[0]
    features = dict.fromkeys(row, TEXT) | {"Index": NUMBER, "Image_0": Image(), "Image_1": Image()}
    rows = [{**row, "Index": n, **{f"Image_{k}": picture(2 * n + k, folder, by_path) for k in (0, 1)}} for n in (0, 1)]
    write(folder, Features(features), {"train": rows}, "configs:\n" + config("default", "train"))
    return NaturalBench(folder)


def mfc_bench(folder: Path, by_path: bool) -> Benchmark:
    """Three configurations without a default; the label of the manipulated is a class by number."""
    manipulated = Features(
        {
            "id": TEXT,
            "manipulate": ClassLabel(names=["authentic", "manipulated"]),
            "manipulation_type": TEXT,
            "caption": TEXT,
            "image": Image(),
        }
    )
    matched = Features({"image_id": NUMBER, "id": NUMBER, "caption": TEXT, "matched": Value("bool"), "image": Image()})
    head = "configs:\n" + "".join(config(name, "train") for name in ("manipulation", "ooc"))
    images = [picture(n, folder, by_path) for n in range(4)]
    rows = [
        {"id": f"m{n}", "manipulate": n % 2, "manipulation_type": "swap", "caption": f"c {n}", "image": images[n]}
        for n in range(4)
    ]
    write(folder, manipulated, {"manipulation/train": rows}, head)
    rows = [{"image_id": n, "id": n, "caption": f"c {n}", "matched": n == 0, "image": images[n]} for n in range(4)]
    write(folder, matched, {"ooc/train": rows}, head)
    return MFCBench(folder)


def told(examples: list[Example]) -> list[Example]:
    """The examples but for where their images lie."""
    return [replace(e, image=b"") for e in examples]


@pytest.mark.parametrize("by_path", [False, True], ids=["bytes", "path"])
@pytest.mark.parametrize("make", [pope, hallusionbench, naturalbench, mfc_bench])
def test_a_repository_and_its_folder_give_the_same(
    make: Callable[[Path, bool], Benchmark], by_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--data-dir`, and `repo` with its commit, both through `datasets`; no image is opened before it is asked for."""
    local = make(tmp_path / "owner" / "name", by_path)
    opened: list[Any] = []
    real = Pillow.open
    monkeypatch.setattr(Pillow, "open", lambda source: opened.append(source) or real(source))
    examples = list(local.load("test"))
    asked = {"repo": "owner/name", "repo_revision": COMMIT}
    remote = list(type(local)(None, **asked).load("test"))
    assert told(remote) == told(examples)
    assert opened == []
    for both in (examples, remote):
        seen = [e.load_image().getpixel((0, 0))[0] for e in both if e.image.__class__ is hf_datasets.ColumnImage]
        assert seen == {"POPE": [1, 2, 3, 4], "HallusionBench": [1, 2, 3], "MFCBench": [0, 1, 2, 3]}.get(
            type(local).__name__, [0, 1, 0, 1, 2, 3, 2, 3]
        )


def test_another_configuration_of_one_repository(tmp_path: Path) -> None:
    mfc_bench(tmp_path / "owner" / "name", False)
    examples = list(MFCBench(None, part="ooc", repo="owner/name", repo_revision=COMMIT).load("test"))
    assert [e.options[e.gold] for e in examples] == ["No", "Yes", "Yes", "Yes"]
    assert examples == list(MFCBench(None, part="ooc", repo="owner/name", repo_revision=COMMIT).load("test"))


def test_a_repository_of_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub here: what is asked of it is checked, and a folder stands in for its answer."""
    import huggingface_hub

    local = MHaluBench(MHALUBENCH.write(tmp_path / "local"))
    asked: list[Any] = []

    def fetch(repo: str, **how: Any) -> str:
        asked.append((repo, how["repo_type"], how["revision"], how["allow_patterns"]))
        return str(MHALUBENCH.write(how["local_dir"]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    examples = list(MHaluBench(repo="openkg/MHaluBench").load("test"))
    commit = "c2807056487c969e35bd65b99ea899c9b37d0285"
    assert asked == [("openkg/MHaluBench", "dataset", commit, ["MHaluBench_*.json", "data/*"])]
    assert told(examples) == told(list(local.load("test")))
    assert isinstance(examples[0].image, Path)
    assert examples[0].image.is_relative_to(tmp_path / "cache")

    def unreachable(repo: str, **how: Any) -> str:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DataError, match=r"^a/b@01234567: can't be loaded \(ConnectionError: no network\)$"):
        list(MHaluBench(repo="a/b", repo_revision=COMMIT).load("test"))
    with pytest.raises(ConfigError, match="expected the 40 hex digits of a commit of a/b"):
        list(MHaluBench(repo="a/b", repo_revision="main").load("test"))
    with pytest.raises(ConfigError, match="not both"):
        list(MHaluBench(tmp_path / "local", repo="a/b").load("test"))


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("", "", "give their folder with --data-dir, or a Hugging Face repository"),
        ("nobody", "0" * 40, "repo = 'nobody', expected OWNER/NAME"),
        ("owner/name", "main", "repo_revision = 'main', expected the 40 hex digits of a commit"),
    ],
)
def test_a_repository_is_pinned(repo: str, revision: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        list(NaturalBench(repo=repo, repo_revision=revision).load("test"))


def test_a_folder_and_a_repository_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        list(NaturalBench(NATURALBENCH.write(tmp_path), repo="owner/name").load("test"))


def test_a_repository_goes_through_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub here: what is asked of `datasets` is checked, and a table of a local folder stands in for its answer."""

    from benchmarks.shared import hf_datasets

    hf_datasets._open.cache_clear()
    NATURALBENCH.write(tmp_path)
    asked: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return real("parquet", data_files=[str(tmp_path / NATURALBENCH.file)], split="train")

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load)
    examples = list(NaturalBench(repo="BaiqiL/NaturalBench").load("test"))
    commit = "21c415e3d60cdbabad4a02feaa2e4643789612f4"
    assert asked == [(("BaiqiL/NaturalBench", None), {"split": "train", "revision": commit})]
    assert examples[1].load_image().getpixel((0, 0)) == (1, 100, 200)
    hf_datasets._open.cache_clear()


def test_an_unreachable_repository_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:

    def load(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"^owner/name@00000000, split train: can't be loaded \(ConnectionError: .*Hub\)$"
    ):
        list(NaturalBench(repo="owner/name", repo_revision="0" * 40).load("test"))


@pytest.mark.parametrize("by_path", [False, True])
def test_a_cache_of_links_is_read(by_path: bool, tmp_path: Path) -> None:
    """Hugging Face's cache: the files of a snapshot are links to blobs, whose names say nothing."""
    real, snapshot, blobs = tmp_path / "real", tmp_path / "snapshots" / COMMIT, tmp_path / "blobs"
    whole = [(e.id, e.gold, e.load_image().tobytes()) for e in pope(real, by_path).load("test")]
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in real.rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.rename(blobs / f"{number:064x}"))
    assert [(e.id, e.gold, e.load_image().tobytes()) for e in POPE(snapshot).load("test")] == whole
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "data").symlink_to(snapshot / "data")  # a folder that is a link
    assert [(e.id, e.gold) for e in POPE(linked).load("test")] == [row[:2] for row in whole]
