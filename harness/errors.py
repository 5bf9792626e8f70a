"""Errors that a user can fix. The CLI prints their text in one line and exits with 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """The user asked for something that can't be done. The text says the value, what was expected and how to fix it."""


class ConfigError(UserError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(UserError, ValueError):
    """A benchmark's files are missing, damaged or inconsistent."""


class ModelError(UserError, ValueError):
    """A model folder can't be loaded or doesn't fit the task."""


class StoreError(UserError, OSError):
    """The store can't be read or written."""


class TrainingError(RuntimeError):
    """A method broke the contract, or the numbers became invalid. The text says where, and what to change."""

    def __init__(self, message: str, stage: str, step: int) -> None:
        super().__init__(message)
        self.stage, self.step = stage, step


@dataclass(frozen=True)
class StepLocation:
    """Where in a run something happens."""

    method: str
    stage: str
    step: int

    def error(self, text: str) -> TrainingError:
        return TrainingError(
            f"method {self.method!r}, stage {self.stage!r}, step {self.step}: {text}", self.stage, self.step
        )


_MEND = re.compile(r"; |: (?=did you mean|known: |expected |input should |give |name |choose |use )")


def parts_of(text: str) -> dict[str, str]:
    """An error's text, taken apart as our errors are written: `where: what is wrong; what to change`.

    `message` is all of it. `where` is the option, setting, file or thing at fault, `mend` what to change; each is "" if
    the text doesn't say it.
    """
    found = _MEND.search(text)
    wrong, mend = (text[: found.start()], text[found.end() :]) if found else (text, "")
    where, colon, _ = wrong.removeprefix("the command line: ").partition(": ")
    return {"message": text, "mend": mend, "where": where.removeprefix("unknown ") if colon or found else ""}


def near(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `did you mean 'x'?` and the list of known names."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters, or the error's type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
