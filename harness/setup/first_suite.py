"""A first comparison of one's own, as a suite's file with comments: checked, priced, and then written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.authoring import benchmark_scaffold
from harness.config import data_folder, parse, read_toml
from harness.errors import ConfigError
from harness.paths import absolute
from harness.planning import cost, plan
from harness.settings import to_toml
from harness.suite import SuiteConfig

TEXT = """\
# A comparison of distillation methods, written by `hkdbench init`. All of it may be changed.
#   hkdbench suite {file} --dry-run      the runs and their cost; trains nothing
#   hkdbench suite {file}                trains and scores; the same command continues if it was stopped
name = {name}

# Every method is trained once with each seed. Five give narrower intervals than three.
seeds = {seeds}

# `hkdbench list benchmarks` has all; `hkdbench describe NAME` their settings, sizes and licences.
benchmarks = [{benchmark}]
{data}
{models}
# The same training for all methods; docs/models.md has what large models need (adapters, storage, sharding).
[train]
# The student's budget: examples that it learns from, with repeats.
examples = {examples}
# Examples per step, over all workers.
batch_size = {batch_size}
# The peak learning rate; tune it on validation, for each method with the same number of trials: docs/sweeps.md.
lr = {lr}
# bf16: matrix products in bfloat16. Twice as fast on a GPU; on a CPU only where it has bfloat16 arithmetic.
precision = {precision}
# What frozen teachers answer is kept and shared by the runs of a store.
cache = "auto"

[cluster]
# Workers of each run: Ray processes that share its batch. 0: in this process, without Ray.
workers = {workers}
gpus_per_worker = {gpus_per_worker}

# One [[runs]] for each row of the table. `hkdbench describe METHOD` has its settings; `settings = {{ alpha = 2.0 }}`
# sets them, `train = {{ lr = 1e-4 }}` a learning rate of its own, `label = "..."` its name in tables.
{runs}"""

OWN_MODELS = """\
# The ladder, the largest model first: local folders in save_pretrained layout, or hub ids (pin `revision = "COMMIT"`).
# `hkdbench describe MODEL --prompt` shows what a model sees.
{rungs}
"""


@dataclass(frozen=True)
class Answers:
    """What somebody wants to compare."""

    models: tuple[str, ...]
    """`tiny` alone, or folders and hub ids, the largest first."""
    benchmark: str
    """A benchmark's name; with `rows` the name of the new one."""
    methods: tuple[str, ...]
    gpus: int
    """GPUs of each run; 0: the CPU."""
    rows: Path | None = None
    """A file (or folder) of somebody's own rows, as `hkdbench new-benchmark` takes it."""
    data_dir: Path | str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    examples: int = 4096
    name: str = "comparison"


@dataclass(frozen=True)
class Started:
    """What was written."""

    files: tuple[Path, ...]
    """The suite's file first."""
    priced: tuple[dict[str, Any], ...]
    """The cost of a run of each line with the first seed, see `harness.planning.cost`."""
    runs: int
    train_flops: float
    """Of all runs."""
    columns: tuple[str, ...]
    """For rows of one's own: what each column is taken for."""


def start(answers: Answers, folder: Path, force: bool) -> Started:
    """Write the suite, and the loader of one's own rows, into the folder, once everything was checked by planning it.

    Raises `UserError`; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", answers.name):
        raise ConfigError(f"--name {answers.name!r}: expected letters, digits, _ and -, like comparison")
    names = [f"{answers.name}.toml"]
    if answers.rows is not None:
        names += [f"{answers.benchmark}.py", f"test_{answers.benchmark}.py"]
    for name in names:
        if (folder / name).exists() and not force:
            raise ConfigError(f"{folder / name} exists already: choose another --name or --out, or add --force")
    with tempfile.TemporaryDirectory(prefix="hkdbench-init-") as temporary:
        made = Path(temporary)
        columns: tuple[str, ...] = ()
        data_dir = data_folder(answers.data_dir) if answers.data_dir else None
        if answers.rows is not None:
            _, source, found = benchmark_scaffold.write(answers.benchmark, answers.rows, made, registry.benchmarks())
            data_dir, columns = source.folder, tuple(benchmark_scaffold.mapping_lines(found))
            registry.load_plugin(str(made / names[1]))
        _check_folder(answers.benchmark, data_dir)
        (made / names[0]).write_text(_text(answers, data_dir, plugin=names[1:2]), encoding="utf-8")
        suite = parse(SuiteConfig, read_toml(made / names[0]), names[0])
        one_seed = suite.model_copy(update={"seeds": suite.seeds[:1]}).run_configs()
        priced = tuple(cost.of(plan.make(config)) for config in one_seed)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                shutil.copyfile(made / name, folder / name)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"{folder} can't be written: {why}; choose another with --out") from None
    flops = len(suite.seeds) * sum(one["train_flops"] for one in priced)
    return Started(
        tuple(folder / name for name in names), priced, len(priced) * len(suite.seeds), float(flops), columns
    )


def needs_folder(benchmark: str) -> bool:
    """Whether the benchmark reads published files. Raises `ConfigError` for an unknown one."""
    known = registry.benchmarks()
    if benchmark not in known:
        registry.make_benchmark(benchmark, {})  # its error has near names
    return known[benchmark].load().needs_data_dir


def _check_folder(benchmark: str, data_dir: Path | str | None) -> None:
    if needs_folder(benchmark) and data_dir is None:
        raise ConfigError(f"benchmark {benchmark!r} reads published files: give their folder with --data-dir")
    if data_dir is not None and not needs_folder(benchmark):
        raise ConfigError(f"--data-dir: benchmark {benchmark!r} reads no files; leave it out")


def _text(answers: Answers, data_dir: Path | str | None, plugin: Sequence[str]) -> str:
    rungs = ladder(answers.models)
    data = []
    if plugin:
        data.append(f"# The loader that `hkdbench new-benchmark` wrote: check in it what each column means.\n"
                    f"plugins = {to_toml(list(plugin))}")  # fmt: skip
    if data_dir is not None:
        data.append(f"data_dir = {to_toml(str(data_dir))}")
    lines = [(method, rungs[-1][0]) for method in dict.fromkeys(answers.methods)]
    if "finetune" in answers.methods and len(rungs) > 1:  # the teacher, as the reference of what was to be learned
        lines.append(("finetune", rungs[0][0]))
    large = answers.models != ("tiny",)
    return TEXT.format(
        file=f"{answers.name}.toml",
        name=to_toml(answers.name),
        seeds=to_toml(list(answers.seeds)),
        benchmark=to_toml(answers.benchmark),
        data="\n".join([*data, ""]) if data else "",
        models="" if not large else OWN_MODELS.format(
            rungs="".join(f"[[ladder]]\nname = {to_toml(n)}\nmodel = {to_toml(model)}\n" for n, model in rungs)
        ),
        examples=answers.examples,
        batch_size=32,
        lr="1e-5" if large else "2.5e-4",
        precision=to_toml("bf16" if answers.gpus else "fp32"),
        workers=max(answers.gpus, 1),
        gpus_per_worker=min(answers.gpus, 1),
        runs="\n".join(f"[[runs]]\nmethod = {to_toml(m)}\nstudent = {to_toml(student)}\n" for m, student in lines),
    )  # fmt: skip


def ladder(models: Sequence[str]) -> list[tuple[str, str]]:
    """A name and the model of each rung, the largest first. Folders get absolute paths. Raises `ConfigError`."""
    if tuple(models) == ("tiny",):
        return [("L", ""), ("M", ""), ("S", "")]
    if "tiny" in models:
        raise ConfigError("--model tiny is a ladder of its own: leave the others out, or tiny")
    found: dict[str, str] = {}
    for given in models:
        looks_local = given.startswith((".", "~", os.sep)) or given.count("/") > 1
        folder = absolute(given) if looks_local or Path(given).is_dir() else None
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--model {given!r}: no such folder; expected one in save_pretrained layout, or a hub id")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", (folder.name if folder else given.rpartition("/")[2])) or "model"
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(models) + 2))) if n not in found)
        found[name] = str(folder) if folder else given
    return list(found.items())
