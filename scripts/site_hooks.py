"""What mkdocs does besides: pages that lie outside of docs/ are part of the site, and links to them lead there.

On GitHub the same links lead to the same files in the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benches/README.md")
"""Pages of the repository that the site has, too. The README becomes the site's `readme.html`."""
NAMES = {"README.md": "readme.md"}
"""The first page of a folder would be its index, which the site has already."""
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    for path in OUTSIDE:
        files.append(File.generated(config, NAMES.get(path, path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository, as links of the site; a list that it would draw as text is refused."""
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()
    if line := glued(markdown):
        raise PluginError(f"{source}: {line!r}: expected an empty line before a list or table")
    if source in OUTSIDE or "../" in markdown:
        here = page.file.src_uri
        return LINK.sub(lambda found: found[1] + _target(found[2], source, here), markdown)
    return markdown


def _target(link: str, source: str, here: str) -> str:
    """The link of a page at `source` in the repository, for its place `here` on the site."""
    if "://" in link or link.startswith("mailto:"):
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path in OUTSIDE:
        goal = NAMES.get(path, path)
    elif path.startswith("docs/"):
        goal = path.removeprefix("docs/")
    else:
        return link
    return posixpath.relpath(goal, posixpath.dirname(here) or ".")


def glued(markdown: str) -> str:
    """The first line of a list or table directly below a line of text, where mkdocs, unlike GitHub, sees none."""
    prose = re.sub(r"(?ms)^( *)```.*?^\1```$", "", markdown)
    item, row = re.compile(r"([-*]|\d+\.) |  "), re.compile(r"\|")
    before = ""
    for line in prose.splitlines():
        begins = next((kind for kind in (item, row) if kind.match(line) and not line.startswith(" ")), None)
        if begins and before.strip() and not begins.match(before):
            return line[:60]
        before = line
    return ""
