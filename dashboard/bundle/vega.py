"""The script that draws charts in the exported folder: the copy of Vega-Embed that Streamlit brings along."""

from __future__ import annotations

import json
import re
from pathlib import Path

import streamlit

_SCRIPTS = Path(streamlit.__file__).parent / "static" / "static" / "js"
_START = re.compile(r"import\(`\./(embed\.[^`]+\.js)`\)\.then\(\w=>\w\.(\w+)\)")
_IMPORT = re.compile(r"""\b(?:from|import)\s*["'`]\./([\w.-]+\.js)["'`]""")


def script() -> str:
    """A script that sets `hkdVega` to the modules of Vega-Embed, in the order in which they import each other, and the
    name of what the last one exports. Empty if this Streamlit has them in another form; charts are then left out.

    Modules can't be loaded from files without a server, so `bundle.js` makes them from these texts.
    """
    found = None
    for file in _SCRIPTS.glob("loadVegaEmbed.*.js"):
        found = _START.search(file.read_text("utf-8"))
    if found is None:
        return ""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        text = (_SCRIPTS / name).read_text("utf-8")
        for other in dict.fromkeys(_IMPORT.findall(text)):
            if other not in texts:
                add(other)
        texts[name] = text

    try:
        add(found[1])
    except (OSError, RecursionError):
        return ""
    return f"window.hkdVega = {json.dumps({'modules': list(texts.items()), 'name': found[2]})};\n"
