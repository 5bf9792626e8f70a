"""Writes the dashboard of a store into a folder: `python -m dashboard.bundle.export DIR`, which the command starts."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from dashboard import options
from dashboard.bundle import pages, vega
from dashboard.bundle.pages import StaticPage
from dashboard.bundle.render import Rendered, plain_table
from dashboard.data import store
from dashboard.navigation import named
from dashboard.widgets.escape import html
from harness.leaderboard.schema import Filters

_HERE = Path(__file__).parent
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · hkdbench</title><link rel="icon" href="data:,"><link rel="stylesheet" href="assets/table.css">
<link rel="stylesheet" href="assets/bundle.css"></head><body>
<nav aria-label="Pages">{menu}<button id="theme" type="button">Light / dark</button></nav>
<main>{body}</main>
<nav aria-label="More of this page">{more}</nav>
<script type="application/json" id="data">{data}</script>
<script src="assets/table.js"></script>{vega}<script src="assets/bundle.js"></script>
</body></html>
"""


def export(folder: Path) -> int:
    """Write all pages; returns how many. The folder must be new or empty."""
    options.load_plugins()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "assets").mkdir(exist_ok=True)
    drawing = _assets(folder / "assets")
    (folder / "data" / "ranking.json").write_text(store.ranking(Filters()).model_dump_json(indent=1), "utf-8")
    planned = pages.planned()
    known = pages.links(planned)
    for number, page in enumerate(planned, 1):
        made = Rendered(lambda address: pages.file_of(address, known), page.file.removesuffix(".html"))
        body = made.block(pages.run(page))
        _write(folder, page, planned, made, body, drawing)
        print(f"\r{number} of {len(planned)} pages", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return len(planned)


def _assets(folder: Path) -> str:
    """Write the scripts and styles. Returns the tag of the script that draws charts."""
    table = (_HERE.parent / "table.js").read_text("utf-8")
    (folder / "table.js").write_text(
        table.replace("export default function (", "window.hkdTable = function ("), "utf-8"
    )
    (folder / "table.css").write_text((_HERE.parent / "table.css").read_text("utf-8"), "utf-8")
    for name in ("bundle.js", "bundle.css"):
        (folder / name).write_text((_HERE / name).read_text("utf-8"), "utf-8")
    drawing = vega.script()
    if drawing:
        (folder / "vega.js").write_text(drawing, "utf-8")
    return '<script src="assets/vega.js"></script>' if drawing else ""


def _write(folder: Path, page: StaticPage, planned: list[StaticPage], made: Rendered, body: str, drawing: str) -> None:
    first = {one.view: one for one in reversed(planned)}
    menu = [_link(one.file, named(view).title, view == page.view) for view, one in
            ((view, first[view]) for view in dict.fromkeys(p.view for p in planned))]  # fmt: skip
    more = [_link(one.file, one.title, one is page) for one in planned if one.view == page.view]
    for name, part in made.parts.items():
        value: Any = plain_table(part["data"]) if part["kind"] == "table" else part["spec"]
        (folder / "data" / f"{made.stem}-{name}.json").write_text(json.dumps(value, indent=1), "utf-8")
    text = PAGE.format(
        title=html(page.title), menu="".join(menu), body=body, more="".join(more), vega=drawing,
        data=json.dumps(made.parts).replace("<", "\\u003c"),
    )  # fmt: skip
    (folder / page.file).write_text(text, "utf-8")


def _link(file: str, text: str, here: bool) -> str:
    return f'<a href="{html(file)}"{" aria-current=page" if here else ""}>{html(text)}</a>'


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # Streamlit, about being run without its server
    count = export(Path(sys.argv[1]))
    print(f"{count} pages in {sys.argv[1]}: open {Path(sys.argv[1]) / 'index.html'}")
