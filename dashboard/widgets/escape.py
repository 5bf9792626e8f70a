"""Escaping: text from runs, plugins and datasets is shown as text and never read as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata
from html import escape

_SPECIAL = re.compile(r"([!-/:-@\[-`{-~])")
_GLUE = "\u2060"
"""The word joiner, an invisible character. It breaks up what Streamlit finds in a text even after a backslash:
`:icon:`, `https://...`, `www.`, `a@b.c`."""


_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that are drawn as nothing."""
_JOINERS = "\u200c\u200d"
"""They are part of the spelling of Persian, of the scripts of India and of emoji."""


def visible(text: object) -> str:
    """The text with its invisible characters and those that turn the direction of writing as their code points.

    So two names that look alike are alike, and none can be invisible or turn around the row that it is in. Line breaks
    and spaces of all kinds stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if _is_seen(sign, text[k - 1 : k], text[k + 1 : k + 2]) else f"⟨U+{ord(sign):04X}⟩"
                   for k, sign in enumerate(text))  # fmt: skip


def _is_seen(sign: str, before: str, behind: str) -> bool:
    if sign in "\n\r\t":
        return True
    if sign in _JOINERS:
        return bool(before and behind) and not (before + behind).isascii()
    return unicodedata.category(sign) not in ("Cc", "Cf", "Cn", "Co", "Cs") and sign not in _BLANK


def plain(text: object, lines: bool = False) -> str:
    """Markdown that shows this text unchanged, for labels, captions, messages. Joins lines unless `lines` is set."""
    parts = [_SPECIAL.sub(_escaped, line.strip()) for line in visible(text).splitlines()]
    parts = [re.sub(r"(?i)www(?=\\\.)", lambda w: w[0] + _GLUE, part) for part in parts]
    if lines:
        return "  \n".join(parts)
    return " ".join(part for part in parts if part)


def _escaped(sign: re.Match[str]) -> str:
    return f"\\{sign[0]}{_GLUE}" if sign[0] in ":@/" else f"\\{sign[0]}"


def html(text: object) -> str:
    """HTML that shows this text unchanged, in an element or in a quoted attribute."""
    return escape(visible(text), quote=True)
