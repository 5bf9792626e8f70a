"""Commands for the teacher cache: `cache ls|rm|verify`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import JsonOption, StoreOption, app, existing, print_json, say
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.store.tensor_cache import Cache

cache_app = typer.Typer(
    help="Manage the cached teacher outputs of a store: list, delete, verify.", no_args_is_help=True
)
app.add_typer(cache_app, name="cache")


def _opened(store: str | None) -> Cache:
    from harness.config import ClusterConfig
    from harness.store.tensor_cache import cache_of

    return cache_of(existing(store), ClusterConfig())


@cache_app.command("ls")
def ls_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the entries, one line each; the most recently used one is last."""
    rows: list[dict[str, Any]] = [
        {"key": e.key, "kind": e.kind, "bytes": e.bytes, "used": e.used, "about": e.about()}
        for e in _opened(store).entries()
    ]
    if as_json:
        print_json(rows)
        return
    now = time.time()
    for row in rows:
        about = ", ".join(f"{name} {value}" for name, value in row["about"].items()) or "damaged"
        print(
            f"{row['key'][:12]}  {row['kind']:7}  {row['bytes'] / 2**20:9.2f} MiB  {_ago(now - row['used'])}  {about}"
        )
    say(f"{len(rows)} entries, {sum(row['bytes'] for row in rows) / 2**20:.1f} MiB")


def _ago(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:4.0f} {unit:3} ago"
    return f"{max(seconds, 0):4.0f} s   ago"


@cache_app.command("rm")
def rm_(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or their first digits.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    older_days: Annotated[float | None, typer.Option(min=0, help="Entries not used for this many days.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete entries; runs that need one compute it again."""
    if not (keys or all_ or older_days is not None):
        raise ConfigError("cache rm: expected keys, --older-days N, or --all")
    entries = _opened(store).entries()
    for key in keys or ():
        if not key or not any(entry.key.startswith(key) for entry in entries):
            raise ConfigError(f"no entry {key!r} in the cache ({len(entries)} entries); `hkdbench cache ls` lists all")
    old = time.time() - (older_days or 0.0) * 86400
    gone = [
        entry
        for entry in entries
        if all_ or any(entry.key.startswith(key) for key in keys or ()) or (older_days is not None and entry.used < old)
    ]
    for entry in gone:
        entry.path.unlink(missing_ok=True)
    size = sum(entry.bytes for entry in gone)
    if as_json:
        print_json({"deleted": [entry.key for entry in gone], "bytes": size})
    else:
        print(f"deleted {len(gone)} entries, {size / 2**20:.1f} MiB")


@cache_app.command("verify")
def verify_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Compare every entry with its checksum and delete the damaged ones. Exit code 1 if there were any."""
    entries = _opened(store).entries()
    damaged = [entry for entry in entries if not entry.sound]
    for entry in damaged:
        entry.path.unlink(missing_ok=True)
    if as_json:
        print_json({"entries": len(entries), "damaged": [entry.key for entry in damaged]})
    else:
        for entry in damaged:
            print(f"damaged, deleted: {entry.key}")
        print(f"{len(entries)} entries, {len(damaged)} damaged")
    raise typer.Exit(1 if damaged else 0)
