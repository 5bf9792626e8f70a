"""Writes `examples/read_a_store.ipynb` from `read_a_store.py`, whose cells begin with `# %%`.

python -m scripts.notebook
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "read_a_store.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def text() -> str:
    """The notebook, without outputs."""
    parts = re.split(r"^# %%(.*)\n", SCRIPT.read_text(encoding="utf-8"), flags=re.M)[1:]
    cells = [
        _cell(number, kind.strip(), body) for number, (kind, body) in enumerate(zip(*[iter(parts)] * 2, strict=True))
    ]
    about = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps({"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _cell(number: int, kind: str, body: str) -> dict[str, Any]:
    lines = body.strip().splitlines()
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": f"cell-{number}", "metadata": {}}
    if kind == "[markdown]":
        lines = [re.sub("^# ?", "", line) for line in lines]
        cell = {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}}
    else:
        cell["outputs"] = []
    return cell | {"source": "\n".join(lines).splitlines(keepends=True)}


if __name__ == "__main__":
    NOTEBOOK.write_text(text(), encoding="utf-8")
    print(f"wrote {NOTEBOOK.relative_to(Path.cwd())}")
