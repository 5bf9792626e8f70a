"""The pages of the documentation: their code blocks, the commands in them, and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
import yaml

from harness.cli.options import app
from helpers.common import ROOT

BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```$', re.M | re.S)
PROGRAMS = ("hkdbench", "python", "make", "ray", "export", "kubectl", "sbatch", ".")
"""What a page may tell a reader to start."""


@dataclass(frozen=True)
class Block:
    """A code block: its language, its title (a file's name), and its text."""

    language: str
    title: str
    text: str

    @property
    def file(self) -> str:
        """The file that the reader saves it as: its title, or `# name.py` in its first line; empty if none."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return self.title if "." in self.title else named[1] if named else ""

    def commands(self) -> Iterator[list[str]]:
        """The words of each command; of a console's text the lines that begin with `$ `."""
        if self.language not in ("sh", "console"):
            return
        text = self.text.replace("\\\n", " ")
        for line in text.splitlines():
            if self.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            if words := shlex.split(line.removesuffix("&"), comments=True):
                yield words


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


class _Loader(yaml.SafeLoader):
    """mkdocs.yml names a Python function, which is none of our business here."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def of_nav(*sections: str) -> list[Path]:
    """The pages of these sections of the site."""
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"]
    listed = {title: part for entry in nav for title, part in entry.items()}
    return [ROOT / "docs" / path for title in sections for entry in listed[title] for path in entry.values()]


def own(words: list[str]) -> list[str] | None:
    """The words behind `hkdbench` of a command that starts it, also within a job; None: it starts something else."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if Path(words[0]).name == "hkdbench":
        return words[1:]
    for start in (["python", "-m", "harness"], ["deploy/slurm.sh"]):
        for at in range(len(words)):
            if words[at : at + len(start)] == start:
                return words[at + len(start) :]
    return None


@cache
def tree() -> Any:
    """All commands of `hkdbench`. To make them takes a while."""
    return typer.main.get_command(app)


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb and its parameters, as `hkdbench` itself reads them; raises its usage error."""
    words = [word for word in words if word not in (">", "|")] if ">" not in words else words[: words.index(">")]
    command = tree()
    verb: list[str] = []
    while getattr(command, "commands", None):
        name, *words = words
        assert name in command.commands, f"hkdbench {' '.join([*verb, name])}: no such command"
        verb.append(name)
        command = command.commands[name]
    return " ".join(verb), command.make_context(" ".join(verb), list(words)).params
