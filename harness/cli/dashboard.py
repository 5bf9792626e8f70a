"""The verb `dashboard`, and the dashboards that `demo --quick` opens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import PluginOption, StoreOption, app, load_plugins, say
from harness.paths import absolute, expanded

ADDRESS = "127.0.0.1"
PORT = 8501
"""The first port that is tried."""
BLUE, SKY = "#0072B2", "#56B4E9"

SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "type",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    "global.disableWidgetStateDuplicationWarning": "true",  # values come from the URL: dashboard.widgets.url_state
    "logger.level": "warning",
    "runner.magicEnabled": "false",
    "server.enableCORS": "true",
    "server.enableStaticServing": "false",
    "server.enableXsrfProtection": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "1",
    "server.runOnSave": "false",
    "server.showEmailPrompt": "false",
    "theme.baseFontSize": "15",
    "theme.headingFontSizes": '["1.7rem","1.4rem","1.2rem","1.1rem","1rem","0.9rem"]',
    "theme.paddingTop": "0.75rem",
    "theme.showWidgetBorder": "true",
    "theme.light.primaryColor": BLUE,
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f2f4f6",
    "theme.light.textColor": "#0e1116",
    "theme.light.linkColor": "#005a8f",
    "theme.dark.primaryColor": SKY,
    "theme.dark.backgroundColor": "#14171a",
    "theme.dark.secondaryBackgroundColor": "#22272c",
    "theme.dark.textColor": "#e8eaed",
    "theme.dark.linkColor": "#7cc4ee",
}


@app.command("dashboard")
def dashboard_(
    store: StoreOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 8501]")] = None,
    address: Annotated[str, typer.Option(help="The address to listen on; others allow other machines.")] = ADDRESS,
    data_dir: Annotated[
        list[str] | None,
        typer.Option("--data-dir", help="BENCHMARK=FOLDER with its published files, for pictures; may be repeated."),
    ] = None,
    plugin: PluginOption = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the pages into this new folder, to be opened without a server.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open a browser.")] = False,
) -> None:
    """Open the dashboard of the store: who leads, whether the lead is significant, and where methods fail."""
    from harness.store import Store

    opened = Store(store)
    url = opened.url
    environment = _environment(url, data_dirs=_folders(data_dir), plugins=_specs(plugin))
    if export is not None:
        _check_new(export)
        opened.check_exists()
        quiet = {"STREAMLIT_LOGGER_LEVEL": "error"}  # else it complains of being imported without its server
        os.execve(
            sys.executable, [sys.executable, "-m", "dashboard.bundle.export", str(export)], {**environment, **quiet}
        )
    chosen = _free_port(address, port)
    if why := opened.backend.missing():
        say(f"note: {why}")
    if address not in ("127.0.0.1", "localhost", "::1"):
        say(f"note: everyone who can reach {address} can read all of {url}; there is no password")
    say(f"dashboard of {url}: http://{address}:{chosen} (Ctrl-C stops it)")
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # hides Streamlit's banner; its errors go to standard error
    os.execve(sys.executable, _server(address, chosen, no_browser), environment)


@contextmanager
def sample_and_own(sample: str, own: str, no_browser: bool) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Two dashboards of this machine while the context lasts: a sample's, which opens in the browser, and that of a
    store that is being filled, to which the first one has a link. Gives the sample's URL and process."""
    first = _free_port(ADDRESS, None)
    second = _free_port(ADDRESS, None, first + 1)
    note = (
        "This is a sample: real runs that ship with hkdbench, far too few and too short to say which method is "
        f"better. The demo's own runs fill [the dashboard of their store](http://{ADDRESS}:{second}) while they train."
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        for port, hidden, environment in (
            (first, no_browser, _environment(sample, note=note)),
            (second, True, _environment(own)),
        ):
            command = _server(ADDRESS, port, hidden)
            started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        say(f"dashboard of a sample of real runs: http://{ADDRESS}:{first}")
        say(f"dashboard of the demo's runs, which train now: http://{ADDRESS}:{second}")
        yield f"http://{ADDRESS}:{first}", started[0]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _environment(store: str, **given: object) -> Mapping[str, str]:
    """The environment of a dashboard; `given` are its options (`dashboard.options`). Raises `ConfigError`."""
    from harness.errors import ConfigError

    folder = Path(__file__).resolve().parents[2]  # the parent of all packages
    if not (folder / "dashboard" / "serve.py").exists():
        raise ConfigError(f"the package `dashboard` isn't in {str(folder)!r} beside `harness`: reinstall hkdbench")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"HKDBENCH_STORE": store, "HKDBENCH_DASHBOARD": json.dumps(given), "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | own


def _server(address: str, port: int, no_browser: bool) -> list[str]:
    """The command line of a dashboard."""
    settings = SETTINGS | {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "true" if no_browser else "false",
    }
    return [sys.executable, "-m", "dashboard.serve", *(f"--{name}={value}" for name, value in settings.items())]


def _check_new(folder: Path) -> None:
    """Raise `ConfigError` for a folder that isn't new or empty."""
    from harness.errors import ConfigError

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"--export {str(folder)!r} is there already: expected a new or an empty folder; choose another"
        )


def _folders(given: list[str] | None) -> dict[str, str]:
    """The folders by benchmark. Raises `ConfigError`."""
    folders = {}
    for one in given or ():
        name, _, folder = one.partition("=")
        if not (name and folder and expanded(folder).is_dir()):
            from harness import registry
            from harness.errors import ConfigError

            known = ", ".join(sorted(registry.benchmarks()))
            raise ConfigError(f"--data-dir {one!r}: expected BENCHMARK=FOLDER with an existing folder; known: {known}")
        folders[name] = str(absolute(folder))
    return folders


def _specs(plugins: list[str] | None) -> list[str]:
    """The plugins, loaded here so that a failure is reported at once; files and folders with absolute paths."""
    from harness import registry

    load_plugins(plugins)
    return [registry.absolute(spec) for spec in plugins or ()]


def _free_port(address: str, asked: int | None, first: int = PORT) -> int:
    """The given port, or the first free one from `first` on. Raises `ConfigError`."""
    from harness.errors import ConfigError

    trouble = ""
    for port in [asked] if asked else range(first, first + 50):
        try:
            family, kind, proto, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, proto) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(where)
            return port
        except OSError as error:
            trouble = error.strerror or str(error)
    where_ = f"port {asked}" if asked else f"any port from {first} to {first + 49}"
    raise ConfigError(f"can't listen on {address!r}, {where_}: {trouble}; choose others with --address and --port")
