"""Errors that a user can mend. The CLI prints their text in one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The user asked for what can't be done: the text says the value, what was expected and the mend."""


class ConfigError(UserError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(UserError, ValueError):
    """A benchmark's files are missing, damaged or contradict themselves."""


class ModelError(UserError, ValueError):
    """A model folder can't be loaded or doesn't fit the task."""


class StoreError(UserError, OSError):
    """The store can't be read or written."""


class TrainingError(RuntimeError):
    """A method broke the contract or the numbers broke down; says where, and what to change."""

    def __init__(self, message: str, stage: str, step: int) -> None:
        super().__init__(message)
        self.stage, self.step = stage, step


def near(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `did you mean 'x'?` and the list of what there is."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
