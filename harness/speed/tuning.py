"""`hkdbench tune-speed`: the fastest settings on this machine that leave a run's numbers as they are, up to rounding.

One setting after the other is tried on a few real steps, and the fastest value stays for the settings that follow:
the attention implementation, micro-batches, threads; and the precision, if asked for, which does change numbers.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness import provenance
from harness.config import RunConfig
from harness.errors import TrainingError, UserError, first_line
from harness.models import ladders
from harness.models.distributed import torch_threads
from harness.settings import to_toml as to_toml_value
from harness.speed import steps

WORTH = 0.97
"""A value must take at most this share of the fastest time so far: what is closer is noise."""

ATTENTION = ("eager", "sdpa")
"""Implementations that transformers has for nearly all models, without further packages."""


class Measured(NamedTuple):
    """A value of a setting, and the seconds that all steps of the run take with it."""

    setting: str
    value: str
    seconds: float | None
    """None: it can't be used."""
    problem: str = ""


@dataclass(frozen=True)
class Tuned:
    """What was tried, in order, and the fastest configuration."""

    config: RunConfig
    trials: list[Measured]
    changed: tuple[str, ...]
    """The names of the settings in which it differs from what was given."""


def tune(
    config: RunConfig, measured: int, warm: int, precision: bool, report: Callable[[Measured], None] = lambda _: None
) -> Tuned:
    """Try the settings one after the other on `measured` steps of each stage.

    Raises what the given settings raise; values that can't be used are told as such.
    """
    trials: list[Measured] = []

    def seconds(tried: RunConfig, setting: str, value: str) -> float | None:
        try:
            with torch_threads(tried.cluster.cpus_per_worker):
                found = steps.seconds_of(steps.timed(tried, measured, warm))
        except (UserError, TrainingError, RuntimeError, ValueError, ImportError) as error:
            if setting == "given":
                raise
            trials.append(Measured(setting, value, None, first_line(error)))
            report(trials[-1])
            return None
        trials.append(Measured(setting, value, found))
        report(trials[-1])
        return found

    best = seconds(config, "given", "")
    assert best is not None
    changed: dict[str, None] = {}
    for setting in (*SETTINGS, *([_precision] if precision else [])):
        chosen = config
        for name, value, tried in setting(config):
            took = seconds(tried, name, value)
            if took is not None and took < WORTH * best:
                best, chosen = took, tried
                changed[name] = None
        config = chosen
    return Tuned(config, trials, tuple(changed))


Candidates = Iterator[tuple[str, str, RunConfig]]
"""A setting's name, its value in words, and the configuration that has it."""


def _attention(config: RunConfig) -> Candidates:
    rungs = ladders.find(config.ladder).rungs
    for name in ATTENTION:
        if {rung.attention for rung in rungs} != {name}:
            other = tuple(rung.model_copy(update={"attention": name}) for rung in rungs)
            yield "ladder", f"attention = {name}", config.model_copy(update={"ladder": other})


def _micro_batches(config: RunConfig) -> Candidates:
    share = -(-config.train.batch_size // max(config.cluster.workers, 1))
    now = config.train.micro_batch_size or share
    for size in sorted({share, *(share // part for part in (2, 4, 8) if share % part == 0)} - {now}, reverse=True):
        train = config.train.model_copy(update={"micro_batch_size": 0 if size == share else size})
        yield "train.micro_batch_size", str(size), config.model_copy(update={"train": train})


def _cpus(config: RunConfig) -> Candidates:
    """Threads; on a GPU they don't compute."""
    if config.cluster.gpus_per_worker:
        return
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = {1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most}
    for count in sorted(counts - {config.cluster.cpus_per_worker}):
        cluster = config.cluster.model_copy(update={"cpus_per_worker": count})
        yield "cluster.cpus_per_worker", str(count), config.model_copy(update={"cluster": cluster})


def _precision(config: RunConfig) -> Candidates:
    other = "fp32" if config.train.precision == "bf16" else "bf16"
    if not config.train.precision_by_rung and config.train.frozen_weights == "fp32":
        train = config.train.model_copy(update={"precision": other})
        yield "train.precision", other, config.model_copy(update={"train": train})


SETTINGS: Sequence[Callable[[RunConfig], Candidates]] = (_attention, _micro_batches, _cpus)


# ------------------------------------------------------------------------------------------------ output


def _value(config: RunConfig, name: str) -> Any:
    if name == "ladder":
        assert not isinstance(config.ladder, str)
        return [rung.model_dump(mode="json") for rung in config.ladder]
    table, _, key = name.partition(".")
    return getattr(getattr(config, table), key)


def to_toml(tuned: Tuned) -> str:
    """The settings that were found, as a run's file: `hkdbench run FILE --method ...` adds the rest."""
    made_by = provenance.static()
    lines = [
        f"# From `hkdbench tune-speed` for {about(tuned.config)},",
        f"# on {made_by['machine']['processor']}, torch {made_by['versions']['torch']}: {_gain(tuned)}.",
    ]
    tables: dict[str, list[str]] = {"": []}
    for name in tuned.changed:
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {to_toml_value(_value(tuned.config, name))}")
    for table, rows in sorted(tables.items()):
        lines += [*(["", f"[{table}]"] if table else []), *rows]
    return "\n".join(lines) + "\n"


def to_text(tuned: Tuned) -> str:
    """What was found: the options that set it."""
    if not tuned.changed:
        return "the given settings are the fastest of these"
    options = [f"{name}={to_toml_value(_value(tuned.config, name))}" for name in tuned.changed]
    return "\n".join([f"{_gain(tuned)} with", *(f"  --set {shlex.quote(option)}" for option in options)])


def _gain(tuned: Tuned) -> str:
    times = [trial.seconds for trial in tuned.trials if trial.seconds is not None]
    return f"{times[0]:.1f} s -> {min(times):.1f} s for all steps"


def to_table(tuned: Tuned) -> dict[str, Any]:
    """What was tried, and what was found, for JSON."""
    return {
        "trials": [trial._asdict() for trial in tuned.trials],
        "changed": {name: _value(tuned.config, name) for name in tuned.changed},
    }


def line(trial: Measured) -> str:
    """A trial as one line."""
    what = trial.setting if trial.setting == "given" else f"{trial.setting.rpartition('.')[2]} = {trial.value}"
    what = trial.value if trial.setting == "ladder" else what
    return f"{what:32} {f'{trial.seconds:9.2f} s' if trial.seconds is not None else trial.problem}"


def about(config: RunConfig) -> str:
    """The run in words."""
    return f"{config.method} on {config.benchmark}, student {config.student}, batches of {config.train.batch_size}"
