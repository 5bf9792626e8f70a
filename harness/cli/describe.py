"""Verbs that look things up: `list`, `describe`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.cli.options import (
    DataOption,
    JsonOption,
    PluginOption,
    SetOption,
    StoreOption,
    app,
    benchmark_settings,
    load_plugins,
    note_unused_folder,
    print_json,
)


@app.command("list")
def list_(
    what: Annotated[Literal["methods", "benchmarks", "ladders", "runs"], typer.Argument(help="What is listed.")],
    store: StoreOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the available methods, benchmarks, ladders or runs."""
    from harness.report import describe

    load_plugins(plugin)
    rows = describe.listing(what, store)
    if as_json:
        print_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['summary']}".rstrip())
    if not rows:
        print(f"no {what} yet")


@app.command("describe")
def describe_(
    name: Annotated[str, typer.Argument(help="A method, a benchmark or a ladder; with --prompt also a model.")],
    prompt: Annotated[
        bool,
        typer.Option(
            "--prompt",
            help="NAME is a model (a folder or a hub id) or a ladder: show a prompt, the token that is scored, the "
            "options' tokens, and how many tokens images are.",
        ),
    ] = False,
    plugin: PluginOption = None,
    store: StoreOption = None,
    data_dir: DataOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a method, benchmark or ladder: settings, sizes, licence, source, flagged controls; or a model.

    The sizes of a benchmark are counted in --data-dir, with the settings of --set benchmark_settings.KEY=VALUE.
    """
    from harness.report import describe
    from harness.store import Store

    load_plugins(plugin)
    if prompt:
        _prompt(name, as_json)
        return
    note_unused_folder([name], data_dir)
    found = describe.describe(name, Store(store), benchmark_settings([name], set_)[name], data_dir)
    if as_json:
        print_json(found)
    else:
        print(describe.to_text(found))


def _prompt(name: str, as_json: bool) -> None:
    from harness.planning import prompt  # it loads torch

    shown = prompt.of(name)
    if as_json:
        print_json(shown)
    else:
        print("\n\n".join(map(prompt.to_text, shown)))
