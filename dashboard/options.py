"""What `hkdbench dashboard` was started with beside the store: folders of published files, and plugins.

They come in the environment variable `HKDBENCH_DASHBOARD`, from the command line alone: neither a page's URL nor a
record can name a file that is read, or code that is loaded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import streamlit as st

from harness import registry

VARIABLE = "HKDBENCH_DASHBOARD"


def data_dir(benchmark: str) -> Path | None:
    """The folder with a benchmark's published files, where it was given."""
    folder = _given().get("data_dirs", {}).get(benchmark)
    return Path(folder) if folder else None


def command(benchmark: str) -> str:
    """How to start the dashboard with a benchmark's files, or with the plugin that has it."""
    if benchmark in registry.benchmarks():
        return f"hkdbench dashboard --data-dir {benchmark}=FOLDER"
    return "hkdbench dashboard --plugin FILE.py"


@st.cache_resource(show_spinner=False)
def load_plugins() -> None:
    """Load the plugins of the command line, once a process; one that fails is named where its names are missing."""
    for spec in _given().get("plugins", []):
        registry.load_plugin(spec)


def _given() -> dict[str, dict[str, str]]:
    given: dict[str, dict[str, str]] = json.loads(os.environ.get(VARIABLE) or "{}")
    return given
