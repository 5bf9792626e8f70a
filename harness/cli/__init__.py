"""The command line. Each verb imports what it needs: `--help` loads neither torch nor ray.

A file holds the verbs of one topic; importing it here registers them, in the order of `--help`.
"""

# ruff: noqa: I001
from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from harness import __version__

# Importing a file registers its verbs; in the order of --help.
from harness.cli import describe, runs, ablate, sweep, leaderboard, submission, store, cache  # noqa: F401
from harness.cli import answers, audit, authoring, dashboard, profile  # noqa: F401
from harness.cli.options import app, say
from harness.errors import UserError


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C is 130, and so is SIGTERM."""
    try:
        signal.signal(signal.SIGTERM, terminated)
        code = app(standalone_mode=False)
    except UserError as error:
        say("error: " + "; ".join(str(error).splitlines()))
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        # Click's own usage errors know how to show themselves and their exit code.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        code = error.exit_code
    if code == 130:  # typer turns Ctrl-C into this exit code
        say("interrupted; the same command goes on from the last checkpoint")
    sys.exit(code)


def terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM (`ray job stop`, a batch system, a container's end) is Ctrl-C: once, as both may come in turn."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _version(show: bool) -> None:
    if show:
        print(f"hkdbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
