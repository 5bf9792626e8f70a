"""The page of the plug-in API: what methods and benchmarks import from `harness.api`, from its docstrings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import api
from scripts.reference_cli import cell

HARNESS = Path(__file__).resolve().parents[1] / "harness"
CHECKS = HARNESS / "authoring" / "method_checks"

GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Methods": (
        "One is a frozen dataclass below `Method`. [Adding a method](../adding_a_method.md) writes it.",
        ("Method", "Stage", "Role", "From", "Step", "Responses", "TokenScores", "Ladder"),
    ),
    "Words of a method": (
        "What a stage, a step and the evaluation may be told.",
        ("Source", "Need", "View", "Augmentation", "Shifts"),
    ),
    "Benchmarks": (
        "One is a frozen dataclass below `Benchmark`. [Adding a benchmark](../adding_a_benchmark.md) writes it.",
        ("Benchmark", "Example", "ImageSource", "Split", "Answer", "Scorer", "Figures", "LATER"),
    ),
    "Helpers": (
        "For loaders: files as they are in practice, and errors that say what to change.",
        ("read_text", "csv_rows", "read_image", "image_bytes", "near", "ConfigError", "DataError"),
    ),
}
TESTING = ("Case", "Broken", "assert_sound")
SOURCES = ("api.py", "benchmark.py", "images/reading.py", "errors.py")
"""Where the names of `harness.api` are defined, below the harness."""
RENAMED = {"read_image": "read", "image_bytes": "encoded"}
"""Names that `harness.api` gives to a function of another name."""

INTRO = """# Plug-in API

Methods and benchmarks import `harness.api`, and nothing else of the harness. Names of tensors end in their shape:
`logits_bk` is batch by option. B: examples of a batch. K: options, the largest number in the batch. T: tokens of a
response. d: width of a model. N: layers or visual tokens. V: tokens of the vocabulary, or views of a question.
Tensors are float32, if nothing else is said.
"""


def page() -> str:
    left = set(api.__all__) - {name for _, names in GROUPS.values() for name in names}
    if left:
        raise ValueError(f"harness.api: {sorted(left)} are in no group: add them to GROUPS in {__name__}")
    parts = [INTRO]
    for title, (intro, names) in GROUPS.items():
        parts += [f"## {title}", intro]
        for name in names:
            parts += entry(name, [HARNESS / file for file in SOURCES])
    parts += ["## Tests of your own", "`harness.testing` has the checks of `hkdbench check-method` one by one."]
    parts += [f"```python\n{_example(HARNESS / 'testing.py')}\n```", _checks()]
    for name in TESTING:
        parts += entry(name, [CHECKS / "case.py", HARNESS / "authoring" / "benchmark_checks.py"])
    return "\n\n".join(parts) + "\n"


def _example(file: Path) -> str:
    """The indented example of a file's docstring."""
    lines = (ast.get_docstring(_parsed(file)) or "").splitlines()
    code = inspect.cleandoc("\n".join(line for line in lines if line.startswith("    ") or not line)).strip()
    return code.replace("\n\n@", "\n\n\n@")  # as code is formatted


def _checks() -> str:
    """The table of the checks of a method, in the order in which they are run."""
    (table,) = (
        node.value
        for node in _parsed(CHECKS / "__init__.py").body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CHECKS"
    )
    assert isinstance(table, ast.Dict)
    rows = ["| `METHOD_CHECKS` | what is checked |\n|---|---|"]
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.Attribute)
        node, _ = found(value.attr, [CHECKS / f"{ast.unparse(value.value)}.py"])
        assert isinstance(node, ast.FunctionDef)
        rows.append(f"| `{key.value}` | {cell(ast.get_docstring(node) or '')} |")
    return "\n".join(rows)


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def entry(name: str, files: Sequence[Path]) -> Iterator[str]:
    """The heading of a name, its form, its text, and its fields and functions."""
    node, text = found(RENAMED.get(name, name), files)
    yield f"### {name}"
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield f"```python\nclass {name}{f'({bases})' if bases else ''}\n```"
        yield from paragraphs(ast.get_docstring(node))
        if fields := list(_fields(node)):
            yield "| field | type | default | |\n|---|---|---|---|\n" + "\n".join(fields)
        for one in node.body:
            if isinstance(one, ast.FunctionDef) and not one.name.startswith("_") and ast.get_docstring(one):
                yield from _function(one, f"{name}.{one.name}")
    elif isinstance(node, ast.FunctionDef):
        node.name = name
        yield f"```python\n{_signature(node)}\n```"
        yield from paragraphs(ast.get_docstring(node))
    else:
        code = ast.unparse(node).replace("'", '"')
        yield f"```python\n{code}\n```"
        yield from paragraphs(text)


def found(name: str, files: Sequence[Path]) -> tuple[ast.stmt, str]:
    """The statement that defines a name in one of the files, and the text below it."""
    for file in files:
        body = _parsed(file).body
        for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
            defined = getattr(node, "name", None) == name
            assigned = isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [name]
            if defined or assigned:
                return node, _text(after)
    raise ValueError(f"{name} is defined in none of {', '.join(file.name for file in files)}")


def _text(node: ast.stmt) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return inspect.cleandoc(str(node.value.value)) if is_text else ""  # type: ignore[attr-defined]


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for one, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and not one.target.id.startswith("_"):
            kind = ast.unparse(one.annotation)
            given = f"`{ast.unparse(one.value)}`" if one.value else ""
            cells = (f"`{one.target.id}`", f"`{kind}`", given, _text(after))
            yield f"| {' | '.join(map(cell, cells))} |"


def _function(node: ast.FunctionDef, name: str) -> Iterator[str]:
    is_property = any(ast.unparse(one) == "property" for one in node.decorator_list)
    yield f"#### {name}"
    returned = ast.unparse(node.returns) if node.returns else "None"
    yield f"```python\n{f'{node.name}: {returned}' if is_property else _signature(node)}\n```"
    yield from paragraphs(ast.get_docstring(node))


def _signature(node: ast.FunctionDef) -> str:
    return f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else 'None'}"


def paragraphs(text: str | None) -> Iterator[str]:
    """A docstring's paragraphs in Markdown."""
    for paragraph in (text or "").split("\n\n"):
        if paragraph.strip():
            yield paragraph.replace("<", "&lt;")
