"""Escaping: text from runs, plugins and datasets is shown as text and never read as Markdown or HTML."""

from __future__ import annotations

import re
from html import escape

_SPECIAL = re.compile(r"([!-/:-@\[-`{-~])")
_GLUE = "\u2060"
"""The word joiner, an invisible character. It breaks up what Streamlit finds in a text even after a backslash:
`:icon:`, `https://...`, `www.`, `a@b.c`."""


def plain(text: object, lines: bool = False) -> str:
    """Markdown that shows this text unchanged, for labels, captions, messages. Joins lines unless `lines` is set."""
    parts = [_SPECIAL.sub(_escaped, line.strip()) for line in str(text).splitlines()]
    parts = [re.sub(r"(?i)www(?=\\\.)", lambda w: w[0] + _GLUE, part) for part in parts]
    if lines:
        return "  \n".join(parts)
    return " ".join(part for part in parts if part)


def _escaped(sign: re.Match[str]) -> str:
    return f"\\{sign[0]}{_GLUE}" if sign[0] in ":@/" else f"\\{sign[0]}"


def html(text: object) -> str:
    """HTML that shows this text unchanged, in an element or in a quoted attribute."""
    return escape(str(text), quote=True)
