"""Elements of a page as HTML. Texts are escaped; tables and charts are JSON that `bundle.js` draws."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from markdown_it import MarkdownIt

from dashboard.widgets.escape import html

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_ICON = re.compile(r":material/\w+:\s*")
_BADGE = re.compile(r":\w+-badge\[(.*?)\](?=\s|$)")
INPUTS = ("multiselect", "selectbox", "toggle", "download_button", "text_input", "number_input", "checkbox", "radio")


class Rendered:
    """A page's HTML, and its tables and charts by id."""

    def __init__(self, to_file: Callable[[str], str], stem: str) -> None:
        self.to_file = to_file
        self.stem = stem
        self.parts: dict[str, dict[str, Any]] = {}

    def block(self, block: Any) -> str:
        """All elements of a container, in order."""
        return "".join(self._one(child) for child in block.children.values())

    def _one(self, element: Any) -> str:
        kind = str(element.type or "")
        proto: Any = getattr(element, "proto", None)
        if hasattr(element, "children"):
            inside = self.block(element)
            if kind == "popover" and any(child.type in INPUTS for child in element.children.values()):
                return ""
            label = str(getattr(element, "label", "") or "")
            if kind in ("expandable", "expander", "popover"):
                return f"<details><summary>{markdown(label, inline=True)}</summary>{inside}</details>"
            if kind == "tab":
                return f"<section><h2>{markdown(label, inline=True)}</h2>{inside}</section>"
            columns = [child for child in element.children.values() if child.type == "column"]
            return f'<div class="row">{inside}</div>' if columns else f"<div>{inside}</div>" if inside else ""
        if kind in ("title", "header", "subheader"):
            return f"<{proto.tag}>{markdown(proto.body, inline=True)}</{proto.tag}>"
        if kind in ("markdown", "caption"):
            return f'<div class="{"faint" if kind == "caption" else ""}">{markdown(proto.body)}</div>'
        if kind in ("info", "warning", "error", "success"):
            return f'<div class="alert {kind}" role="note">{markdown(proto.body)}</div>'
        if kind == "code":
            return f"<pre><code>{html(proto.code_text)}</code></pre>"
        if kind == "metric":
            return f'<div class="metric"><span class="faint">{markdown(proto.label, inline=True)}</span>' \
                f"<b>{html(proto.body)}</b></div>"  # fmt: skip
        if kind == "html":
            return str(proto.body)  # made by `views/examples.py`, with every text in it escaped
        if kind == "page_link":
            file = self.to_file(f"{proto.page}?{proto.query_string}" if proto.query_string else proto.page)
            return f'<p><a href="{html(file)}">{markdown(proto.label, inline=True)}</a></p>' if file else ""
        if kind == "bidi_component" and proto.component_name.endswith("hkdbench_table"):
            return self._table(json.loads(proto.json))
        if kind == "vega_lite_chart":
            return self._chart(proto)
        return ""  # inputs and buttons: a page has its parameters for good

    def _table(self, data: dict[str, Any]) -> str:
        data["saves"] = False  # its JSON is a file of the folder
        for column in data["columns"]:
            column["sortable"] = False
        for line in data["lines"]:
            for cell in line["cells"]:
                for link in cell.get("links", ()):
                    link["href"] = self.to_file(link["href"])
        return self._figure("t", {"kind": "table", "data": data}, data["caption"])

    def _chart(self, proto: Any) -> str:
        spec = json.loads(proto.spec)
        given = {one.name: _rows(one.data.data) for one in proto.datasets}
        if proto.data.data:
            spec["data"] = {"values": _rows(proto.data.data)}
        spec["datasets"] = spec.get("datasets", {}) | given
        spec.setdefault("width", "container")
        return self._figure("c", {"kind": "chart", "spec": spec}, proto.alt if hasattr(proto, "alt") else "")

    def _figure(self, prefix: str, part: dict[str, Any], caption: str) -> str:
        name = f"{prefix}{sum(one.startswith(prefix) for one in self.parts) + 1}"
        self.parts[name] = part
        kind = part["kind"]
        said = f' role="img" aria-label="{html(caption)}"' if kind == "chart" and caption else ""
        return (
            f'<figure class="{kind}" id="{name}"><div class="here"{said}></div>'
            f'<figcaption><a href="data/{self.stem}-{name}.json">JSON</a> '
            f'<a href="?only={name}">this {"table" if kind == "table" else "chart"} alone</a></figcaption></figure>'
        )


def markdown(text: str, inline: bool = False) -> str:
    """Markdown of the dashboard as HTML: without icons, badges in bold. HTML in it is shown as text."""
    text = _BADGE.sub(r"**\1**", _ICON.sub("", text))
    made = _MARKDOWN.renderInline(text) if inline else _MARKDOWN.render(text)
    return str(made).replace("\u2060", "")


def _rows(arrow: bytes) -> list[dict[str, Any]]:
    """The rows of a chart's data. Numbers that aren't finite become null, which JSON has."""
    rows: list[dict[str, Any]] = pa.ipc.open_stream(arrow).read_all().to_pylist()
    return [
        {k: None if isinstance(v, float) and (v != v or abs(v) == float("inf")) else v for k, v in row.items()}
        for row in rows
    ]


def plain_table(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table's rows for other programs: by head the text, and `HEAD value`, `low` and `high` of what is drawn."""
    rows = []
    for line in data["lines"]:
        row: dict[str, Any] = {}
        for column, cell in zip(data["columns"], line["cells"], strict=True):
            head = column["label"] or column["name"]
            links = ", ".join(link["text"] for link in cell.get("links", ()))
            row[head] = " ".join(filter(None, (cell.get("text") or links, cell.get("small", ""))))
            row |= {f"{head} {name}": cell[name] for name in ("value", "low", "high") if name in cell}
        rows.append(row)
    return rows
