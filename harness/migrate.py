"""From JSON text to a `Record`, whatever schema version it was written with.

A change of `Record` that old files don't fit raises `record.SCHEMA_VERSION` and adds a step here: from the raw
document of one version to that of the next. Files are never rewritten: a record is lifted when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from harness.errors import first_line
from harness.record import SCHEMA_VERSION, Record

Raw = dict[str, Any]

_VERSION = re.compile(r'"schema_version":\s*(\d+)')


def _budget(raw: Raw) -> Raw:
    """1 to 2: the budget, which stood only in the configuration, got a field of its own."""
    untrained = raw.get("kind") == "control" or (raw.get("status") == "done" and not raw.get("stages"))
    return raw | {"budget": 0 if untrained else raw.get("config", {}).get("train", {}).get("examples")}


STEPS: dict[int, Callable[[Raw], Raw]] = {1: _budget}
"""By the version that a step starts from."""


def parse(text: str) -> Record | str:
    """The record of a `record.json`, or what is wrong with it in one line."""
    found = _VERSION.search(text)
    version = int(found[1]) if found else SCHEMA_VERSION
    if version > SCHEMA_VERSION:
        return f"record.json has schema {version}, this version reads 1 to {SCHEMA_VERSION}: update hkdbench"
    try:
        if version == SCHEMA_VERSION:
            return Record.model_validate_json(text)
        return Record.model_validate(_lifted(json.loads(text), version))
    except ValidationError as error:
        return f"record.json is damaged: {first_fault(error)}"
    except ValueError as error:
        return f"record.json is damaged: Invalid JSON: {first_line(error)}"
    except (KeyError, TypeError, AttributeError):
        return f"record.json is damaged: it doesn't fit its schema {version}"


def _lifted(raw: Raw, version: int) -> Raw:
    for step in range(version, SCHEMA_VERSION):
        raw = STEPS[step](raw) | {"schema_version": step + 1}
    return raw


def first_fault(error: ValidationError) -> str:
    """Where a document first breaks its schema, and how."""
    item = error.errors()[0]
    where = ".".join(map(str, item["loc"]))
    return f"{where}: {item['msg']}" if where else str(item["msg"])
