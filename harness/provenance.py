"""Where a run's numbers come from: versions, git state, machine, digests of sources."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness
from harness.errors import ConfigError
from harness.versions import SCORING, TRAINING

PACKAGES = ("torch", "transformers", "ray", "numpy", "pillow", "safetensors", "tokenizers")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def static() -> dict[str, Any]:
    """The fields of `record.Provenance` that don't change while the process lives."""
    commit, dirty = _git()
    return {
        "package": package(),
        "code": _package_digest(),
        "training": TRAINING,
        "scoring": SCORING,
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count() or 0,
        },
    }


def package() -> str:
    """The name and version of this distribution."""
    return f"hkdbench {harness.__version__}"


def _package_digest() -> str:
    """sha256 over all of the harness's source files."""
    here = Path(__file__).parent
    return _digest({path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*.py")})


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, source in sorted(files.items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that this code runs from; None if it is installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        ask = ["git", "-C", str(root)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(status.strip())


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def reset_peak_memory() -> None:
    """Reset the counter of this process's peak memory, where the system supports it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int | None:
    """This process's peak resident memory in bytes since `reset_peak_memory`, or None."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


# ------------------------------------------------------------------------------- sources of methods and benchmarks

OWN = ("methods", "benchmarks", "harness")
"""The packages that built-in methods and benchmarks come from."""


def is_built_in(cls: type) -> bool:
    """Whether a method or benchmark is part of this distribution: `harness.versions.TRAINING` covers its numbers."""
    return _in_distribution(cls.__module__)


def _in_distribution(module: str) -> bool:
    top, path = module.partition(".")[0], _source_file(module)
    return top in OWN and path is not None and path.is_relative_to(Path(__file__).parents[1] / top)


def sources(classes: Mapping[str, type]) -> dict[str, str]:
    """`source_digest` of each class, by the same names."""
    return {name: source_digest(cls) for name, cls in classes.items()}


def source_digest(cls: type) -> str:
    """sha256 over the source of a class: its file, its base classes' files and all imports that aren't installed.

    Imports are followed through the package of the class, to files beside it and to all others that its author may
    edit. Code in `site-packages` is followed only in its own package. Python's and the harness's own code never is, nor
    are built-in methods and benchmarks that a plugin builds on: `harness.versions` stands for them.
    Raises `ConfigError` if there is no source file, and if Python would import another file than the one beside it.
    """
    parents = [c.__module__ for c in cls.__mro__]
    tops = {name.partition(".")[0] for name in parents}
    plugin = not is_built_in(cls)
    files: dict[str, bytes] = {}
    waiting = [(name, True) for name in parents]
    while waiting:
        name, own = waiting.pop()
        ours = name.partition(".")[0] == "harness" or (plugin and _in_distribution(name))
        path = None if ours else _source_file(name)
        if path is None:
            if name == cls.__module__ and name.partition(".")[0] != "harness":
                raise ConfigError(f"{cls.__qualname__} has no source file, which a plugin needs")
            continue
        if not own and _installed(path):
            continue
        # A file plugin's module name contains its path; its digest must not.
        key = path.stem if name.startswith("hkdbench_plugin_") else name
        if key not in files:
            files[key] = path.read_bytes()
            imported = _imports(name, path, files[key])
            _check_beside(name, path, imported)
            package = [name.rpartition(".")[0]] if "." in name else []  # its __init__.py is executed too
            waiting += [(found, found.partition(".")[0] in tops) for found in (*imported, *package)]
    return _digest(files)


def _source_file(module: str) -> Path | None:
    """The file of a module, found without importing it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file and file.endswith(".py") else None
    top, *rest = module.split(".")
    if top in sys.modules:
        roots = getattr(sys.modules[top], "__path__", ())
    else:
        spec = importlib.util.find_spec(top)  # a top-level name: nothing is imported
        if spec is None:
            return None
        if not rest:
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        roots = spec.submodule_search_locations or ()
    for root in roots:
        base = Path(root, *rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _installed(path: Path) -> bool:
    """Whether a file belongs to Python or to an installed package, and so isn't edited between two runs."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or path.is_relative_to(sysconfig.get_path("stdlib"))


def _check_beside(module: str, path: Path, imported: list[str]) -> None:
    """Check that a top-level import means the file beside it: Python may find another module of that name first."""
    if "." in module or path.name == "__init__.py":
        return
    for top in dict.fromkeys(name.partition(".")[0] for name in imported):
        beside = [path.parent / f"{top}.py", path.parent / top / "__init__.py"]
        there = next((file for file in beside if file.is_file()), None)
        if there is None or top == "harness" or top in sys.stdlib_module_names:  # the standard library is meant
            continue
        found = _source_file(top)
        if found is None or found.resolve() != there.resolve():
            raise ConfigError(f"{path} imports {top!r} and {there} lies beside it, but Python finds {found}: rename it")


@lru_cache(maxsize=512)
def _imports(module: str, path: Path, source: bytes) -> list[str]:
    """The modules that a source imports, by their full names (some of the names may not be modules)."""
    found: list[str] = []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return list(dict.fromkeys(found))
