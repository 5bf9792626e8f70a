"""Starts Streamlit with `app.py`. `hkdbench dashboard` runs this module and passes the options.

The leaderboard's modules are imported before the server starts, so the first page opens quickly. Modules with cached
functions are left out: Streamlit needs them to be imported after its start.
"""

import sys
from pathlib import Path

import pandas  # noqa: F401
from streamlit.web.cli import main

import dashboard.data.leaderboard  # noqa: F401

if __name__ == "__main__":
    sys.argv[1:] = ["run", str(Path(__file__).with_name("app.py")), *sys.argv[1:]]
    main(prog_name="streamlit")
