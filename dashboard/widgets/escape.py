"""Text of runs, plugins and datasets, shown as text wherever it lands: nobody's name is markup here."""

from __future__ import annotations

import re
from html import escape

_SPECIAL = re.compile(r"([!-/:-@\[-`{-~])")
_GLUE = "\u2060"
"""Word joiner: takes no room, and parts what Streamlit would find in a text after the backslashes are gone:
`:icon:`, `https://...`, `www.`, `a@b.c`."""


def plain(text: object, lines: bool = False) -> str:
    """Markdown that shows this text as it is: labels, captions, messages. One line, unless `lines` are kept."""
    parts = [_SPECIAL.sub(_escaped, line.strip()) for line in str(text).splitlines()]
    parts = [re.sub(r"(?i)www(?=\\\.)", lambda w: w[0] + _GLUE, part) for part in parts]
    if lines:
        return "  \n".join(parts)
    return " ".join(part for part in parts if part)


def _escaped(sign: re.Match[str]) -> str:
    return f"\\{sign[0]}{_GLUE}" if sign[0] in ":@/" else f"\\{sign[0]}"


def html(text: object) -> str:
    """HTML that shows this text as it is, in an element or in a quoted attribute."""
    return escape(str(text), quote=True)
