"""The page of the settings, from the pydantic models that read the TOML files."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness import config, suite
from harness.experiments import space, sweep
from harness.models.ladders import LadderConfig
from harness.report.describe import field_docs
from harness.settings import to_toml
from scripts.reference_cli import cell

SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("Run", config.RunConfig, "`hkdbench run FILE.toml`; `hkdbench run` has options for the first of them."),
    ("train", config.TrainConfig, "The table `[train]`: `--set train.lr=0.001` sets one of them."),
    ("train.lora", config.LoraSettings, "The table `[train.lora]`, and each of `[train.lora_by_rung]`."),
    ("evaluate", config.EvaluateConfig, "The table `[evaluate]`."),
    ("cluster", config.ClusterConfig, "The table `[cluster]`. It isn't part of a run's identity."),
    ("track", config.TrackConfig, "The table `[track]`. It isn't part of a run's identity."),
    ("Ladder", LadderConfig, "A ladder's file: `--ladder FILE.toml`."),
    ("rungs", config.RungConfig, "Each `[[rungs]]` of a ladder."),
    ("rungs.template", config.TemplateConfig, "A rung's `template`. Any other key is a variable of the template."),
    ("Suite", suite.SuiteConfig, "`hkdbench suite FILE.toml`, and the file of `hkdbench ablate`."),
    ("runs", suite.SuiteRun, "Each `[[runs]]` of a suite."),
    ("Sweep", sweep.SweepConfig, "`hkdbench sweep FILE.toml`."),
    ("methods", sweep.SweepMethod, "Each `[[methods]]` of a sweep."),
    ("space", space.Dimension, "Each setting of `[methods.space]`: one of the first four, and `steps` or `when`."),
    ("confirm", sweep.Confirm, "The table `[confirm]` of a sweep."),
)

UNITS = {
    "alpha": "factor",
    "batch_size": "examples",
    "cache_gib": "GiB",
    "choice": "the setting's",
    "clip": "gradient norm",
    "cpus_per_worker": "CPU cores",
    "dropout": "probability",
    "examples": "examples",
    "gpus_per_worker": "GPUs",
    "grace": "validations",
    "integer": "the setting's",
    "labelled_share": "fraction",
    "labels": "examples, or a fraction",
    "lanes": "runs",
    "log_uniform": "the setting's",
    "lr": "learning rate",
    "lr_by_rung": "learning rate",
    "max_failures": "lost workers",
    "max_image_pixels": "pixels",
    "max_tokens": "tokens",
    "micro_batch_size": "examples",
    "min_workers": "processes",
    "price_per_hour": "your currency",
    "questions_per_image": "questions",
    "random_shifts": "forward passes",
    "rank": "dimensions",
    "reduction": "trials",
    "resamples": "resamples",
    "resources": "Ray's",
    "samples": "texts",
    "seed": "",
    "seeds": "",
    "shard_above": "parameters",
    "steps": "values",
    "temperature": "factor",
    "tflops_per_worker": "10^12 FLOP/s",
    "thinking_tokens": "tokens",
    "top": "trials",
    "trials": "trials",
    "uniform": "the setting's",
    "validation_examples": "examples",
    "validations": "per stage",
    "warmup": "fraction",
    "weight_decay": "share of a weight",
    "when": "",
    "workers": "processes",
}
"""The unit of each setting that is a number. A setting without one (a seed) has an empty text."""

INTRO = """# Settings

Settings come from a TOML file, from options, and from `--set NAME=VALUE`, which wins. An unknown name is refused with
the names that are near. `hkdbench plan` checks all of them and trains nothing. Settings of a method or of a benchmark
are on its own page ([methods](../methods/README.md), [benchmarks](../benchmarks/README.md)); `hkdbench describe NAME`
prints them.

*unset* is the default of a setting that can be left out and has no value then.
"""


def page() -> str:
    parts = [INTRO]
    for title, model, intro in SECTIONS:
        rows = [row(model, name, field) for name, field in model.model_fields.items()]
        head = "| setting | values | default | unit | |\n|---|---|---|---|---|\n"
        parts += [f"## {title}", intro, head + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def row(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    unit = ""
    if _numeric(field.annotation):
        if name not in UNITS:
            raise ValueError(f"{model.__name__}.{name}: a number without a unit: add it to UNITS in {__name__}")
        unit = UNITS[name]
    limits = "".join(f", {sign} {limit:,}" for sign, limit in _limits(field))
    cells = (f"`{name}`", values(field.annotation) + limits, default(field), unit, text(model, name, field))
    return "| " + " | ".join(map(cell, cells)) + " |"


def text(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """What stands below the field or in its description; a field that a run has too is explained there."""
    of_run = config.RunConfig.model_fields.get(name)
    docs = field_docs(model) | ({name: field.description} if field.description else {})
    found = docs.get(name) or (of_run and of_run.description) or field_docs(config.RunConfig).get(name)
    if not found:
        raise ValueError(f"{model.__name__}.{name}: a setting without a text: say below it what it does")
    return found


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "that table's"
    return "unset" if value is None else f"`{to_toml(value)}`"


def values(hint: Any) -> str:
    """A type in words: choices, kinds of numbers, lists and tables of them."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return values(args[0])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in args)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(values(one) for one in args if one is not type(None)))
    if origin is tuple:
        return f"list of {values(args[0])}" if args[-1] is ... else f"[{', '.join(map(values, args))}]"
    if origin is dict:
        inside = values(args[1])
        return "table" if inside == "any" else f"table of {inside}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        title = next(title for title, model, _ in SECTIONS if model is hint)
        return f"[{title}](#{title.lower().replace('.', '')})"
    kinds = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "folder", Any: "any"}
    return kinds[hint]


def _limits(field: FieldInfo) -> Iterator[tuple[str, float]]:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for limit in field.metadata:
        for name, sign in signs.items():
            if (value := getattr(limit, name, None)) is not None:
                yield sign, value


def _numeric(hint: Any) -> bool:
    """Whether numbers are among the values."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return False
    return hint in (int, float) or (get_origin(hint) is not Literal and any(map(_numeric, get_args(hint))))
