"""The first sheet of an Excel file (.xlsx) as rows of texts, for files of answers that VLMEvalKit writes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from harness.errors import DataError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
MAX_BYTES = 1 << 30
"""A larger sheet is refused."""


def excel_rows(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """The rows of the first sheet with their numbers, all as wide as the first; empty cells are empty texts.

    Numbers are as Excel stores them, booleans are True and False. Empty rows are left out. Raises `DataError`.
    """
    try:
        with zipfile.ZipFile(path) as file:
            strings = []
            if "xl/sharedStrings.xml" in file.namelist():
                strings = [_text(item) for item in _xml(file, "xl/sharedStrings.xml").iter(f"{_MAIN}si")]
            sheets = [name for name in file.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)]
            first = min(sheets, key=lambda name: (len(name), name), default="xl/worksheets/sheet1.xml")
            rows = list(_xml(file, first).iter(f"{_MAIN}row"))
    except (zipfile.BadZipFile, KeyError, ElementTree.ParseError, NotImplementedError) as error:
        raise DataError(f"{path}: not an Excel file that can be read ({error})") from None
    width = 0
    for number, row in enumerate(rows, 1):
        cells: dict[int, str] = {}
        for at, cell in enumerate(row.iter(f"{_MAIN}c")):
            cells[_column(cell.get("r", ""), at)] = _cell(cell, strings, f"{path}: row {number}")
        width = width or max(cells, default=-1) + 1
        if any(cells.values()):
            yield number, [cells.get(k, "") for k in range(max(width, max(cells) + 1))]


def _xml(file: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if file.getinfo(name).file_size > MAX_BYTES:
        raise DataError(f"{file.filename}: a sheet of more than 1 GiB, expected a file of answers")
    return ElementTree.fromstring(file.read(name))


def _column(reference: str, otherwise: int) -> int:
    """The number of a cell's column, from 0: `AB3` is 27."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return otherwise
    number = 0
    for letter in letters[0]:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _cell(cell: ElementTree.Element, strings: Sequence[str], where: str) -> str:
    kind, value = cell.get("t", "n"), cell.findtext(f"{_MAIN}v") or ""
    if kind == "inlineStr":
        return _text(cell)
    if kind == "s":
        if not value.isdigit() or int(value) >= len(strings):
            raise DataError(f"{where}: a cell without its text; save the file again")
        return strings[int(value)]
    return {"1": "True", "0": "False"}.get(value, value) if kind == "b" else value


def _text(element: ElementTree.Element) -> str:
    """The text of a string, without the phonetic hints of Japanese ones."""
    hints = {id(part) for hint in element.iter(f"{_MAIN}rPh") for part in hint.iter()}
    return "".join(part.text or "" for part in element.iter(f"{_MAIN}t") if id(part) not in hints)
