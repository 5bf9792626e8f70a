"""Draws the packages of `harness/` and who imports whom, from the code itself, into docs/layout.svg.

    python -m scripts.layout            writes the picture
    python -m scripts.layout --check    writes nothing; exit code 1 where it isn't up to date

Rows are the layers that `lint-imports` checks (pyproject.toml). What a package uses through another that it names is
left out.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "layout.svg"
WIDTH, ROW, BOX_WIDTH, BOX_HEIGHT, GAP = 1180, 74, 564, 62, 20


def main() -> None:
    text = picture()
    if "--check" in sys.argv[1:]:
        if not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
            sys.exit("docs/layout.svg is not up to date; run python -m scripts.layout")
        return
    OUT.write_text(text, encoding="utf-8")
    print(f"wrote {OUT.relative_to(ROOT)}")


def layers() -> list[list[str]]:
    """The layers of the contract, highest first; a layer's members don't import each other."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = table["tool"]["importlinter"]["contracts"]
    listed = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in listed]


def imports(names: list[str]) -> set[tuple[str, str]]:
    """Who imports whom directly, without what follows from two others."""
    graph = grimp.build_graph("harness", exclude_type_checking_imports=True)
    # Down only: what climbs up is for `lint-imports` to say.
    reach = {name: _imported(graph, name, names[at + 1 :]) for at, name in enumerate(names)}
    beyond: dict[str, set[str]] = {}

    def below(name: str) -> set[str]:
        if name not in beyond:
            beyond[name] = set(reach[name]).union(*(below(other) for other in reach[name]))
        return beyond[name]

    return {
        (name, other)
        for name, others in reach.items()
        for other in others
        if not any(other in below(third) for third in others - {other})
    }


def _imported(graph: grimp.ImportGraph, name: str, names: list[str]) -> set[str]:
    own = {f"harness.{name}"} | graph.find_descendants(f"harness.{name}")
    found = {imported for module in own for imported in graph.find_modules_directly_imported_by(module)}
    return {other for other in names if other != name and any(f"{m}.".startswith(f"harness.{other}.") for m in found)}


def purpose(name: str) -> str:
    """The first sentence of a package's or module's docstring."""
    folder = ROOT / "harness" / name
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def size(name: str) -> str:
    folder = ROOT / "harness" / name
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    files = [file for file in files if file.name != "__init__.py" or not file.parent.samefile(folder)]
    return f"{len(files)} files" if len(files) > 1 else "1 file"


def picture() -> str:
    rows = layers()
    names = [name for row in rows for name in row]
    uses = imports(names)
    height = 56 + len(rows) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(WIDTH / 2, 26, 13, "Imports go down, never up, and not between neighbours", "middle"),
    ]
    for number, row in enumerate(rows):
        left = (WIDTH - len(row) * BOX_WIDTH - (len(row) - 1) * GAP) / 2
        for k, name in enumerate(row):
            parts += _box(
                left + k * (BOX_WIDTH + GAP), 44 + number * ROW, name, [o for o in names if (name, o) in uses]
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(x: float, y: float, name: str, used: list[str]) -> list[str]:
    return [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="#eef3fb" '
        'stroke="#4a6fa5"/>',
        _text(x + 12, y + 20, 14, f"harness/{name}", weight="bold"),
        _text(x + BOX_WIDTH - 12, y + 20, 11, size(name), "end"),
        _text(x + 12, y + 37, 11, purpose(name)),
        _text(x + 12, y + 53, 11, f"uses {', '.join(used)}" if used else "", colour="#4a6fa5"),
    ]


def _text(
    x: float, y: float, size: int, text: str, anchor: str = "start", weight: str = "normal", colour: str = "#333"
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


if __name__ == "__main__":
    main()
