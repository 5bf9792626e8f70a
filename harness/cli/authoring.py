"""Verbs for authors: `new-method`, `new-benchmark`, `check-method`, `method-pages`, `pretrain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption, PluginOption, SetOption, app, load_plugins, print_json
from harness.errors import ConfigError, near


@app.command("new-method")
def new_method(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and _.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the two files.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a commented method that works, and its test, as a starting point."""
    from harness import registry
    from harness.authoring import scaffold

    files = [str(path) for path in scaffold.write(name, out, registry.methods())]
    if as_json:
        print_json({"files": files})
        return
    print(f"wrote {files[0]} and {files[1]}")
    print(f"hkdbench check-method {name} --plugin {files[0]}          does it satisfy the contract?")
    print(f"python -m pytest {files[1]}          the same, and your own numbers{_needed()}")
    print(f"hkdbench run --method {name} --plugin {files[0]} --benchmark scenes_factuality")


@app.command("new-benchmark")
def new_benchmark(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and _.")],
    data: Annotated[
        Path, typer.Option("--from", help="CSV, JSON, JSON lines or Parquet; or a folder with a file for each split.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the two files.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a benchmark that reads your rows, and its test: what the columns mean is proposed, for you to check."""
    from harness import registry
    from harness.authoring import benchmark_scaffold

    written, source, found = benchmark_scaffold.write(name, data, out, registry.benchmarks())
    files = [str(path) for path in written]
    if as_json:
        print_json({"files": files, "data_dir": str(source.folder), "columns": dict(found.columns)})
        return
    print("\n".join(benchmark_scaffold.mapping_lines(found)))
    print(f"wrote {files[0]} and {files[1]}: check what each column means there")
    print(f"hkdbench check-benchmark {name} --plugin {files[0]} --data-dir {source.folder}")
    print(f"python -m pytest {files[1]}          the same, and its first example{_needed()}")
    print(f"hkdbench run --method zero_shot --benchmark {name} --plugin {files[0]} --data-dir {source.folder}")


def _needed() -> str:
    """How to get pytest, where it isn't installed: benchmarks run without it."""
    from importlib.util import find_spec

    return "" if find_spec("pytest") else " (after `pip install pytest`)"


@app.command("check-method")
def check_method(
    name: Annotated[str, typer.Argument(help="The method: `hkdbench list methods`, or a plugin's.")],
    plugin: PluginOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a method satisfies the contract, on tiny models and data; failures say what to change."""
    from harness.authoring import method_checks
    from harness.settings import overlay

    settings = overlay({}, set_ or []).get("settings", {})
    if any(not item.strip().startswith("settings.") for item in set_ or ()):
        raise ConfigError("--set: check-method takes only the method's own settings, like settings.alpha=2")
    load_plugins(plugin)
    found = []
    for finding in method_checks.check_method(name, settings, plugin or ()):
        found.append(finding)
        if not as_json:
            told = finding.message or finding.promise
            print(f"{finding.status:8} {finding.check:12} {finding.seconds:5.1f} s  {told}", flush=True)
    broken = [finding for finding in found if finding.status != "ok"]
    if as_json:
        print_json({"method": name, "ok": not broken, "checks": [asdict(finding) for finding in found]})
    elif broken:
        print(f"{name}: {len(broken)} of {len(found)} checks failed")
    else:
        print(f"{name} satisfies the contract: {len(found)} checks in {sum(f.seconds for f in found):.0f} s")
    raise typer.Exit(1 if broken else 0)


@app.command("method-pages")
def method_pages(
    names: Annotated[list[str] | None, typer.Argument(help="Methods; default: all, and an index.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the pages.")] = Path("docs/methods"),
    plugin: PluginOption = None,
) -> None:
    """Write one page per method from its docstrings and settings; "When to use it" is preserved."""
    from harness import registry
    from harness.authoring import method_docs as method_pages

    load_plugins(plugin)
    entries = registry.methods()
    for name in names or ():
        if name not in entries:
            raise ConfigError(f"unknown method {name!r}: {near(name, entries)}")
    loaded = dict(registry.load_all({name: entries[name] for name in names or entries}))
    # A preset is on the page of its method.
    classes = [cls for name, cls in loaded.items() if cls.name == name]
    for path in method_pages.write(classes, out, with_index=not names):
        print(f"wrote {path}")


@app.command("pretrain")
def pretrain_(
    rung: Annotated[str, typer.Argument(help="L, M or S")],
    out: Annotated[Path, typer.Argument(help="Folder for the weights")],
    seed: Annotated[int, typer.Option(help="Of weights and lessons.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Default: those of the shipped recipe.")] = None,
) -> None:
    """Pretrain a rung of the tiny ladder from random weights: half an hour (S) to two hours (L) on one core."""
    from harness.models import pretrain, tiny

    if rung not in tiny.RUNGS:
        raise ConfigError(f"unknown rung {rung!r}: {near(rung, tiny.RUNGS)}")
    pretrain.main(rung, out, seed, steps)
