"""Streamlit on `app.py`, as `hkdbench dashboard` starts it with its options.

What the leaderboard needs is loaded before the server answers, so that the first page doesn't wait for it: all but the
modules that keep answers, which Streamlit wants to see after its start.
"""

import sys
from pathlib import Path

import pandas  # noqa: F401
from streamlit.web.cli import main

import dashboard.data.leaderboard  # noqa: F401

if __name__ == "__main__":
    sys.argv[1:] = ["run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]]
    main(prog_name="streamlit")
