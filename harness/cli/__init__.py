"""The command line. Each verb imports what it needs: `--help` loads neither torch nor ray.

A file has the verbs of one topic; importing it here registers them, in the order of `--help`.
"""

# ruff: noqa: I001
from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from harness import __version__

# Importing a file registers its verbs; in the order of --help.
from harness.cli import describe, runs, ablate, sweep, leaderboard, submission, store, cache  # noqa: F401
from harness.cli import answers, audit, authoring, dashboard  # noqa: F401
from harness.cli.setup import doctor, init  # noqa: F401
from harness.cli.options import app, say
from harness.errors import ConfigError, UserError, parts_of
from harness.events import listen, stopped


def main() -> None:
    """Entry point: a user error is one line and exit code 2; Ctrl-C and SIGTERM are 130."""
    codecs.register_error("plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    try:
        listen()
        _check_text(sys.argv[1:])
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        code = 130 if stopped() else fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # the reader of the output has gone: `hkdbench rank | head`
        discard_output()
        code = 1  # as typer itself ends then
    except OSError as error:  # what the machine refuses: a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        try:
            sys.stdout.flush()
            code = fail(f"{where}{error.strerror or error}", mend="see `hkdbench doctor`")
        except OSError:  # it is the output itself that can't be written
            discard_output()
            say(f"error: {where}{error.strerror or error}")
            code = 2
    except Exception as error:
        if stopped():  # in an import, a library may make another error of it
            code = 130
        # Click's own usage errors have their own text and exit code.
        elif not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        else:
            code = wrong_usage(error) if hasattr(error, "format_message") else error.exit_code
    if code == 130:  # typer turns Ctrl-C into this exit code
        say("interrupted; the same command continues from the last checkpoint")
    sys.exit(code)


def _check_text(arguments: Sequence[str]) -> None:
    """Raise `ConfigError` for an argument that isn't UTF-8: neither records nor the libraries below can hold it."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            shown = os.fsencode(argument)
            raise ConfigError(f"argument {str(shown)[1:]}: isn't UTF-8; expected text, so rename the file") from None


def discard_output() -> None:
    """Write what is left of the output, which Python does at its end, to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(text: str, code: int = 2, mend: str = "") -> int:
    """Report an error in one line on standard error; under `--json`, as an object on standard output. Gives `code`.

    `mend` is what to change, if the text doesn't say it.
    """
    message = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    if "--json" in sys.argv[1:]:
        parts = parts_of(message)
        where = parts["where"] or "hkdbench " + " ".join(sys.argv[1:2])
        print(json.dumps({"error": {"code": code, **parts, "mend": parts["mend"] or mend, "where": where}}))
    else:
        say(f"error: {message}")
    return code


def wrong_usage(error: Any) -> int:
    """Report an error of Click about the command line. Gives its exit code."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "hkdbench"
    return fail(error.format_message(), error.exit_code, f"see {command} --help")


_PLAIN = {"─": "-", "†": "+", "…": "...", "−": "-", "–": "-"}


def plain(error: UnicodeError) -> tuple[str, int]:
    """Replacements for characters that the terminal's encoding lacks: plain ones for rules and marks, else JSON
    escapes."""
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or json.dumps(sign)[1:-1] for sign in signs), error.end


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
