"""Builds a dataclass with typed fields from plain values (of TOML or JSON), and reports all errors at once; `--set`."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.api import Benchmark, Method
from harness.errors import ConfigError, UserError, near

T = typing.TypeVar("T", Method, Benchmark)


def build(cls: type[T], what: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls`, called `what` in errors. `fixed` fields aren't settings.

    Raises `ConfigError` that lists everything that is wrong.
    """
    fields = [f for f in dataclasses.fields(cls) if f.init and f.name not in fixed]
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"{what}: its settings' types can't be resolved: {error}") from None
    wrong = [
        f"{what}: unknown setting {key!r}: {near(key, (f.name for f in fields))}"
        for key in settings
        if key not in {f.name for f in fields}
    ]
    values: dict[str, Any] = dict(fixed)
    for field in fields:
        if field.name in settings:
            value = settings[field.name]
            try:
                values[field.name] = _checked(hints[field.name], value)
            except (ValidationError, TypeError, ValueError) as error:
                wrong += [f"{what}: setting {field.name} = {value!r}: {text}" for text in _reasons(error)]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wrong.append(f"{what}: setting {field.name!r} is missing: it has no default")
    if wrong:
        raise ConfigError("\n".join(wrong))
    try:
        return cls(**values)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {error}") from error


def _checked(hint: Any, value: Any) -> Any:
    """The value as the hinted type: strict, except for types that JSON and TOML don't have (tuples, paths)."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("expected a finite number; change inf or nan") from None
    return TypeAdapter(hint).validate_json(text, strict=True)


def _reasons(error: Exception) -> Iterator[str]:
    if not isinstance(error, ValidationError):
        yield str(error)
        return
    seen = set()
    for detail in error.errors(include_url=False):
        # Positions inside the value (`0`, a key) help; names of union branches don't.
        where = ".".join(str(part) for part in detail["loc"] if isinstance(part, int))
        reason = f"{'at ' + where + ': ' if where else ''}{detail['msg'].replace('Input should be', 'expected')}"
        if reason not in seen:
            seen.add(reason)
            yield reason


def to_toml(value: Any) -> str:
    """A value as TOML writes it, on one line: text, numbers, lists and tables; what is None in a table is left out."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(k)} = {to_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def toml_key(name: str) -> str:
    """A key as TOML writes it: in quotes only where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def overlay(table: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`table` with each `a.b=value` set. A value is read as TOML or, if that fails, as a plain string."""
    result: dict[str, Any] = dict(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}: expected key=value, like train.lr=0.001")
        try:
            read = tomllib.loads(f"value = {text}")
            value = read["value"]
        except tomllib.TOMLDecodeError:
            read, value = {}, text
        if len(read) > 1:
            raise ConfigError(f"--set {assignment!r}: expected one assignment; give each its own --set")
        put(result, key.strip(), value, f"--set {assignment!r}")
    return result


def put(table: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Set `a.b` in a table. Inner tables are copied, not changed. Raises `ConfigError` if one of them is a value."""
    *parents, last = name.split(".")
    for parent in parents:
        child = table.get(parent, {})
        if not isinstance(child, Mapping):
            raise ConfigError(f"{where}: {parent!r} is a value, not a table")
        table[parent] = table = dict(child)
    table[last] = value
