"""How long does a ranking take over many runs, and how much memory? On a store that is generated.

    python -m benches.store_size --runs 1000 --examples 10000 --folder DIR [--keep]
    python -m benches.store_size --runs 10000 --store DIR     a generated store that was kept

Writes real run folders (record.json, predictions.parquet: every run has answers of its own; the scores are zeros,
which take no room), as many benchmarks x method-settings x 5 seeds as make `--runs`, compacts the store, and times
`hkdbench rank` in fresh processes: `cold` without any kept answer, `warm` with one, `one_new` after one more run was
written (all other tables are known), `one_benchmark` cold with `--benchmark`, `columns` cold with all columns and a
teacher for every row, `aggregate` with `--aggregate mean,rank,iqm`. Each is the median of `--repeats`. CPU seconds are
those of the process, children included; they are what to compare on a machine that others use too. Modules are compiled
before, as those of an installed program are. `hundred_thousand` is no measurement: the straight line through what was
measured at the smallest and the largest number of runs in the results file, carried on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benches.common import RESULTS, header, keep
from harness.record import Cost, Data, Interval, Provenance, Record
from harness.stats.metrics import Floats, Ints
from harness.store.schemas import PREDICTIONS

COLUMNS = ("--columns", "cost,distil,power", "--teacher", "method1 alpha=0", "--baseline", "method0 alpha=0")
SEEDS, OPTIONS, PER_IMAGE = 5, 4, 2
PROVENANCE = Provenance(package="0", code="c0de", started="2026-01-01T00:00:00Z", finished="2026-01-01T00:01:00Z")


def benchmark(name: str, examples: int) -> tuple[pa.Table, Ints, Floats]:
    """The columns that all runs on a benchmark share, its golds, and how hard each example is."""
    rng = np.random.default_rng(list(name.encode()))
    gold_n = rng.integers(0, OPTIONS, examples)
    columns = {
        "split": pa.array(["test"] * examples),
        "id": pa.array([f"{name}-{k:06d}" for k in range(examples)]),
        "group": pa.array([f"image-{k // PER_IMAGE:06d}" for k in range(examples)]),
        "category": pa.array([("object", "attribute", "relation")[k % 3] for k in range(examples)]),
        "gold": pa.array(gold_n.astype("int32")),
        "chosen": pa.array(gold_n.astype("int32")),
        "scores": pa.array([[0.0] * OPTIONS] * examples, pa.list_(pa.float32())),
        "seconds": pa.array(np.zeros(examples, dtype="float32")),
        "text": pa.nulls(examples, pa.string()),
    }
    return pa.table(columns, schema=PREDICTIONS), gold_n, rng.normal(size=examples)


def write_run(root: Path, name: str, setting: int, seed: int, shared: tuple[pa.Table, Ints, Floats]) -> Path:
    """One finished run, and its folder: right answers by skill and difficulty, wrong ones spread evenly."""
    table, gold_n, hard_n = shared
    rng = np.random.default_rng([setting, seed, *name.encode()])
    skill = 0.6 + 0.8 * setting / 200
    right_n = rng.random(len(gold_n)) < 1 / (1 + np.exp(hard_n - skill + rng.normal(scale=0.05)))
    chosen_n = np.where(right_n, gold_n, (gold_n + rng.integers(1, OPTIONS, len(gold_n))) % OPTIONS)
    run_id = f"method{setting % 20}-S-{name}-v{setting // 20}-s{seed}"
    settings = {"alpha": setting // 20}
    record = Record(
        run_id=run_id,
        status="done",
        benchmark=name,
        task="hallucination",
        method=f"method{setting % 20}",
        settings=settings,
        ladder="tiny",
        student="S",
        parameters=230_000,
        budget=4096,
        seed=seed,
        tags=["generated"],
        config={"method": f"method{setting % 20}", "settings": settings, "seed": seed, "train": {"examples": 4096}},
        metrics={"test": {"accuracy": Interval(value=float((chosen_n == gold_n).mean()))}},
        data=Data(
            revision="1",
            fingerprint=name.encode().hex().ljust(64, "0"),
            sizes={"test": len(gold_n)},
            options=[str(k) for k in range(OPTIONS)],
        ),
        cost=Cost(train_flops=1e12, train_seconds=60.0, test_forwards=len(gold_n)),
        provenance=PROVENANCE,
    )
    folder = root / run_id
    folder.mkdir()
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n")
    column = table.schema.get_field_index("chosen")
    predictions = table.set_column(column, "chosen", pa.array(chosen_n.astype("int32")))
    pq.write_table(predictions, folder / "predictions.parquet", compression="zstd", compression_level=1)
    return folder


def generate(root: Path, runs: int, examples: int, benchmarks: int) -> None:
    """The store's folders. Raises `SystemExit` unless runs are a multiple of benchmarks x seeds."""
    settings, rest = divmod(runs, benchmarks * SEEDS)
    if rest:
        raise SystemExit(f"--runs {runs}: expected a multiple of {benchmarks * SEEDS} (benchmarks x seeds)")
    root.mkdir(parents=True)
    for b in range(benchmarks):
        shared = benchmark(f"bench{b:02d}", examples)
        for setting in range(settings):
            for seed in range(SEEDS):
                write_run(root, f"bench{b:02d}", setting, seed, shared)


def timed(arguments: Sequence[str]) -> dict[str, float]:
    """Wall and CPU seconds and peak memory of `hkdbench ARGUMENTS` in a fresh process, its output thrown away."""
    clock = time.perf_counter()
    command = [sys.executable, "-m", "harness", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_compiled())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"hkdbench {' '.join(arguments)} failed")
    return {
        "wall_s": round(time.perf_counter() - clock, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gib": round(usage.ru_maxrss / 2**20, 3),
    }


@cache
def _compiled() -> dict[str, str]:
    """An environment whose compiled modules are kept, in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": tempfile.mkdtemp(prefix="store-size-pyc-")}


def median(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def measure(root: Path, examples: int, repeats: int, compacted: bool = False) -> dict[str, Any]:
    """Compact the generated store (unless it is), then time its rankings."""
    at = ["--store", str(root)]
    cache = root / ".catalogue" / "cache"
    figures: dict[str, Any] = {}
    if not compacted:
        shutil.rmtree(root / ".catalogue", ignore_errors=True)
        timed(["rank", "--help"])
        figures["compact"] = timed(["store", "compact", *at])
    figures["catalogue_mib"] = round(sum(f.stat().st_size for f in (root / ".catalogue").glob("*.*")) / 2**20, 1)

    def cold(*more: str) -> dict[str, float]:
        shutil.rmtree(cache, ignore_errors=True)
        return timed(["rank", *at, *more])

    cold()  # modules are compiled now, and files in memory as they are after `compact`
    figures["one_benchmark"] = median([cold("--benchmark", "bench00") for _ in range(repeats)])
    figures["cold"] = median([cold() for _ in range(repeats)])
    figures["warm"] = median([timed(["rank", *at]) for _ in range(repeats)])
    figures["columns"] = cold(*COLUMNS)
    figures["aggregate"] = cold("--aggregate", "mean,rank,iqm")
    timed(["rank", *at])
    new = write_run(root, "bench00", 0, 999, benchmark("bench00", examples))
    figures["one_new"] = timed(["rank", *at])
    figures["compact_one_new"] = timed(["store", "compact", *at])
    shutil.rmtree(new)
    return figures


MEASURED = ("compact", "one_benchmark", "cold", "warm")


def growth(results: Mapping[str, Any], examples: int) -> dict[str, Any]:
    """From the fewest to the most runs that were measured: how many times more of each, and what 100,000 would take."""
    points = sorted(
        (found["runs"], found) for found in results.values() if "runs" in found and found["examples"] == examples
    )
    if len(points) < 2:
        return {}
    (few, least), (many, most) = points[0], points[-1]
    found: dict[str, Any] = {"from": few, "to": many, "runs_times": many / few}
    for name in (name for name in MEASURED if name in least and name in most):
        found[name] = {
            unit: {
                "times": round(most[name][unit] / least[name][unit], 2),
                "hundred_thousand": round(
                    most[name][unit] + (100_000 - many) * (most[name][unit] - least[name][unit]) / (many - few), 2
                ),
            }
            for unit in ("cpu_s", "peak_gib")
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--benchmarks", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where the store is made; default: a temporary folder.")
    parser.add_argument("--keep", action="store_true", help="Leave the store there.")
    parser.add_argument("--compacted", action="store_true", help="With --store: it is compacted; that isn't timed.")
    parser.add_argument("--store", type=Path, help="Measure this one, made with the same --runs and --keep.")
    parser.add_argument("--out", type=Path, default=RESULTS / "store_size.json")
    arguments = parser.parse_args()
    above = header()
    shape = {"runs": arguments.runs, "examples": arguments.examples, "benchmarks": arguments.benchmarks}
    parent = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="store-size-"))
    root = arguments.store or parent / "store"
    figures: dict[str, Any] = dict(shape)
    try:
        if arguments.store is None:
            clock, cpu = time.perf_counter(), time.process_time()
            generate(root, arguments.runs, arguments.examples, arguments.benchmarks)
            figures["generate"] = {
                "wall_s": round(time.perf_counter() - clock, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
            }
        runs = [path for path in root.iterdir() if not path.name.startswith(".")]
        if len(runs) != arguments.runs:
            raise SystemExit(f"{root} has {len(runs)} runs: expected {arguments.runs}")
        size = sum(file.stat().st_size for folder in runs for file in folder.iterdir())
        figures |= {"folders_mib": round(size / 2**20, 1)} | measure(
            root, arguments.examples, arguments.repeats, arguments.compacted
        )
    finally:
        shutil.rmtree(_compiled()["PYTHONPYCACHEPREFIX"])
        if not arguments.keep:
            shutil.rmtree(parent)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    keep(arguments.out, f"{arguments.runs}x{arguments.examples}", above | {"load_after": load} | figures)
    keep(arguments.out, "growth", growth(json.loads(arguments.out.read_text()), arguments.examples))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
