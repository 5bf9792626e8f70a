"""What the benches share: where and when a figure was taken, and where it is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness import provenance

RESULTS = Path(__file__).resolve().parent / "results"


def header() -> dict[str, Any]:
    """Date, machine, load, versions and git commit, as every stored figure carries them."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"date": provenance.now(), "load_before": load} | provenance.static()


def keep(file: Path, part: str, figures: dict[str, Any]) -> None:
    """Put `figures` into the JSON file under `part`; the other parts stay as they are."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found | {part: figures}, indent=1) + "\n", encoding="utf-8")
