"""Texts about what is available: methods, benchmarks, ladders, runs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from harness import registry
from harness import settings as user_settings
from harness.api import Benchmark, Method
from harness.errors import ConfigError, UserError, near
from harness.evaluation import controls
from harness.evaluation.scoring import LETTER, ORIGINALS
from harness.models import ladders
from harness.report.run import interval
from harness.store import Store

What = Literal["methods", "benchmarks", "ladders", "runs"]


def listing(what: What, store: str | None) -> list[dict[str, Any]]:
    """Name and one line for each; for a run also its status and figures."""
    if what == "methods":
        return [
            {"name": name, "summary": _preset_text(cls, name) or cls.summary, "source": cls.source}
            for name, cls in registry.load_all(registry.methods())
        ] + _broken()
    if what == "benchmarks":
        return [
            {"name": name, "summary": _first_line(cls), "task": cls.task, "licence": cls.licence}
            for name, cls in registry.load_all(registry.benchmarks())
        ] + _broken()
    if what == "ladders":
        return [
            {"name": name, "summary": " > ".join(rung.name for rung in ladders.find(name).rungs)}
            for name in ladders.names()
        ]
    opened = Store(store)
    opened.check_exists()
    rows: list[dict[str, Any]] = []
    for record in opened.records():
        accuracy = record.metrics.get("test", {}).get("accuracy")
        summary = f"{record.status}" + (f"  test accuracy {interval(accuracy)}" if accuracy else "")
        rows.append({"name": record.run_id, "summary": summary, "status": record.status, "benchmark": record.benchmark})
    rows += [{"name": p.run_id, "summary": f"broken: {p.message}", "status": "broken"} for p in opened.problems()]
    return rows


def _preset_text(cls: type[Method], name: str) -> str:
    """The settings that a preset stands for; empty for the method itself."""
    settings = ", ".join(f"{key} = {value}" for key, value in cls.presets.get(name, {}).items())
    return f"{cls.name} with {settings}" if settings else ""


def _broken() -> list[dict[str, Any]]:
    return [{"name": p.name, "summary": f"can't be loaded: {p.error}", "error": p.error} for p in registry.problems()]


UNSTATED: dict[str, str] = {
    "sizes": "not known: --data-dir counts the examples there",
    "obtain": "nothing to get: it is generated",
    "positive": "none: all answers count equally",
    "protocols": "none by its authors, only the harness's own figures",
}
"""The texts for properties that a benchmark doesn't define."""


def describe(
    name: str,
    store: Store | None = None,
    settings: Mapping[str, Any] | None = None,
    data_dir: Path | str | None = None,
) -> dict[str, Any]:
    """A method, benchmark or ladder by name; for a benchmark also the flags of the controls in `store`.

    `settings` and `data_dir` are a benchmark's: its splits and sizes are then those that it has with them. Raises
    `ConfigError` for an unknown name, or for settings of something else.
    """
    if name not in registry.benchmarks() and (settings or data_dir):
        raise ConfigError(f"{name!r} is no benchmark: --data-dir and --set benchmark_settings.KEY=VALUE are for one")
    if name in registry.methods():
        return _method(registry.methods()[name].load(), name)
    if name in registry.benchmarks():
        found = _benchmark(name, settings or {}, data_dir)
        return found | ({"controls": controls.flags(store, name)} if store else {})
    if name in ladders.names():
        rungs = [{**rung.model_dump(), **_rung(rung)} for rung in ladders.find(name).rungs]
        return {"kind": "ladder", "name": name, "rungs": rungs}
    known = [*registry.methods(), *registry.benchmarks(), *ladders.names()]
    raise ConfigError(f"unknown name {name!r}: {near(name, known)}")


def _rung(rung: Any) -> dict[str, Any]:
    return {"parameters": ladders.inspect(rung).parameters}


def _method(cls: type[Method], name: str) -> dict[str, Any]:
    return {
        "kind": "method",
        "name": name,
        "summary": _preset_text(cls, name) or cls.summary,
        "source": cls.source,
        "text": inspect.getdoc(inspect.getmodule(cls)) or "",
        "settings": _settings(cls, ()),
    }


def _benchmark(name: str, settings: Mapping[str, Any], data_dir: Path | str | None) -> dict[str, Any]:
    cls: type[Benchmark] = registry.benchmarks()[name].load()
    made: Benchmark | None = None
    with suppress(TypeError, *(() if settings or data_dir else (UserError,))):  # a setting without a default
        made = (
            registry.make_benchmark(name, settings, data_dir)
            if data_dir
            else user_settings.build(cls, f"benchmark {name!r}", settings, {})
        )
    found: dict[str, Any] = {
        "kind": "benchmark",
        "name": cls.name,
        "task": cls.task,
        "splits": list((made or cls).splits),
        "revision": cls.revision,
        "licence": cls.licence,
        "citation": cls.citation,
        "homepage": cls.homepage,
        "obtain": cls.obtain,
        "positive": cls.positive,
        "needs_data_dir": cls.needs_data_dir,
        "text": inspect.getdoc(inspect.getmodule(cls)) or "",
        "settings": _settings(cls, ("data_dir",)),
    }
    if made and (data_dir or not cls.needs_data_dir):
        found["sizes"] = {split: sum(1 for _ in made.load(split)) for split in made.splits}
    else:  # as published, which says nothing about other settings
        found["sizes"] = {} if settings else dict(cls.published)
    if made:
        protocols = made.protocols()
        found["protocols"] = list(protocols)
        found["protocol_texts"] = {name: inspect.getdoc(scorer) or "" for name, scorer in protocols.items()}
    return found


def _settings(cls: type[Any], left_out: tuple[str, ...]) -> list[dict[str, Any]]:
    docs = field_docs(cls)
    return [
        {"name": f.name, "type": str(f.type), "default": f.default, "text": docs.get(f.name, "")}
        for f in dataclasses.fields(cls)
        if f.name not in left_out
    ]


def field_docs(cls: type[Any]) -> dict[str, str]:
    """The docstring below each field in the class's source, by field."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError):
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def to_text(found: dict[str, Any]) -> str:
    """`describe`'s result as text."""
    lines = [f"{found['kind']} {found['name']}"]
    silent = UNSTATED if found["kind"] == "benchmark" else {}
    if found.get("needs_data_dir"):
        silent = silent | {"obtain": "not said"}
    for key, value in found.items():
        value = value or silent.get(key, value)
        if key in ("kind", "name", "settings", "text", "rungs", "controls", "protocol_texts") or value in (
            "",
            [],
            {},
            None,
        ):
            continue
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        shown = ", ".join(map(str, shown)) if isinstance(shown, list) else shown
        lines.append(f"  {key}: {shown}")
    lines += [
        f"  {rung['name']}: {rung['parameters']:,} parameters, {rung['model']}" for rung in found.get("rungs", [])
    ]
    lines += [f"  control: {line}" for line in found.get("controls", [])]
    if found.get("text"):
        lines += ["", found["text"]]
    if asked := [f"{name}{LETTER}" for name in found.get("protocol_texts", {}) if name in ORIGINALS]:
        lines += ["", f"In runs, where models are asked for a letter, their figures are called {', '.join(asked)}."]
    for name, text in found.get("protocol_texts", {}).items():
        lines += ["", f"protocol {name}:", *(f"  {line}".rstrip() for line in text.splitlines())]
    if found.get("settings"):
        lines += ["", "settings:"]
        for s in found["settings"]:
            lines.append(f"  {s['name']} = {s['default']!r}   ({s['type']})")
            lines += textwrap.wrap(s["text"], 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _first_line(cls: type[Any]) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0] if inspect.getdoc(cls) else ""
