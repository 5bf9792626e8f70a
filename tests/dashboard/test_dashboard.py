"""The dashboard as a whole: how it starts, what it loads, that it writes nothing, and that text stays text."""

from __future__ import annotations

import subprocess
import sys

import pytest
from browsing import ROOT, Visitor

from dashboard.pages import PAGES


def test_no_page_loads_torch_or_ray() -> None:
    code = (
        "import sys, importlib, pkgutil, dashboard.views\n"
        "names = [m.name for m in pkgutil.iter_modules(dashboard.views.__path__)]\n"
        "for name in names: assert importlib.import_module(f'dashboard.views.{name}').show\n"
        "from dashboard import charts, pages, stores, texts\n"
        "assert {page.name for page in pages.PAGES} == set(names), names\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_opens(visitor: Visitor, page: object) -> None:
    visitor.open("/" + page.path)  # type: ignore[attr-defined]
    assert page.title in visitor.text()  # type: ignore[attr-defined]
    visitor.shot(page.name)  # type: ignore[attr-defined]
