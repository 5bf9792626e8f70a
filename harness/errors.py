"""Errors that a user can fix. The CLI prints their text in one line and exits with 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


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


# ------------------------------------------------------------------------------------ invalid settings


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The validation error as text: setting, value, what was expected; similar names for an unknown setting."""
    items = error.errors()
    # An invalid item of a list also makes the list "too short": the errors of its items are enough.
    deeper = {item["loc"][:n] for item in items for n in range(len(item["loc"]))}
    return "; ".join(_explain_one(dict(item), model) for item in items if item["loc"] not in deeper)


def _explain_one(item: dict[str, Any], model: type[BaseModel]) -> str:
    path = [part for part in item["loc"] if not str(part).startswith(("tuple[", "function-"))]
    name = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = _fields(model, [str(part) for part in path[:-1]])
        return f"unknown setting {name!r}: {near(str(path[-1]), known)}"
    if item["type"] == "missing":
        return f"{name!r} is missing"
    return f"{name} = {item['input']!r}: {item['msg'].lower().removeprefix('value error, ')}"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    from pydantic import BaseModel

    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue
        # The model itself, or the model of a tuple's items, of a union's member, ...
        for inner in (field.annotation, *_inside(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(model.model_fields)


def _inside(hint: Any) -> list[Any]:
    return [found for part in get_args(hint) for found in (part, *_inside(part))]
