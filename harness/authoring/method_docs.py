"""One page per method, generated from its docstrings, fields and stages; the text under one heading is handwritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from harness.api import Example, From, Ladder, Method, Role, Stage
from harness.config import EvaluateConfig
from harness.errors import ConfigError
from harness.evaluation.shifts import Asking
from harness.report import describe

BY_HAND = "## When to use it"
LADDER: Ladder = ("L", "M", "S")

_QUESTIONS = {
    "four options": ("a red square", "a blue star", "a green ring", "a black cross"),
    '"No hallucination" and three': ("No hallucination", "a red square", "a blue star", "a green ring"),
    "True or False": ("True", "False"),
}


def page(cls: type[Method], by_hand: str) -> str:
    """The method's page in Markdown; `by_hand` is the text under its "When to use it"."""
    found = describe.describe(cls.name)
    opening, _, rest = str(found["text"]).partition("\n\n")
    parts = [f"# {cls.name}", " ".join(opening.split())]
    if rest:
        parts.append(f"```text\n{rest}\n```")
    if cls.source:
        parts.append(f"Source: {cls.source}.")
    parts += [BY_HAND, by_hand.strip(), "## What it costs", *_cost(cls), "## Settings", *_settings(cls, found)]
    if cls.presets:
        lines = (f"- `{name}`: {_assigned(settings)}" for name, settings in cls.presets.items())
        parts += ["## Other names", "\n".join(lines)]
    if cls.ablations:
        lines = (f"- {name}: {_assigned(settings)}" for name, settings in cls.ablations.items())
        parts += ["## Ablations", f"`hkdbench ablate {cls.name}` compares the method with", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def index(classes: Iterable[type[Method]]) -> str:
    """The table of all pages."""
    rows = [f"| [{c.name}]({c.name}.md) | {c.summary} | {c.source or '-'} |" for c in classes]
    head = "| method | what | source |\n|---|---|---|"
    return f"# Methods\n\nWritten by `hkdbench method-pages`.\n\n{head}\n" + "\n".join(rows) + "\n"


def write(classes: Iterable[type[Method]], folder: Path, with_index: bool) -> list[Path]:
    """Write the pages; the text under "When to use it" is preserved. Raises `ConfigError`."""
    classes = list(classes)
    texts = {folder / f"{c.name}.md": page(c, handwritten(folder / f"{c.name}.md")) for c in classes}
    if with_index:
        texts[folder / "README.md"] = index(classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error.strerror or error}; choose another with --out") from None
    return list(texts)


def handwritten(path: Path) -> str:
    """The text under "When to use it" on a page; empty if there is no page yet."""
    if not path.is_file():
        return ""
    _, _, after = path.read_text(encoding="utf-8").partition(f"\n{BY_HAND}\n")
    return after.partition("\n## ")[0].strip()


# ---------------------------------------------------------------------------------------------- cost


def _cost(cls: type[Method]) -> list[str]:
    """Stages and passes on a ladder of three, with the default settings."""
    method = cls()
    stages = method.stages(LADDER, "S")
    if not stages:
        return ["No training: the rung is scored unchanged.", _passes_text(method)]
    rows = ["| stage | share of the budget | roles |", "|---|---:|---|"]
    for stage in stages:
        roles = ", ".join(_role_text(name, role, stages) for name, role in stage.roles.items())
        rows.append(f"| `{stage.name}` | {stage.share:g} | {roles} |")
    passes = []
    for rung in LADDER:
        forward = backward = 0.0
        for stage in stages:
            mine = [role for role in stage.roles.values() if _rung(role, stages) == rung]
            forward += stage.share * len(mine)
            backward += stage.share * sum(role.trainable for role in mine)
        if forward:
            passes.append(f"{forward:g} forward and {backward:g} backward passes of {rung}")
    return [
        f"With its defaults, on a ladder {' > '.join(LADDER)} with student S:",
        "\n".join(rows),
        f"For each example of the student's budget: {'; '.join(passes)}. {_passes_text(method)}",
    ]


def _role_text(name: str, role: Role, stages: Iterable[Stage]) -> str:
    weights = role.weights
    start = f", from `{weights.role}` of `{weights.stage}`" if isinstance(weights, From) else ""
    kind = "learns" if role.trainable else f"average of `{role.average_of}`" if role.average_of else "frozen"
    return f"`{name}` ({_rung(role, stages)}{start}; {kind})"


def _rung(role: Role, stages: Iterable[Stage]) -> str:
    weights = role.weights
    if isinstance(weights, str):
        return weights
    return _rung(next(s for s in stages if s.name == weights.stage).roles[weights.role], stages)


def _passes_text(method: Method) -> str:
    counts = {}
    for what, options in _QUESTIONS.items():
        example = Example("page", "page", b"", "Which is it?", "", options, 0, "any", "page")
        counts[what] = len(Asking(method, EvaluateConfig()).views(example))
    if set(counts.values()) == {1}:
        return "An answer takes one forward pass."
    listed = ", ".join(f"{count} for {what}" for what, count in counts.items())
    return f"Forward passes per answer: {listed}."


# -------------------------------------------------------------------------------------------- settings


def _settings(cls: type[Method], found: Mapping[str, Any]) -> list[str]:
    if not found["settings"]:
        return ["None."]
    hints = get_type_hints(cls)
    rows = ["| setting | default | values | what it does |", "|---|---|---|---|"]
    for setting in found["settings"]:
        name = setting["name"]
        cells = [f"`{name}`", f"`{setting['default']!r}`", _values(hints[name]), setting["text"]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    usage = "`--set settings.NAME=VALUE`, or `settings` in a run's or suite's file."
    return [f"{usage} See also `hkdbench describe {cls.name}`.", "\n".join(rows)]


def _values(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(str(value) for value in get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _assigned(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name} = {value!r}`" for name, value in settings.items())
