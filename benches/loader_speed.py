"""How long does a benchmark take to load, and does memory stay flat while its images pass? On the published files.

    python -m benches.loader_speed --data ../shared/data

**load**: seconds to read and check all annotations of a benchmark (no image is opened), each in a fresh process, after
imports; the median of `--repeats`, wall and CPU. Targets: POPE's 9,000 items under 2 s, AMBER's 15,220 (of which
14,216 are yes/no questions) under 4 s. **memory**: the largest growth of the process's own memory (RssAnon: pages of a
mapped file, which the system takes back at will, aren't in it) while every image of NLVR's development set is decoded
once, and while 400 drawn images are read out of a Parquet file; beside it what all of them would take decoded.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benches.common import RESULTS, header, keep

FOLDERS = ("pope", "amber", "hallusionbench", "nlvr", "sugar_crepe", "verite", "haloquest")
"""The published annotation files at hand; a benchmark is named like its folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with pope/, amber/, ...")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a measurement in this process: its name, or memory:NAME
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(memory(asked.one, asked.data) if ":" in asked.one else load(asked.one, asked.data)))
        return
    found: dict[str, Any] = {name: summary(asked.data, name, asked.repeats) for name in FOLDERS}
    keep(RESULTS / "loader_speed.json", "load", header() | {"benchmarks": found})
    flat = {what: fresh(asked.data, f"memory:{what}") for what in ("nlvr", "columns")}
    keep(RESULTS / "loader_speed.json", "memory", header() | flat)
    for name, figures in found.items():
        print(f"{name:16} {figures['examples']:6} examples  {figures['wall']:.2f} s wall  {figures['cpu']:.2f} s CPU")
    for what, figures in flat.items():
        print(
            f"{what:16} {figures['images']:6} images  +{figures['growth_mib']:.1f} of {figures['decoded_mib']:.0f} MiB"
        )


def summary(data: Path, name: str, repeats: int) -> dict[str, Any]:
    """Medians over fresh processes."""
    runs = [fresh(data, name) for _ in range(repeats)]
    return {"examples": runs[0]["examples"], **{k: statistics.median(r[k] for r in runs) for k in ("wall", "cpu")}}


def fresh(data: Path, one: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benches.loader_speed", "--data", str(data), "--one", one]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def load(name: str, data: Path) -> dict[str, Any]:
    """One loading of all splits, imports aside."""
    from harness import registry

    benchmark = registry.make_benchmark(name, {}, data / name)
    wall, cpu = time.perf_counter(), time.process_time()
    examples = sum(len(list(benchmark.load(split))) for split in benchmark.splits)
    return {"examples": examples, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def memory(what: str, data: Path) -> dict[str, Any]:
    """The growth of resident memory while images pass one by one."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        examples = _columns(Path(folder)) if what == "memory:columns" else _nlvr(data)
        images = [e.image for e in examples]
        first = examples[0].load_image()
        before, most, decoded = resident(), 0, 0
        for example in examples:
            image = example.load_image()
            decoded += image.width * image.height * 3
            most = max(most, resident())
    return {
        "images": len(images),
        "size": first.size,
        "growth_mib": (most - before) / 2**20,
        "decoded_mib": decoded / 2**20,
    }


def _nlvr(data: Path) -> list[Any]:
    from benchmarks.nlvr import NLVR

    benchmark = NLVR(data / "nlvr")
    return [e for split in benchmark.splits for e in benchmark.load(split)]


def _columns(folder: Path) -> list[Any]:
    """400 pictures of noise, 600 x 600, in MFC-Bench's layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from benchmarks.mfc_bench import MFCBench

    out = io.BytesIO()
    Image.effect_noise((600, 600), 80).convert("RGB").save(out, "JPEG")
    cell = {"bytes": out.getvalue(), "path": None}
    kinds = {"manipulate": 1, "manipulation_type": "face swap", "caption": "A man."}
    rows: Iterable[dict[str, Any]] = ({"id": f"m{n}", **kinds, "image": cell} for n in range(400))
    (folder / "manipulation").mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "manipulation" / "train-00000-of-00001.parquet")
    return list(MFCBench(folder).load("test"))


def resident() -> int:
    """Bytes of resident memory that no file stands behind (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
