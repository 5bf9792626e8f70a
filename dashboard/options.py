"""The options of `hkdbench dashboard` other than the store: data folders and plugins, and the note of `demo --quick`.

The command passes them in the environment variable `HKDBENCH_DASHBOARD`. Only the command line can set them: neither
a URL nor a record can name a file to read or code to load.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import streamlit as st

from harness import registry

VARIABLE = "HKDBENCH_DASHBOARD"


def data_dir(benchmark: str) -> Path | None:
    """The folder with a benchmark's published files, or None if none was given."""
    folder = _given().get("data_dirs", {}).get(benchmark)
    return Path(folder) if folder else None


def command(benchmark: str) -> str:
    """The command that starts the dashboard with a benchmark's files, or with the plugin that defines it."""
    if benchmark in registry.benchmarks():
        return f"hkdbench dashboard --data-dir {benchmark}=FOLDER"
    return "hkdbench dashboard --plugin FILE.py"


def note() -> str:
    """What every page says above its content, as Markdown; "" for nothing."""
    return str(_given().get("note", ""))


@st.cache_resource(show_spinner=False)
def load_plugins() -> None:
    """Load the plugins of the command line, once per process. `registry.problems` lists those that failed."""
    for spec in _given().get("plugins", []):
        registry.load_plugin(spec)


def _given() -> dict[str, Any]:
    given: dict[str, Any] = json.loads(os.environ.get(VARIABLE) or "{}")
    return given
