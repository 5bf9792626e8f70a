"""The verb `init`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    app,
    benchmark_names,
    method_names,
    print_json,
    say,
)
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.setup.first_suite import Answers, Started


MOST_GPUS = 65536


@app.command("init")
def init_(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="tiny; or folders or hub ids, repeated, the largest first and the student last."),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark",
            autocompletion=benchmark_names,
            help="`hkdbench list benchmarks` names them; with --data the name of your own.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Your own rows, as for `hkdbench new-benchmark --from`.")
    ] = None,
    data_dir: DataOption = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", autocompletion=method_names, help="A method; may be repeated.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, max=MOST_GPUS, help="GPUs of each run; 0: the CPU.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="HOST:PORT of a Ray cluster. [default: this machine]")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="How many seeds.")] = 3,
    examples: Annotated[
        int, typer.Option("--examples", min=32, max=10**9, help="Examples that a student learns from.")
    ] = 4096,
    name: Annotated[str, typer.Option("--name", help="Of the suite, and of its file.")] = "comparison",
    out: Annotated[Path, typer.Option("--out", help="Folder of the files.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for models, data, methods and machine, check them, and write a suite's file. Trains nothing.

    At a terminal it asks for what no option gives; elsewhere that is an error.
    """
    from harness.setup import first_suite

    ask = None if as_json or not sys.stdin.isatty() else _ask
    models = tuple(model or _listed(_answer(ask, "--model", "Models, the largest first, or tiny", "tiny")))
    named = benchmark or _answer(ask, "--benchmark", "Benchmark, or the name of your own", "scenes_hallucination")
    if data is None and data_dir is None and first_suite.needs_folder(named):
        data_dir = _answer(ask, "--data-dir", f"Folder of the published files of {named}", "")
    usual = "zero_shot, finetune, offline_kd, hkd4vlm"
    methods = tuple(method or _listed(_answer(ask, "--method", "Methods", usual)))
    if gpus is None:
        gpus = _number(_answer(ask, "--gpus", "GPUs of each run (0: the CPU)", "0"))
    if cluster:
        from harness.execution.ray_cluster import check_address

        check_address(cluster)
    elif gpus:
        _check_gpus(gpus)
    answers = first_suite.Answers(
        models=models,
        benchmark=named,
        methods=methods,
        gpus=gpus,
        rows=data,
        data_dir=data_dir,
        seeds=tuple(range(seeds)),
        examples=examples,
        name=name,
    )
    _show(answers, first_suite.start(answers, out, force), cluster, as_json)


def _show(answers: Answers, started: Started, cluster: str | None, as_json: bool) -> None:
    file = started.files[0]
    joined = f"RAY_ADDRESS={cluster} " if cluster else ""
    following = [f"{joined}hkdbench suite {file}", "hkdbench dashboard"]
    if as_json:
        print_json({
            "files": [str(one) for one in started.files],
            "columns": list(started.columns),
            "runs": started.runs,
            "train_flops": started.train_flops,
            "plans": list(started.priced),
            "next": following,
        })  # fmt: skip
        return
    for line in started.columns:
        print(line)
    for one in started.priced:
        print(
            f"{one['method']:14} {one['student']:12} {one['budget']:>10,} examples  "
            f"{one['train_flops'] / 1e12:10.2f} TFLOP  {one['peak_bytes'] / 2**30:7.2f} GiB per worker"
        )
    for warning in dict.fromkeys(warning for one in started.priced for warning in one["warnings"]):
        say(f"warning: {warning}")
    total = f"{started.train_flops / 1e12:.2f} TFLOP of training"
    print(f"{started.runs} runs ({len(answers.seeds)} seeds), {total} (estimated)")
    print(f"wrote {', '.join(map(str, started.files))}")
    print(f"{following[0]}      trains them; --dry-run lists them")
    print(f"{following[1]}      shows them while they come in")


def _answer(ask: Callable[[str, str], str] | None, flag: str, question: str, usual: str) -> str:
    """The answer at the terminal. Raises `ConfigError` without one, and for an empty answer."""
    if ask is None:
        example = f", like {flag} {usual.partition(',')[0]}" if usual else ""
        raise ConfigError(f"no {flag} given, and there is no terminal to ask at: give it{example}")
    answer = ask(question, usual).strip()
    if not answer:
        raise ConfigError(f"no answer to {question!r}: give one, or {flag}")
    return answer


def _ask(question: str, usual: str) -> str:
    return str(typer.prompt(question, default=usual or None, err=True))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int:
    if text.isdecimal() and int(text) <= MOST_GPUS:
        return int(text)
    raise ConfigError(f"GPUs = {text!r}: expected a whole number from 0 to {MOST_GPUS}")


def _check_gpus(wanted: int) -> None:
    import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted > here:
        raise ConfigError(
            f"--gpus {wanted}: torch sees {here} on this machine; give at most that many, or --cluster HOST:PORT"
        )
