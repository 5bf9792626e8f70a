"""The page of the command line, from the tree of commands that `hkdbench` itself uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from harness.cli.options import app

INTRO = """# Command line

`hkdbench` and `python -m harness` are the same program. `hkdbench COMMAND --help` prints what stands here.

**Exit codes.** 0: done. 1: a run failed (the others continued), or a check found something. 2: wrong usage, config or
data. 130: interrupted; the same command continues from the last checkpoint.

**`--json`** gives one JSON document on standard output and nothing else; an error is the object `{"error": {"code": 2,
"message": "..."}}`. Notes and progress go to standard error.

**Environment.** `HKDBENCH_STORE` is the store if `--store` isn't given (else `./runs`). `HKDBENCH_CACHE` is the folder
of caches that may be deleted (else `~/.cache/hkdbench`). `HKDBENCH_CHROMIUM` is the browser of the tests and pictures.
`RAY_ADDRESS` names a Ray cluster; without it a command that needs one starts its own.
"""


def commands() -> Iterator[tuple[list[str], Any]]:
    """Each command with its words, those of groups too, in the order of `--help`."""

    def below(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        for name, child in getattr(command, "commands", {}).items():
            if getattr(child, "commands", None):
                yield from below([*words, name], child)
            else:
                yield [*words, name], child

    yield from below([], typer.main.get_command(app))


def page() -> str:
    found = list(commands())
    parts = [INTRO, "| command | what it does |\n|---|---|"]
    for words, command in found:
        name = " ".join(words)
        parts[-1] += f"\n| [`{name}`](#{'-'.join(['hkdbench', *words])}) | {cell(first_sentence(command.help))} |"
    for words, command in found:
        parts += [f"## hkdbench {' '.join(words)}", command.help or "", f"```text\n{usage(words, command)}\n```"]
        if rows := [row(one) for one in command.params]:
            parts.append("| option | value | default | |\n|---|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def usage(words: list[str], command: Any) -> str:
    """The command's form: required options and the arguments in their order."""
    parts = ["hkdbench", *words]
    for one in command.params:
        if one.param_type_name == "argument":
            name = one.name.upper() + ("..." if one.nargs == -1 else "")
            parts.append(name if one.required else f"[{name}]")
        elif one.required:
            parts.append(f"{one.opts[0]} {value(one)}")
    return " ".join([*parts, "[OPTIONS]"])


def row(one: Any) -> str:
    if not one.help:
        raise ValueError(f"{one.opts}: an option without a text: give it one, typer.Option(help=...)")
    name = one.name.upper() if one.param_type_name == "argument" else ", ".join(one.opts)
    default = "" if one.default in (None, False) or one.required else f"`{one.default}`"
    if one.required:
        default = "required"
    return f"| `{name}` | {cell(value(one))} | {cell(default)} | {cell(one.help)} |"


def value(one: Any) -> str:
    """What an option takes: choices, or the kind of value."""
    kind: Any = one.type_descriptor.annotation
    if one.param_type_name == "option" and one.is_flag:
        return ""
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    name = {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
    low, high = getattr(one, "min", None), getattr(one, "max", None)
    return name + (f" from {low:g}" if low is not None else "") + (f" to {high:g}" if high is not None else "")


def first_sentence(text: str | None) -> str:
    return re.split(r"(?<=[^.]\.)\s+(?=[A-Z])", " ".join((text or "").split()))[0]


def cell(text: str) -> str:
    """A text as the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
